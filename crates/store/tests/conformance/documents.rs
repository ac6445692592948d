//! Upsert, list, export and delete of documents.

use embeddery_core::SpaceId;
use embeddery_store::{
    DeleteTarget, Document, DocumentChunk, NewCollection, PageRequest, StoreErrorKind, UpsertResult,
};
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    COLLECTION, DIM, Tenant, binding, document, error_kind, filter, object, texts, vector_of, without_vectors,
};
use embeddery_store::SearchMode;

fn result(added: u64, kept: u64, removed: u64) -> UpsertResult {
    UpsertResult { added, kept, removed, ..UpsertResult::default() }
}

pub async fn an_upsert_keeps_equal_chunks_and_replaces_changed_ones(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    let first = document("d", &["one", "two", "two"], json!({"v": 1}));
    assert_eq!(tenant.upsert(vec![first.clone()]).await.unwrap(), result(3, 0, 0));
    let before = tenant.store.document(tenant.collection(), "d").await.unwrap();
    assert_eq!(
        tenant
            .store
            .existing_chunks(tenant.collection(), &[without_vectors(first.clone()).check().unwrap()])
            .await
            .unwrap(),
        [[true; 3]]
    );
    assert_eq!(
        tenant.upsert(vec![without_vectors(first)]).await.unwrap(),
        result(0, 3, 0),
        "no vector is needed"
    );
    assert_eq!(tenant.store.document(tenant.collection(), "d").await.unwrap(), before);
    assert_eq!(tenant.counts().await, (1, 3));

    let changed = document("d", &["one", "three", "two"], json!({"v": 1}));
    let stored =
        tenant.store.existing_chunks(tenant.collection(), &[changed.clone().check().unwrap()]).await.unwrap();
    assert_eq!(stored, [[true, false, true]]);
    assert_eq!(tenant.upsert(vec![changed]).await.unwrap(), result(1, 2, 1));
    let after = tenant.store.document(tenant.collection(), "d").await.unwrap();
    assert_eq!(after.chunks.iter().map(|c| c.text.as_str()).collect::<Vec<_>>(), ["one", "three", "two"]);
    assert_eq!(after.chunks[0].id, before.chunks[0].id);
    assert_eq!(after.chunks[2].id, before.chunks[1].id, "the first 'two' is now the last chunk");
    assert_eq!(tenant.counts().await, (1, 3));
}

pub async fn an_inserted_chunk_keeps_the_others(tenant: &Tenant) {
    tenant.create_with(vec![document("d", &["b", "c"], json!({}))]).await;
    assert_eq!(
        tenant.upsert(vec![document("d", &["a", "b", "c"], json!({}))]).await.unwrap(),
        result(1, 2, 0)
    );
    let spans: Vec<_> = tenant.store.document(tenant.collection(), "d").await.unwrap().chunks;
    assert_eq!(spans.iter().map(|c| c.span.bytes.0).collect::<Vec<_>>(), [0, 2, 4], "spans are updated");
}

pub async fn metadata_changes_without_vectors(tenant: &Tenant) {
    tenant.create_with(vec![document("d", &["x"], json!({"state": "old", "n": 1}))]).await;
    assert_eq!(
        tenant.upsert(vec![without_vectors(document("d", &["x"], json!({"state": "new"})))]).await.unwrap(),
        result(0, 1, 0)
    );
    let find = |value| tenant.search(SearchMode::Vector(vector_of("x")), 5, Some(value));
    assert_eq!(find(json!({"state": "new"})).await.len(), 1);
    assert!(find(json!({"state": "old"})).await.is_empty());
    assert!(find(json!({"n": 1})).await.is_empty());
}

