//! SIGTERM and SIGINT: the first signal starts an orderly shutdown, the second ends the process at once. SIGXFSZ is
//! ignored.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once.
///
/// # Errors
/// If a signal handler cannot be installed.
pub(super) fn on_signals() -> anyhow::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // A file at its size limit (RLIMIT_FSIZE) must be a write error, like a full disk. A handler that was installed once
    // replaces the default action, which is to end the process.
    drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            if first {
                tracing::info!("stopping after the work in progress; a second signal stops at once");
                cancelled.cancel();
            } else {
                exit_now();
            }
        }
    });
    Ok(token)
}

#[expect(clippy::disallowed_methods, reason = "a second signal ends the process without cleanup")]
fn exit_now() {
    std::process::exit(130);
}
