//! The signal that ends endless responses when the server shuts down.

use tokio_util::sync::CancellationToken;

/// Cancelled when the server shuts down. It is an extension of every request.
#[derive(Clone)]
pub(crate) struct ShutdownSignal(pub(crate) CancellationToken);