pub async fn documents_are_paged_by_id(tenant: &Tenant) {
    let ids = ["a", "b", "B", "ä", "z", "0", "a/b"];
    tenant.create_with(ids.iter().map(|id| document(id, &[id, "and"], json!({"id": id}))).collect()).await;
    let mut sorted = ids;
    sorted.sort_unstable();
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = PageRequest { after: after.as_deref(), limit: 3 };
        let listed = tenant.store.documents(tenant.collection(), page).await.unwrap();
        let exported = tenant.store.export(tenant.collection(), page).await.unwrap();
        assert_eq!(
            listed.iter().map(|d| &d.id).collect::<Vec<_>>(),
            exported.iter().map(|d| &d.id).collect::<Vec<_>>()
        );
        let Some(last) = listed.last() else { break };
        after = Some(last.id.clone());
        assert!(listed.iter().all(|d| d.chunks == 2 && d.metadata["id"] == d.id));
        seen.extend(listed.into_iter().map(|d| d.id));
    }
    assert_eq!(seen, sorted);
}

pub async fn an_upsert_is_all_or_nothing(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    let mut broken = document("bad", &["fine", "broken"], json!({}));
    broken.chunks[1].vector = Some(vec![1.0]);
    assert_eq!(
        error_kind(tenant.upsert(vec![document("good", &["x"], json!({})), broken]).await),
        StoreErrorKind::Invalid
    );
    assert_eq!(tenant.counts().await, (0, 0));
}

pub async fn invalid_vectors_are_refused(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    for (vector, word) in [
        (vec![1.0; 7], "7 numbers"),
        (vec![f32::NAN; 8], "not finite"),
        (vec![f32::INFINITY; 8], "not finite"),
        (vec![0.0; 8], "all zeros"),
    ] {
        let mut wrong = document("d", &["x"], json!({}));
        wrong.chunks[0].vector = Some(vector.clone());
        let error = tenant.upsert(vec![wrong]).await.unwrap_err();
        assert!(error.kind == StoreErrorKind::Invalid && error.message.contains(word), "{error}");
        let query = embeddery_store::Query {
            mode: SearchMode::Vector(vector),
            top_k: 3,
            filter: None,
            with_text: false,
        };
        let error = tenant.store.search(tenant.collection(), query).await.unwrap_err();
        assert!(error.kind == StoreErrorKind::Invalid && error.message.contains(word), "{error}");
    }
}

pub async fn vectors_of_another_space_are_refused(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    let documents = vec![document("d", &["x"], json!({})).check().unwrap()];
    let error =
        tenant.store.upsert(tenant.collection(), Some(SpaceId::new("space-b")), documents).await.unwrap_err();
    assert!(error.message.contains("'space-a'") && error.message.contains("'space-b'"), "{error}");
    assert!(matches!(error.kind, StoreErrorKind::SpaceMismatch { .. }));
    assert_eq!(tenant.counts().await, (0, 0));
}

pub async fn a_vector_that_is_neither_sent_nor_stored_is_an_error(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    let documents = vec![without_vectors(document("d", &["x"], json!({})))];
    assert_eq!(error_kind(tenant.upsert(documents).await), StoreErrorKind::VectorMissing);
}

pub async fn deletion_by_id_and_by_filter(tenant: &Tenant) {
    let all = (0..10).map(|i| document(&format!("d{i}"), &[&format!("text {i}"), "x"], json!({"i": i})));
    tenant.create_with(all.collect()).await;
    let ids = ["d1".to_owned(), "d1".to_owned(), "absent".to_owned()];
    assert_eq!(tenant.store.delete(tenant.collection(), DeleteTarget::Ids(&ids)).await.unwrap(), 1);
    assert_eq!(tenant.counts().await, (9, 18));
    let condition = filter(&json!({"i": {"$gte": 5}}));
    assert_eq!(tenant.store.delete(tenant.collection(), DeleteTarget::Where(&condition)).await.unwrap(), 5);
    assert_eq!(tenant.counts().await, (4, 8));
    let found = tenant.search(SearchMode::Text("text".into()), 20, None).await;
    assert_eq!(found.len(), 4);
    assert_eq!(tenant.search(SearchMode::Vector(vector_of("text 7")), 20, None).await.len(), 8);
    assert_eq!(error_kind(tenant.store.document(tenant.collection(), "d7").await), StoreErrorKind::NotFound);
}

