//! The request to reload the configuration: sent by the API, handled by the binary.

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

/// A configuration that was reloaded and is valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// The file that was read. Null if no file was found.
    pub file: Option<String>,
    /// Keys whose new values are in force.
    pub changed: Vec<String>,
    /// Keys whose new values take effect after a restart.
    pub needs_restart: Vec<String>,
}

/// What changed, or all errors of the new configuration. After an error the old configuration stays in force.
pub type ReloadResult = Result<Reloaded, Vec<String>>;

/// Sends reload requests.
#[derive(Clone)]
pub struct ReloadHandle(mpsc::Sender<oneshot::Sender<ReloadResult>>);

/// Receives reload requests. Each message is the sender of its reply.
pub type ReloadRequests = mpsc::Receiver<oneshot::Sender<ReloadResult>>;

/// Creates a channel for reload requests.
pub fn reload_channel() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(1);
    (ReloadHandle(sender), receiver)
}

impl ReloadHandle {
    /// Requests a reload and waits for its result. Returns `None` if the process is shutting down.
    pub(crate) async fn reload(&self) -> Option<ReloadResult> {
        let (reply, result) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        result.await.ok()
    }
}
