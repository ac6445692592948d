//! Results of stages, and the work of the reconciler.

use std::time::Duration;

use embeddery_pipeline::{DocumentOutcome, DocumentState, Page, RetryNote, Stage, Status, WriteResult};

use crate::support::{
    CHUNKING, EMBEDDING, STORAGE, SingleDocument as _, Tenant, document, failed, reason, spans, stored, task,
    vectors,
};

pub async fn a_document_goes_through_the_stages(tenant: &Tenant) {
    let job = tenant.submitted(2).await;
    let (it, store) = (task(job, 0), &tenant.store);
    assert_eq!(store.put_chunks_one(it, spans(3)).await.unwrap(), WriteResult::Written);
    let found = tenant.job(job).await;
    assert_eq!(
        (found.status, found.documents[&CHUNKING], found.documents[&EMBEDDING]),
        (Status::Running, 1, 1)
    );
    assert_eq!((found.chunks, found.stored_chunks), (3, 0));
    assert!(found.started_at_ms.unwrap() >= found.submitted_at_ms);
    assert_eq!(store.put_vectors_one(it, vectors(3)).await.unwrap(), WriteResult::Written);
    assert_eq!(tenant.row(it).await.state, STORAGE);
    assert_eq!(tenant.end(it, stored()).await, WriteResult::Written);
    let found = tenant.job(job).await;
    assert_eq!((found.status, found.documents[&DocumentState::Stored]), (Status::Running, 1));
    assert_eq!((found.chunks, found.stored_chunks, found.ended_at_ms), (2, 2, None));
    assert_eq!(found.ended_last_minute, 1);
}

pub async fn a_result_is_written_once(tenant: &Tenant) {
    let job = tenant.submitted(1).await;
    let (it, store) = (task(job, 0), &tenant.store);
    assert_eq!(store.put_vectors_one(it, vectors(1)).await.unwrap(), WriteResult::Already(CHUNKING));
    store.put_chunks_one(it, spans(1)).await.unwrap();
    assert_eq!(store.put_chunks_one(it, spans(5)).await.unwrap(), WriteResult::Already(EMBEDDING));
    store.put_vectors_one(it, vectors(1)).await.unwrap();
    assert_eq!(store.put_vectors_one(it, vectors(5)).await.unwrap(), WriteResult::Already(STORAGE));
    let work = store.load_one(it).await.unwrap().unwrap();
    assert_eq!((work.chunks, work.vectors), (Some(spans(1)), Some(vectors(1))));
    assert_eq!(tenant.end(it, failed(Stage::Storage)).await, WriteResult::Written);
    assert_eq!(tenant.end(it, stored()).await, WriteResult::Already(DocumentState::Failed));
    assert_eq!(
        store.put_chunks_one(it, spans(5)).await.unwrap(),
        WriteResult::Already(DocumentState::Failed)
    );
    let unknown = task(embeddery_pipeline::JobId(uuid::Uuid::now_v7()), 0);
    assert_eq!(store.put_chunks_one(unknown, spans(5)).await.unwrap(), WriteResult::JobDeleted);
    assert_eq!(tenant.end(task(job, 1), stored()).await, WriteResult::JobDeleted);
}

pub async fn results_round_trip(tenant: &Tenant) {
    let job = tenant.submitted(2).await;
    tenant.embed(task(job, 1)).await;
    let work = tenant.store.load_one(task(job, 1)).await.unwrap().unwrap();
    assert_eq!((work.chunks, work.vectors, work.state), (Some(spans(2)), Some(vectors(2)), STORAGE));
    assert_eq!(work.document.text, document("d1").text);
}

pub async fn a_stored_document_leaves_no_text(tenant: &Tenant) {
    let job = tenant.submitted(2).await;
    tenant.store_document(task(job, 0)).await;
    tenant.embed(task(job, 1)).await;
    tenant.end(task(job, 1), failed(Stage::Storage)).await;
    let gone = tenant.store.load_one(task(job, 0)).await.unwrap().unwrap();
    assert_eq!((gone.state, gone.document.text.as_str()), (DocumentState::Stored, ""));
    assert!(gone.chunks.is_none() && gone.vectors.is_none() && gone.document.metadata.is_empty());
    let kept = tenant.store.load_one(task(job, 1)).await.unwrap().unwrap();
    assert!(!kept.document.text.is_empty() && kept.vectors.is_some());
}

pub async fn a_retry_note_does_not_change_the_state(tenant: &Tenant) {
    let job = tenant.submitted(1).await;
    let it = task(job, 0);
    tenant.store.note_attempt(it, "upstream_busy").await.unwrap();
    tenant.store.note_attempt(it, "upstream_away").await.unwrap();
    let row = tenant.row(it).await;
    assert_eq!((row.state, row.attempts, row.reason), (CHUNKING, 2, Some(reason("upstream_away"))));
    assert_eq!(row.retry_at_ms, Some(7));
    let waits = RetryNote { task: it, reason: reason("provider_away"), charged: false, retry_at_ms: 9 };
    tenant.store.record_retry(vec![waits]).await.unwrap();
    let row = tenant.row(it).await;
    assert_eq!((row.attempts, row.reason, row.retry_at_ms), (2, Some(reason("provider_away")), Some(9)));
    tenant.store_document(it).await;
    tenant.store.note_attempt(it, "late").await.unwrap();
    let row = tenant.row(it).await;
    assert_eq!((row.state, row.attempts, row.reason, row.chunks), (DocumentState::Stored, 2, None, Some(2)));
    assert_eq!(row.retry_at_ms, None);
}

