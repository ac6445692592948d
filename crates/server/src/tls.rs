//! TLS from PEM files, for those without a proxy in front. A renewed certificate is taken up by the next
//! connection: nobody has to restart anything every two months.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server::TlsStream,
};

/// A certificate with its key, ready to greet callers.
#[derive(Clone)]
pub struct Tls {
    files: Arc<[PathBuf; 2]>,
    current: Arc<RwLock<(Stamps, TlsAcceptor)>>,
}

/// When the two files were written.
type Stamps = [Option<SystemTime>; 2];

impl Tls {
    /// Reads a certificate chain and its private key.
    ///
    /// # Errors
    /// What is wrong with which file; never its content.
    pub fn from_files(certificates: &Path, key: &Path) -> Result<Self, String> {
        let files = [certificates.to_owned(), key.to_owned()];
        let current = (stamps(&files), load(&files)?);
        Ok(Self { files: Arc::new(files), current: Arc::new(RwLock::new(current)) })
    }

    /// Greets a caller.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        self.acceptor().accept(stream).await
    }

    /// With the files as they are now; as they were, when they cannot be used: a renewal may be half done.
    fn acceptor(&self) -> TlsAcceptor {
        let now = stamps(&self.files);
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.0 == now {
                return current.1.clone();
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 != now {
            current.0 = now;
            match load(&self.files) {
                Ok(acceptor) => {
                    tracing::info!(certificate = %self.files[0].display(), "a new certificate is in use");
                    current.1 = acceptor;
                }
                Err(error) => tracing::error!(error, "the certificate before it stays in use"),
            }
        }
        current.1.clone()
    }
}

fn stamps(files: &[PathBuf; 2]) -> Stamps {
    files.each_ref().map(|file| fs::metadata(file).and_then(|data| data.modified()).ok())
}

fn load([certificates, key]: &[PathBuf; 2]) -> Result<TlsAcceptor, String> {
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{}: no certificate in PEM: {error}", certificates.display()))?;
    if chain.is_empty() {
        return Err(format!("{}: holds no certificate in PEM", certificates.display()));
    }
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("{}: no private key in PEM: {error}", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| format!("{} and {}: {error}", certificates.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}
