//! Late, repeated and concurrent operations leave the right result.

use std::{sync::Arc, time::Duration};

use embeddery_pipeline::{
    Consumer, DocumentState, Edit, JobId, LeaseRequest, Outcome, Reason, ReconcileConfig, Stage, Status,
    Task, fail_dead_lettered, reenqueue_missing, run_period,
};

use embeddery_store::{DeleteTarget, StoreErrorKind};

use crate::support::{COLLECTION, Harness, TENANT, count};

const OLD: &str = "Old words are here. And more of them.";
const NEW: &str = "New words are here. And more of them.";

/// Enqueues the documents of one job.
async fn enqueue(harness: &Harness, job: JobId) {
    let unfinished = harness.jobs.unfinished(Duration::ZERO, None, 1000).await.unwrap();
    let tasks: Vec<_> =
        unfinished.iter().filter(|found| found.task.job == job).map(Task::for_document).collect();
    harness.queue.enqueue(&tasks).await.unwrap();
}

async fn texts(harness: &Harness) -> Vec<(String, Vec<String>)> {
    let text = |document: embeddery_store::StoredDocument| {
        (document.id, document.chunks.into_iter().map(|chunk| chunk.text).collect())
    };
    harness.stored().await.into_iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_job_that_ends_last_does_not_restore_the_old_version() {
    let mut harness = Harness::new();
    let older = harness.submit_only(TENANT, &[("a", OLD), ("b", "Only here.")]).await;
    let newer = harness.submit_only(TENANT, &[("a", NEW)]).await;
    enqueue(&harness, newer).await;
    harness.start_worker();
    assert_eq!(harness.ended(newer).await.status, Status::Completed);
    enqueue(&harness, older).await;
    let ended = harness.ended(older).await;
    assert_eq!(ended.status, Status::Completed, "no document failed");
    assert_eq!((count(&ended, DocumentState::Stored), count(&ended, DocumentState::Superseded)), (1, 1));
    let row = harness.rows(older).await.remove(0);
    let reason = row.reason.unwrap();
    assert_eq!((row.state, &*reason.code, row.attempts), (DocumentState::Superseded, "superseded", 0));
    assert!(reason.message.starts_with(&format!("superseded by job {newer}")), "{}", reason.message);
    let expected = |first: &str| vec![format!("{first} words are here."), "And more of them.".to_owned()];
    assert_eq!(
        texts(&harness).await,
        [("a".into(), expected("New")), ("b".into(), vec!["Only here.".into()])]
    );
    let vectors = harness.ledger.used(&embeddery_accounts::UserId::new(TENANT)).await.unwrap().stored_vectors;
    assert_eq!(vectors, 3, "no quota is used for a document that was not stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_deleted_during_a_job_stays_deleted() {
    let mut harness = Harness::new();
    let first = harness.submit_only(TENANT, &[("a", OLD), ("b", "Only here.")]).await;
    let delayed = harness.submit_only(TENANT, &[("a", NEW), ("b", "Also here.")]).await;
    enqueue(&harness, first).await;
    harness.start_worker();
    harness.ended(first).await;
    harness.store.delete(COLLECTION, DeleteTarget::Ids(&["a".into()])).await.unwrap();
    enqueue(&harness, delayed).await;
    let ended = harness.ended(delayed).await;
    assert_eq!((count(&ended, DocumentState::Stored), count(&ended, DocumentState::Superseded)), (1, 1));
    let reason = harness.rows(delayed).await.remove(0).reason.unwrap();
    assert!(reason.message.contains("deletion"), "{}", reason.message);
    assert_eq!(texts(&harness).await, [("b".into(), vec!["Also here.".into()])]);

    let delayed = harness.submit_only(TENANT, &[("a", NEW)]).await;
    harness.store.drop_collection(COLLECTION).await.unwrap();
    enqueue(&harness, delayed).await;
    assert_eq!(count(&harness.ended(delayed).await, DocumentState::Superseded), 1);
    let error = harness.store.get(COLLECTION).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotFound, "the collection is not created");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_jobs_that_are_stored_together_the_later_one_remains() {
    let mut harness = Harness::new();
    let jobs =
        [harness.submit_only(TENANT, &[("a", OLD)]).await, harness.submit_only(TENANT, &[("a", NEW)]).await];
    for job in [jobs[1], jobs[0]] {
        enqueue(&harness, job).await;
    }
    harness.start_worker();
    for job in jobs {
        assert_eq!(harness.ended(job).await.status, Status::Completed);
    }
    assert_eq!(texts(&harness).await[0].1[0], "New words are here.");
}

/// Turns the tasks that wait for chunking into dead letters, as when workers crashed.
async fn dead_letter(harness: &Harness, count: usize) {
    let consumer = Consumer("crashing".into());
    let length = Duration::from_secs(60);
    let request = LeaseRequest {
        stage: Stage::Chunking,
        consumer: &consumer,
        max_tasks: count,
        duration: length,
        idle: false,
    };
    let leases = harness.queue.lease(request).await.unwrap().leases;
    assert_eq!(leases.len(), count);
    let dead = Outcome::DeadLetter(Reason { code: "worker_died".into(), message: "it died".into() });
    let outcomes: Vec<_> = leases.into_iter().map(|lease| (lease, dead.clone())).collect();
    harness.queue.settle(&outcomes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_did_not_reach_the_queue_is_not_undone_by_the_dead_letter() {
    let mut harness = Harness::new();
    let job = harness.submit(&[("a", OLD)]).await;
    dead_letter(&harness, 1).await;
    fail_dead_lettered(&*harness.jobs, &*harness.queue).await.unwrap();
    assert_eq!(harness.job(job).await.status, Status::Failed);
    // The job store accepts the retry, and the process crashes before it is enqueued.
    assert_eq!(harness.jobs.retry(TENANT, job).await.unwrap().len(), 1);
    fail_dead_lettered(&*harness.jobs, &*harness.queue).await.unwrap();
    let row = harness.rows(job).await.remove(0);
    assert_eq!((row.state, row.attempts), (DocumentState::At(Stage::Chunking), 1));
    assert_eq!(
        reenqueue_missing(&*harness.jobs, &*harness.queue, Duration::ZERO).await.unwrap(),
        1,
        "it runs again"
    );
    harness.start_worker();
    assert_eq!(harness.ended(job).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_during_reconciliation_all_run_and_count_once() {
    const COUNT: usize = 60;
    let mut harness = Harness::new();
    let texts: Vec<_> = (0..COUNT).map(|i| (format!("d{i}"), format!("Number {i}."))).collect();
    let documents: Vec<_> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let job = harness.submit(&documents).await;
    dead_letter(&harness, COUNT).await;
    let (jobs, queue) = (Arc::clone(&harness.jobs), Arc::clone(&harness.queue));
    let reconciling = tokio::spawn(async move {
        loop {
            fail_dead_lettered(&*jobs, &*queue).await.unwrap();
        }
    });
    harness.until(job, |job| job.status == Status::Failed).await;
    for item in 0..COUNT as u32 {
        let task_id = crate::support::item(job, item);
        let retried = harness.jobs.retry_document(TENANT, task_id, 0, Edit::default()).await.unwrap();
        tokio::task::yield_now().await;
        harness.queue.enqueue(&retried.iter().map(Task::for_document).collect::<Vec<_>>()).await.unwrap();
    }
    reconciling.abort();
    // A task that the reconciler removed between the two steps is enqueued again.
    reenqueue_missing(&*harness.jobs, &*harness.queue, Duration::ZERO).await.unwrap();
    harness.start_worker();
    let ended = harness.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Completed, COUNT as u64));
    assert!(harness.rows(job).await.iter().all(|row| row.attempts == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_processes_reconciles_in_a_period() {
    let harness = Harness::new();
    harness.submit_only(TENANT, &[("a", OLD), ("b", NEW)]).await;
    let config = ReconcileConfig { interval: Duration::from_secs(3600), untouched: Duration::ZERO };
    let reconcile = || run_period(&*harness.jobs, &*harness.queue, config);
    let (one, other) = tokio::join!(reconcile(), reconcile());
    let mut results = [one.unwrap(), other.unwrap()];
    results.sort_unstable();
    assert_eq!(results, [None, Some(2)]);
    assert_eq!(reconcile().await.unwrap(), None, "the period is not over");
}
