//! Submitting a job again with the same idempotency key.

use reqwest::Method;
use serde_json::{Value, json};

use super::{JOBS, id_of, request};
use crate::support::{Answer, Server};

impl Server {
    async fn with_key(&self, key: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, JOBS).header("idempotency-key", key).json(body)).await
    }

    async fn lines_with_key(&self, key: &str, query: &str, lines: &str) -> Answer {
        let request = self.request(Method::POST, &format!("{JOBS}?{query}")).header("idempotency-key", key);
        let request = request.header("content-type", "application/x-ndjson");
        Answer::of(request.body(lines.to_owned())).await
    }
}

#[tokio::test]
async fn the_same_body_is_the_same_job_and_another_body_is_a_conflict() {
    let server = Server::start().await;
    let first = server.with_key("k", &request(3)).await;
    let again = server.with_key("k", &request(3)).await;
    assert_eq!((again.status.as_u16(), id_of(&again)), (202, id_of(&first)));
    assert_eq!(server.queued("1").await, 3);
    server.work(id_of(&first), 0).await;
    assert_eq!(
        server.with_key("k", &request(3)).await.json["status"],
        "running",
        "the current state is returned"
    );
    let refused = server.with_key("k", &request(2)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "idempotency_conflict"));
    assert!(refused.message().contains(&id_of(&first).to_string()));
    assert_ne!(id_of(&server.with_key("other", &request(3)).await), id_of(&first));
    for bad in ["", &"x".repeat(256)] {
        let refused = server.with_key(bad, &request(1)).await;
        assert_eq!(
            (refused.status.as_u16(), refused.json["error"]["param"].as_str()),
            (400, Some("Idempotency-Key"))
        );
    }
}

#[tokio::test]
async fn lines_with_the_same_content_are_the_same_job() {
    let server = Server::start().await;
    let lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
    let first = server.lines_with_key("k", "collection=notes", lines).await;
    assert_eq!(first.status, 202, "{}", first.text);
    // The line end of the last line does not matter.
    let again = server.lines_with_key("k", "collection=notes", lines.trim_end()).await;
    assert_eq!((again.status.as_u16(), id_of(&again)), (202, id_of(&first)));
    for (query, lines) in [("collection=other", lines), ("collection=notes", "{\"text\": \"one\"}\n")] {
        assert_eq!(server.lines_with_key("k", query, lines).await.status, 409);
    }
    assert_eq!(server.queued("1").await, 2);
    assert_eq!(server.get(JOBS).await.json["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn concurrent_submissions_create_one_job() {
    let server = Server::start().await;
    let body = request(50);
    let sent = (0..8).map(|_| server.with_key("k", &body));
    let answers = futures_util::future::join_all(sent).await;
    let first = id_of(&answers[0]);
    assert!(answers.iter().all(|answer| answer.status == 202 && id_of(answer) == first));
    assert_eq!(server.get(JOBS).await.json["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(server.queued("1").await, 50);
    let ledger = server.get("/api/v1/embeddings/ledger/status?idempotency_key=k").await.json;
    assert_eq!(ledger["idempotency"]["job_id"], json!(first.to_string()));
}
