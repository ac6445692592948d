//! Documents that arrive.

use std::time::Duration;

use embeddery_accounts::ledger::{Counter, Quotas, UsageFilter};
use embeddery_core::SpaceId;
use embeddery_pipeline::{DocumentState, Outcome, Stage, StageMode, Status, reenqueue_missing};
use embeddery_store::{Document, DocumentChunk, ModelBinding, NewCollection, TextSpan};

use crate::support::{DIM, PLACE, Plant, TENANT, count, item, vector};

const TEXT: &str = "One two three. Four five six. Seven eight nine.";

#[tokio::test(flavor = "multi_thread")]
async fn documents_become_searchable_vectors_on_the_tenants_account() {
    let mut plant = Plant::new();
    let texts: Vec<(String, String)> =
        (0..40).map(|i| (format!("d{i}"), format!("Doc {i} is. {TEXT}"))).collect();
    let documents: Vec<_> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let job = plant.submit(&documents).await;
    plant.work();
    let ended = plant.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Completed, 40));
    let stored = plant.stored().await;
    assert_eq!(stored.len(), 40);
    assert_eq!(stored[0].chunks.len(), 2, "six words a chunk");
    assert_eq!(stored[0].chunks[0].text, "Doc 0 is. One two three.");
    assert_eq!(plant.fake.texts().len(), 80, "each text was asked for once");
    assert!(plant.fake.state().calls.len() < 40, "documents share calls: {:?}", plant.fake.state().calls);
    let usage = plant.ledger.report(UsageFilter { limit: 10, ..UsageFilter::default() }).await.unwrap();
    assert_eq!((usage[0].user.as_str(), usage[0].texts), (TENANT, 80));
    assert_eq!(plant.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 80);
    plant.stop().await;
}

trait IntoUser {
    fn into_user(self) -> embeddery_accounts::UserId;
}

