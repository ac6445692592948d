//! Reports the state of the service to systemd (`Type=notify`) by a datagram to the socket that systemd names.

use std::{os::unix::net::UnixDatagram, path::Path};

/// The service is ready for requests.
pub(crate) const READY: &str = "READY=1";
/// The service finishes the requests in progress and stops.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Sends `state` to `socket`. Without a socket it does nothing. A failure is logged.
pub(crate) fn notify(socket: Option<&Path>, state: &str) {
    let Some(socket) = socket else { return };
    let sent = UnixDatagram::unbound().and_then(|datagram| send(&datagram, socket, state));
    if let Err(error) = sent {
        tracing::warn!(%error, socket = %socket.display(), "the state '{state}' was not sent to systemd");
    }
}

fn send(datagram: &UnixDatagram, socket: &Path, state: &str) -> std::io::Result<usize> {
    // A name that begins with @ is in Linux's abstract namespace.
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.to_str().and_then(|name| name.strip_prefix('@')) {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return datagram.send_to_addr(state.as_bytes(), &address);
    }
    datagram.send_to(state.as_bytes(), socket)
}
