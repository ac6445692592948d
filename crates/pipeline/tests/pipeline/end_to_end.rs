//! Documents that pass all stages.

use std::{sync::Arc, time::Duration};

use embeddery_accounts::ledger::{Counter, Quotas, UsageFilter};
use embeddery_core::SpaceId;
use embeddery_pipeline::{
    Chunking, DocumentState, JobSpec, Outcome, Stage, StageMode, Status, reenqueue_missing,
};
use embeddery_store::{Document, DocumentChunk, ModelBinding, NewCollection, TextSpan};

use crate::support::{COLLECTION, DIM, Harness, TENANT, count, item, vector};

const TEXT: &str = "One two three. Four five six. Seven eight nine.";

#[tokio::test(flavor = "multi_thread")]
async fn documents_become_searchable_vectors_on_the_tenants_account() {
    let mut harness = Harness::new();
    let texts: Vec<(String, String)> =
        (0..40).map(|i| (format!("d{i}"), format!("Doc {i} is. {TEXT}"))).collect();
    let documents: Vec<_> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let job = harness.submit(&documents).await;
    harness.start_worker();
    let ended = harness.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Completed, 40));
    let stored = harness.stored().await;
    assert_eq!(stored.len(), 40);
    assert_eq!(stored[0].chunks.len(), 2, "six words a chunk");
    assert_eq!(stored[0].chunks[0].text, "Doc 0 is. One two three.");
    assert_eq!(harness.fake.texts().len(), 80, "each text was embedded once");
    assert!(harness.fake.state().calls.len() < 40, "documents share calls: {:?}", harness.fake.state().calls);
    let usage = harness.ledger.report(UsageFilter { limit: 10, ..UsageFilter::default() }).await.unwrap();
    assert_eq!((usage[0].user.as_str(), usage[0].texts), (TENANT, 80));
    assert_eq!(harness.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 80);
    harness.stop().await;
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
async fn unchanged_chunks_are_not_embedded_again() {
    let mut harness = Harness::new();
    harness.start_worker();
    let first = harness.submit(&[("a", "Old one. And two three four. Five six seven eight nine ten.")]).await;
    harness.ended(first).await;
    assert_eq!(harness.fake.texts().len(), 2);
    let second = harness.submit(&[("a", "Old one. And two three four. New six seven eight nine ten.")]).await;
    harness.ended(second).await;
    assert_eq!(harness.fake.texts().len(), 3, "one chunk is new");
    let stored = harness.stored().await;
    assert_eq!(stored[0].chunks.len(), 2, "the old chunk is removed");
    let third = harness.submit(&[("a", "Old one. And two three four. New six seven eight nine ten.")]).await;
    assert_eq!(harness.ended(third).await.status, Status::Completed);
    assert_eq!(harness.fake.texts().len(), 3);
    assert_eq!(harness.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vector_that_is_deleted_before_the_storage_stage_is_embedded_again() {
    let mut harness = Harness::new();
    harness.start_worker();
    let first = harness.submit(&[("a", "Old one.")]).await;
    harness.ended(first).await;
    harness.queue.set_stage_mode(Stage::Storage, StageMode::Pause).await.unwrap();
    let second = harness.submit(&[("a", "Old one.")]).await;
    harness.until(second, |job| count(job, DocumentState::At(Stage::Storage)) == 1).await;
    // The document of the first job again, with another text.
    let text = "Other one.".to_owned();
    let vector = Some(vector(&text));
    let chunks = vec![DocumentChunk { text, span: TextSpan::default(), headings: Vec::new(), vector }];
    let metadata = serde_json::Map::new();
    let other = Document { id: "a".into(), metadata, chunks, submission: Some(first.0) };
    let space = harness.store.get(COLLECTION).await.unwrap().binding.space;
    assert_eq!(
        harness.store.upsert(COLLECTION, Some(space), vec![other.check().unwrap()]).await.unwrap().removed,
        1
    );
    harness.queue.set_stage_mode(Stage::Storage, StageMode::Run).await.unwrap();
    assert_eq!(harness.ended(second).await.status, Status::Completed);
    assert_eq!(harness.stored().await[0].chunks[0].text, "Old one.");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_the_queue_lost_are_enqueued_again() {
    let mut harness = Harness::new();
    let job = harness.submit_only(TENANT, &[("a", TEXT), ("b", TEXT)]).await;
    assert_eq!(reenqueue_missing(&*harness.jobs, &*harness.queue, Duration::ZERO).await.unwrap(), 2);
    assert_eq!(
        reenqueue_missing(&*harness.jobs, &*harness.queue, Duration::ZERO).await.unwrap(),
        0,
        "it is enqueued now"
    );
    harness.start_worker();
    assert_eq!(harness.ended(job).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_runs_twice_leaves_the_same_result() {
    let mut harness = Harness::new();
    let job = harness.submit(&[("a", TEXT)]).await;
    // Each stage runs twice: the result is written and the lease is not settled, as when a worker crashes.
    let tasks = [(item(job, 0), Arc::default())];
    for stage in [Stage::Chunking, Stage::Chunking, Stage::Embedding, Stage::Embedding, Stage::Storage] {
        let results = embeddery_pipeline::stages::run(&harness.context, stage, &tasks).await;
        assert!(
            matches!(results[0], embeddery_pipeline::stages::StageResult::Next { .. }),
            "{stage:?}: {results:?}"
        );
    }
    assert_eq!(harness.ended(job).await.status, Status::Completed);
    harness.start_worker();
    // The queue still holds the task at the first stage. It passes the stages and ends.
    while harness.queue.contains(&[item(job, 0)]).await.unwrap()[0] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(harness.fake.texts().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_and_none_of_its_documents_is_stored() {
    let mut harness = Harness::new();
    harness.fake.open.send_replace(false);
    harness.start_worker();
    let job = harness.submit(&[("a", TEXT), ("b", TEXT)]).await;
    harness.fake.begun.subscribe().wait_for(|begun| *begun > 0).await.unwrap();
    assert!(harness.jobs.cancel(TENANT, job).await.unwrap());
    harness.queue.cancel(job).await.unwrap();
    harness.fake.open.send_replace(true);
    let ended = harness.ended(job).await;
    assert_eq!(ended.status, Status::Cancelled);
    let next = harness.submit(&[("c", TEXT)]).await;
    harness.ended(next).await;
    let ids: Vec<_> = harness.stored().await.into_iter().map(|document| document.id).collect();
    assert_eq!(ids, ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_finishes_its_documents_or_releases_them() {
    let mut harness = Harness::new();
    harness.config.grace = Duration::from_millis(100);
    harness.fake.open.send_replace(false);
    harness.start_worker();
    let job = harness.submit(&[("a", TEXT)]).await;
    harness.fake.begun.subscribe().wait_for(|begun| *begun > 0).await.unwrap();
    harness.stop().await;
    let depth = harness.queue.depth().await.unwrap();
    assert_eq!(depth[&Stage::Embedding].leased, 0, "released, not left to expire: {depth:?}");
    assert!(harness.queue.workers().await.unwrap().is_empty(), "the worker is deregistered");
    harness.fake.open.send_replace(true);
    harness.start_worker();
    assert_eq!(harness.ended(job).await.status, Status::Completed);
    assert_eq!(harness.rows(job).await[0].attempts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_of_another_space_are_refused_with_both_named() {
    let mut harness = Harness::new();
    let binding = ModelBinding {
        provider: "openai".into(),
        model: "fake".into(),
        space: SpaceId::new("space-of-yesterday"),
        dim: DIM,
        custom_dimensions: false,
    };
    let new = NewCollection { binding, metadata: serde_json::Map::new(), submission: None };
    harness.store.create(COLLECTION, new).await.unwrap();
    harness.start_worker();
    let job = harness.submit(&[("a", TEXT)]).await;
    assert_eq!(harness.ended(job).await.status, Status::Failed);
    let reason = harness.rows(job).await.remove(0).reason.unwrap();
    assert_eq!(&*reason.code, "space_mismatch");
    assert!(
        reason.message.contains("space-of-yesterday") && reason.message.contains("fake-space"),
        "{reason:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_vectors_holds_for_jobs() {
    let mut harness = Harness::with(Quotas { stored_vectors: Some(3), ..Quotas::default() });
    harness.start_worker();
    let job = harness.submit(&[("a", TEXT), ("b", "Other words here. And more of them. Last ones.")]).await;
    let ended = harness.ended(job).await;
    assert_eq!(ended.status, Status::Partial);
    let failed = harness.rows(job).await.into_iter().find(|row| row.state == DocumentState::Failed).unwrap();
    assert_eq!(&*failed.reason.unwrap().code, "quota_exceeded");
    assert_eq!(harness.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 2);
}

/// A process that crashes between its reservation and its write leaves a counter that is too high.
#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_is_too_high_refuses_no_document() {
    let mut harness = Harness::with(Quotas { stored_vectors: Some(3), ..Quotas::default() });
    harness.ledger.acquire(&TENANT.into_user(), Counter::StoredVectors, 3).await.unwrap();
    harness.start_worker();
    let job = harness.submit(&[("a", TEXT)]).await;
    assert_eq!(harness.ended(job).await.status, Status::Completed);
    assert_eq!(harness.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 2);
}

/// The store is not queried for each refused write of a tenant.
#[tokio::test(flavor = "multi_thread")]
async fn the_vectors_of_a_tenant_at_the_quota_are_not_counted_for_each_refusal() {
    let mut harness = Harness::with(Quotas { stored_vectors: Some(2), ..Quotas::default() });
    harness.start_worker();
    assert_eq!(harness.ended(harness.submit(&[("a", TEXT)]).await).await.status, Status::Completed);
    let refused = async |id: &str| {
        let job = harness.submit(&[(id, "Another text.")]).await;
        assert_eq!(harness.ended(job).await.status, Status::Failed);
        assert_eq!(&*harness.rows(job).await.remove(0).reason.unwrap().code, "quota_exceeded");
    };
    refused("b").await;
    // A wrong counter, which a query of the store would correct.
    harness.ledger.set(&TENANT.into_user(), Counter::StoredVectors, 7).await;
    refused("c").await;
    assert_eq!(harness.ledger.used(&TENANT.into_user()).await.unwrap().stored_vectors, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_wait_for_the_next_day_when_the_tokens_of_the_day_are_used() {
    let mut harness = Harness::with(Quotas { tokens_per_day: Some(5), ..Quotas::default() });
    harness.start_worker();
    let job = harness.submit(&[("a", TEXT)]).await;
    while harness.queue.depth().await.unwrap()[&Stage::Embedding].delayed == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let row = harness.rows(job).await.remove(0);
    assert_eq!((row.state, row.attempts), (DocumentState::At(Stage::Embedding), 0));
    assert!(harness.fake.texts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_tenant_does_not_wait_for_a_large_one() {
    let mut harness = Harness::new();
    harness.config.concurrency = 1;
    let texts: Vec<(String, String)> = (0..600).map(|i| (format!("d{i}"), format!("Number {i}."))).collect();
    let documents: Vec<_> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let large = harness.submit(&documents).await;
    let small = harness.submit_only("bob", &[("a", TEXT), ("b", TEXT)]).await;
    harness.enqueue().await;
    harness.start_worker();
    loop {
        let job = harness.jobs.job("bob", small).await.unwrap().unwrap();
        if job.ended_at_ms.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(harness.job(large).await.ended_at_ms.is_none(), "the small job ends first");
    harness.ended(large).await;
}

/// The queue is ahead of the job store when a lease is settled whose result was not written.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_ahead_of_the_job_store_is_dropped_and_enqueued_again() {
    let mut harness = Harness::new();
    let job = harness.submit(&[("a", TEXT)]).await;
    let consumer = embeddery_pipeline::Consumer("test".into());
    let request = embeddery_pipeline::LeaseRequest {
        stage: Stage::Chunking,
        consumer: &consumer,
        max_tasks: 1,
        duration: Duration::from_secs(60),
        idle: false,
    };
    let lease = harness.queue.lease(request).await.unwrap().leases.remove(0);
    harness.queue.settle(&[(lease, Outcome::Next { bytes: 1 })]).await.unwrap();
    harness.start_worker();
    while harness.queue.contains(&[item(job, 0)]).await.unwrap()[0] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(reenqueue_missing(&*harness.jobs, &*harness.queue, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(harness.ended(job).await.status, Status::Completed);
}

/// The documents of both jobs are split as one batch.
#[tokio::test(flavor = "multi_thread")]
async fn two_models_are_read_one_after_the_other_when_the_memory_has_space_for_one() {
    let mut harness = Harness::new();
    harness.fake.state().memory = Some(Arc::new(tokio::sync::Semaphore::new(1)));
    let chunking = Chunking { method: "sentences".into(), size: 6, overlap: 0, unit: "words".into() };
    let mut jobs = Vec::new();
    for (model, collection) in [("fake-a", "a"), ("fake-b", "b"), ("fake-a", "a")] {
        let (collection, model) = (collection.into(), model.into());
        let plan = JobSpec {
            collection,
            provider: "openai".into(),
            model,
            dimensions: None,
            chunking: chunking.clone(),
        };
        let id = format!("document {}", jobs.len());
        jobs.push(harness.submit_planned(TENANT, &[(&id, "One sentence.")], plan).await);
    }
    harness.enqueue().await;
    harness.start_worker();
    for job in jobs {
        assert_eq!(harness.ended(job).await.status, Status::Completed);
        assert_eq!(harness.rows(job).await[0].attempts, 0);
    }
}