impl IntoUser for &str {
    fn into_user(self) -> embeddery_accounts::UserId {
        embeddery_accounts::UserId::new(self)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_embedded_again() {
    let mut plant = Plant::new();
    plant.work();
    let first = plant.submit(&[("a", "Old one. And two three four. Five six seven eight nine ten.")]).await;
    plant.ended(first).await;
    assert_eq!(plant.fake.texts().len(), 2);
    let second = plant.submit(&[("a", "Old one. And two three four. New six seven eight nine ten.")]).await;
    plant.ended(second).await;
    assert_eq!(plant.fake.texts().len(), 3, "one chunk is new");
    let stored = plant.stored().await;
    assert_eq!(stored[0].chunks.len(), 2, "the stale one is gone");
    let third = plant.submit(&[("a", "Old one. And two three four. New six seven eight nine ten.")]).await;
    assert_eq!(plant.ended(third).await.status, Status::Completed);
    assert_eq!(plant.fake.texts().len(), 3);
    assert_eq!(plant.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vector_that_went_meanwhile_is_made_after_all() {
    let mut plant = Plant::new();
    plant.work();
    let first = plant.submit(&[("a", "Old one.")]).await;
    plant.ended(first).await;
    plant.queue.set_stage_mode(Stage::Storage, StageMode::Pause).await.unwrap();
    let second = plant.submit(&[("a", "Old one.")]).await;
    plant.until(second, |job| count(job, DocumentState::At(Stage::Storage)) == 1).await;
    // The first job's once more, with another text.
    let text = "Other one.".to_owned();
    let vector = Some(vector(&text));
    let chunks = vec![DocumentChunk { text, span: TextSpan::default(), headings: Vec::new(), vector }];
    let metadata = serde_json::Map::new();
    let other = Document { id: "a".into(), metadata, chunks, submission: Some(first.0) };
    let space = plant.store.get(PLACE).await.unwrap().binding.space;
    assert_eq!(plant.store.upsert(PLACE, Some(space), vec![other]).await.unwrap().removed, 1);
    plant.queue.set_stage_mode(Stage::Storage, StageMode::Run).await.unwrap();
    assert_eq!(plant.ended(second).await.status, Status::Completed);
    assert_eq!(plant.stored().await[0].chunks[0].text, "Old one.");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_queue_lost_is_brought_back() {
    let mut plant = Plant::new();
    let job = plant.submit_only(TENANT, &[("a", TEXT), ("b", TEXT)]).await;
    assert_eq!(reenqueue_missing(&*plant.jobs, &*plant.queue, Duration::ZERO).await.unwrap(), 2);
    assert_eq!(
        reenqueue_missing(&*plant.jobs, &*plant.queue, Duration::ZERO).await.unwrap(),
        0,
        "it is there now"
    );
    plant.work();
    assert_eq!(plant.ended(job).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_runs_twice_leaves_the_same_result() {
    let mut plant = Plant::new();
    let job = plant.submit(&[("a", TEXT)]).await;
    // The result is written, the lease is not settled: as a worker that dies between the two.
    let tasks = [(item(job, 0), std::sync::Arc::default())];
    for stage in [Stage::Chunking, Stage::Chunking, Stage::Embedding, Stage::Embedding, Stage::Storage] {
        let steps = embeddery_pipeline::stages::run(&plant.tools, stage, &tasks).await;
        assert!(
            matches!(steps[0], embeddery_pipeline::stages::StageResult::Next { .. }),
            "{stage:?}: {steps:?}"
        );
    }
    assert_eq!(plant.ended(job).await.status, Status::Completed);
    plant.work();
    // The queue still holds it at the first stage: it is passed through and forgotten.
    while plant.queue.contains(&[item(job, 0)]).await.unwrap()[0] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(plant.fake.texts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_and_nothing_of_it_is_stored() {
    let mut plant = Plant::new();
    plant.fake.open.send_replace(false);
    plant.work();
    let job = plant.submit(&[("a", TEXT), ("b", TEXT)]).await;
    plant.fake.begun.subscribe().wait_for(|begun| *begun > 0).await.unwrap();
    assert!(plant.jobs.cancel(TENANT, job).await.unwrap());
    plant.queue.cancel(job).await.unwrap();
    plant.fake.open.send_replace(true);
    let ended = plant.ended(job).await;
    assert_eq!(ended.status, Status::Cancelled);
    let next = plant.submit(&[("c", TEXT)]).await;
    plant.ended(next).await;
    let ids: Vec<_> = plant.stored().await.into_iter().map(|document| document.id).collect();
    assert_eq!(ids, ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_finishes_what_is_under_way_or_hands_it_back() {
    let mut plant = Plant::new();
    plant.config.grace = Duration::from_millis(100);
    plant.fake.open.send_replace(false);
    plant.work();
    let job = plant.submit(&[("a", TEXT)]).await;
    plant.fake.begun.subscribe().wait_for(|begun| *begun > 0).await.unwrap();
    plant.stop().await;
    let depth = plant.queue.depth().await.unwrap();
    assert_eq!(depth[&Stage::Embedding].leased, 0, "handed back, not left to run out: {depth:?}");
    assert!(plant.queue.workers().await.unwrap().is_empty(), "it is known no more");
    plant.fake.open.send_replace(true);
    plant.work();
    assert_eq!(plant.ended(job).await.status, Status::Completed);
    assert_eq!(plant.rows(job).await[0].attempts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_another_space_are_refused_with_both_named() {
    let mut plant = Plant::new();
    let binding = ModelBinding {
        provider: "openai".into(),
        model: "fake".into(),
        space: SpaceId::new("space-of-yesterday"),
        dim: DIM,
        custom_dimensions: false,
    };
    let new = NewCollection { binding, metadata: serde_json::Map::new(), submission: None };
    plant.store.create(PLACE, new).await.unwrap();
    plant.work();
    let job = plant.submit(&[("a", TEXT)]).await;
    assert_eq!(plant.ended(job).await.status, Status::Failed);
    let reason = plant.rows(job).await.remove(0).reason.unwrap();
    assert_eq!(&*reason.code, "space_mismatch");
    assert!(
        reason.message.contains("space-of-yesterday") && reason.message.contains("fake-space"),
        "{reason:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_vectors_holds_for_jobs() {
    let mut plant = Plant::with(Quotas { stored_vectors: Some(3), ..Quotas::default() });
    plant.work();
    let job = plant.submit(&[("a", TEXT), ("b", "Other words here. And more of them. Last ones.")]).await;
    let ended = plant.ended(job).await;
    assert_eq!(ended.status, Status::Partial);
    let failed = plant.rows(job).await.into_iter().find(|row| row.state == DocumentState::Failed).unwrap();
    assert_eq!(&*failed.reason.unwrap().code, "quota_exceeded");
    assert_eq!(plant.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 2);
}

/// Who took room and was killed has left a count that is too high.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_by_a_count_that_is_wrong() {
    let mut plant = Plant::with(Quotas { stored_vectors: Some(3), ..Quotas::default() });
    plant.ledger.acquire(&TENANT.into_user(), Counter::StoredVectors, 3).await.unwrap();
    plant.work();
    let job = plant.submit(&[("a", TEXT)]).await;
    assert_eq!(plant.ended(job).await.status, Status::Completed);
    assert_eq!(plant.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 2);
}

/// However many of a tenant's writes are refused, the store is not asked for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_at_their_quota_is_not_counted_for_each_refusal() {
    let mut plant = Plant::with(Quotas { stored_vectors: Some(2), ..Quotas::default() });
    plant.work();
    assert_eq!(plant.ended(plant.submit(&[("a", TEXT)]).await).await.status, Status::Completed);
    let refused = async |id: &str| {
        let job = plant.submit(&[(id, "Another text.")]).await;
        assert_eq!(plant.ended(job).await.status, Status::Failed);
        assert_eq!(&*plant.rows(job).await.remove(0).reason.unwrap().code, "quota_exceeded");
    };
    refused("b").await;
    // A count that only asking the store would set right.
    plant.ledger.set(&TENANT.into_user(), Counter::StoredVectors, 7).await;
    refused("c").await;
    assert_eq!(plant.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_without_tokens_waits_for_the_next() {
    let mut plant = Plant::with(Quotas { tokens_per_day: Some(5), ..Quotas::default() });
    plant.work();
    let job = plant.submit(&[("a", TEXT)]).await;
    while plant.queue.depth().await.unwrap()[&Stage::Embedding].delayed == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let row = plant.rows(job).await.remove(0);
    assert_eq!((row.state, row.attempts), (DocumentState::At(Stage::Embedding), 0));
    assert!(plant.fake.texts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_tenant_does_not_stand_behind_a_large_one() {
    let mut plant = Plant::new();
    plant.config.concurrency = 1;
    let texts: Vec<(String, String)> = (0..600).map(|i| (format!("d{i}"), format!("Number {i}."))).collect();
    let documents: Vec<_> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let large = plant.submit(&documents).await;
    let small = plant.submit_only("bob", &[("a", TEXT), ("b", TEXT)]).await;
    plant.enqueue().await;
    plant.work();
    loop {
        let job = plant.jobs.job("bob", small).await.unwrap().unwrap();
        if job.ended_at_ms.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(plant.job(large).await.ended_at_ms.is_none(), "the small one is done first");
    plant.ended(large).await;
}

/// What a queue does with a task of a lease that is given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_ahead_of_the_truth_is_dropped_and_begun_again() {
    let mut plant = Plant::new();
    let job = plant.submit(&[("a", TEXT)]).await;
    let consumer = embeddery_pipeline::Consumer("test".into());
    let request = embeddery_pipeline::LeaseRequest {
        stage: Stage::Chunking,
        consumer: &consumer,
        max_tasks: 1,
        duration: Duration::from_secs(60),
        idle: false,
    };
    let lease = plant.queue.lease(request).await.unwrap().leases.remove(0);
    plant.queue.settle(&[(lease, Outcome::Next { bytes: 1 })]).await.unwrap();
    plant.work();
    while plant.queue.contains(&[item(job, 0)]).await.unwrap()[0] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(reenqueue_missing(&*plant.jobs, &*plant.queue, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(plant.ended(job).await.status, Status::Completed);
}
