//! Collections come and go; tenants are apart.

use embeddery_store::{CollectionRef, DeletionReceipt, Mode, NewCollection, StoreErrorKind};
use serde_json::json;

use crate::support::{C, DIM, Tenant, binding, document, kind, object};

pub async fn a_collection_is_made_once_found_and_dropped(tenant: &Tenant) {
    let new = || NewCollection {
        binding: binding("space-a", DIM),
        metadata: object(json!({"topic": "ü"})),
        submission: None,
    };
    let made = tenant.store.create(tenant.here(), new()).await.unwrap();
    assert_eq!((made.name.as_str(), &made.binding, &made.migration), (C, &binding("space-a", DIM), &None));
    assert_eq!(tenant.store.get(tenant.here()).await.unwrap(), made);
    assert_eq!(kind(tenant.store.create(tenant.here(), new()).await), StoreErrorKind::Exists);
    tenant.create("another").await;
    let names: Vec<_> = tenant.store.list(&tenant.name).await.unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["another", C]);

    tenant.add(vec![document("d", &["one", "two"], json!({"a": 1}))]).await.unwrap();
    tenant.store.drop_collection(tenant.here()).await.unwrap();
    assert_eq!(kind(tenant.store.get(tenant.here()).await), StoreErrorKind::NotFound);
    assert_eq!(kind(tenant.store.drop_collection(tenant.here()).await), StoreErrorKind::NotFound);
    tenant.create(C).await;
    assert_eq!(tenant.counts().await, (0, 0), "nothing of the old one is left");
    assert!(tenant.search(Mode::Text("one".into()), 5, None).await.is_empty());
    assert!(tenant.near("one", 5).await.is_empty());
    tenant.store.health().await.unwrap();
}

pub async fn names_that_are_paths_are_refused(tenant: &Tenant) {
    for name in ["../up", "a/b", "", ".hidden", "🦊", &"x".repeat(300)] {
        let new =
            NewCollection { binding: binding("space-a", DIM), metadata: object(json!({})), submission: None };
        assert_eq!(
            kind(tenant.store.create(tenant.place(name), new).await),
            StoreErrorKind::Invalid,
            "{name}"
        );
        assert_eq!(kind(tenant.store.get(tenant.place(name)).await), StoreErrorKind::NotFound, "{name}");
    }
}

pub async fn tenants_do_not_see_each_other(tenant: &Tenant) {
    tenant.with(vec![document("mine", &["secret"], json!({}))]).await;
    let other = Tenant { store: tenant.store.clone(), name: format!("{}x", tenant.name) };
    assert!(other.store.list(&other.name).await.unwrap().is_empty());
    assert_eq!(kind(other.store.get(other.here()).await), StoreErrorKind::NotFound);
    other.with(vec![document("theirs", &["plain"], json!({}))]).await;
    assert_eq!(other.near("secret", 10).await, ["plain"]);
    assert!(other.search(Mode::Text("secret".into()), 10, None).await.is_empty());
    assert_eq!(kind(other.store.document(other.here(), "mine").await), StoreErrorKind::NotFound);
    other.store.delete_tenant(&other.name).await.unwrap();
    assert_eq!(tenant.counts().await, (1, 1));
}

pub async fn a_tenant_is_deleted_with_a_receipt(tenant: &Tenant) {
    tenant.with(vec![document("a", &["x", "y"], json!({})), document("b", &["z"], json!({}))]).await;
    tenant.create("empty").await;
    let receipt = tenant.store.delete_tenant(&tenant.name).await.unwrap();
    assert_eq!(receipt, DeletionReceipt { collections: 2, documents: 2, vectors: 3 });
    assert!(tenant.store.list(&tenant.name).await.unwrap().is_empty());
    assert_eq!(tenant.store.delete_tenant(&tenant.name).await.unwrap(), DeletionReceipt::default());
    tenant.with(vec![document("new", &["again"], json!({}))]).await;
    assert_eq!(tenant.near("x", 10).await, ["again"]);
}

pub async fn two_make_one_collection(tenant: &Tenant) {
    let attempt = || async {
        let new =
            NewCollection { binding: binding("space-a", DIM), metadata: object(json!({})), submission: None };
        tenant.store.create(CollectionRef { tenant: &tenant.name, collection: C }, new).await
    };
    let (a, b) = tokio::join!(attempt(), attempt());
    assert!(a.is_ok() != b.is_ok(), "one of them made it");
    assert_eq!(kind(if a.is_ok() { b } else { a }), StoreErrorKind::Exists);
}
