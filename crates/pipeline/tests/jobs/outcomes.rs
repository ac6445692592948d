//! How jobs end, and how they are cancelled, retried, skipped and removed.

use std::time::Duration;

use embeddery_pipeline::{DocumentState, Edit, Page, Priority, Stage, Status, WriteResult};
use serde_json::json;

use crate::support::{
    CHUNKING, EMBEDDING, STORAGE, SingleDocument as _, Tenant, failed, failed_of, reason, spans, stored,
    task, vectors,
};

pub async fn all_stored_is_completed(tenant: &Tenant) {
    let job = tenant.submitted(2).await;
    tenant.store_document(task(job, 0)).await;
    tenant.store_document(task(job, 1)).await;
    let found = tenant.job(job).await;
    assert_eq!((found.status, found.chunks, found.stored_chunks), (Status::Completed, 4, 4));
    assert!(found.ended_at_ms >= found.started_at_ms && found.ended_at_ms.is_some());
}

pub async fn some_failed_is_partial(tenant: &Tenant) {
    let job = tenant.submitted(2).await;
    tenant.store_document(task(job, 0)).await;
    tenant.end(task(job, 1), failed(Stage::Chunking)).await;
    assert_eq!(tenant.job(job).await.status, Status::Partial);
    let page = Page { state: Some(DocumentState::Failed), after: None, limit: 10 };
    let rows = tenant.store.documents(job, page).await.unwrap();
    assert_eq!((rows.len(), rows[0].item, rows[0].id.as_str(), rows[0].attempts), (1, 1, "d1", 1));
    assert_eq!(rows[0].reason, Some(reason("upstream_refused")));
}

pub async fn all_failed_is_failed(tenant: &Tenant) {
    let job = tenant.submitted(2).await;
    for item in 0..2 {
        tenant.end(task(job, item), failed(Stage::Chunking)).await;
    }
    assert_eq!(tenant.job(job).await.status, Status::Failed);
}

pub async fn a_cancelled_job_stays_cancelled(tenant: &Tenant) {
    let job = tenant.submitted(1200).await;
    let store = &tenant.store;
    tenant.store_document(task(job, 0)).await;
    tenant.embed(task(job, 1)).await;
    assert!(store.cancel(&tenant.name, job).await.unwrap());
    let found = tenant.job(job).await;
    assert_eq!((found.status, found.documents[&DocumentState::Stored]), (Status::Cancelled, 1));
    assert_eq!(found.documents[&DocumentState::Cancelled], 1199);
    assert!(found.ended_at_ms.is_some());
    assert!(!store.cancel(&tenant.name, job).await.unwrap());
    let cancelled = WriteResult::Already(DocumentState::Cancelled);
    assert_eq!(store.put_vectors_one(task(job, 1), vectors(1)).await.unwrap(), cancelled);
    assert_eq!(tenant.end(task(job, 1), stored()).await, cancelled);
    let work = store.load_one(task(job, 1)).await.unwrap().unwrap();
    assert_eq!((work.document.text.as_str(), work.vectors), ("", None));
    assert!(tenant.unfinished(Duration::ZERO).await.is_empty());
    assert!(store.retry(&tenant.name, job).await.unwrap().is_empty());
}

pub async fn failed_documents_are_retried_at_their_stage(tenant: &Tenant) {
    let job = tenant.submitted(4).await;
    let store = &tenant.store;
    tenant.store_document(task(job, 0)).await;
    tenant.end(task(job, 1), failed(Stage::Chunking)).await;
    tenant.embed(task(job, 2)).await;
    tenant.end(task(job, 2), failed(Stage::Storage)).await;
    assert_eq!(store.retry(&tenant.name, job).await.unwrap().len(), 2, "the job may be running");
    tenant.end(task(job, 1), failed(Stage::Chunking)).await;
    store.put_chunks_one(task(job, 3), Vec::new()).await.unwrap();
    tenant.end(task(job, 3), failed(Stage::Embedding)).await;
    tenant.end(task(job, 2), failed(Stage::Storage)).await;
    assert_eq!(tenant.job(job).await.status, Status::Partial);

    let again = store.retry(&tenant.name, job).await.unwrap();
    let again: Vec<_> = again.iter().map(|found| (found.task.item, found.stage)).collect();
    assert_eq!(again, [(1, Stage::Chunking), (2, Stage::Storage), (3, Stage::Embedding)]);
    let found = tenant.job(job).await;
    assert_eq!((found.status, found.ended_at_ms), (Status::Running, None));
    for state in [CHUNKING, EMBEDDING, STORAGE, DocumentState::Stored] {
        assert_eq!(found.documents[&state], 1, "{state:?}");
    }
    assert_eq!(store.load_one(task(job, 2)).await.unwrap().unwrap().vectors, Some(vectors(2)));
    tenant.store_document(task(job, 1)).await;
    tenant.end(task(job, 2), stored()).await;
    tenant.end(task(job, 3), stored()).await;
    assert_eq!(tenant.job(job).await.status, Status::Completed);
    assert!(store.retry(&tenant.name, job).await.unwrap().is_empty());
}

