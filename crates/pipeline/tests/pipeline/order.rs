//! What comes late, twice or at one moment does no harm.

use std::{sync::Arc, time::Duration};

use embeddery_pipeline::{
    Consumer, DocumentState, Edit, JobId, LeaseRequest, Outcome, Reason, ReconcileConfig, Stage, Status,
    Task, fail_dead_lettered, reenqueue_missing, run_period,
};

use embeddery_store::{DeleteTarget, StoreErrorKind};

use crate::support::{PLACE, Plant, TENANT, count};

const OLD: &str = "Old words are here. And more of them.";
const NEW: &str = "New words are here. And more of them.";

/// Enqueues the documents of one job.
async fn enqueue(plant: &Plant, job: JobId) {
    let unfinished = plant.jobs.unfinished(Duration::ZERO, None, 1000).await.unwrap();
    let tasks: Vec<_> =
        unfinished.iter().filter(|found| found.task.job == job).map(Task::for_document).collect();
    plant.queue.enqueue(&tasks).await.unwrap();
}

async fn texts(plant: &Plant) -> Vec<(String, Vec<String>)> {
    let text = |document: embeddery_store::StoredDocument| {
        (document.id, document.chunks.into_iter().map(|chunk| chunk.text).collect())
    };
    plant.stored().await.into_iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_job_that_comes_last_does_not_bring_the_old_version_back() {
    let mut plant = Plant::new();
    let older = plant.submit_only(TENANT, &[("a", OLD), ("b", "Only here.")]).await;
    let newer = plant.submit_only(TENANT, &[("a", NEW)]).await;
    enqueue(&plant, newer).await;
    plant.work();
    assert_eq!(plant.ended(newer).await.status, Status::Completed);
    enqueue(&plant, older).await;
    let ended = plant.ended(older).await;
    assert_eq!(ended.status, Status::Completed, "nothing has failed");
    assert_eq!((count(&ended, DocumentState::Stored), count(&ended, DocumentState::Superseded)), (1, 1));
    let row = plant.rows(older).await.remove(0);
    let reason = row.reason.unwrap();
    assert_eq!((row.state, &*reason.code, row.attempts), (DocumentState::Superseded, "superseded", 0));
    assert!(reason.message.starts_with(&format!("superseded by job {newer}")), "{}", reason.message);
    let due = |first: &str| vec![format!("{first} words are here."), "And more of them.".to_owned()];
    assert_eq!(texts(&plant).await, [("a".into(), due("New")), ("b".into(), vec!["Only here.".into()])]);
    let vectors = plant.ledger.used(&embeddery_accounts::UserId::new(TENANT)).await.unwrap().stored_vectors;
    assert_eq!(vectors, 3, "no room is taken for what was not stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_in_mid_job_stays_deleted() {
    let mut plant = Plant::new();
    let first = plant.submit_only(TENANT, &[("a", OLD), ("b", "Only here.")]).await;
    let delayed = plant.submit_only(TENANT, &[("a", NEW), ("b", "Also here.")]).await;
    enqueue(&plant, first).await;
    plant.work();
    plant.ended(first).await;
    plant.store.delete(PLACE, DeleteTarget::Ids(&["a".into()])).await.unwrap();
    enqueue(&plant, delayed).await;
    let ended = plant.ended(delayed).await;
    assert_eq!((count(&ended, DocumentState::Stored), count(&ended, DocumentState::Superseded)), (1, 1));
    let reason = plant.rows(delayed).await.remove(0).reason.unwrap();
    assert!(reason.message.contains("deletion"), "{}", reason.message);
    assert_eq!(texts(&plant).await, [("b".into(), vec!["Also here.".into()])]);

    let delayed = plant.submit_only(TENANT, &[("a", NEW)]).await;
    plant.store.drop_collection(PLACE).await.unwrap();
    enqueue(&plant, delayed).await;
    assert_eq!(count(&plant.ended(delayed).await, DocumentState::Superseded), 1);
    let gone = plant.store.get(PLACE).await.unwrap_err();
    assert_eq!(gone.kind, StoreErrorKind::NotFound, "not even empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_jobs_that_are_stored_together_the_later_one_stays() {
    let mut plant = Plant::new();
    let jobs =
        [plant.submit_only(TENANT, &[("a", OLD)]).await, plant.submit_only(TENANT, &[("a", NEW)]).await];
    for job in [jobs[1], jobs[0]] {
        enqueue(&plant, job).await;
    }
    plant.work();
    for job in jobs {
        assert_eq!(plant.ended(job).await.status, Status::Completed);
    }
    assert_eq!(texts(&plant).await[0].1[0], "New words are here.");
}

/// Makes dead letters of everything that waits to be cut, as when workers died over it.
async fn die(plant: &Plant, most: usize) {
    let consumer = Consumer("dying".into());
    let length = Duration::from_secs(60);
    let request = LeaseRequest {
        stage: Stage::Chunking,
        consumer: &consumer,
        max_tasks: most,
        duration: length,
        idle: false,
    };
    let leases = plant.queue.lease(request).await.unwrap().leases;
    assert_eq!(leases.len(), most);
    let dead = Outcome::DeadLetter(Reason { code: "worker_died".into(), message: "it died".into() });
    let outcomes: Vec<_> = leases.into_iter().map(|lease| (lease, dead.clone())).collect();
    plant.queue.settle(&outcomes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_did_not_reach_the_queue_is_not_undone_by_the_letter() {
    let mut plant = Plant::new();
    let job = plant.submit(&[("a", OLD)]).await;
    die(&plant, 1).await;
    fail_dead_lettered(&*plant.jobs, &*plant.queue).await.unwrap();
    assert_eq!(plant.job(job).await.status, Status::Failed);
    // The store has accepted it, the process dies before the queue hears of it.
    assert_eq!(plant.jobs.retry(TENANT, job).await.unwrap().len(), 1);
    fail_dead_lettered(&*plant.jobs, &*plant.queue).await.unwrap();
    let row = plant.rows(job).await.remove(0);
    assert_eq!((row.state, row.attempts), (DocumentState::At(Stage::Chunking), 1));
    assert_eq!(
        reenqueue_missing(&*plant.jobs, &*plant.queue, Duration::ZERO).await.unwrap(),
        1,
        "it runs again"
    );
    plant.work();
    assert_eq!(plant.ended(job).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_while_dead_letters_are_noted_all_run_and_count_once() {
    const COUNT: usize = 60;
    let mut plant = Plant::new();
    let texts: Vec<_> = (0..COUNT).map(|i| (format!("d{i}"), format!("Number {i}."))).collect();
    let documents: Vec<_> = texts.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let job = plant.submit(&documents).await;
    die(&plant, COUNT).await;
    let (jobs, queue) = (Arc::clone(&plant.jobs), Arc::clone(&plant.queue));
    let noting = tokio::spawn(async move {
        loop {
            fail_dead_lettered(&*jobs, &*queue).await.unwrap();
        }
    });
    plant.until(job, |job| job.status == Status::Failed).await;
    for item in 0..COUNT as u32 {
        let it = crate::support::item(job, item);
        let again = plant.jobs.retry_document(TENANT, it, 0, Edit::default()).await.unwrap();
        tokio::task::yield_now().await;
        plant.queue.enqueue(&again.iter().map(Task::for_document).collect::<Vec<_>>()).await.unwrap();
    }
    noting.abort();
    // What a note took out of the queue between the two, the next round brings back.
    reenqueue_missing(&*plant.jobs, &*plant.queue, Duration::ZERO).await.unwrap();
    plant.work();
    let ended = plant.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Completed, COUNT as u64));
    assert!(plant.rows(job).await.iter().all(|row| row.attempts == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_one_compares_in_a_period() {
    let plant = Plant::new();
    plant.submit_only(TENANT, &[("a", OLD), ("b", NEW)]).await;
    let config = ReconcileConfig { every: Duration::from_secs(3600), untouched: Duration::ZERO };
    let turn = || run_period(&*plant.jobs, &*plant.queue, config);
    let (one, other) = tokio::join!(turn(), turn());
    let mut found = [one.unwrap(), other.unwrap()];
    found.sort_unstable();
    assert_eq!(found, [None, Some(2)]);
    assert_eq!(turn().await.unwrap(), None, "the period is not over");
}
