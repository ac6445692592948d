//! SIGTERM and ctrl-C: the first asks for an orderly end, the second ends at once. And the one signal that must not
//! end a server.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGTERM or ctrl-C cancels; a second signal ends the process at once.
pub(super) fn on_signals() -> anyhow::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // A file that may not grow (RLIMIT_FSIZE) is an error like a full disk: whoever listens to this signal, even once,
    // is not ended by it.
    drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            if first {
                tracing::info!("stopping: what is under way is finished; a second signal stops at once");
                cancelled.cancel();
            } else {
                end_now();
            }
        }
    });
    Ok(token)
}

#[expect(clippy::disallowed_methods, reason = "a second signal asks for exactly this: no cleaning up")]
fn end_now() {
    std::process::exit(130);
}