pub async fn one_document_is_edited_and_retried(tenant: &Tenant) {
    let job = tenant.submitted(3).await;
    let store = &tenant.store;
    let again =
        async |item, edit| store.retry_document(&tenant.name, task(job, item), 0, edit).await.unwrap();
    for item in 0..3 {
        tenant.embed(task(job, item)).await;
        tenant.end(task(job, item), failed(Stage::Storage)).await;
    }
    let text = "Another text, and long enough to be packed. ".repeat(40);
    let edit = Edit { text: Some(text.clone()), metadata: None };
    let found = again(0, edit.clone()).await.unwrap();
    assert_eq!((found.task, found.stage, found.bytes), (task(job, 0), Stage::Chunking, text.len() as u64));
    let work = store.load_one(task(job, 0)).await.unwrap().unwrap();
    assert_eq!((&work.document.text, work.chunks, work.vectors), (&text, None, None));
    assert_eq!(work.document.metadata, crate::support::document("d0").metadata);
    let since = found.since_ms;
    let found = again(0, edit.clone()).await.unwrap();
    assert!(found.stage == Stage::Chunking && found.since_ms > since, "it has not ended, and starts over");

    let serde_json::Value::Object(metadata) = json!({"mended": true}) else { unreachable!() };
    let edit = Edit { text: None, metadata: Some(metadata.clone()) };
    assert_eq!(
        again(1, edit.clone()).await.unwrap().stage,
        Stage::Storage,
        "the vectors of an unchanged text are kept"
    );
    let work = store.load_one(task(job, 1)).await.unwrap().unwrap();
    assert_eq!((work.document.metadata, work.vectors), (metadata, Some(vectors(2))));
    assert_eq!(work.document.text, crate::support::document("d1").text);

    let states: Vec<_> = tenant.rows(job).await.iter().map(|row| row.state).collect();
    assert_eq!(states, [CHUNKING, STORAGE, DocumentState::Failed], "the third document does not change");
    assert_eq!(tenant.job(job).await.status, Status::Running);
    let other = tenant.other();
    assert!(store.retry_document(&other.name, task(job, 2), 0, edit.clone()).await.unwrap().is_none());
    tenant.store_document(task(job, 0)).await;
    tenant.end(task(job, 1), stored()).await;
    let found = tenant.job(job).await;
    assert_eq!(
        (found.status, found.chunks, found.stored_chunks),
        (Status::Partial, 6, 4),
        "the new chunks are counted"
    );
    assert_eq!(again(2, Edit::default()).await.unwrap().stage, Stage::Storage);
    store.cancel(&tenant.name, job).await.unwrap();
    assert!(again(2, edit).await.is_none(), "a cancelled job stays ended");
}

pub async fn an_unfinished_document_is_edited_and_retried(tenant: &Tenant) {
    let job = tenant.submitted(2).await;
    let (it, other) = (task(job, 0), task(job, 1));
    tenant.store_document(other).await;
    tenant.embed(it).await;
    let ahead = u64::MAX >> 2;
    let again = async |edit| tenant.store.retry_document(&tenant.name, it, ahead, edit).await.unwrap();
    let found = again(Edit::default()).await.unwrap();
    assert_eq!((found.stage, tenant.row(it).await.attempts), (Stage::Storage, 0), "it stays at its stage");
    assert_eq!(tenant.store.load_one(it).await.unwrap().unwrap().vectors, Some(vectors(2)));
    let counted = async |state| tenant.job(job).await.documents[&state];
    assert_eq!((counted(STORAGE).await, counted(DocumentState::Stored).await), (1, 1));
    let late = tenant.end(it, failed_of(Stage::Storage, ahead)).await;
    assert_eq!(late, WriteResult::Already(STORAGE), "a failure of the earlier try is ignored");
    let text = Some("Harmless.".to_owned());
    assert_eq!(again(Edit { text, metadata: None }).await.unwrap().stage, Stage::Chunking);
    let found = tenant.job(job).await;
    assert_eq!((found.status, found.documents[&CHUNKING], found.ended_at_ms), (Status::Running, 1, None));
    tenant.store_document(it).await;
    assert_eq!(tenant.job(job).await.status, Status::Completed);
    assert!(again(Edit::default()).await.is_none(), "a stored document stays stored");
}

