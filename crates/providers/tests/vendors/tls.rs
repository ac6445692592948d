//! HTTPS with a company's own certificate authority: trusted when configured, refused when not.

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

use crate::support::{KEY, access, config, embed, open};

/// An HTTPS address in front of the stand-ins, and the authority (PEM) that vouches for it.
struct Front {
    port: u16,
    authority: String,
    _server: JoinSet<()>,
}

impl Front {
    async fn before(vendors: &Vendors) -> Self {
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
        let behind = vendors.url().trim_start_matches("http://").to_owned();
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // A client that does not trust us leaves in the handshake.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut vendor = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut vendor).await;
                });
            }
        });
        Self { port, authority: authority.pem(), _server: server }
    }
}

#[tokio::test]
async fn a_companys_own_authority_is_trusted_when_configured_only() {
    let vendors = Vendors::start().await;
    let front = Front::before(&vendors).await;
    let mut access = access(&vendors, VendorApi::OpenAi, &[KEY]);
    access.address = Some(BaseUrl::parse(&format!("https://localhost:{}/openai/v1", front.port)).unwrap());

    let stranger = open(config(ProviderKind::OpenAi, access.clone()), "m").await;
    let error = embed(&stranger, &["a"]).await.unwrap_err();
    assert_eq!((error.kind, error.fault), (ErrorKind::Unavailable, Fault::Upstream));
    assert!(vendors.requests().is_empty(), "the key went to somebody unknown");

    let outbound = Outbound { certificates: Some(front.authority.clone().into()), ..Outbound::default() };
    let mut trusting = config(ProviderKind::OpenAi, access);
    trusting.sender = Arc::new(HttpClient::new(&outbound).unwrap());
    embed(&open(trusting, "m").await, &["a"]).await.unwrap();
    assert_eq!(vendors.texts(), ["a"]);
}
