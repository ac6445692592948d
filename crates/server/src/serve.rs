//! The loop that accepts connections. `axum::serve` offers neither a limit for headers nor a time for them to
//! arrive, and both keep a stranger from holding memory; so connections are served by hyper directly.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::{ReloadableApp, Tls, client_ip::Peer};

/// Serves until `shutdown` is cancelled; then accepts nothing more, and gives the requests under way `grace`
/// to finish.
///
/// # Errors
/// None today: a connection that cannot be accepted is logged and the loop goes on.
pub async fn serve(
    listener: TcpListener,
    live: Arc<ReloadableApp>,
    shutdown: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    // Callers beyond the limit wait in the system's queue until somebody leaves.
    let places = Arc::new(Semaphore::new(live.app().settings.max_connections));
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            (place, Ok((stream, peer))) => {
                let (door, watcher) =
                    (ConnectionHandler::new(&live, shutdown.clone()), connections.watcher());
                tokio::spawn(async move {
                    door.accept(stream, peer, watcher).await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
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

/// What a connection passes through, with the limits that hold when it arrives.
struct ConnectionHandler {
    http: http1::Builder,
    live: Arc<ReloadableApp>,
    tls: Option<Tls>,
    patience: Duration,
    stopping: ShutdownSignal,
}

/// Cancelled when the server stops: an answer that would go on for ever ends then.
#[derive(Clone)]
pub(crate) struct ShutdownSignal(pub(crate) CancellationToken);

impl ConnectionHandler {
    fn new(live: &Arc<ReloadableApp>, stopping: CancellationToken) -> Self {
        let app = live.app();
        let patience = app.settings.body_timeout;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(patience)
            // hyper's buffer holds the whole head of a request; `head.rs` has the exact limit. Less than 8 KiB it
            // does not take.
            .max_buf_size(app.settings.header_limit.max(8 << 10));
        let (live, tls) = (Arc::clone(live), app.settings.tls.clone());
        Self { http, live, tls, patience, stopping: ShutdownSignal(stopping) }
    }

    async fn accept(&self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        // Answers are written whole; waiting to fill a packet would only add latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        // A caller who does not read its answer is cut like one who does not send its request.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.patience));
        let stream = Box::pin(stream);
        let Some(tls) = &self.tls else { return self.serve_connection(stream, peer, watcher).await };
        match tokio::time::timeout(self.patience, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_connection(stream, peer, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS with a caller"),
            Err(_) => tracing::debug!("a caller was too slow to agree on TLS"),
        }
    }

    async fn serve_connection<S>(&self, stream: S, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (live, stopping) = (Arc::clone(&self.live), self.stopping.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(stopping.clone());
            live.running().service.call(request)
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            // A caller who hung up, or spoke nonsense and has been told so.
            tracing::debug!(%error, "connection ended");
        }
    }
}
