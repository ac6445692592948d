//! The access log: one line per request with its user, route, status and duration, without texts and keys.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use embeddery_core::EmbedError;
use reqwest::Method;
use serde_json::{Value, json};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Answer, KEY, PLAIN, Server, soon};

/// The log of this thread. The server of a test runs on the same thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of the access log.
    fn lines(&self) -> Vec<Value> {
        let all = self.text();
        let all = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|line| line["target"] == "embeddery_server::access_log").collect()
    }

    /// The line of a response, which must be the only one. The server writes it when the response is sent, so it may
    /// follow the response. Clears the log.
    async fn take_line_of(&self, answer: &Answer) -> Value {
        let written = async {
            while self.lines().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), written).await;
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{}", self.text());
        self.0.lock().unwrap().clear();
        let line = lines.remove(0);
        assert_eq!(line["request_id"], answer.header("x-request-id"), "{line}");
        assert_eq!(line["status"], answer.status.as_u16(), "{line}");
        assert!(line["elapsed_ms"].as_f64().is_some_and(|elapsed| elapsed >= 0.0), "{line}");
        line
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_request_for_vectors_is_logged_with_model_and_counts() {
    let (log, _guard) = Log::start();
    let server = Server::start().await;
    for path in ["/v1/embeddings", "/api/v1/embeddings"] {
        let answer = server.post(path, &json!({"input": ["two words", "a"]})).await;
        let line = log.take_line_of(&answer).await;
        let found = (&line["level"], &line["method"], &line["route"], &line["model"]);
        assert_eq!(found, (&json!("INFO"), &json!("POST"), &json!(path), &json!(PLAIN)), "{line}");
        assert_eq!((&line["inputs"], &line["tokens"]), (&json!(2), &json!(7)), "{line}");
        assert_eq!(line["user"], "1", "{line}");
        assert!(line["embed_ms"].as_f64() <= line["elapsed_ms"].as_f64(), "{line}");
        assert!(line.get("error").is_none(), "{line}");
    }
}

#[tokio::test]
async fn a_request_that_adds_documents_is_logged_with_the_embedded_inputs() {
    let (log, _guard) = Log::start();
    let server = Server::start().await;
    let collections = "/api/v1/embeddings/collections";
    log.take_line_of(&server.post(collections, &json!({"name": "notes"})).await).await;
    let documents = json!({"documents": [{"id": "a", "text": "two words"}, {"id": "b", "text": "a"}]});
    let path = format!("{collections}/notes/documents");
    for (inputs, tokens) in [(json!(2), json!(7)), (Value::Null, Value::Null)] {
        let line = log.take_line_of(&server.post(&path, &documents).await).await;
        assert_eq!(
            (&line["inputs"], &line["tokens"]),
            (&inputs, &tokens),
            "unchanged documents are not embedded again: {line}"
        );
    }
}

#[tokio::test]
async fn a_failure_is_logged_with_its_status() {
    let (log, _guard) = Log::start();
    let server = Server::start().await;
    *server.fake.failure.lock().unwrap() = EmbedError::invalid("as configured");
    for (model, status, code) in [
        ("test/failing", 400, "invalid_value"),
        ("test/panicking", 500, "internal_error"),
        ("unknown", 404, "model_not_found"),
    ] {
        let answer = server.post("/v1/embeddings", &json!({"input": "a", "model": model})).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        let line = log.take_line_of(&answer).await;
        assert_eq!((&line["level"], &line["error"]), (&json!("INFO"), &json!(code)));
        assert_eq!(line["user"], "1", "{line}");
    }
    for (method, path, route) in [
        (Method::GET, "/nothing/here", "none"),
        (Method::DELETE, "/v1/embeddings", "/v1/embeddings"),
        (Method::GET, "/v1/models/no/such", "/v1/models/{*id}"),
    ] {
        let line = log.take_line_of(&Answer::of(server.request(method.clone(), path)).await).await;
        let found = (&line["level"], &line["method"], &line["route"]);
        assert_eq!(found, (&json!("INFO"), &json!(method.as_str()), &json!(route)), "{line}");
    }
}

#[tokio::test]
async fn probes_and_scrapes_are_logged_at_level_debug() {
    let (log, _guard) = Log::start();
    let server = Server::start().await;
    for path in ["/health", "/metrics", "/api/v1/embeddings/health"] {
        assert_eq!(log.take_line_of(&server.get(path).await).await["level"], "DEBUG", "{path}");
    }
}

#[tokio::test]
async fn a_client_that_disconnects_is_logged() {
    let (log, _guard) = Log::start();
    let server = Server::start().await;
    let body = r#"{"input": "a", "model": "test/gated"}"#;
    let more = format!("x-request-id: lost\r\ncontent-length: {}\r\n", body.len());
    let stream = server.tcp(Server::head(&more) + body).await;
    soon(server.fake.has_begun(1)).await;
    drop(stream);
    soon(server.fake.has_ended(1)).await;
    // The line is written on this thread just after the work ends, so it is there after the response to another request.
    server.get("/health").await;
    let lines = log.lines();
    let line = lines.iter().find(|line| line["request_id"] == "lost").unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(
        (&line["message"], &line["route"]),
        (&json!("the client disconnected"), &json!("/v1/embeddings"))
    );
}

#[tokio::test]
async fn no_line_has_a_text_or_a_key() {
    let (log, _guard) = Log::start();
    let server = Server::start().await;
    let secret = "zanzibar";
    *server.fake.failure.lock().unwrap() = EmbedError::internal("as configured");
    for body in [
        json!({"input": secret}),
        json!({"input": [secret, secret], "encoding_format": "base64"}),
        json!({"input": secret, "model": "test/failing"}),
        json!({"input": secret, "model": "test/panicking"}),
        json!({"input": ["", secret]}),
        json!({"input": [secret, 7]}),
        json!({"input": secret, "user": secret}),
        json!({secret: secret}),
    ] {
        server.post("/v1/embeddings", &body).await;
    }
    server.post_bytes("/v1/embeddings", format!("{{\"input\": \"{secret}\", oops}}")).await;
    server.get(&format!("/{secret}")).await;
    for wrong in ["wrong-key", "other-key"] {
        let request = server.bare(Method::POST, "/v1/embeddings").bearer_auth(wrong);
        assert_eq!(Answer::of(request.json(&json!({"input": secret}))).await.status, 401);
    }
    let ours = log.text();
    // The lines of the HTTP client of this test are ignored.
    let ours: Vec<&str> = ours.lines().filter(|line| line.contains("\"target\":\"embeddery")).collect();
    assert!(ours.len() >= 12, "{ours:?}");
    for word in [secret, KEY, "wrong-key", "other-key"] {
        let leak = ours.iter().find(|line| line.contains(word));
        assert!(leak.is_none(), "'{word}' is in {leak:?}");
    }
}
