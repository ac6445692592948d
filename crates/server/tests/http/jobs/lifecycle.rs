//! A job from its submission to its end.

use embeddery_pipeline::{DocumentOutcome, Reason, RetryNote, Stage, StageMode, TaskId};
use reqwest::Method;
use serde_json::json;

use super::{JOBS, id_of, request};
use crate::support::{Answer, PLAIN, Server};

#[tokio::test]
async fn a_job_shows_the_progress_of_its_documents() {
    let server = Server::start().await;
    let answer = server.submit(&request(3)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = id_of(&answer);
    assert_eq!(answer.header("location"), format!("{JOBS}/{id}"));
    assert_eq!(answer.json["status"], "pending");
    assert_eq!(
        answer.json["chunking"],
        json!({"method": "recursive", "size": 256, "overlap": 32, "unit": "tokens"})
    );
    assert_eq!((&answer.json["model"], &answer.json["priority"]), (&json!(PLAIN), &json!("normal")));
    assert_eq!(server.queued("1").await, 3);
    // The model was looked up but not called. The collection is created with the first stored document.
    assert!(server.fake.last_request.lock().unwrap().is_none());
    assert_eq!(server.get("/api/v1/embeddings/collections/notes").await.status, 404);

    server.work(id, 0).await;
    let job = server.job(id).await;
    assert_eq!((&job["status"], &job["progress"]), (&json!("running"), &json!(0.3333)));
    assert_eq!((&job["documents"]["stored"], &job["documents"]["chunking"]), (&json!(1), &json!(2)));
    assert!(job["eta_seconds"].as_u64().unwrap() > 0, "{job}");
    assert!(job["notice"].as_str().unwrap().contains("embeddery worker"), "{job}");
    server.fail(id, 1, Stage::Embedding).await;
    server.work(id, 2).await;
    let job = server.job(id).await;
    assert_eq!((&job["status"], &job["eta_seconds"]), (&json!("partial"), &json!(null)));
    assert!(job["ended_at"].is_string() && job.get("notice").is_none());
    let error = json!([{
        "index": 1, "id": "d1", "status": "failed", "chunks": null, "attempts": 1,
        "error": {"code": "input_too_long", "message": "the text is too long"},
    }]);
    assert_eq!(job["errors"], error);
}

#[tokio::test]
async fn jobs_and_documents_are_paged() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, server.submitted(5).await.to_string());
    }
    let first = server.get(&format!("{JOBS}?limit=2")).await.json;
    let ids_of = |page: &serde_json::Value| {
        page["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["job_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids_of(&first), ids[..2]);
    let second = server.get(&format!("{JOBS}?limit=2&after={}", first["next"].as_str().unwrap())).await.json;
    assert_eq!((ids_of(&second), second.get("next")), (ids[2..].to_vec(), None));
    assert_eq!(ids_of(&server.get(&format!("{JOBS}?status=completed")).await.json), Vec::<String>::new());

    let id = id_of(&server.submit(&request(5)).await);
    server.work(id, 1).await;
    let documents = server.get(&format!("{JOBS}/{id}/documents?limit=2")).await.json;
    assert_eq!(documents["next"], 1);
    assert_eq!(documents["documents"][1]["status"], "stored");
    let waiting = server.get(&format!("{JOBS}/{id}/documents?status=chunking&after=1")).await.json;
    assert_eq!(waiting["documents"].as_array().unwrap().len(), 3);
    for path in ["?status=done", "?limit=0", "?after=x", "?page=2"] {
        let refused = server.get(&format!("{JOBS}{path}")).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_value"), "{path}");
        let refused = server.get(&format!("{JOBS}/{id}/documents{path}")).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_value"), "{path}");
    }
}

