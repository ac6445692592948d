//! Tells systemd (`Type=notify`) how the service stands: a datagram to the socket it names.

use std::{os::unix::net::UnixDatagram, path::Path};

/// It serves.
pub(crate) const READY: &str = "READY=1";
/// It finishes what is under way.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Nobody waits for it when there is no socket; one that cannot be reached is told in the log.
pub(crate) fn notify(socket: Option<&Path>, state: &str) {
    let Some(socket) = socket else { return };
    let sent = UnixDatagram::unbound().and_then(|datagram| send(&datagram, socket, state));
    if let Err(error) = sent {
        tracing::warn!(%error, socket = %socket.display(), "systemd was not told '{state}'");
    }
}

fn send(datagram: &UnixDatagram, socket: &Path, state: &str) -> std::io::Result<usize> {
    // A name that begins with @ is in Linux' abstract namespace.
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.to_str().and_then(|name| name.strip_prefix('@')) {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return datagram.send_to_addr(state.as_bytes(), &address);
    }
    datagram.send_to(state.as_bytes(), socket)
}
