//! The move to another model.

use embeddery_core::SpaceId;
use embeddery_store::{DeleteTarget, MissingVector, Mode, StoreErrorKind};
use serde_json::json;

use crate::support::{C, DIM, Tenant, binding, document, kind, vector, vector_of};

/// The new model's vectors are longer.
const NEW_DIM: usize = 12;

fn new_vector(text: &str) -> Vec<f32> {
    vector(text.len() as u64 * 31 + u64::from(text.as_bytes()[0]), NEW_DIM)
}

/// Makes what is pending, at most `limit`, and says how many that were.
async fn step(tenant: &Tenant, generation: i64, limit: usize) -> usize {
    let pending = tenant.store.missing_vectors(tenant.here(), generation, limit).await.unwrap();
    let made = pending.iter().map(|MissingVector { chunk, text }| (*chunk, new_vector(text))).collect();
    tenant.store.insert_vectors(tenant.here(), generation, made).await.unwrap();
    pending.len()
}

pub async fn a_move_switches_at_the_end(tenant: &Tenant) {
    tenant
        .with(vec![document("a", &["one", "two"], json!({"k": 1})), document("b", &["three"], json!({}))])
        .await;
    let to = binding("space-b", NEW_DIM);
    let generation = tenant.store.begin_migration(tenant.here(), to.clone()).await.unwrap();
    assert_eq!(tenant.store.begin_migration(tenant.here(), to.clone()).await.unwrap(), generation, "goes on");
    assert_eq!(step(tenant, generation, 2).await, 2);
    assert!(!tenant.store.activate_generation(tenant.here(), generation).await.unwrap(), "one is missing");
    let stats = tenant.store.stats(tenant.here()).await.unwrap();
    assert_eq!((stats.counts.vectors, stats.migrated), (3, 2));
    assert_eq!(stats.collection.migration.unwrap().binding, to);
    assert_eq!(tenant.near("one", 1).await, ["one"], "the old vectors answer until then");

    assert_eq!(step(tenant, generation, 10).await, 1);
    assert!(tenant.store.activate_generation(tenant.here(), generation).await.unwrap());
    let stats = tenant.store.stats(tenant.here()).await.unwrap();
    assert_eq!((stats.counts.vectors, stats.migrated, stats.counts.documents), (3, 0, 2));
    assert_eq!((stats.collection.binding, stats.collection.migration), (to, None));
    let hits = tenant.search(Mode::Vector(new_vector("three")), 1, Some(json!({}))).await;
    assert_eq!(hits[0].document, "b");
    let query = embeddery_store::Query {
        mode: Mode::Vector(vector_of("one")),
        top_k: 1,
        filter: None,
        with_text: false,
    };
    assert_eq!(
        kind(tenant.store.search(tenant.here(), query).await),
        StoreErrorKind::Invalid,
        "the old length"
    );
    assert!(matches!(
        kind(tenant.add(vec![document("c", &["x"], json!({}))]).await),
        StoreErrorKind::SpaceMismatch { .. }
    ));
}

pub async fn writes_during_a_move_are_not_lost(tenant: &Tenant) {
    tenant.with(vec![document("a", &["one", "two"], json!({})), document("b", &["gone"], json!({}))]).await;
    let generation = tenant.store.begin_migration(tenant.here(), binding("space-b", NEW_DIM)).await.unwrap();
    let stale = tenant.store.missing_vectors(tenant.here(), generation, 10).await.unwrap();
    tenant
        .add(vec![document("a", &["one", "later"], json!({})), document("c", &["new"], json!({}))])
        .await
        .unwrap();
    tenant.store.delete(tenant.here(), DeleteTarget::Ids(&["b".to_owned()])).await.unwrap();
    let made = stale.iter().map(|pending| (pending.chunk, new_vector(&pending.text))).collect();
    tenant.store.insert_vectors(tenant.here(), generation, made).await.unwrap();
    assert!(!tenant.store.activate_generation(tenant.here(), generation).await.unwrap());
    while step(tenant, generation, 10).await > 0 {}
    // Written and removed again after its vector was made.
    tenant.store.delete(tenant.here(), DeleteTarget::Ids(&["c".to_owned()])).await.unwrap();
    assert!(tenant.store.activate_generation(tenant.here(), generation).await.unwrap());
    let hits = tenant.search(Mode::Vector(new_vector("one")), 10, None).await;
    let mut texts: Vec<_> = hits.into_iter().map(|hit| hit.text.unwrap()).collect();
    texts.sort();
    assert_eq!(texts, ["later", "one"]);
    assert_eq!(tenant.counts().await, (1, 2));
}

pub async fn a_move_is_replaced_by_another(tenant: &Tenant) {
    tenant.with(vec![document("a", &["one"], json!({}))]).await;
    let first = tenant.store.begin_migration(tenant.here(), binding("space-b", NEW_DIM)).await.unwrap();
    step(tenant, first, 10).await;
    let second = tenant.store.begin_migration(tenant.here(), binding("space-c", NEW_DIM)).await.unwrap();
    assert_ne!(first, second);
    for refused in [
        tenant.store.insert_vectors(tenant.here(), first, vec![]).await.map(|()| false),
        tenant.store.activate_generation(tenant.here(), first).await,
    ] {
        assert_eq!(kind(refused), StoreErrorKind::Migration);
    }
    assert_eq!(tenant.store.stats(tenant.here()).await.unwrap().migrated, 0);
    step(tenant, second, 10).await;
    assert!(tenant.store.activate_generation(tenant.here(), second).await.unwrap());
    assert_eq!(tenant.store.get(tenant.here()).await.unwrap().binding.space, SpaceId::new("space-c"));
}

pub async fn a_move_to_the_same_space_is_refused(tenant: &Tenant) {
    tenant.create(C).await;
    let same = binding("space-a", DIM);
    assert_eq!(kind(tenant.store.begin_migration(tenant.here(), same).await), StoreErrorKind::Migration);
}
