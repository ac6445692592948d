//! Documents in, again, changed, out.

use embeddery_core::SpaceId;
use embeddery_store::{Chunk, DeleteTarget, Document, NewCollection, Page, StoreErrorKind, UpsertResult};
use serde_json::json;
use uuid::Uuid;

use crate::support::{C, DIM, Tenant, bare, binding, document, filter, kind, object, texts, vector_of};
use embeddery_store::Mode;

fn written(added: u64, kept: u64, removed: u64) -> UpsertResult {
    UpsertResult { added, kept, removed, ..UpsertResult::default() }
}

pub async fn adding_again_costs_nothing_and_changes_replace(tenant: &Tenant) {
    tenant.create(C).await;
    let first = document("d", &["one", "two", "two"], json!({"v": 1}));
    assert_eq!(tenant.add(vec![first.clone()]).await.unwrap(), written(3, 0, 0));
    let before = tenant.store.document(tenant.here(), "d").await.unwrap();
    assert_eq!(
        tenant.store.existing_chunks(tenant.here(), &[bare(first.clone())]).await.unwrap(),
        [[true; 3]]
    );
    assert_eq!(tenant.add(vec![bare(first)]).await.unwrap(), written(0, 3, 0), "no vector is needed");
    assert_eq!(tenant.store.document(tenant.here(), "d").await.unwrap(), before);
    assert_eq!(tenant.counts().await, (1, 3));

    let changed = document("d", &["one", "three", "two"], json!({"v": 1}));
    let stored = tenant.store.existing_chunks(tenant.here(), std::slice::from_ref(&changed)).await.unwrap();
    assert_eq!(stored, [[true, false, true]]);
    assert_eq!(tenant.add(vec![changed]).await.unwrap(), written(1, 2, 1));
    let after = tenant.store.document(tenant.here(), "d").await.unwrap();
    assert_eq!(after.chunks.iter().map(|c| c.text.as_str()).collect::<Vec<_>>(), ["one", "three", "two"]);
    assert_eq!(after.chunks[0].id, before.chunks[0].id);
    assert_eq!(after.chunks[2].id, before.chunks[1].id, "the first 'two' is now the last chunk");
    assert_eq!(tenant.counts().await, (1, 3));
}

pub async fn an_insertion_keeps_the_neighbours(tenant: &Tenant) {
    tenant.with(vec![document("d", &["b", "c"], json!({}))]).await;
    assert_eq!(tenant.add(vec![document("d", &["a", "b", "c"], json!({}))]).await.unwrap(), written(1, 2, 0));
    let spans: Vec<_> = tenant.store.document(tenant.here(), "d").await.unwrap().chunks;
    assert_eq!(spans.iter().map(|c| c.span.bytes.0).collect::<Vec<_>>(), [0, 2, 4], "places follow");
}

pub async fn metadata_change_alone(tenant: &Tenant) {
    tenant.with(vec![document("d", &["x"], json!({"state": "old", "n": 1}))]).await;
    assert_eq!(
        tenant.add(vec![bare(document("d", &["x"], json!({"state": "new"})))]).await.unwrap(),
        written(0, 1, 0)
    );
    let find = |value| tenant.search(Mode::Vector(vector_of("x")), 5, Some(value));
    assert_eq!(find(json!({"state": "new"})).await.len(), 1);
    assert!(find(json!({"state": "old"})).await.is_empty());
    assert!(find(json!({"n": 1})).await.is_empty());
}