pub async fn a_failure_of_an_earlier_try_does_not_end_the_document(tenant: &Tenant) {
    let job = tenant.submitted(1).await;
    let (it, ahead) = (task(job, 0), u64::MAX >> 2);
    // The clock of one host is far ahead. Clocks of different hosts are not compared.
    assert_eq!(tenant.end(it, failed_of(Stage::Chunking, ahead)).await, WriteResult::Written);
    let again = tenant.store.retry(&tenant.name, job).await.unwrap().remove(0);
    assert!(again.since_ms > ahead);
    assert_eq!(tenant.unfinished(Duration::ZERO).await[0].since_ms, again.since_ms);
    assert_eq!(tenant.end(it, failed_of(Stage::Chunking, ahead)).await, WriteResult::Already(CHUNKING));
    assert_eq!((tenant.row(it).await.attempts, tenant.job(job).await.status), (1, Status::Running));
    assert_eq!(tenant.end(it, failed_of(Stage::Chunking, again.since_ms)).await, WriteResult::Written);
    assert!(tenant.store.retry_document(&tenant.name, it, 0, Edit::default()).await.unwrap().is_some());
    assert_eq!(
        tenant.store.put_chunks_one(it, spans(1)).await.unwrap(),
        WriteResult::Written,
        "a result is written whichever try it is of"
    );
}

pub async fn a_job_is_skipped(tenant: &Tenant) {
    let job = tenant.submitted(3).await;
    tenant.store_document(task(job, 0)).await;
    assert!(!tenant.store.skipped(job).await.unwrap());
    assert!(tenant.store.skip(job).await.unwrap() && tenant.store.skipped(job).await.unwrap());
    let found = tenant.job(job).await;
    assert_eq!((found.status, found.documents[&DocumentState::Skipped]), (Status::Partial, 2));
    assert_eq!(tenant.end(task(job, 1), stored()).await, WriteResult::Already(DocumentState::Skipped));
    let whole = tenant.submitted(1).await;
    tenant.store.skip(whole).await.unwrap();
    assert_eq!(tenant.job(whole).await.status, Status::Cancelled);
    let unknown = embeddery_pipeline::JobId(uuid::Uuid::now_v7());
    assert!(!tenant.store.skip(unknown).await.unwrap() && !tenant.store.skipped(unknown).await.unwrap());
}

pub async fn priority_changes(tenant: &Tenant) {
    let job = tenant.submitted(1).await;
    assert!(tenant.store.reprioritize(job, Priority::High).await.unwrap());
    assert_eq!(tenant.job(job).await.priority, Priority::High);
    assert_eq!(tenant.unfinished(Duration::ZERO).await[0].priority, Priority::High);
    tenant.store.cancel(&tenant.name, job).await.unwrap();
    assert!(!tenant.store.reprioritize(job, Priority::Low).await.unwrap());
}

/// On a store that no other test shares.
pub async fn expired_jobs_are_purged(tenant: &Tenant) {
    let (hour, now) = (Duration::from_secs(3600), Duration::ZERO);
    let (open, ended, running) =
        (tenant.opened(Some("k"), 700).await, tenant.submitted(2).await, tenant.submitted(1).await);
    tenant.store.cancel(&tenant.name, ended).await.unwrap();
    tenant.store.purge_expired(hour, hour).await.unwrap();
    assert_eq!(tenant.all().await.len(), 2);
    // A job that ended in this millisecond has not expired yet.
    while tenant.find(ended).await.is_some() {
        tenant.store.purge_expired(now, hour).await.unwrap();
    }
    assert_eq!(tenant.job(running).await.status, Status::Pending);
    tenant.store.append(open, Vec::new()).await.unwrap();
    assert!(tenant.rows(ended).await.is_empty());
    assert_eq!(tenant.end(task(ended, 0), stored()).await, WriteResult::JobDeleted);
}

pub async fn a_deleted_tenant_leaves_nothing(tenant: &Tenant) {
    let other = tenant.other();
    let theirs = other.submitted(1).await;
    let (first, open) = (tenant.submitted(600).await, tenant.opened(Some("k"), 1).await);
    let second = tenant.submitted(1).await;
    tenant.store_document(task(second, 0)).await;
    assert_eq!(tenant.store.delete_tenant(&tenant.name).await.unwrap(), 2);
    assert!(tenant.all().await.is_empty() && tenant.find(first).await.is_none());
    assert!(tenant.store.load_one(task(first, 0)).await.unwrap().is_none());
    assert!(tenant.store.start(open, crate::support::HASH).await.is_err());
    assert_eq!(tenant.end(task(first, 0), stored()).await, WriteResult::JobDeleted);
    assert_eq!(other.job(theirs).await.status, Status::Pending);
    assert_eq!(tenant.store.delete_tenant(&tenant.name).await.unwrap(), 0);
}
