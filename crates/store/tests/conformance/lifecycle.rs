//! Creation and deletion of collections, and separation of tenants.

use embeddery_store::{CollectionRef, DeletionReceipt, NewCollection, SearchMode, StoreErrorKind};
use serde_json::json;

use crate::support::{COLLECTION, DIM, Tenant, binding, document, error_kind, object};

pub async fn a_collection_is_created_once_found_and_deleted(tenant: &Tenant) {
    let new = || NewCollection {
        binding: binding("space-a", DIM),
        metadata: object(json!({"topic": "ü"})),
        submission: None,
    };
    let created = tenant.store.create(tenant.collection(), new()).await.unwrap();
    assert_eq!(
        (created.name.as_str(), &created.binding, &created.migration),
        (COLLECTION, &binding("space-a", DIM), &None)
    );
    assert_eq!(tenant.store.get(tenant.collection()).await.unwrap(), created);
    assert_eq!(error_kind(tenant.store.create(tenant.collection(), new()).await), StoreErrorKind::Exists);
    tenant.create("another").await;
    let names: Vec<_> = tenant.store.list(&tenant.name).await.unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["another", COLLECTION]);

    tenant.upsert(vec![document("d", &["one", "two"], json!({"a": 1}))]).await.unwrap();
    tenant.store.drop_collection(tenant.collection()).await.unwrap();
    assert_eq!(error_kind(tenant.store.get(tenant.collection()).await), StoreErrorKind::NotFound);
    assert_eq!(error_kind(tenant.store.drop_collection(tenant.collection()).await), StoreErrorKind::NotFound);
    tenant.create(COLLECTION).await;
    assert_eq!(tenant.counts().await, (0, 0), "nothing of the deleted collection is left");
    assert!(tenant.search(SearchMode::Text("one".into()), 5, None).await.is_empty());
    assert!(tenant.near("one", 5).await.is_empty());
    tenant.store.health().await.unwrap();
}

pub async fn names_that_are_paths_are_refused(tenant: &Tenant) {
    for name in ["../up", "a/b", "", ".hidden", "🦊", &"x".repeat(300)] {
        let new =
            NewCollection { binding: binding("space-a", DIM), metadata: object(json!({})), submission: None };
        assert_eq!(
            error_kind(tenant.store.create(tenant.collection_ref(name), new).await),
            StoreErrorKind::Invalid,
            "{name}"
        );
        assert_eq!(
            error_kind(tenant.store.get(tenant.collection_ref(name)).await),
            StoreErrorKind::NotFound,
            "{name}"
        );
    }
}

pub async fn tenants_do_not_see_each_other(tenant: &Tenant) {
    tenant.create_with(vec![document("mine", &["secret"], json!({}))]).await;
    let other = Tenant { store: tenant.store.clone(), name: format!("{}x", tenant.name) };
    assert!(other.store.list(&other.name).await.unwrap().is_empty());
    assert_eq!(error_kind(other.store.get(other.collection()).await), StoreErrorKind::NotFound);
    other.create_with(vec![document("theirs", &["plain"], json!({}))]).await;
    assert_eq!(other.near("secret", 10).await, ["plain"]);
    assert!(other.search(SearchMode::Text("secret".into()), 10, None).await.is_empty());
    assert_eq!(error_kind(other.store.document(other.collection(), "mine").await), StoreErrorKind::NotFound);
    other.store.delete_tenant(&other.name).await.unwrap();
    assert_eq!(tenant.counts().await, (1, 1));
}

pub async fn a_tenant_is_deleted_with_a_receipt(tenant: &Tenant) {
    tenant.create_with(vec![document("a", &["x", "y"], json!({})), document("b", &["z"], json!({}))]).await;
    tenant.create("empty").await;
    let receipt = tenant.store.delete_tenant(&tenant.name).await.unwrap();
    assert_eq!(receipt, DeletionReceipt { collections: 2, documents: 2, vectors: 3 });
    assert!(tenant.store.list(&tenant.name).await.unwrap().is_empty());
    assert_eq!(tenant.store.delete_tenant(&tenant.name).await.unwrap(), DeletionReceipt::default());
    tenant.create_with(vec![document("new", &["again"], json!({}))]).await;
    assert_eq!(tenant.near("x", 10).await, ["again"]);
}

pub async fn concurrent_creates_make_one_collection(tenant: &Tenant) {
    let attempt = || async {
        let new =
            NewCollection { binding: binding("space-a", DIM), metadata: object(json!({})), submission: None };
        tenant.store.create(CollectionRef { tenant: &tenant.name, collection: COLLECTION }, new).await
    };
    let (a, b) = tokio::join!(attempt(), attempt());
    assert!(a.is_ok() != b.is_ok(), "exactly one succeeds");
    assert_eq!(error_kind(if a.is_ok() { b } else { a }), StoreErrorKind::Exists);
}