pub async fn pages_by_id(tenant: &Tenant) {
    let ids = ["a", "b", "B", "ä", "z", "0", "a/b"];
    tenant.with(ids.iter().map(|id| document(id, &[id, "and"], json!({"id": id}))).collect()).await;
    let mut sorted = ids;
    sorted.sort_unstable();
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = Page { after: after.as_deref(), limit: 3 };
        let listed = tenant.store.documents(tenant.here(), page).await.unwrap();
        let exported = tenant.store.export(tenant.here(), page).await.unwrap();
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

pub async fn all_or_nothing(tenant: &Tenant) {
    tenant.create(C).await;
    let mut broken = document("bad", &["fine", "broken"], json!({}));
    broken.chunks[1].vector = Some(vec![1.0]);
    assert_eq!(
        kind(tenant.add(vec![document("good", &["x"], json!({})), broken]).await),
        StoreErrorKind::Invalid
    );
    assert_eq!(tenant.counts().await, (0, 0));
}

pub async fn vectors_that_cannot_be_compared_are_refused(tenant: &Tenant) {
    tenant.create(C).await;
    for (vector, word) in [
        (vec![1.0; 7], "7 numbers"),
        (vec![f32::NAN; 8], "not finite"),
        (vec![f32::INFINITY; 8], "not finite"),
        (vec![0.0; 8], "all zeros"),
    ] {
        let mut wrong = document("d", &["x"], json!({}));
        wrong.chunks[0].vector = Some(vector.clone());
        let error = tenant.add(vec![wrong]).await.unwrap_err();
        assert!(error.kind == StoreErrorKind::Invalid && error.message.contains(word), "{error}");
        let query =
            embeddery_store::Query { mode: Mode::Vector(vector), top_k: 3, filter: None, with_text: false };
        let error = tenant.store.search(tenant.here(), query).await.unwrap_err();
        assert!(error.kind == StoreErrorKind::Invalid && error.message.contains(word), "{error}");
    }
}

pub async fn another_space_is_refused_by_name(tenant: &Tenant) {
    tenant.create(C).await;
    let documents = vec![document("d", &["x"], json!({}))];
    let error =
        tenant.store.upsert(tenant.here(), Some(SpaceId::new("space-b")), documents).await.unwrap_err();
    assert!(error.message.contains("'space-a'") && error.message.contains("'space-b'"), "{error}");
    assert!(matches!(error.kind, StoreErrorKind::SpaceMismatch { .. }));
    assert_eq!(tenant.counts().await, (0, 0));
}

pub async fn a_vector_that_is_not_sent_and_not_stored_is_missed(tenant: &Tenant) {
    tenant.create(C).await;
    let documents = vec![bare(document("d", &["x"], json!({})))];
    assert_eq!(kind(tenant.add(documents).await), StoreErrorKind::VectorMissing);
}

pub async fn deletion_by_id_and_by_filter(tenant: &Tenant) {
    let all = (0..10).map(|i| document(&format!("d{i}"), &[&format!("text {i}"), "x"], json!({"i": i})));
    tenant.with(all.collect()).await;
    let ids = ["d1".to_owned(), "d1".to_owned(), "absent".to_owned()];
    assert_eq!(tenant.store.delete(tenant.here(), DeleteTarget::Ids(&ids)).await.unwrap(), 1);
    assert_eq!(tenant.counts().await, (9, 18));
    let condition = filter(&json!({"i": {"$gte": 5}}));
    assert_eq!(tenant.store.delete(tenant.here(), DeleteTarget::Where(&condition)).await.unwrap(), 5);
    assert_eq!(tenant.counts().await, (4, 8));
    let found = tenant.search(Mode::Text("text".into()), 20, None).await;
    assert_eq!(found.len(), 4);
    assert_eq!(tenant.search(Mode::Vector(vector_of("text 7")), 20, None).await.len(), 8);
    assert_eq!(kind(tenant.store.document(tenant.here(), "d7").await), StoreErrorKind::NotFound);
}

pub async fn export_gives_what_import_takes(tenant: &Tenant) {
    let all =
        (0..5).map(|i| document(&format!("d{i}"), &[&format!("text {i}"), "and"], json!({"i": i, "l": [i]})));
    tenant.with(all.collect()).await;
    let exported = tenant.store.export(tenant.here(), Page { after: None, limit: 100 }).await.unwrap();
    let back: Vec<Document> = exported
        .iter()
        .map(|stored| Document {
            id: stored.id.clone(),
            metadata: stored.metadata.clone(),
            chunks: stored
                .chunks
                .iter()
                .map(|c| Chunk {
                    text: c.text.clone(),
                    span: c.span,
                    headings: c.headings.clone(),
                    vector: Some(c.vector.clone()),
                })
                .collect(),
            submission: None,
        })
        .collect();
    tenant.store.drop_collection(tenant.here()).await.unwrap();
    tenant.with(back).await;
    let again = tenant.store.export(tenant.here(), Page { after: None, limit: 100 }).await.unwrap();
    assert_eq!(again, exported, "ids, texts, vectors, all of it");
}

pub async fn the_later_submission_stays_whoever_comes_last(tenant: &Tenant) {
    tenant.create(C).await;
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let of = |id: &str, texts: &[&str], submission| Document {
        submission,
        ..document(id, texts, json!({"of": texts[0]}))
    };
    tenant.add(vec![of("d", &["later", "both"], Some(second))]).await.unwrap();
    let before = tenant.store.document(tenant.here(), "d").await.unwrap();
    let both = vec![bare(of("d", &["earlier", "both"], Some(first))), of("e", &["alone"], Some(first))];
    let due = UpsertResult { overtaken: vec![("d".into(), second)], ..written(1, 0, 0) };
    assert_eq!(tenant.add(both).await.unwrap(), due, "and its neighbour is stored");
    assert_eq!(tenant.store.document(tenant.here(), "d").await.unwrap(), before);
    assert!(tenant.search(Mode::Vector(vector_of("x")), 9, Some(json!({"of": "earlier"}))).await.is_empty());
    // The same once more is no other submission.
    assert_eq!(tenant.add(vec![of("d", &["later", "new"], Some(second))]).await.unwrap(), written(1, 1, 1));
    // Who waits for the answer writes whatever is there, and is the latest from then on.
    assert_eq!(tenant.add(vec![of("d", &["by hand"], None)]).await.unwrap(), written(1, 0, 2));
    let overtaken = tenant.add(vec![of("d", &["later", "new"], Some(second))]).await.unwrap().overtaken;
    assert!(matches!(&overtaken[..], [(id, by)] if id == "d" && *by > second), "{overtaken:?}");
    assert_eq!(tenant.counts().await, (2, 2));
}

pub async fn what_was_deleted_does_not_come_back_with_an_earlier_submission(tenant: &Tenant) {
    let of = |id: &str, submission| Document { submission, ..document(id, &[id], json!({"of": id})) };
    let before = Some(Uuid::now_v7());
    tenant.with(vec![of("d", None), of("e", None), of("f", None)]).await;
    tenant.store.delete(tenant.here(), DeleteTarget::Ids(&["d".into(), "none".into()])).await.unwrap();
    tenant.store.delete(tenant.here(), DeleteTarget::Where(&filter(&json!({"of": "e"})))).await.unwrap();
    for id in ["d", "e"] {
        let overtaken = tenant.add(vec![of(id, before)]).await.unwrap().overtaken;
        assert!(
            matches!(&overtaken[..], [(found, by)] if found == id && Some(*by) > before),
            "{overtaken:?}"
        );
    }
    assert_eq!(tenant.counts().await, (1, 1));
    // A later submission, and who waits for the answer, bring it back.
    assert_eq!(tenant.add(vec![of("d", Some(Uuid::now_v7()))]).await.unwrap(), written(1, 0, 0));
    assert_eq!(tenant.add(vec![of("e", None)]).await.unwrap(), written(1, 0, 0));

    let during = Some(Uuid::now_v7());
    tenant.store.drop_collection(tenant.here()).await.unwrap();
    let new = |submission| NewCollection {
        binding: binding("space-a", DIM),
        metadata: object(json!({})),
        submission,
    };
    let refused = tenant.store.create(tenant.here(), new(during)).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::NotFound);
    tenant.store.create(tenant.here(), new(None)).await.unwrap();
    assert_eq!(tenant.add(vec![of("g", during)]).await.unwrap().overtaken.len(), 1);
    assert_eq!(tenant.add(vec![of("g", Some(Uuid::now_v7()))]).await.unwrap(), written(1, 0, 0));
}

