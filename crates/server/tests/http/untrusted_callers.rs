//! Those whom nobody knows: guessers, forged addresses, pages of other origins, callers who hold a connection
//! without using it, and TLS.

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

/// Two wrong keys from one address, then a pause.
fn two_failures() -> Limiter {
    Limiter::in_memory(Rates { failures: Rate::per_second(0.05, 2), ..Rates::default() })
}

async fn guess(server: &Server, forwarded: &str) -> Answer {
    let request = server.bare(Method::GET, "/v1/models").header("x-api-key", "guess");
    Answer::of(request.header("x-forwarded-for", forwarded)).await
}

#[tokio::test]
async fn who_guesses_is_slowed_down_and_who_knows_is_not() {
    let server = Server::with_accounts(|_, config| config.limiter = two_failures()).await;
    for n in 0..2 {
        assert_eq!(guess(&server, &format!("198.51.100.{n}")).await.status, 401);
    }
    let slowed = guess(&server, "198.51.100.9").await;
    assert_eq!(
        (slowed.status.as_u16(), slowed.code()),
        (429, "too_many_failures"),
        "a forged address is not believed"
    );
    assert_eq!(slowed.header("retry-after"), "20");
    assert_eq!(server.get("/v1/models").await.status, 200, "nobody locks the neighbours out");
    let lines = fs::read_to_string(server.dir.path().join("audit.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2, "guesses cannot fill the audit log: {lines}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_caller_is_one_of_their_own() {
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
        assert_eq!(answer.status, status, "what a caller wrote itself does not make it another");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_only_when_named() {
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
    let stranger =
        Answer::of(server.bare(Method::GET, "/v1/models").header("origin", "https://app.example")).await;
    assert_eq!(stranger.status, 401, "an origin is no key");
}

#[tokio::test]
async fn callers_beyond_the_limit_wait_until_one_leaves() {
    let server = Server::with(|settings| settings.max_connections = 1).await;
    let mut first = server.tcp("").await;
    let second = server.bare(Method::GET, "/health");
    let waiting = tokio::spawn(Answer::of(second));
    first.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut first).await.starts_with("HTTP/1.1 200"));
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn who_says_nothing_or_does_not_listen_is_cut() {
    let server = Server::with(|settings| settings.body_timeout = Duration::from_millis(200)).await;
    let mut silent = server.tcp("GET /heal").await;
    rest(&mut silent).await;
    let mut idle = server.tcp("").await;
    assert_eq!(rest(&mut idle).await, "");
    let mut lingering = server.tcp("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(rest(&mut lingering).await.matches("HTTP/1.1 200").count(), 1);
    // An answer far larger than the socket's buffers, which nobody reads: the connection ends all the same,
    // and with it the place it held.
    let texts: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let body = json!({"input": texts}).to_string();
    let head = Server::head(&format!("content-length: {}\r\n", body.len()));
    let mut deaf = server.tcp(head + &body).await;
    let request = Server::head(&format!("content-length: {}\r\n", body.len())) + &body;
    // Requests one after the other until the server gives up on us.
    soon(async { while deaf.write_all(request.as_bytes()).await.is_ok() {} }).await;
}

/// A client that believes this certificate alone.
fn believing(certificate: &rcgen::Certificate, server: &Server) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
    client.resolve("localhost", server.address).build().unwrap()
}

#[tokio::test]
async fn tls_is_served_from_pem_files_and_a_renewed_certificate_is_taken_up() {
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
    let client = believing(&made.cert, &server);
    let body = json!({"input": "a"});
    let request = client.post(url("/v1/embeddings")).bearer_auth(KEY).json(&body);
    assert_eq!(Answer::of(request).await.status, 200);
    assert_eq!(Answer::of(client.get(url("/v1/models"))).await.status, 401);
    // Plain HTTP gets no answer in the clear, and who never greets is cut.
    let mut plain = server.tcp("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!rest(&mut plain).await.contains("HTTP/1.1"));
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");

    // A renewal that is half done changes nothing; a whole one does.
    let renewed = make();
    fs::write(&certificate, renewed.cert.pem()).unwrap();
    assert_eq!(Answer::of(believing(&made.cert, &server).get(url("/health"))).await.status, 200);
    fs::write(&key, renewed.signing_key.serialize_pem()).unwrap();
    assert_eq!(Answer::of(believing(&renewed.cert, &server).get(url("/health"))).await.status, 200);
    assert!(believing(&made.cert, &server).get(url("/health")).send().await.is_err());
}

#[test]
fn tls_files_that_cannot_be_used_are_named_and_not_shown() {
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
    assert!(refused().contains("cert.pem"), "a key of another certificate");
}