pub async fn deletion_of_all_documents(tenant: &Tenant) {
    let other = tenant.collection_ref("other");
    tenant.create_with((0..3).map(|i| document(&format!("d{i}"), &["x"], json!({"i": i}))).collect()).await;
    tenant.create("other").await;
    let kept = document("kept", &["x"], json!({})).check().unwrap();
    tenant.store.upsert(other, Some(SpaceId::new("space-a")), vec![kept]).await.unwrap();
    let before = Some(Uuid::now_v7());
    assert_eq!(tenant.store.delete(tenant.collection(), DeleteTarget::All).await.unwrap(), 3);
    assert_eq!(tenant.counts().await, (0, 0));
    assert_eq!(tenant.store.stats(other).await.unwrap().counts.documents, 1);
    let earlier = Document { submission: before, ..document("d1", &["x"], json!({})) };
    assert_eq!(
        tenant.upsert(vec![earlier]).await.unwrap().superseded.len(),
        1,
        "a deleted document stays deleted"
    );
    assert_eq!(tenant.upsert(vec![document("d1", &["x"], json!({"i": 1}))]).await.unwrap(), result(1, 0, 0));
    assert_eq!(tenant.search(SearchMode::Vector(vector_of("x")), 5, Some(json!({"i": 1}))).await.len(), 1);
}

pub async fn an_export_can_be_imported(tenant: &Tenant) {
    let all =
        (0..5).map(|i| document(&format!("d{i}"), &[&format!("text {i}"), "and"], json!({"i": i, "l": [i]})));
    tenant.create_with(all.collect()).await;
    let exported =
        tenant.store.export(tenant.collection(), PageRequest { after: None, limit: 100 }).await.unwrap();
    let imported: Vec<Document> = exported
        .iter()
        .map(|stored| Document {
            id: stored.id.clone(),
            metadata: stored.metadata.clone(),
            chunks: stored
                .chunks
                .iter()
                .map(|c| DocumentChunk {
                    text: c.text.clone(),
                    span: c.span,
                    headings: c.headings.clone(),
                    vector: Some(c.vector.clone()),
                })
                .collect(),
            submission: None,
        })
        .collect();
    tenant.store.drop_collection(tenant.collection()).await.unwrap();
    tenant.create_with(imported).await;
    let exported_again =
        tenant.store.export(tenant.collection(), PageRequest { after: None, limit: 100 }).await.unwrap();
    assert_eq!(exported_again, exported, "the import restores ids, texts and vectors");
}

pub async fn an_earlier_submission_does_not_replace_a_later_one(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let submitted = |id: &str, texts: &[&str], submission| Document {
        submission,
        ..document(id, texts, json!({"of": texts[0]}))
    };
    tenant.upsert(vec![submitted("d", &["later", "both"], Some(second))]).await.unwrap();
    let before = tenant.store.document(tenant.collection(), "d").await.unwrap();
    let mixed = vec![
        without_vectors(submitted("d", &["earlier", "both"], Some(first))),
        submitted("e", &["alone"], Some(first)),
    ];
    let expected = UpsertResult { superseded: vec![("d".into(), second)], ..result(1, 0, 0) };
    assert_eq!(tenant.upsert(mixed).await.unwrap(), expected, "the other document is stored");
    assert_eq!(tenant.store.document(tenant.collection(), "d").await.unwrap(), before);
    assert!(
        tenant.search(SearchMode::Vector(vector_of("x")), 9, Some(json!({"of": "earlier"}))).await.is_empty()
    );
    // The same submission may write again.
    assert_eq!(
        tenant.upsert(vec![submitted("d", &["later", "new"], Some(second))]).await.unwrap(),
        result(1, 1, 1)
    );
    // An inline request has no submission. It replaces any version and is the latest submission from then on.
    assert_eq!(tenant.upsert(vec![submitted("d", &["by hand"], None)]).await.unwrap(), result(1, 0, 2));
    let superseded =
        tenant.upsert(vec![submitted("d", &["later", "new"], Some(second))]).await.unwrap().superseded;
    assert!(matches!(&superseded[..], [(id, by)] if id == "d" && *by > second), "{superseded:?}");
    assert_eq!(tenant.counts().await, (2, 2));
}

