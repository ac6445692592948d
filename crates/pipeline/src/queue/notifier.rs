//! Wakes workers that wait for tasks of a stage. A notification between a worker's lease request and its wait is not
//! lost.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use crate::Stage;

#[derive(Default)]
pub(super) struct StageNotifier {
    stages: [Signal; 3],
}

/// The notifications of one stage.
#[derive(Default)]
struct Signal {
    sent: AtomicU64,
    seen: AtomicU64,
    notify: Notify,
}

impl StageNotifier {
    /// There may be work at the stage.
    pub(super) fn notify(&self, stage: Stage) {
        let signal = self.signal(stage);
        signal.sent.fetch_add(1, Ordering::AcqRel);
        signal.notify.notify_waiters();
    }

    /// A worker is about to request a lease: notifications until now need no other request.
    pub(super) fn mark_seen(&self, stage: Stage) {
        let signal = self.signal(stage);
        signal.seen.store(signal.sent.load(Ordering::Acquire), Ordering::Release);
    }

    /// Waits for a notification, but no longer than `max_wait`.
    pub(super) async fn wait(&self, stage: Stage, max_wait: Duration) {
        let signal = self.signal(stage);
        let mut notified = std::pin::pin!(signal.notify.notified());
        notified.as_mut().enable();
        if signal.sent.load(Ordering::Acquire) == signal.seen.load(Ordering::Acquire) {
            let _ = tokio::time::timeout(max_wait, notified).await;
        }
    }

    fn signal(&self, stage: Stage) -> &Signal {
        match stage {
            Stage::Chunking => &self.stages[0],
            Stage::Embedding => &self.stages[1],
            Stage::Storage => &self.stages[2],
        }
    }
}
