//! The quota of vectors under concurrent writes: it is not exceeded, and it can be used up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use embeddery_accounts::{
    Ledger, UserId,
    ledger::{Counter, LedgerConfig, QuotaExceeded, Quotas},
};
use embeddery_core::{Embedder, ProviderKind, SpaceId};
use embeddery_gateway::{
    FallbackModels, Metrics, Policy, Router, RouterConfig, Stack, TokenDecoder, TokenEncoding,
};
use embeddery_ingest::{Ingest, MissingChunk, WriteBatch, WriteError, WriteTarget};
use embeddery_store::{
    CheckedDocument, CollectionRef, DeleteTarget, Document, DocumentChunk, ModelBinding, NewCollection,
    SqliteConfig, SqliteStore, TextSpan,
};
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::sync::Semaphore;

const COLLECTION: CollectionRef<'static> = CollectionRef { tenant: "ann", collection: "notes" };
const TIMEOUT: Duration = Duration::from_secs(60);

struct NoWrappers;

impl Stack for NoWrappers {
    fn wrap_model(&self, adapter: Arc<dyn Embedder>, _: &str) -> Arc<dyn Embedder> {
        adapter
    }

    fn wrap_request(
        &self,
        model: Arc<dyn Embedder>,
        _: Option<FallbackModels>,
        _: &str,
    ) -> Arc<dyn Embedder> {
        model
    }
}

/// An empty collection of a user with a quota.
async fn with_quota(stored_vectors: u64) -> (Ingest, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::new(SqliteConfig {
        base_dir: dir.path().join("users"),
        open_users: 4,
        matrix_bytes: 16 << 20,
        search_threads: 1,
        min_free_bytes: 0,
    });
    let ledger = Ledger::open(LedgerConfig {
        path: dir.path().join("usage.db"),
        quotas: Quotas { stored_vectors: Some(stored_vectors), ..Quotas::default() },
        retention_days: 30,
        prices: Arc::new(|_: ProviderKind, _: &str| None),
    });
    let router = Router::new(RouterConfig {
        providers: Vec::new(),
        models: Vec::new(),
        default_model: "openai:none".into(),
        vendor_models: Vec::new(),
        stack: Arc::new(NoWrappers),
        policy: Policy::default(),
        decoder: Arc::new(TokenDecoder::new(TokenEncoding::Cl100k)),
        metrics: Metrics::new(&mut Registry::default()),
    });
    let ingest = Ingest {
        router: Arc::new(router),
        store: Arc::new(store),
        ledger: Arc::new(ledger.unwrap()),
        quota: Arc::default(),
    };
    let binding = ModelBinding {
        provider: "openai".into(),
        model: "m".into(),
        space: SpaceId::new("space"),
        dim: 2,
        custom_dimensions: false,
    };
    let new = NewCollection { binding, metadata: serde_json::Map::new(), submission: None };
    ingest.store.create(COLLECTION, new).await.unwrap();
    (ingest, dir)
}

/// A document of `chunks` different chunks without vectors.
fn document(id: &str, chunks: usize) -> CheckedDocument {
    let chunk = |index| DocumentChunk {
        text: format!("{id} {index}"),
        span: TextSpan::default(),
        headings: Vec::new(),
        vector: None,
    };
    let document = Document {
        id: id.to_owned(),
        metadata: serde_json::Map::new(),
        chunks: (0..chunks).map(chunk).collect(),
        submission: None,
    };
    document.check().unwrap()
}

/// Writes a document whose chunks are not stored. `model` is what embedding waits for.
async fn write(
    ingest: &Ingest,
    document: CheckedDocument,
    model: impl Future<Output = Result<(), WriteError>>,
) -> Result<u64, WriteError> {
    let (user, space) = (UserId::new("ann"), SpaceId::new("space"));
    let target = WriteTarget {
        user: &user,
        collection: "notes",
        space: &space,
        max_quota_wait: TIMEOUT,
        store_timeout: None,
    };
    let model = tokio::sync::Mutex::new(Some(Box::pin(model)));
    let embed = |missing: Vec<MissingChunk>| {
        let model = &model;
        async move {
            if let Some(model) = model.lock().await.take() {
                model.await?;
            }
            Ok(vec![vec![1.0, 0.5]; missing.len()])
        }
    };
    let stored = vec![vec![false; document.chunks.len()]];
    let batch = WriteBatch { documents: vec![document], stored };
    ingest.write(&target, batch, embed).await.map(|result| result.added)
}