pub async fn an_earlier_submission_does_not_restore_what_was_deleted(tenant: &Tenant) {
    let submitted = |id: &str, submission| Document { submission, ..document(id, &[id], json!({"of": id})) };
    let before = Some(Uuid::now_v7());
    tenant.create_with(vec![submitted("d", None), submitted("e", None), submitted("f", None)]).await;
    tenant.store.delete(tenant.collection(), DeleteTarget::Ids(&["d".into(), "none".into()])).await.unwrap();
    tenant
        .store
        .delete(tenant.collection(), DeleteTarget::Where(&filter(&json!({"of": "e"}))))
        .await
        .unwrap();
    for id in ["d", "e"] {
        let superseded = tenant.upsert(vec![submitted(id, before)]).await.unwrap().superseded;
        assert!(
            matches!(&superseded[..], [(found, by)] if found == id && Some(*by) > before),
            "{superseded:?}"
        );
    }
    assert_eq!(tenant.counts().await, (1, 1));
    // A later submission and an inline request may store the documents again.
    assert_eq!(tenant.upsert(vec![submitted("d", Some(Uuid::now_v7()))]).await.unwrap(), result(1, 0, 0));
    assert_eq!(tenant.upsert(vec![submitted("e", None)]).await.unwrap(), result(1, 0, 0));

    let during = Some(Uuid::now_v7());
    tenant.store.drop_collection(tenant.collection()).await.unwrap();
    let new = |submission| NewCollection {
        binding: binding("space-a", DIM),
        metadata: object(json!({})),
        submission,
    };
    let refused = tenant.store.create(tenant.collection(), new(during)).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::NotFound);
    tenant.store.create(tenant.collection(), new(None)).await.unwrap();
    assert_eq!(tenant.upsert(vec![submitted("g", during)]).await.unwrap().superseded.len(), 1);
    assert_eq!(tenant.upsert(vec![submitted("g", Some(Uuid::now_v7()))]).await.unwrap(), result(1, 0, 0));
}

pub async fn headings_are_stored_and_updated(tenant: &Tenant) {
    let below = |headings: &[&str]| {
        let mut document = document("d", &["x"], json!({}));
        document.chunks[0].headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
        document
    };
    tenant.create_with(vec![below(&["Über \"uns\"", "Preise"])]).await;
    let found = tenant.search(SearchMode::Vector(vector_of("x")), 1, None).await;
    assert_eq!(found[0].headings, ["Über \"uns\"", "Preise"]);
    for headings in [&["Preise"][..], &[]] {
        assert_eq!(tenant.upsert(vec![without_vectors(below(headings))]).await.unwrap(), result(0, 1, 0));
        let stored = tenant.store.document(tenant.collection(), "d").await.unwrap();
        assert_eq!(stored.chunks[0].headings, headings, "headings change without a vector");
    }
}

/// A writer replaces a document repeatedly. Every search sees the chunks of exactly one version.
pub async fn readers_see_the_old_or_the_new_document(tenant: &Tenant) {
    let version = |v: usize| {
        let texts: Vec<String> = (0..4).map(|part| format!("version{v} part{part}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        document("d", &texts, json!({"version": v}))
    };
    tenant.create_with(vec![version(0)]).await;
    let write = async {
        for v in 1..25 {
            tenant.upsert(vec![version(v)]).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..40 {
            let hits = tenant.search(SearchMode::Vector(vector_of("anything")), 10, None).await;
            let seen = hits[0].metadata["version"].clone();
            let texts = texts(hits);
            assert_eq!(texts.len(), 4, "{texts:?}");
            assert!(texts.iter().all(|text| text.starts_with(&format!("version{seen} "))), "{texts:?}");
        }
    };
    tokio::join!(write, read);
}
