//! Migration of a collection to another model.

use embeddery_core::SpaceId;
use embeddery_store::{DeleteTarget, MissingVector, SearchMode, StoreErrorKind};
use serde_json::json;

use crate::support::{COLLECTION, DIM, Tenant, binding, document, error_kind, vector, vector_of};

/// Dimensions of the new model.
const NEW_DIM: usize = 12;

fn new_vector(text: &str) -> Vec<f32> {
    vector(text.len() as u64 * 31 + u64::from(text.as_bytes()[0]), NEW_DIM)
}

/// Stores at most `limit` missing vectors and returns how many there were.
async fn insert_missing(tenant: &Tenant, generation: i64, limit: usize) -> usize {
    let missing = tenant.store.missing_vectors(tenant.collection(), generation, limit).await.unwrap();
    let vectors = missing.iter().map(|MissingVector { chunk, text }| (*chunk, new_vector(text))).collect();
    tenant.store.insert_vectors(tenant.collection(), generation, vectors).await.unwrap();
    missing.len()
}

pub async fn a_migration_switches_when_it_is_complete(tenant: &Tenant) {
    tenant
        .create_with(vec![
            document("a", &["one", "two"], json!({"k": 1})),
            document("b", &["three"], json!({})),
        ])
        .await;
    let to = binding("space-b", NEW_DIM);
    let generation = tenant.store.begin_migration(tenant.collection(), to.clone()).await.unwrap();
    assert_eq!(
        tenant.store.begin_migration(tenant.collection(), to.clone()).await.unwrap(),
        generation,
        "it is continued"
    );
    assert_eq!(insert_missing(tenant, generation, 2).await, 2);
    assert!(
        !tenant.store.activate_generation(tenant.collection(), generation).await.unwrap(),
        "a vector is missing"
    );
    let stats = tenant.store.stats(tenant.collection()).await.unwrap();
    assert_eq!((stats.counts.vectors, stats.migrated), (3, 2));
    assert_eq!(stats.collection.migration.unwrap().binding, to);
    assert_eq!(tenant.near("one", 1).await, ["one"], "the old vectors are searched until then");

    assert_eq!(insert_missing(tenant, generation, 10).await, 1);
    assert!(tenant.store.activate_generation(tenant.collection(), generation).await.unwrap());
    let stats = tenant.store.stats(tenant.collection()).await.unwrap();
    assert_eq!((stats.counts.vectors, stats.migrated, stats.counts.documents), (3, 0, 2));
    assert_eq!((stats.collection.binding, stats.collection.migration), (to, None));
    let hits = tenant.search(SearchMode::Vector(new_vector("three")), 1, Some(json!({}))).await;
    assert_eq!(hits[0].document, "b");
    let query = embeddery_store::Query {
        mode: SearchMode::Vector(vector_of("one")),
        top_k: 1,
        filter: None,
        with_text: false,
    };
    assert_eq!(
        error_kind(tenant.store.search(tenant.collection(), query).await),
        StoreErrorKind::Invalid,
        "the dimensions of the old model"
    );
    assert!(matches!(
        error_kind(tenant.upsert(vec![document("c", &["x"], json!({}))]).await),
        StoreErrorKind::SpaceMismatch { .. }
    ));
}

pub async fn writes_during_a_migration_are_not_lost(tenant: &Tenant) {
    tenant
        .create_with(vec![document("a", &["one", "two"], json!({})), document("b", &["gone"], json!({}))])
        .await;
    let generation =
        tenant.store.begin_migration(tenant.collection(), binding("space-b", NEW_DIM)).await.unwrap();
    let stale = tenant.store.missing_vectors(tenant.collection(), generation, 10).await.unwrap();
    tenant
        .upsert(vec![document("a", &["one", "later"], json!({})), document("c", &["new"], json!({}))])
        .await
        .unwrap();
    tenant.store.delete(tenant.collection(), DeleteTarget::Ids(&["b".to_owned()])).await.unwrap();
    let vectors = stale.iter().map(|missing| (missing.chunk, new_vector(&missing.text))).collect();
    tenant.store.insert_vectors(tenant.collection(), generation, vectors).await.unwrap();
    assert!(!tenant.store.activate_generation(tenant.collection(), generation).await.unwrap());
    while insert_missing(tenant, generation, 10).await > 0 {}
    // A document that is deleted after its vector was stored.
    tenant.store.delete(tenant.collection(), DeleteTarget::Ids(&["c".to_owned()])).await.unwrap();
    assert!(tenant.store.activate_generation(tenant.collection(), generation).await.unwrap());
    let hits = tenant.search(SearchMode::Vector(new_vector("one")), 10, None).await;
    let mut texts: Vec<_> = hits.into_iter().map(|hit| hit.text.unwrap()).collect();
    texts.sort();
    assert_eq!(texts, ["later", "one"]);
    assert_eq!(tenant.counts().await, (1, 2));
}

pub async fn a_migration_is_replaced_by_another(tenant: &Tenant) {
    tenant.create_with(vec![document("a", &["one"], json!({}))]).await;
    let first = tenant.store.begin_migration(tenant.collection(), binding("space-b", NEW_DIM)).await.unwrap();
    insert_missing(tenant, first, 10).await;
    let second =
        tenant.store.begin_migration(tenant.collection(), binding("space-c", NEW_DIM)).await.unwrap();
    assert_ne!(first, second);
    for refused in [
        tenant.store.insert_vectors(tenant.collection(), first, vec![]).await.map(|()| false),
        tenant.store.activate_generation(tenant.collection(), first).await,
    ] {
        assert_eq!(error_kind(refused), StoreErrorKind::Migration);
    }
    assert_eq!(tenant.store.stats(tenant.collection()).await.unwrap().migrated, 0);
    insert_missing(tenant, second, 10).await;
    assert!(tenant.store.activate_generation(tenant.collection(), second).await.unwrap());
    assert_eq!(tenant.store.get(tenant.collection()).await.unwrap().binding.space, SpaceId::new("space-c"));
}

pub async fn a_migration_to_the_same_space_is_refused(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    let same = binding("space-a", DIM);
    assert_eq!(
        error_kind(tenant.store.begin_migration(tenant.collection(), same).await),
        StoreErrorKind::Migration
    );
}
