//! Removal of old jobs. Every process that serves or works does this; none of them leads.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::JobMaintenance;

/// Maximum mean interval between two removals.
const INTERVAL: Duration = Duration::from_secs(600);

/// Age at which an upload that was not started is removed.
const ABANDONED_UPLOAD_AGE: Duration = Duration::from_secs(24 * 3600);

/// Removes jobs that ended longer than `retention` ago, and abandoned uploads, until `stop`.
pub async fn run_retention(jobs: Arc<dyn JobMaintenance>, retention: Duration, stop: CancellationToken) {
    // A short retention needs a short interval.
    let interval = INTERVAL.min(retention).max(Duration::from_secs(1));
    loop {
        match jobs.purge_expired(retention, ABANDONED_UPLOAD_AGE).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "expired jobs were removed"),
            Err(error) => tracing::warn!(%error, "expired jobs could not be removed"),
        }
        // Jitter separates processes that were started together.
        let delay = interval.mul_f64(0.5 + fastrand::f64());
        tokio::select! { () = tokio::time::sleep(delay) => {}, () = stop.cancelled() => return }
    }
}
