//! The loop that accepts connections. `axum::serve` offers neither a limit for headers nor a time for them to
//! arrive, and both keep a stranger from holding memory; so connections are served by hyper directly.

use std::{io, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{App, routes};

/// Serves until `shutdown` is cancelled; then accepts nothing more, and gives the requests under way `grace`
/// to finish.
///
/// # Errors
/// None today: a connection that cannot be accepted is logged and the loop goes on.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    shutdown: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    let service = TowerToHyperService::new(routes(Arc::clone(&app)));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(app.settings.body_timeout)
        // hyper's buffer holds the whole head of a request; `head.rs` has the exact limit. Less than 8 KiB it does
        // not take.
        .max_buf_size(app.settings.header_limit.max(8 << 10));
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = http.serve_connection(prepared(stream), service.clone());
                let watched = connections.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = watched.await {
                        // A caller who hung up, or spoke nonsense and has been told so.
                        tracing::debug!(%error, "connection ended");
                    }
                });
            }
            Err(error) => {
                // Most likely no file descriptor is free. Connections that end will free some; until then a
                // pause keeps this loop from spinning.
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(grace, connections.shutdown()).await.is_err() {
        tracing::warn!(
            grace_seconds = grace.as_secs_f64(),
            "requests were cut off: they took longer than the grace period"
        );
    }
    Ok(())
}

fn prepared(stream: TcpStream) -> TokioIo<TcpStream> {
    // Answers are written whole; waiting to fill a packet would only add latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    TokioIo::new(stream)
}
