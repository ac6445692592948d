//! TLS with a certificate and a key from PEM files, for installations without a proxy. The files are reloaded when they
//! change, so a renewed certificate needs no restart.

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

/// A certificate and its key, reloaded when their files change.
#[derive(Clone)]
pub struct Tls {
    files: Arc<[PathBuf; 2]>,
    current: Arc<RwLock<(ModifiedTimes, TlsAcceptor)>>,
}

/// Modification times of the certificate and the key.
type ModifiedTimes = [Option<SystemTime>; 2];

impl Tls {
    /// Reads a certificate chain and its private key.
    ///
    /// # Errors
    /// A message that names the file and what is wrong with it. It never has the content of the file.
    pub fn from_files(certificates: &Path, key: &Path) -> Result<Self, String> {
        let files = [certificates.to_owned(), key.to_owned()];
        let current = (modified_times(&files), load(&files)?);
        Ok(Self { files: Arc::new(files), current: Arc::new(RwLock::new(current)) })
    }

    /// Performs the TLS handshake of a connection.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        self.acceptor().accept(stream).await
    }

    /// The acceptor for the current files. If they are invalid, the acceptor for the previous ones, because a renewal
    /// may be in progress.
    fn acceptor(&self) -> TlsAcceptor {
        let modified = modified_times(&self.files);
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.0 == modified {
                return current.1.clone();
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 != modified {
            current.0 = modified;
            match load(&self.files) {
                Ok(acceptor) => {
                    tracing::info!(certificate = %self.files[0].display(), "a new certificate is in use");
                    current.1 = acceptor;
                }
                Err(error) => {
                    tracing::error!(error, "reloading the certificate failed; the previous one stays in use");
                }
            }
        }
        current.1.clone()
    }
}

fn modified_times(files: &[PathBuf; 2]) -> ModifiedTimes {
    files.each_ref().map(|file| fs::metadata(file).and_then(|data| data.modified()).ok())
}

fn load([certificates, key]: &[PathBuf; 2]) -> Result<TlsAcceptor, String> {
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{}: is not a PEM certificate: {error}", certificates.display()))?;
    if chain.is_empty() {
        return Err(format!("{}: has no PEM certificate", certificates.display()));
    }
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("{}: has no PEM private key: {error}", key.display()))?;
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
