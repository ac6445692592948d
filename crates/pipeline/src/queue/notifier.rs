//! Wakes those who wait for work of a stage. What rings between a look and the wait after it is not missed.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use crate::Stage;

#[derive(Default)]
pub(super) struct StageNotifier {
    stages: [One; 3],
}

#[derive(Default)]
struct One {
    rung: AtomicU64,
    heard: AtomicU64,
    notify: Notify,
}

impl StageNotifier {
    /// There may be work.
    pub(super) fn notify(&self, stage: Stage) {
        let one = self.of(stage);
        one.rung.fetch_add(1, Ordering::AcqRel);
        one.notify.notify_waiters();
    }

    /// Somebody is about to look: what has rung until now is no reason to look again.
    pub(super) fn mark_seen(&self, stage: Stage) {
        let one = self.of(stage);
        one.heard.store(one.rung.load(Ordering::Acquire), Ordering::Release);
    }

    /// Until it rings, or this long.
    pub(super) async fn wait(&self, stage: Stage, at_most: Duration) {
        let one = self.of(stage);
        let mut ringing = std::pin::pin!(one.notify.notified());
        ringing.as_mut().enable();
        if one.rung.load(Ordering::Acquire) == one.heard.load(Ordering::Acquire) {
            let _ = tokio::time::timeout(at_most, ringing).await;
        }
    }

    fn of(&self, stage: Stage) -> &One {
        match stage {
            Stage::Chunking => &self.stages[0],
            Stage::Embedding => &self.stages[1],
            Stage::Storage => &self.stages[2],
        }
    }
}
