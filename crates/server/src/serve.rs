//! The loop that accepts connections. It uses hyper directly, because `axum::serve` has neither a size limit nor a
//! timeout for headers, and without them a client can hold memory for as long as it likes.

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

use crate::{ReloadableApp, Tls, client_ip::Peer, shutdown_signal::ShutdownSignal};

/// Serves until `shutdown` is cancelled. Then accepts no more connections, and waits up to `grace` for the requests in
/// progress.
///
/// # Errors
/// Currently none: if a connection cannot be accepted, the error is logged and the loop continues.
pub async fn serve(
    listener: TcpListener,
    app: Arc<ReloadableApp>,
    shutdown: CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    // Connections beyond the limit wait in the listener's backlog until another connection ends.
    let permits = Arc::new(Semaphore::new(app.app().settings.max_connections));
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            (permit, Ok((stream, peer))) => {
                let (handler, watcher) =
                    (ConnectionHandler::new(&app, shutdown.clone()), connections.watcher());
                tokio::spawn(async move {
                    handler.accept(stream, peer, watcher).await;
                    drop(permit);
                });
            }
            (_, Err(error)) => {
                // Most likely no file descriptor is free. The pause keeps the loop from spinning until another
                // connection ends and frees one.
                tracing::error!(%error, "accepting a connection failed; retrying");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(grace, connections.shutdown()).await.is_err() {
        tracing::warn!(
            grace_seconds = grace.as_secs_f64(),
            "requests were aborted: they took longer than the grace period"
        );
    }
    Ok(())
}

/// Serves one connection, with the limits that were in force when it was accepted.
struct ConnectionHandler {
    http: http1::Builder,
    app: Arc<ReloadableApp>,
    tls: Option<Tls>,
    timeout: Duration,
    shutdown: ShutdownSignal,
}

impl ConnectionHandler {
    fn new(reloadable: &Arc<ReloadableApp>, shutdown: CancellationToken) -> Self {
        let app = reloadable.app();
        let timeout = app.settings.body_timeout;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(timeout)
            // The buffer must hold all headers of a request; `header_limit.rs` applies the exact limit. hyper requires
            // at least 8 KiB.
            .max_buf_size(app.settings.header_limit.max(8 << 10));
        let tls = app.settings.tls.clone();
        Self { http, app: Arc::clone(reloadable), tls, timeout, shutdown: ShutdownSignal(shutdown) }
    }

    async fn accept(&self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        // Responses are written whole, so Nagle's algorithm would only add latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY failed");
        }
        // The timeout applies to writes as well: a client that does not read its response is disconnected.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.timeout));
        let stream = Box::pin(stream);
        let Some(tls) = &self.tls else { return self.serve_connection(stream, peer, watcher).await };
        match tokio::time::timeout(self.timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_connection(stream, peer, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake timed out"),
        }
    }

    async fn serve_connection<S>(&self, stream: S, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (app, shutdown) = (Arc::clone(&self.app), self.shutdown.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(shutdown.clone());
            app.current().service.call(request)
        });
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            // The client disconnected, or sent an invalid request and got a 400.
            tracing::debug!(%error, "connection ended");
        }
    }
}