async fn stored(ingest: &Ingest) -> u64 {
    ingest.store.stats(COLLECTION).await.unwrap().counts.vectors
}

async fn counted(ingest: &Ingest) -> u64 {
    ingest.ledger.used(&UserId::new("ann")).await.unwrap().stored_vectors
}

fn is_exceeded(error: &WriteError) -> bool {
    matches!(error, WriteError::QuotaExceeded(QuotaExceeded::Counter { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_all_sizes_that_fail_and_disconnect_neither_exceed_nor_lose_the_quota() {
    const QUOTA: u64 = 40;
    let (ingest, _dir) = with_quota(QUOTA).await;
    for round in 0..5 {
        let writers = (0..30).map(|writer| {
            let ingest = ingest.clone();
            let document = document(&format!("d{round}-{writer}"), 1 + writer % 5);
            async move {
                let model = async {
                    tokio::time::sleep(Duration::from_millis((writer % 7) as u64)).await;
                    if writer % 6 == 5 { Err(WriteError::QuotaUnknown("the model failed")) } else { Ok(()) }
                };
                // A writer that is dropped while it embeds is a caller that disconnects.
                let patience = if writer % 4 == 3 { Duration::from_millis(2) } else { TIMEOUT };
                drop(tokio::time::timeout(patience, write(&ingest, document, model)).await);
            }
        });
        let writing = join_all(writers);
        let watching = async {
            loop {
                assert!(stored(&ingest).await <= QUOTA, "the quota is exceeded");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! { _ = writing => {}, () = watching => {} }
        // Fill the rest one by one.
        let mut filler = 0;
        while stored(&ingest).await < QUOTA {
            let added = write(&ingest, document(&format!("f{round}-{filler}"), 1), async { Ok(()) }).await;
            assert_eq!(added, Ok(1), "{} of {QUOTA} are stored", stored(&ingest).await);
            filler += 1;
        }
        let refused = write(&ingest, document("refused", 1), async { Ok(()) }).await.unwrap_err();
        assert!(is_exceeded(&refused), "{refused:?}");
        assert_eq!((stored(&ingest).await, counted(&ingest).await), (QUOTA, QUOTA));
        // Empty the collection for the next round.
        let documents =
            ingest.store.documents(COLLECTION, embeddery_store::PageRequest { after: None, limit: 1000 });
        let ids: Vec<String> = documents.await.unwrap().into_iter().map(|document| document.id).collect();
        ingest.store.delete(COLLECTION, DeleteTarget::Ids(&ids)).await.unwrap();
        ingest.recount_after_deletion(&UserId::new("ann")).await;
        assert_eq!(counted(&ingest).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_for_vectors_that_another_write_may_return() {
    let (ingest, _dir) = with_quota(3).await;
    let gate = Arc::new(Semaphore::new(0));
    let (first_ingest, first_gate) = (ingest.clone(), Arc::clone(&gate));
    let begun = Arc::new(AtomicUsize::new(0));
    let first_begun = Arc::clone(&begun);
    let first = tokio::spawn(async move {
        let model = async {
            first_begun.fetch_add(1, SeqCst);
            drop(first_gate.acquire().await);
            Err(WriteError::QuotaUnknown("the model failed"))
        };
        write(&first_ingest, document("a", 3), model).await
    });
    while begun.load(SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Four vectors do not fit, whatever the first write does.
    assert!(is_exceeded(&write(&ingest, document("b", 4), async { Ok(()) }).await.unwrap_err()));
    let second_ingest = ingest.clone();
    let second = tokio::spawn(async move { write(&second_ingest, document("c", 3), async { Ok(()) }).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!second.is_finished(), "the second write waits for the first");
    gate.close();
    assert!(first.await.unwrap().is_err());
    assert_eq!(second.await.unwrap(), Ok(3));
    assert_eq!((stored(&ingest).await, counted(&ingest).await), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_counted_at_most_once_in_an_interval_for_refusals() {
    let (ingest, _dir) = with_quota(2).await;
    let user = UserId::new("ann");
    // A process that crashed has left a counter that is too high.
    ingest.ledger.acquire(&user, Counter::StoredVectors, 2).await.unwrap();
    assert_eq!(write(&ingest, document("a", 2), async { Ok(()) }).await, Ok(2));
    // A count would correct this.
    ingest.ledger.set(&user, Counter::StoredVectors, 7).await;
    assert!(is_exceeded(&write(&ingest, document("b", 1), async { Ok(()) }).await.unwrap_err()));
    assert_eq!(counted(&ingest).await, 7);
    ingest.recount_after_deletion(&user).await;
    assert_eq!(counted(&ingest).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_chunks_that_are_stored_by_now_is_not_refused() {
    let (ingest, _dir) = with_quota(2).await;
    assert_eq!(write(&ingest, document("a", 2), async { Ok(()) }).await, Ok(2));
    // The lookup of this writer was before the write.
    assert_eq!(write(&ingest, document("a", 2), async { Ok(()) }).await, Ok(0));
    assert_eq!((stored(&ingest).await, counted(&ingest).await), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_was_deleted_after_the_lookup_is_embedded() {
    let (ingest, _dir) = with_quota(3).await;
    assert_eq!(write(&ingest, document("a", 2), async { Ok(()) }).await, Ok(2));
    let (user, space) = (UserId::new("ann"), SpaceId::new("space"));
    let target = WriteTarget {
        user: &user,
        collection: "notes",
        space: &space,
        max_quota_wait: TIMEOUT,
        store_timeout: Some(TIMEOUT),
    };
    let calls = AtomicUsize::new(0);
    let (store, counter) = (&ingest.store, &calls);
    let embed = |missing: Vec<MissingChunk>| async move {
        // The other chunks are deleted while the first call embeds the new one.
        if counter.fetch_add(1, SeqCst) == 0 {
            assert_eq!(missing, [MissingChunk { document: 0, chunk: 2, text: "a 2".into() }]);
            let ids = ["a".to_owned()];
            store.delete(COLLECTION, DeleteTarget::Ids(&ids)).await?;
        } else {
            assert_eq!(missing.len(), 2, "the new chunk keeps its vector");
        }
        Ok::<_, WriteError>(vec![vec![1.0, 0.5]; missing.len()])
    };
    let batch = WriteBatch { documents: vec![document("a", 3)], stored: vec![vec![true, true, false]] };
    let result = ingest.write(&target, batch, embed).await.unwrap();
    assert_eq!((result.added, calls.load(SeqCst)), (3, 2));
    ingest.recount_after_deletion(&user).await;
    assert_eq!((stored(&ingest).await, counted(&ingest).await), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_may_not_wait_reports_the_reservations_of_other_writes() {
    let (ingest, _dir) = with_quota(3).await;
    let (user, space) = (UserId::new("ann"), SpaceId::new("space"));
    let target = |max_quota_wait| WriteTarget {
        user: &user,
        collection: "notes",
        space: &space,
        max_quota_wait,
        store_timeout: Some(TIMEOUT),
    };
    let batch = |id: &str| WriteBatch { documents: vec![document(id, 3)], stored: vec![vec![false; 3]] };
    let inner = ingest.clone();
    let embed = |missing: Vec<MissingChunk>| {
        let inner = &inner;
        let target = target(Duration::ZERO);
        async move {
            // The outer write holds its reservation while a second write starts.
            let second =
                inner.write(&target, batch("b"), |_| async { Ok::<_, WriteError>(Vec::new()) }).await;
            assert_eq!(second.unwrap_err(), WriteError::QuotaReserved);
            Ok::<_, WriteError>(vec![vec![1.0, 0.5]; missing.len()])
        }
    };
    assert_eq!(ingest.write(&target(TIMEOUT), batch("a"), embed).await.unwrap().added, 3);
    assert_eq!((stored(&ingest).await, counted(&ingest).await), (3, 3));
}