#[tokio::test]
async fn a_waiting_document_shows_the_reason_and_the_next_try() {
    let server = Server::start().await;
    let id = server.submitted(3).await;
    let note = |item, charged| RetryNote {
        task: TaskId { job: id, item },
        reason: Reason { code: "provider_unavailable".into(), message: "openai has not served".into() },
        charged,
        retry_at_ms: 1_800_000_000_000,
    };
    server.jobs.record_retry(vec![note(0, false), note(1, true)]).await.unwrap();
    let documents = async || server.get(&format!("{JOBS}/{id}/documents")).await.json["documents"].clone();
    let rows = documents().await;
    let error = json!({"code": "provider_unavailable", "message": "openai has not served"});
    let mut waiting = error.clone();
    waiting["next_try_at"] = json!("2027-01-15T08:00:00Z");
    assert_eq!(
        (&rows[0]["waiting"], &rows[0]["error"]),
        (&waiting, &json!(null)),
        "an outage does not count as a failure"
    );
    assert_eq!((&rows[1]["waiting"], &rows[1]["error"], &rows[1]["attempts"]), (&waiting, &error, &json!(1)));
    assert!(rows[2].get("waiting").is_none(), "it waits only for the documents before it: {rows}");

    server.queue.set_stage_mode(Stage::Chunking, StageMode::Pause).await.unwrap();
    let rows = documents().await;
    for item in 0..3 {
        let waiting = &rows[item]["waiting"];
        assert_eq!((&waiting["code"], &waiting["next_try_at"]), (&json!("stage_paused"), &json!(null)));
        assert_eq!(waiting["message"], "an operator has paused the stage chunking");
    }
    server.queue.set_stage_mode(Stage::Chunking, StageMode::Drain).await.unwrap();
    let rows = documents().await;
    assert_eq!((&rows[0]["waiting"], &rows[2]["waiting"]["code"]), (&waiting, &json!("stage_drains")));
    server.work(id, 0).await;
    assert!(documents().await[0].get("waiting").is_none(), "a document that has ended does not wait");
}

#[tokio::test]
async fn a_superseded_document_is_counted_and_names_the_later_job() {
    let server = Server::start().await;
    let id = server.submitted(1).await;
    let reason = Reason { code: "superseded".into(), message: "superseded by job x".into() };
    let end = DocumentOutcome::Superseded(reason);
    server.jobs.finish(vec![(TaskId { job: id, item: 0 }, end)]).await.unwrap();
    let job = server.job(id).await;
    assert_eq!((&job["status"], &job["documents"]["superseded"]), (&json!("completed"), &json!(1)), "{job}");
    let rows = server.get(&format!("{JOBS}/{id}/documents?status=superseded")).await.json;
    assert_eq!(rows["documents"][0]["error"]["message"], "superseded by job x");
}

#[tokio::test]
async fn ended_jobs_are_counted_by_status() {
    let server = Server::start().await;
    let (done, failed, cancelled) =
        (server.submitted(1).await, server.submitted(1).await, server.submitted(2).await);
    server.submitted(1).await;
    server.work(done, 0).await;
    server.fail(failed, 0, Stage::Embedding).await;
    server.work(cancelled, 0).await;
    Answer::of(server.request(Method::DELETE, &format!("{JOBS}/{cancelled}"))).await;
    let metrics = server.get("/metrics").await.text;
    for (status, count) in [("completed", 1), ("failed", 1), ("cancelled", 1), ("partial", 0)] {
        let line = format!("embedding_jobs_total{{status=\"{status}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn a_cancelled_job_is_removed_from_the_queue() {
    let server = Server::start().await;
    let id = server.submitted(4).await;
    server.work(id, 0).await;
    let cancel = || Answer::of(server.request(Method::DELETE, &format!("{JOBS}/{id}")));
    let answer = cancel().await;
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (202, &json!("cancelled")));
    assert_eq!(answer.json["documents"]["cancelled"], 3);
    assert_eq!(server.queued("1").await, 0);
    assert_eq!(cancel().await.status, 202, "cancelling again has no effect");
    let done = server.submitted(1).await;
    server.work(done, 0).await;
    let refused = Answer::of(server.request(Method::DELETE, &format!("{JOBS}/{done}"))).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "job_ended"));
    let refused = server.post(&format!("{JOBS}/{id}/retry"), &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "job_ended"));
}

