//! Jobs are not kept for ever. Every process that serves or works does this now and then, none leads.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::JobMaintenance;

/// The pause between two rounds, on average.
const INTERVAL: Duration = Duration::from_secs(600);

/// An upload that nothing has been heard of for this long is over.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Removes jobs that ended longer than `kept` ago, and uploads that were given up, until `stop`.
pub async fn run_retention(jobs: Arc<dyn JobMaintenance>, kept: Duration, stop: CancellationToken) {
    // Short retention is kept to, long retention is not looked at all the time.
    let every = INTERVAL.min(kept).max(Duration::from_secs(1));
    loop {
        match jobs.purge_expired(kept, ABANDONED).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "jobs that ended long ago were removed"),
            Err(error) => tracing::warn!(%error, "old jobs could not be removed"),
        }
        // Processes that were started together do not stay together.
        let pause = every.mul_f64(0.5 + fastrand::f64());
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return }
    }
}
