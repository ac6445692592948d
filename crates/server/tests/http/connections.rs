//! What callers do to connections, over bare TCP: too much, too slowly, not to the end, all at once. The server
//! answers each or closes, drops work that nobody waits for, and lives on.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Answer, Server, rest, soon};

/// Everything the server says to `bytes` until it closes; the caller's side stays open.
async fn said(server: &Server, bytes: impl AsRef<[u8]>) -> String {
    rest(&mut server.tcp(bytes).await).await
}

fn gated() -> Value {
    json!({"input": "a", "model": "test/gated"})
}

/// A connection that has sent the whole of a request for gated work.
async fn gated_connection(server: &Server) -> TcpStream {
    let body = gated().to_string();
    server.tcp(Server::head(&format!("content-length: {}\r\n", body.len())) + &body).await
}

/// As many at once.
async fn gated_connections(server: &Server, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(gated_connection(server).await);
    }
    soon(server.fake.has_begun(count)).await;
    streams
}

async fn lives(server: &Server) {
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a"})).await.status, 200);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_a_431() {
    let server = Server::start().await;
    let with = |bytes: usize| {
        let line = format!("x-long: {}\r\nconnection: close\r\ncontent-length: 14\r\n", "a".repeat(bytes));
        Server::head(&line) + r#"{"input": "a"}"#
    };
    let answer = said(&server, with(63 << 10)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = said(&server, with(64 << 10)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.contains("head_too_large") && answer.contains("65536 bytes"), "{answer}");
    // One that does not end is not waited for. The server may hang up before it is sent whole.
    let mut stream = server.tcp("GET / HTTP/1.1\r\nx-endless: ").await;
    let _ = soon(stream.write_all(&[b'a'; 200 << 10])).await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many: String = (0..1000).map(|i| format!("x-{i}: a\r\n")).collect();
    let answer = said(&server, Server::head(&many)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    lives(&server).await;
}

#[tokio::test]
async fn what_is_no_http_is_a_400_or_closed() {
    let server = Server::start().await;
    for bytes in [
        &b"nonsense\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let answer = said(&server, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{bytes:?}: {answer}");
    }
    lives(&server).await;
}

#[tokio::test]
async fn a_slow_body_is_a_408() {
    let server = Server::with(|settings| settings.body_timeout = Duration::from_millis(200)).await;
    for sent in ["", r#"{"input""#] {
        let answer = said(&server, Server::head("content-length: 100\r\n") + sent).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-request-id: "), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "body_timeout");
        assert!(body["error"]["message"].as_str().unwrap().contains("0.2 seconds"), "{body}");
    }
    lives(&server).await;
}

#[tokio::test]
async fn a_slow_head_is_closed() {
    let server = Server::with(|settings| settings.body_timeout = Duration::from_millis(200)).await;
    for sent in ["", "POST /v1/embeddings HTTP/1.1\r\nhost: te"] {
        let answer = said(&server, sent).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    lives(&server).await;
}

#[tokio::test]
async fn a_caller_who_hangs_up_amid_the_body_disturbs_nobody() {
    let server = Server::start().await;
    for more in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        let mut stream = server.tcp(Server::head(more) + "5\r\n{\"inp").await;
        stream.shutdown().await.unwrap();
        rest(&mut stream).await;
        drop(server.tcp(Server::head(more)).await);
    }
    lives(&server).await;
}

#[tokio::test]
async fn work_whose_caller_hung_up_is_dropped() {
    let server = Server::start().await;
    drop(gated_connections(&server, 1).await);
    // The gate stays shut: only a drop can end the work.
    soon(server.fake.has_ended(1)).await;
    lives(&server).await;
}

#[tokio::test]
async fn a_caller_who_stops_reading_disturbs_nobody() {
    let server = Server::start().await;
    let body = json!({"input": vec!["a"; 2048]}).to_string();
    let request = Server::head(&format!("content-length: {}\r\n", body.len())) + &body;
    let mut stream = server.tcp(&request).await;
    let mut first = [0; 16];
    soon(stream.read_exact(&mut first)).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 "));
    lives(&server).await;
    drop(stream);
    lives(&server).await;
}

#[tokio::test]
async fn five_hundred_connections_at_once_are_all_answered() {
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
async fn health_and_metrics_answer_while_work_waits() {
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
async fn a_shutdown_finishes_what_is_under_way_and_takes_nothing_new() {
    let mut server = Server::start().await;
    let mut under_way = gated_connections(&server, 1).await.remove(0);
    let mut idle = server.tcp("GET /health HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let mut first = [0; 12];
    soon(idle.read_exact(&mut first)).await.unwrap();

    server.shutdown.cancel();
    // A connection that waits for its next request is closed at once: by then the listener is, too.
    rest(&mut idle).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "new connections are refused");
    assert!(!server.task.is_finished(), "the request under way is waited for");

    server.fake.gate.add_permits(1);
    let answer = rest(&mut under_way).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    soon(&mut server.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_large_body_with_a_wrong_key_still_reads_the_answer() {
    let server = Server::start().await;
    let request = server.bare(Method::POST, "/v1/embeddings").header("x-api-key", "wrong");
    let answer = Answer::of(request.body("a".repeat(8 << 20))).await;
    assert_eq!(answer.status, 401);
}