#[tokio::test]
async fn failed_documents_are_retried() {
    let server = Server::start().await;
    let id = server.submitted(2).await;
    let refused = server.post(&format!("{JOBS}/{id}/retry"), &json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "job_ended"));
    server.work(id, 0).await;
    // The task becomes a dead letter, as after a crash of its worker.
    let consumer = embeddery_pipeline::Consumer("w".into());
    let request = embeddery_pipeline::LeaseRequest {
        stage: Stage::Chunking,
        consumer: &consumer,
        max_tasks: 10,
        duration: std::time::Duration::from_secs(60),
        idle: true,
    };
    let leases = server.queue.lease(request).await.unwrap().leases;
    let reason = Reason { code: "worker_died".into(), message: "the worker crashed".into() };
    let outcomes: Vec<_> = leases
        .into_iter()
        .map(|lease| (lease, embeddery_pipeline::Outcome::DeadLetter(reason.clone())))
        .collect();
    server.queue.settle(&outcomes).await.unwrap();
    server.fail(id, 1, Stage::Chunking).await;
    assert_eq!(server.job(id).await["status"], "partial");

    let answer = server.post(&format!("{JOBS}/{id}/retry"), &json!({})).await;
    assert_eq!((answer.status.as_u16(), &answer.json["status"]), (202, &json!("running")), "{}", answer.text);
    assert_eq!(server.queued("1").await, 1);
    assert!(server.queue.contains(&[TaskId { job: id, item: 1 }]).await.unwrap()[0]);
    let dead_letters = server.queue.dead_letters(Stage::Chunking, None, 10).await.unwrap();
    assert!(
        dead_letters.iter().all(|dead_letter| dead_letter.task.as_ref().unwrap().id.item != 1),
        "{dead_letters:?}"
    );
    server.work(id, 1).await;
    assert_eq!(server.job(id).await["status"], "completed");
}

#[tokio::test]
async fn a_job_must_use_the_model_of_its_collection() {
    let server = Server::start().await;
    let made =
        server.post("/api/v1/embeddings/collections", &json!({"name": "notes", "dimensions": 4})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let answer = server.submit(&request(1)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["dimensions"]), (202, &json!(4)), "{}", answer.text);
    for (field, value) in [("model", json!("other/model")), ("dimensions", json!(3))] {
        let mut other = request(1);
        other[field] = value;
        let refused = server.submit(&other).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (409, "space_mismatch"), "{}", refused.text);
        assert!(refused.message().contains("is bound to") && refused.message().contains(PLAIN));
        assert!(refused.json["detail"]["collection_space"].is_string());
    }
    let mut dimensions = request(1);
    dimensions["dimensions"] = json!(4);
    assert_eq!(server.submit(&dimensions).await.status, 202, "without a model, the collection's is used");
    let mut same = request(1);
    same["model"] = json!("small");
    assert_eq!(server.submit(&same).await.status, 202);
}

#[tokio::test]
async fn deleting_a_user_deletes_jobs_and_usage() {
    let server = Server::start().await;
    server.post("/v1/embeddings", &json!({"input": "a", "model": "small"})).await;
    assert_ne!(server.get("/api/v1/embeddings/usage").await.json["data"], json!([]));
    let id = server.submitted(3).await;
    let receipt = Answer::of(server.request(Method::DELETE, "/api/v1/embeddings/users/me")).await;
    assert_eq!((receipt.status.as_u16(), &receipt.json["jobs"]), (200, &json!(1)), "{}", receipt.text);
    assert_eq!((&receipt.json["usage"], &receipt.json["cache"]), (&json!("deleted"), &json!("off")));
    assert_eq!(server.get(&format!("{JOBS}/{id}")).await.status, 404);
    assert_eq!(server.queued("1").await, 0);
    let usage = server.get("/api/v1/embeddings/usage").await;
    assert!(!usage.text.contains("\"texts\":1"), "{}", usage.text);
}
