//! Faulty and slow clients over plain TCP. The server responds or closes the connection, drops work whose client has
//! disconnected, and keeps running.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Answer, Server, rest, soon};

/// Sends `bytes` and returns everything that the server sends until it closes. The client does not close its side.
async fn exchange(server: &Server, bytes: impl AsRef<[u8]>) -> String {
    rest(&mut server.tcp(bytes).await).await
}

fn gated() -> Value {
    json!({"input": "a", "model": "test/gated"})
}

/// A connection that has sent a whole request to `test/gated`.
async fn gated_connection(server: &Server) -> TcpStream {
    let body = gated().to_string();
    server.tcp(Server::head(&format!("content-length: {}\r\n", body.len())) + &body).await
}

/// `count` connections like that, whose requests have begun.
async fn gated_connections(server: &Server, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(gated_connection(server).await);
    }
    soon(server.fake.has_begun(count)).await;
    streams
}

async fn assert_running(server: &Server) {
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a"})).await.status, 200);
}

#[tokio::test]
async fn headers_beyond_the_limit_are_a_431() {
    let server = Server::start().await;
    let with = |bytes: usize| {
        let line = format!("x-long: {}\r\nconnection: close\r\ncontent-length: 14\r\n", "a".repeat(bytes));
        Server::head(&line) + r#"{"input": "a"}"#
    };
    let answer = exchange(&server, with(63 << 10)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = exchange(&server, with(64 << 10)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.contains("head_too_large") && answer.contains("65536 bytes"), "{answer}");
    // The server does not wait for the end of headers beyond the limit, and may close before all of them are sent.
    let mut stream = server.tcp("GET / HTTP/1.1\r\nx-endless: ").await;
    let _ = soon(stream.write_all(&[b'a'; 200 << 10])).await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many: String = (0..1000).map(|i| format!("x-{i}: a\r\n")).collect();
    let answer = exchange(&server, Server::head(&many)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_running(&server).await;
}

#[tokio::test]
async fn bytes_that_are_not_http_are_a_400_or_closed() {
    let server = Server::start().await;
    for bytes in [
        &b"nonsense\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let answer = exchange(&server, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
    }
    assert_running(&server).await;
}

#[tokio::test]
async fn a_slow_body_is_a_408() {
    let server = Server::with(|settings| settings.body_timeout = Duration::from_millis(200)).await;
    for sent in ["", r#"{"input""#] {
        let answer = exchange(&server, Server::head("content-length: 100\r\n") + sent).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-request-id: "), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "body_timeout");
        assert!(body["error"]["message"].as_str().unwrap().contains("0.2 seconds"), "{body}");
    }
    assert_running(&server).await;
}

#[tokio::test]
async fn a_connection_with_slow_headers_is_closed() {
    let server = Server::with(|settings| settings.body_timeout = Duration::from_millis(200)).await;
    for sent in ["", "POST /v1/embeddings HTTP/1.1\r\nhost: te"] {
        let answer = exchange(&server, sent).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_running(&server).await;
}

#[tokio::test]
async fn a_client_that_disconnects_during_the_body_affects_no_other() {
    let server = Server::start().await;
    for more in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        let mut stream = server.tcp(Server::head(more) + "5\r\n{\"inp").await;
        stream.shutdown().await.unwrap();
        rest(&mut stream).await;
        drop(server.tcp(Server::head(more)).await);
    }
    assert_running(&server).await;
}

#[tokio::test]
async fn work_of_a_disconnected_client_is_dropped() {
    let server = Server::start().await;
    drop(gated_connections(&server, 1).await);
    // The gate has no permits, so only a drop can end the work.
    soon(server.fake.has_ended(1)).await;
    assert_running(&server).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_affects_no_other() {
    let server = Server::start().await;
    let body = json!({"input": vec!["a"; 2048]}).to_string();
    let request = Server::head(&format!("content-length: {}\r\n", body.len())) + &body;
    let mut stream = server.tcp(&request).await;
    let mut first = [0; 16];
    soon(stream.read_exact(&mut first)).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 "));
    assert_running(&server).await;
    drop(stream);
    assert_running(&server).await;
}

#[tokio::test]
async fn five_hundred_concurrent_requests_all_get_a_response() {
    let server = Server::start().await;
    let streams = gated_connections(&server, 500).await;
    assert_eq!(server.get("/health").await.status, 200, "health does not wait for work");
    server.fake.gate.add_permits(500);
    for (index, mut stream) in streams.into_iter().enumerate() {
        let mut head = [0; 12];
        soon(stream.read_exact(&mut head)).await.unwrap();
        assert_eq!(head, *b"HTTP/1.1 200", "connection {index}");
    }
}

#[tokio::test]
async fn health_and_metrics_respond_while_requests_wait() {
    let server = Server::start().await;
    let waiting = gated_connections(&server, 20).await;
    for path in ["/health", "/ready", "/api/v1/embeddings/health", "/v1/models"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let metrics = server.get("/metrics").await;
    assert!(metrics.text.contains("\nactive_embedding_requests 20\n"), "{}", metrics.text);
    drop(waiting);
    soon(server.fake.has_ended(20)).await;
}

#[tokio::test]
async fn a_shutdown_finishes_requests_in_progress_and_accepts_no_connections() {
    let mut server = Server::start().await;
    let mut in_progress = gated_connections(&server, 1).await.remove(0);
    let mut idle = server.tcp("GET /health HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let mut first = [0; 12];
    soon(idle.read_exact(&mut first)).await.unwrap();

    server.shutdown.cancel();
    // An idle connection is closed at once. By then the listener is closed as well.
    rest(&mut idle).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "new connections are refused");
    assert!(!server.task.is_finished(), "the server waits for the request in progress");

    server.fake.gate.add_permits(1);
    let answer = rest(&mut in_progress).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    soon(&mut server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_with_a_large_body_and_a_wrong_key_can_read_the_response() {
    let server = Server::start().await;
    let request = server.bare(Method::POST, "/v1/embeddings").header("x-api-key", "wrong");
    let answer = Answer::of(request.body("a".repeat(8 << 20))).await;
    assert_eq!(answer.status, 401);
}
