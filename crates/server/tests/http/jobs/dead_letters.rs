//! Dead letters, stages and the summary, in the words of the replaced service.

use std::time::Duration;

use embeddery_pipeline::{Consumer, LeaseRequest, Outcome, Reason, Stage};
use serde_json::{Value, json};

use crate::support::Server;

const DLQ: &str = "/api/v1/embeddings/dlq";

impl Server {
    /// Two documents of a job that died in their first stage; their letters, newest first.
    async fn dead(&self) -> Vec<Value> {
        let id = self.submitted(2).await;
        let consumer = Consumer("w".into());
        let request = LeaseRequest {
            stage: Stage::Chunking,
            consumer: &consumer,
            most: 10,
            length: Duration::from_secs(60),
            idle: true,
        };
        for lease in self.queue.lease(request).await.unwrap().leases {
            self.fail(lease.task.id.job, lease.task.id.item, Stage::Chunking).await;
            let reason =
                Reason { code: "broken".into(), message: "Bearer sk-secret-secret was refused".into() };
            self.queue.settle(&[(lease, Outcome::Dead(reason))]).await.unwrap();
        }
        let answer = self.get(&format!("{DLQ}?stage=chunking&job_id={id}")).await;
        assert_eq!(answer.json["count"], 2, "{}", answer.text);
        assert!(!answer.text.contains("sk-secret"), "{}", answer.text);
        answer.json["items"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn letters_are_judged_run_again_and_removed() {
    let server = Server::start().await;
    let letters = server.dead().await;
    let (one, two) = (&letters[0]["entry_id"], &letters[1]["entry_id"]);
    let state = |state: &str, note: Value| json!({"stage": "chunking", "entry_id": one, "state": state, "operator_note": note});
    let judge = async |body: Value| server.post(&format!("{DLQ}/state"), &body).await;
    assert_eq!(judge(state("approved_for_requeue", Value::Null)).await.status, 400, "a note is needed");
    assert_eq!(judge(state("burnt", Value::Null)).await.status, 400);
    assert_eq!(judge(state("quarantined", json!("look at it"))).await.json["ok"], true);
    let requeue = json!({"stage": "chunking", "entry_id": one, "override_fields": {"priority": "high"}});
    let blocked = server.post(&format!("{DLQ}/requeue"), &requeue).await;
    assert_eq!(blocked.status, 400);
    assert!(blocked.message().contains("in state 'quarantined', not approved for requeue"));
    assert_eq!(judge(state("approved_for_requeue", json!("mended"))).await.status, 200);
    let done = server.post(&format!("{DLQ}/requeue"), &requeue).await;
    assert_eq!(done.json["message"], "requeued", "{}", done.text);
    assert_eq!(server.post(&format!("{DLQ}/requeue"), &requeue).await.status, 404);
    assert_eq!(server.queued("1").await, 1);

    let bulk = json!({"stage": "chunking", "entry_ids": [two, "999-9"]});
    let bulk = server.post(&format!("{DLQ}/requeue/bulk"), &bulk).await;
    let statuses: Vec<&Value> =
        bulk.json["results"].as_array().unwrap().iter().map(|r| &r["status"]).collect();
    assert_eq!(statuses, ["success", "not_found"], "{}", bulk.text);

    server.dead().await;
    assert_eq!(server.get(&format!("{DLQ}/stats")).await.json["total_dlq"], 4);
    let purge = async |body: Value| server.post(&format!("{DLQ}/purge"), &body).await;
    assert_eq!(purge(json!({"stage": "chunking"})).await.status, 422, "nothing is removed by mistake");
    assert_eq!(purge(json!({"stage": "chunking", "all": true})).await.json["purged"], 4);
    assert_eq!(server.get(&format!("{DLQ}?stage=chunking")).await.json["count"], 0);
    assert_eq!(server.get(&format!("{DLQ}?stage=cooking")).await.status, 400);
}

#[tokio::test]
async fn stages_and_the_summary() {
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
