//! The operator's routes for dead letters, stages and the summary, which are those of the replaced service.

use std::time::Duration;

use embeddery_pipeline::{Consumer, LeaseRequest, Outcome, Reason, Stage};
use serde_json::{Value, json};

use crate::support::Server;

const DLQ: &str = "/api/v1/embeddings/dlq";

impl Server {
    /// Submits a job whose two documents fail in their first stage. Returns their dead letters, newest first.
    async fn dead_letters(&self) -> Vec<Value> {
        let id = self.submitted(2).await;
        let consumer = Consumer("w".into());
        let request = LeaseRequest {
            stage: Stage::Chunking,
            consumer: &consumer,
            max_tasks: 10,
            duration: Duration::from_secs(60),
            idle: true,
        };
        for lease in self.queue.lease(request).await.unwrap().leases {
            self.fail(lease.task.id.job, lease.task.id.item, Stage::Chunking).await;
            let reason =
                Reason { code: "broken".into(), message: "Bearer sk-secret-secret was refused".into() };
            self.queue.settle(&[(lease, Outcome::DeadLetter(reason))]).await.unwrap();
        }
        let answer = self.get(&format!("{DLQ}?stage=chunking&job_id={id}")).await;
        assert_eq!(answer.json["count"], 2, "{}", answer.text);
        assert!(!answer.text.contains("sk-secret"), "{}", answer.text);
        answer.json["items"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn dead_letters_are_annotated_requeued_and_purged() {
    let server = Server::start().await;
    let letters = server.dead_letters().await;
    let (one, two) = (&letters[0]["entry_id"], &letters[1]["entry_id"]);
    let state = |state: &str, note: Value| json!({"stage": "chunking", "entry_id": one, "state": state, "operator_note": note});
    let set_state = async |body: Value| server.post(&format!("{DLQ}/state"), &body).await;
    assert_eq!(set_state(state("approved_for_requeue", Value::Null)).await.status, 400, "a note is needed");
    assert_eq!(set_state(state("invalid", Value::Null)).await.status, 400);
    assert_eq!(set_state(state("quarantined", json!("look at it"))).await.json["ok"], true);
    let requeue = json!({"stage": "chunking", "entry_id": one, "override_fields": {"priority": "high"}});
    let blocked = server.post(&format!("{DLQ}/requeue"), &requeue).await;
    assert_eq!(blocked.status, 400);
    assert!(blocked.message().contains("in state 'quarantined', not approved for requeue"));
    assert_eq!(set_state(state("approved_for_requeue", json!("fixed"))).await.status, 200);
    let done = server.post(&format!("{DLQ}/requeue"), &requeue).await;
    assert_eq!(done.json["message"], "requeued", "{}", done.text);
    assert_eq!(server.post(&format!("{DLQ}/requeue"), &requeue).await.status, 404);
    assert_eq!(server.queued("1").await, 1);

    let bulk = json!({"stage": "chunking", "entry_ids": [two, "999-9"]});
    let bulk = server.post(&format!("{DLQ}/requeue/bulk"), &bulk).await;
    let statuses: Vec<&Value> =
        bulk.json["results"].as_array().unwrap().iter().map(|r| &r["status"]).collect();
    assert_eq!(statuses, ["success", "not_found"], "{}", bulk.text);

    let metrics = server.get("/metrics").await.text;
    for (status, count) in [("success", 2), ("blocked", 1), ("not_found", 2)] {
        let line = format!(
            "embedding_dlq_requeued_total{{queue_name=\"embeddings:chunking\",status=\"{status}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }

    server.dead_letters().await;
    assert_eq!(server.get(&format!("{DLQ}/stats")).await.json["total_dlq"], 4);
    let purge = async |body: Value| server.post(&format!("{DLQ}/purge"), &body).await;
    assert_eq!(purge(json!({"stage": "chunking"})).await.status, 422, "purging all entries requires `all`");
    assert_eq!(purge(json!({"stage": "chunking", "all": true})).await.json["purged"], 4);
    assert_eq!(server.get(&format!("{DLQ}?stage=chunking")).await.json["count"], 0);
    assert_eq!(server.get(&format!("{DLQ}?stage=cooking")).await.status, 400);
}

#[tokio::test]
async fn a_document_is_changed_before_it_is_requeued() {
    let server = Server::start().await;
    server.dead_letters().await;
    let shown = server.get(&format!("{DLQ}?stage=chunking&with_document=true")).await;
    let [second, first] = &shown.json["items"].as_array().unwrap()[..] else { panic!("{}", shown.text) };
    assert_eq!(first["document"]["text"], "text 0", "{}", shown.text);
    assert_eq!(server.get(&format!("{DLQ}?count=21&with_document=true")).await.status, 400);
    let ask = |fields: Value| json!({"stage": "chunking", "entry_id": first["entry_id"], "override_fields": fields});
    let requeue = async |fields: Value| server.post(&format!("{DLQ}/requeue"), &ask(fields)).await;
    for (fields, param) in [
        (json!({"text": " "}), "override_fields.text"),
        (json!({"text": "x".repeat((1 << 20) + 1)}), "override_fields.text"),
        (json!({"metadata": {"long": "x".repeat(70_000)}}), "override_fields.metadata"),
        (json!({"priority": "urgent"}), "override_fields.priority"),
        (json!({"text": "my key is ***REDACTED***, and"}), "override_fields.text"),
        (json!({"metadata": {"in": [{"token": "***REDACTED***"}]}}), "override_fields.metadata"),
    ] {
        let answer = requeue(fields).await;
        assert_eq!((answer.status.as_u16(), &answer.json["error"]["param"]), (400, &json!(param)));
    }
    assert_eq!(requeue(json!({"txt": "a"})).await.status, 422);
    let many =
        json!({"stage": "chunking", "entry_ids": [first["entry_id"]], "override_fields": {"text": "a"}});
    assert_eq!(
        server.post(&format!("{DLQ}/requeue/bulk"), &many).await.status,
        400,
        "a text cannot replace those of several documents"
    );

    let changed = json!({"text": "a changed text", "metadata": {"by": "an operator"}});
    assert_eq!(requeue(changed).await.status, 200);
    let consumer = Consumer("w".into());
    let request = LeaseRequest {
        stage: Stage::Chunking,
        consumer: &consumer,
        max_tasks: 10,
        duration: Duration::from_secs(60),
        idle: true,
    };
    let leases = server.queue.lease(request).await.unwrap().leases;
    let [lease] = &leases[..] else { panic!("only that document is requeued: {leases:?}") };
    assert_eq!((lease.task.attempts, lease.task.bytes), (0, 14));
    let work = server.jobs.load(vec![lease.task.id]).await.unwrap().remove(0).unwrap().unwrap();
    assert_eq!(work.document.text, "a changed text");
    assert_eq!(Value::Object(work.document.metadata), json!({"by": "an operator"}));
    let left = server.get(&format!("{DLQ}?stage=chunking")).await;
    assert_eq!(
        (left.json["count"].as_u64(), &left.json["items"][0]["entry_id"]),
        (Some(1), &second["entry_id"])
    );

    let audit = std::fs::read_to_string(server.dir.path().join("audit.jsonl")).unwrap();
    let changes: Vec<Value> = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["event"] == "admin_change")
        .collect();
    let subject = format!("embeddings:chunking:dlq/{}", first["entry_id"].as_str().unwrap());
    assert_eq!(
        (changes.len(), &changes[0]["subject"], &changes[0]["changed"]),
        (1, &json!(subject), &json!("text, metadata"))
    );
    assert!(!audit.contains("changed text"), "the audit log has no text: {audit}");
}

/// If the worker crashed, the job store does not know of the failure. If the queue was unavailable during a requeue, the
/// document is already reset.
#[tokio::test]
async fn a_dead_letter_is_requeued_although_its_document_is_not_recorded_as_failed() {
    let server = Server::start().await;
    let id = server.submitted(1).await;
    let consumer = Consumer("w".into());
    let request = LeaseRequest {
        stage: Stage::Chunking,
        consumer: &consumer,
        max_tasks: 1,
        duration: Duration::from_secs(60),
        idle: true,
    };
    let lease = server.queue.lease(request).await.unwrap().leases.remove(0);
    let reason = Reason { code: "worker_died".into(), message: "the worker crashed".into() };
    server.queue.settle(&[(lease, Outcome::DeadLetter(reason))]).await.unwrap();
    let letters = server.get(&format!("{DLQ}?stage=chunking&job_id={id}")).await;
    let entry = &letters.json["items"][0]["entry_id"];
    let body = json!({"stage": "chunking", "entry_id": entry, "override_fields": {"text": "harmless"}});
    assert_eq!(server.post(&format!("{DLQ}/requeue"), &body).await.status, 200);
    let lease = server.queue.lease(request).await.unwrap().leases.remove(0);
    assert_eq!(
        server.jobs.load(vec![lease.task.id]).await.unwrap().remove(0).unwrap().unwrap().document.text,
        "harmless"
    );
}

#[tokio::test]
async fn stages_are_controlled_and_the_summary_shows_their_flags() {
    let server = Server::start().await;
    let control = async |stage: &str, action: &str| {
        server.post("/api/v1/embeddings/stage/control", &json!({"stage": stage, "action": action})).await
    };
    assert_eq!(
        control("embedding", "pause").await.json,
        json!({"ok": true, "stages": ["embedding"], "action": "pause"})
    );
    assert_eq!(control("embedding", "stop").await.status, 400);
    server.submitted(3).await;
    let summary = server.get("/api/v1/embeddings/orchestrator/summary").await.json;
    assert_eq!(summary["queues"]["embeddings:chunking"], 3, "{summary}");
    assert_eq!(summary["flags"]["embedding"], json!({"paused": true, "drain": false}));
    let events = server.get("/api/v1/embeddings/orchestrator/events").await;
    assert!(events.text.starts_with("event: summary\ndata: {"), "{}", events.text);
    assert_eq!(control("all", "resume").await.json["stages"].as_array().unwrap().len(), 3);
    let metrics = server.get("/metrics").await.text;
    for family in
        ["orchestrator_sse_connections", "orchestrator_summary_failures_total", "embedding_stage_flag"]
    {
        assert!(metrics.contains(family), "{family}");
    }
}
