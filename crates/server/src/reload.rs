//! The wish to have the configuration read anew, on its way from an administrator to whoever reads it, and what came
//! of it.

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

/// A configuration that was read anew and holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// The file that was read; none was found where it is null.
    pub file: Option<String>,
    /// Keys that have other values, in force from now on.
    pub changed: Vec<String>,
    /// Keys that have other values, in force after a restart.
    pub needs_restart: Vec<String>,
}

/// What came of it: what changed, or everything that is wrong with the configuration, which then stays as it was.
pub type Outcome = Result<Reloaded, Vec<String>>;

/// Takes wishes.
#[derive(Clone)]
pub struct ReloadHandle(mpsc::Sender<oneshot::Sender<Outcome>>);

/// Where wishes arrive.
pub type ReloadRequests = mpsc::Receiver<oneshot::Sender<Outcome>>;

/// Both ends.
pub fn reloads() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(1);
    (ReloadHandle(sender), receiver)
}

impl ReloadHandle {
    /// Has it read. `None` when nobody reads any more, because the process ends.
    pub(crate) async fn reload(&self) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        outcome.await.ok()
    }
}
