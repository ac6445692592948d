//! Limits of the backlog and of concurrent jobs, deleted users, and jobs of other users.

use std::time::Duration;

use embeddery_accounts::ledger::Quotas;
use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::json;

use super::{JOBS, id_of, request};
use crate::support::{
    Answer, Server,
    accounts::{self, token},
};

#[tokio::test]
async fn a_job_beyond_the_limit_of_documents_is_rejected_with_retry_after() {
    let server = Server::with_jobs(|_, _| (), |jobs| jobs.limits.tenant.items = 4).await;
    assert_eq!(server.submit(&request(9)).await.status, 202, "an empty queue takes any job");
    for answer in
        [server.submit(&request(1)).await, server.submit_lines("collection=n", "{\"text\": \"x\"}").await]
    {
        assert_eq!((answer.status.as_u16(), answer.code()), (429, "queue_full"), "{}", answer.text);
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 5);
        assert!(answer.message().contains("9 documents are waiting; the limit is 4"), "{}", answer.message());
    }
    assert_eq!(server.get(JOBS).await.json["jobs"].as_array().unwrap().len(), 1);
    let again = || async {
        Answer::of(server.request(Method::POST, JOBS).header("idempotency-key", "k").json(&request(1))).await
    };
    assert_eq!(again().await.status, 429);
}

#[tokio::test]
async fn the_limit_of_bytes_applies_to_all_tenants_together() {
    let server = Server::with_jobs(|_, _| (), |jobs| jobs.limits.all.bytes = 10).await;
    assert_eq!(server.submit(&request(9)).await.status, 202);
    let refused = server.submit(&request(1)).await;
    assert_eq!(refused.status, 429);
    assert!(refused.message().contains("the queue is full"), "{}", refused.message());
}

/// The queue fills up during an upload of lines. The whole job is rejected.
#[tokio::test]
async fn an_upload_of_lines_is_rejected_when_the_queue_fills_up() {
    let server = Server::with_jobs(|_, _| (), |jobs| jobs.limits.tenant.items = 4).await;
    let (send, lines) = tokio::sync::mpsc::unbounded_channel::<String>();
    let lines =
        stream::unfold(lines, async |mut lines| Some((Ok::<_, std::io::Error>(lines.recv().await?), lines)));
    let request = server.request(Method::POST, &format!("{JOBS}?collection=notes"));
    let request = request.header("content-type", "application/x-ndjson").body(Body::wrap_stream(lines));
    let answer = tokio::spawn(Answer::of(request));
    let some = |from: usize| -> String {
        (from..from + 300).map(|at| format!("{{\"text\": \"text {at}\"}}\n")).collect()
    };
    send.send(some(0)).unwrap();
    // The job was admitted and its first documents are stored. Then another job fills the queue.
    let file = rusqlite::Connection::open(server.dir.path().join("jobs.db")).unwrap();
    let stored =
        || file.query_row("SELECT sum(d0) FROM job", [], |row| row.get::<_, Option<i64>>(0)).unwrap();
    while stored().unwrap_or(0) < 256 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.submit(&super::request(9)).await.status, 202);
    send.send(some(300)).unwrap();
    drop(send);
    let refused = answer.await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "queue_full"), "{}", refused.text);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 5);
    assert!(refused.message().contains("0 documents are accepted"), "{}", refused.message());
    assert_eq!(
        server.get(JOBS).await.json["jobs"].as_array().unwrap().len(),
        1,
        "the rejected job is not kept"
    );
    assert_eq!(server.queued("1").await, 9);
}

#[tokio::test]
async fn a_job_of_lines_cannot_exceed_the_limit_of_the_queue() {
    let server = Server::with_jobs(|_, _| (), |jobs| jobs.limits.tenant.bytes = 100_000).await;
    let lines = |count: usize| -> String {
        (0..count).map(|at| format!("{{\"text\": \"{at} {}\"}}\n", "x".repeat(200))).collect()
    };
    assert_eq!(server.submit_lines("collection=notes", lines(300)).await.status, 202);
    let server = Server::with_jobs(|_, _| (), |jobs| jobs.limits.tenant.bytes = 100_000).await;
    let refused = server.submit_lines("collection=notes", lines(600)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (413, "job_too_large"), "{}", refused.text);
    assert!(refused.message().contains("submit several jobs"), "{}", refused.message());
    assert_eq!(server.queued("1").await, 0);
}

#[tokio::test]
async fn concurrent_jobs_are_limited() {
    let quotas = Quotas { concurrent_jobs: Some(2), ..Quotas::default() };
    let server = Server::with_accounts(|_, accounts| accounts.ledger.quotas = quotas).await;
    let first = server.submitted(1).await;
    server.submitted(1).await;
    let refused = server.submit(&request(1)).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "quota_exceeded"), "{}", refused.text);
    assert!(refused.message().contains("2 of 2 concurrent jobs"), "{}", refused.message());
    let share = &server.get("/api/v1/embeddings/tenant/quotas").await.json["concurrent_jobs"];
    assert_eq!((&share["limit"], &share["used"], &share["remaining"]), (&json!(2), &json!(2), &json!(0)));
    server.work(first, 0).await;
    assert_eq!(server.submit(&request(1)).await.status, 202);
}

#[tokio::test]
async fn deleting_a_user_does_not_reset_the_tokens_used_today() {
    let quotas = Quotas { tokens_per_day: Some(100), ..Quotas::default() };
    let server = Server::with_accounts(|_, accounts| accounts.ledger.quotas = quotas).await;
    server.post("/v1/embeddings", &json!({"input": "a b c", "model": "small"})).await;
    let used =
        async || server.get("/api/v1/embeddings/tenant/quotas").await.json["tokens_per_day"]["used"].clone();
    let before = used().await;
    assert_ne!(before, json!(0));
    let receipt = Answer::of(server.request(Method::DELETE, "/api/v1/embeddings/users/me")).await;
    assert_eq!(receipt.json["usage"], "deleted_but_today", "{}", receipt.text);
    assert_eq!(used().await, before);
}

#[tokio::test]
async fn the_job_of_another_user_is_not_found() {
    let server = Server::with_accounts(|_, config| config.auth = accounts::tokens()).await;
    let (ann, bob) = (token("ann", "user"), token("bob", "user"));
    let ask = async |method: Method, path: &str, token: &str| {
        Answer::of(server.bare(method, path).bearer_auth(token)).await
    };
    let answer = Answer::of(server.bare(Method::POST, JOBS).bearer_auth(&ann).json(&request(2))).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = id_of(&answer);
    assert_eq!(ask(Method::GET, &format!("{JOBS}/{id}"), &ann).await.status, 200);
    for (method, rest) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::POST, "/retry"),
        (Method::GET, "/events"),
        (Method::GET, "/documents"),
    ] {
        let refused = ask(method.clone(), &format!("{JOBS}/{id}{rest}"), &bob).await;
        assert_eq!(refused.status, 404, "{method} {rest}");
    }
    assert_eq!(ask(Method::GET, JOBS, &bob).await.json["jobs"], json!([]));
    let gone = ask(Method::DELETE, "/api/v1/embeddings/users/me", &bob).await;
    assert_eq!((gone.status.as_u16(), &gone.json["jobs"]), (200, &json!(0)));
    assert_eq!(ask(Method::GET, &format!("{JOBS}/{id}"), &ann).await.json["status"], "pending");
    let skip = server.bare(Method::POST, "/api/v1/embeddings/job/skip").bearer_auth(&ann);
    assert_eq!(Answer::of(skip.json(&json!({"job_id": id.to_string()}))).await.status, 403);
}