pub async fn many_results_are_one_step_with_a_result_each(tenant: &Tenant) {
    let (one, two) = (tenant.submitted(2).await, tenant.submitted(1).await);
    let unknown = task(embeddery_pipeline::JobId(uuid::Uuid::now_v7()), 0);
    let tasks = [task(one, 1), unknown, task(two, 0), task(one, 0)];
    tenant.embed(task(one, 0)).await;
    let chunks = tasks.map(|task| (task, spans(2))).to_vec();
    let puts = tenant.store.put_chunks(chunks).await.unwrap();
    assert_eq!(
        puts,
        [WriteResult::Written, WriteResult::JobDeleted, WriteResult::Written, WriteResult::Already(STORAGE)]
    );
    let puts = tenant.store.put_vectors(vec![(tasks[0], vectors(2)), (tasks[3], vectors(1))]).await.unwrap();
    assert_eq!(puts, [WriteResult::Written, WriteResult::Already(STORAGE)]);
    let loaded = tenant.store.load(tasks.to_vec()).await.unwrap();
    let found: Vec<_> = loaded
        .into_iter()
        .map(|work| work.unwrap().map(|work| (work.document.id, work.state, work.vectors)))
        .collect();
    let at_storage = |id: &str| Some((id.to_owned(), STORAGE, Some(vectors(2))));
    assert_eq!(found, [at_storage("d1"), None, Some(("d0".into(), EMBEDDING, None)), at_storage("d0")]);
    let why = reason("superseded");
    let ends = vec![
        (tasks[3], stored()),
        (tasks[2], failed(Stage::Embedding)),
        (tasks[0], DocumentOutcome::Superseded(why)),
    ];
    assert_eq!(tenant.store.finish(ends).await.unwrap(), [WriteResult::Written; 3]);
    assert_eq!(
        (tenant.job(one).await.status, tenant.job(two).await.status),
        (Status::Completed, Status::Failed)
    );
    let counts = tenant.job(one).await.documents;
    assert_eq!((counts[&DocumentState::Stored], counts[&DocumentState::Superseded]), (1, 1));
    let row = tenant.row(tasks[0]).await;
    assert_eq!((row.state, row.reason), (DocumentState::Superseded, Some(reason("superseded"))));
    assert!(tenant.store.finish(Vec::new()).await.unwrap().is_empty());
}

pub async fn one_process_claims_a_period(tenant: &Tenant) {
    let hour = Duration::from_secs(3600);
    let what: &'static str = Box::leak(tenant.name.to_string().into_boxed_str());
    let claims = (0..8).map(|_| {
        let store = std::sync::Arc::clone(&tenant.store);
        tokio::spawn(async move { store.claim_period(what, hour).await.unwrap() })
    });
    let mut claimed = 0;
    for claim in claims.collect::<Vec<_>>() {
        claimed += u32::from(claim.await.unwrap());
    }
    assert_eq!(claimed, 1);
    let other: &'static str = Box::leak(format!("{} too", tenant.name).into_boxed_str());
    assert!(tenant.store.claim_period(other, Duration::ZERO).await.unwrap(), "other work is not claimed");
    assert!(tenant.store.claim_period(other, hour).await.unwrap(), "an expired claim is free");
}

/// Two workers finish each document at the same time. It counts once.
pub async fn counts_hold_under_many_writers(tenant: &Tenant) {
    const COUNT: u32 = 150;
    let job = tenant.submitted(COUNT).await;
    let work = |item, end: DocumentOutcome| {
        let store = std::sync::Arc::clone(&tenant.store);
        tokio::spawn(async move {
            let it = task(job, item);
            store.put_chunks_one(it, spans(2)).await.unwrap();
            store.put_vectors_one(it, vectors(2)).await.unwrap();
            store.finish_one(it, end).await.unwrap()
        })
    };
    let both = (0..COUNT).flat_map(|item| [work(item, stored()), work(item, failed(Stage::Storage))]);
    let mut written = 0;
    for done in both.collect::<Vec<_>>() {
        written += u32::from(done.await.unwrap() == WriteResult::Written);
    }
    assert_eq!(written, COUNT);
    let found = tenant.job(job).await;
    let (stored, failed) = (found.documents[&DocumentState::Stored], found.documents[&DocumentState::Failed]);
    assert_eq!(stored + failed, u64::from(COUNT));
    assert_eq!((found.chunks, found.stored_chunks), (2 * u64::from(COUNT), 2 * stored));
    let of = async |state| {
        let page = Page { state: Some(state), after: None, limit: 1000 };
        tenant.store.documents(job, page).await.unwrap().len() as u64
    };
    assert_eq!((of(DocumentState::Stored).await, of(DocumentState::Failed).await), (stored, failed));
    assert!(found.ended_at_ms.is_some() && found.status != Status::Running);
}

pub async fn unfinished_documents_are_paged_and_untouched(tenant: &Tenant) {
    let open = tenant.opened(None, 3).await;
    let (first, second) = (tenant.submitted(20).await, tenant.submitted(2).await);
    tenant.store_document(task(first, 4)).await;
    tenant.store.put_chunks_one(task(first, 5), spans(1)).await.unwrap();
    let found = tenant.unfinished(Duration::ZERO).await;
    let ids: Vec<_> = found.iter().map(|found| found.task).collect();
    let due = (0..20).filter(|item| *item != 4).map(|item| task(first, item));
    assert_eq!(ids, due.chain([task(second, 0), task(second, 1)]).collect::<Vec<_>>());
    assert!(ids.iter().all(|id| id.job != open));
    assert_eq!((found[4].stage, found[3].stage), (Stage::Embedding, Stage::Chunking));
    assert_eq!(found[0].bytes, document("d0").text.len() as u64);
    assert!(found[0].traceparent.is_some());
    assert!(tenant.unfinished(Duration::from_secs(3600)).await.is_empty());
}
