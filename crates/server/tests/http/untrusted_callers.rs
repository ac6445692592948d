//! Untrusted clients: guessed keys, forged addresses, pages of other origins, idle connections; and TLS.

use std::{fs, time::Duration};

use embeddery_accounts::{
    Limiter,
    limit::{Rate, Rates},
};
use embeddery_server::Tls;
use reqwest::Method;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{Answer, KEY, Server, rest, soon};

/// Allows two wrong keys per address, then one every 20 seconds.
fn two_failures() -> Limiter {
    Limiter::in_memory(Rates { failures: Rate::per_second(0.05, 2), ..Rates::default() })
}

async fn guess(server: &Server, forwarded: &str) -> Answer {
    let request = server.bare(Method::GET, "/v1/models").header("x-api-key", "guess");
    Answer::of(request.header("x-forwarded-for", forwarded)).await
}

#[tokio::test]
async fn wrong_keys_from_an_address_are_limited_and_valid_ones_are_not() {
    let server = Server::with_accounts(|_, config| config.limiter = two_failures()).await;
    for n in 0..2 {
        assert_eq!(guess(&server, &format!("198.51.100.{n}")).await.status, 401);
    }
    let limited = guess(&server, "198.51.100.9").await;
    assert_eq!(
        (limited.status.as_u16(), limited.code()),
        (429, "too_many_failures"),
        "the forged address is ignored"
    );
    assert_eq!(limited.header("retry-after"), "20");
    assert_eq!(
        server.get("/v1/models").await.status,
        200,
        "others behind the same address are not locked out"
    );
    let lines = fs::read_to_string(server.dir.path().join("audit.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2, "limited attempts are not in the audit log: {lines}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let server = Server::with_accounts(|settings, config| {
        config.limiter = two_failures();
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for n in 0..4 {
        assert_eq!(guess(&server, &format!("198.51.100.{n}")).await.status, 401);
    }
    for (left, status) in [("1.1.1.1", 401), ("2.2.2.2", 401), ("3.3.3.3", 429)] {
        let answer = guess(&server, &format!("{left}, 203.0.113.7")).await;
        assert_eq!(answer.status, status, "an address that the client wrote itself does not count");
    }
}

#[tokio::test]
async fn only_pages_of_configured_origins_may_call_the_api() {
    let preflight = |server: &Server, origin: &str| {
        server
            .bare(Method::OPTIONS, "/v1/embeddings")
            .header("origin", origin.to_owned())
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
    };
    let server = Server::start().await;
    let off = Answer::of(preflight(&server, "https://app.example")).await;
    assert_eq!((off.status.as_u16(), off.header("access-control-allow-origin")), (405, ""));
    let server = Server::with(|settings| settings.cors_origins = vec!["https://app.example".into()]).await;
    let on = Answer::of(preflight(&server, "https://app.example")).await;
    assert_eq!((on.status.as_u16(), on.header("access-control-allow-origin")), (200, "https://app.example"));
    assert!(on.header("access-control-allow-headers").contains("authorization"));
    for origin in ["https://evil.example", "null", "https://app.example.evil.example"] {
        let other = Answer::of(preflight(&server, origin)).await;
        assert_eq!(other.header("access-control-allow-origin"), "", "{origin}");
    }
    let request = server.request(Method::GET, "/v1/models").header("origin", "https://app.example");
    let answer = Answer::of(request).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert!(answer.header("access-control-expose-headers").contains("x-request-id"));
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let without_key =
        Answer::of(server.bare(Method::GET, "/v1/models").header("origin", "https://app.example")).await;
    assert_eq!(without_key.status, 401, "an allowed origin does not replace the key");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_another_ends() {
    let server = Server::with(|settings| settings.max_connections = 1).await;
    let mut first = server.tcp("").await;
    let second = server.bare(Method::GET, "/health");
    let waiting = tokio::spawn(Answer::of(second));
    first.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut first).await.starts_with("HTTP/1.1 200"));
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_send_or_does_not_read_is_disconnected() {
    let server = Server::with(|settings| settings.body_timeout = Duration::from_millis(200)).await;
    let mut silent = server.tcp("GET /heal").await;
    rest(&mut silent).await;
    let mut idle = server.tcp("").await;
    assert_eq!(rest(&mut idle).await, "");
    let mut lingering = server.tcp("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(rest(&mut lingering).await.matches("HTTP/1.1 200").count(), 1);
    // The response is far larger than the socket's buffers and the client does not read it. The connection ends all the
    // same and releases its permit.
    let texts: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let body = json!({"input": texts}).to_string();
    let head = Server::head(&format!("content-length: {}\r\n", body.len()));
    let mut unread = server.tcp(head + &body).await;
    let request = Server::head(&format!("content-length: {}\r\n", body.len())) + &body;
    // Send requests until the server closes the connection.
    soon(async { while unread.write_all(request.as_bytes()).await.is_ok() {} }).await;
}

/// A client that trusts only this certificate.
fn trusting(certificate: &rcgen::Certificate, server: &Server) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
    client.resolve("localhost", server.address).build().unwrap()
}

#[tokio::test]
async fn tls_uses_pem_files_and_reloads_a_renewed_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let made = make();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = Server::with(|settings| {
        settings.tls = Some(Tls::from_files(&certificate, &key).unwrap());
        settings.body_timeout = Duration::from_millis(500);
    })
    .await;
    let url = |path| format!("https://localhost:{}{path}", server.address.port());
    let client = trusting(&made.cert, &server);
    let body = json!({"input": "a"});
    let request = client.post(url("/v1/embeddings")).bearer_auth(KEY).json(&body);
    assert_eq!(Answer::of(request).await.status, 200);
    assert_eq!(Answer::of(client.get(url("/v1/models"))).await.status, 401);
    // Plain HTTP gets no plain response, and a client that sends no handshake is disconnected.
    let mut plain = server.tcp("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!rest(&mut plain).await.contains("HTTP/1.1"));
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");

    // A certificate without its key is ignored until the key is renewed as well.
    let renewed = make();
    fs::write(&certificate, renewed.cert.pem()).unwrap();
    assert_eq!(Answer::of(trusting(&made.cert, &server).get(url("/health"))).await.status, 200);
    fs::write(&key, renewed.signing_key.serialize_pem()).unwrap();
    assert_eq!(Answer::of(trusting(&renewed.cert, &server).get(url("/health"))).await.status, 200);
    assert!(trusting(&made.cert, &server).get(url("/health")).send().await.is_err());
}

#[test]
fn errors_of_tls_files_name_the_file_without_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let refused = || Tls::from_files(&certificate, &key).unwrap_err();
    assert!(refused().contains("cert.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n").unwrap();
    assert!(!refused().contains("c2VjcmV0"));
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&key, other.signing_key.serialize_pem()).unwrap();
    assert!(refused().contains("cert.pem"), "the key belongs to another certificate");
}
