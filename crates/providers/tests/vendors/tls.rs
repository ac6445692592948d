//! HTTPS with a private certificate authority, which is trusted only if it is configured.

use std::sync::Arc;

use embeddery_core::{ErrorKind, Fault, ProviderKind};
use embeddery_providers::{BaseUrl, HttpClient, Outbound};
use embeddery_test_support::vendors::{VendorApi, Vendors};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, rustls::pki_types::PrivateKeyDer};

use crate::support::{KEY, config, embed, endpoint, open};

/// An HTTPS proxy in front of the mock vendors, and the certificate authority (PEM) that signed its certificate.
struct TlsProxy {
    port: u16,
    authority: String,
    _server: JoinSet<()>,
}

impl TlsProxy {
    async fn start(vendors: &Vendors) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let tls = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let backend = vendors.url().trim_start_matches("http://").to_owned();
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, backend) = (acceptor.clone(), backend.clone());
                tokio::spawn(async move {
                    // The handshake fails if the client does not trust the certificate.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut vendor = TcpStream::connect(backend).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut vendor).await;
                });
            }
        });
        Self { port, authority: authority.pem(), _server: server }
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_only_if_configured() {
    let vendors = Vendors::start().await;
    let proxy = TlsProxy::start(&vendors).await;
    let mut endpoint = endpoint(&vendors, VendorApi::OpenAi, &[KEY]);
    endpoint.url = Some(BaseUrl::parse(&format!("https://localhost:{}/openai/v1", proxy.port)).unwrap());

    let untrusting = open(config(ProviderKind::OpenAi, endpoint.clone()), "m").await;
    let error = embed(&untrusting, &["a"]).await.unwrap_err();
    assert_eq!((error.kind, error.fault), (ErrorKind::Unavailable, Fault::Upstream));
    assert!(vendors.requests().is_empty(), "the key was sent to an untrusted server");

    let outbound = Outbound { certificates: Some(proxy.authority.clone().into()), ..Outbound::default() };
    let mut trusting = config(ProviderKind::OpenAi, endpoint);
    trusting.client = Arc::new(HttpClient::new(&outbound).unwrap());
    embed(&open(trusting, "m").await, &["a"]).await.unwrap();
    assert_eq!(vendors.texts(), ["a"]);
}