pub async fn headings_come_back_and_follow_a_change(tenant: &Tenant) {
    let below = |headings: &[&str]| {
        let mut document = document("d", &["x"], json!({}));
        document.chunks[0].headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
        document
    };
    tenant.with(vec![below(&["Über \"uns\"", "Preise"])]).await;
    let found = tenant.search(Mode::Vector(vector_of("x")), 1, None).await;
    assert_eq!(found[0].headings, ["Über \"uns\"", "Preise"]);
    for headings in [&["Preise"][..], &[]] {
        assert_eq!(tenant.add(vec![bare(below(headings))]).await.unwrap(), written(0, 1, 0));
        let stored = tenant.store.document(tenant.here(), "d").await.unwrap();
        assert_eq!(stored.chunks[0].headings, headings, "no vector is needed for that");
    }
}

/// One writer replaces a document over and over; every reader sees all chunks of one version.
pub async fn readers_see_the_old_or_the_new_document(tenant: &Tenant) {
    let version = |v: usize| {
        let texts: Vec<String> = (0..4).map(|part| format!("version{v} part{part}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        document("d", &texts, json!({"version": v}))
    };
    tenant.with(vec![version(0)]).await;
    let write = async {
        for v in 1..25 {
            tenant.add(vec![version(v)]).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..40 {
            let hits = tenant.search(Mode::Vector(vector_of("anything")), 10, None).await;
            let seen = hits[0].metadata["version"].clone();
            let texts = texts(hits);
            assert_eq!(texts.len(), 4, "{texts:?}");
            assert!(texts.iter().all(|text| text.starts_with(&format!("version{seen} "))), "{texts:?}");
        }
    };
    tokio::join!(write, read);
}
