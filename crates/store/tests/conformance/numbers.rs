//! Numbers of metadata: exact in filters, and read back to the bit. Values that a store could not hold are refused.

use embeddery_store::{DeleteTarget, NewCollection, PageRequest, SearchMode, StoreErrorKind};
use serde_json::{Value, json};

use crate::support::{
    COLLECTION, DIM, Tenant, binding, document, error_kind, filter, ids, object, vector_of,
};

pub async fn neighbouring_integers_are_different_numbers(tenant: &Tenant) {
    let numbers = [
        json!(1_234_567_890_123_456_788_u64),
        json!(1_234_567_890_123_456_789_u64),
        json!(1_234_567_890_123_456_790_u64),
        json!(i64::MIN),
        json!(i64::MIN + 1),
        json!(i64::MAX),
        json!(i64::MAX as u64 + 1),
        json!(u64::MAX - 1),
        json!(u64::MAX),
    ];
    let named = |number: &Value| document(&number.to_string(), &["x"], json!({"n": number}));
    tenant.create_with(numbers.iter().map(named).collect()).await;
    for number in &numbers {
        let found = tenant.search(SearchMode::Vector(vector_of("x")), 20, Some(json!({"n": number}))).await;
        assert_eq!(ids(&found), [number.to_string()]);
    }
    let above = json!({"n": {"$gt": i64::MAX}});
    assert_eq!(tenant.search(SearchMode::Vector(vector_of("x")), 20, Some(above)).await.len(), 3);
    let one = filter(&json!({"n": numbers[1]}));
    assert_eq!(tenant.store.delete(tenant.collection(), DeleteTarget::Where(&one)).await.unwrap(), 1);
    let left =
        tenant.store.documents(tenant.collection(), PageRequest { after: None, limit: 20 }).await.unwrap();
    let deleted = numbers[1].to_string();
    assert!(left.len() == 8 && left.iter().all(|document| document.id != deleted));
}

/// The text of the metadata is the same in every way out, with the signs and the types of its numbers.
pub async fn metadata_is_read_as_it_was_written(tenant: &Tenant) {
    let mut numbers: Vec<Value> = vec![
        json!(0),
        json!(0.0),
        json!(-0.0),
        json!(1.0),
        json!(0.1 + 0.2),
        json!(1e15),
        json!(1e16),
        json!(1e17),
        json!(1e22),
        json!(1e23),
        json!(1e300),
        json!(f64::MAX),
        json!(f64::MIN),
        json!(f64::MIN_POSITIVE),
        json!(5e-324),
        json!(2.225_073_858_507_201e-308),
        json!(9_007_199_254_740_993_u64),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(18_446_744_073_709_551_616.0),
        json!(123_456_789.123_456_79),
        json!(1.000_000_000_000_000_2),
    ];
    // Floats of random bits.
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..500 {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let float = f64::from_bits(bits);
        if float.is_finite() {
            numbers.push(json!(float));
        }
    }
    let metadata = json!({
        "numbers": numbers, "deep": {"a": [[-0.0], {"b": 1e16}]}, "0.00": "0.00 and -0.0", "🦊 \"\\\n": "\u{ffff}", "": null,
    });
    let text = metadata.to_string();
    tenant.create_with(vec![document("d", &["x"], metadata)]).await;
    let as_text = |metadata: &embeddery_store::Metadata| Value::Object(metadata.clone()).to_string();
    let page = PageRequest { after: None, limit: 5 };
    let (target, store) = (tenant.collection(), &tenant.store);
    assert_eq!(as_text(&store.document(target, "d").await.unwrap().metadata), text);
    assert_eq!(as_text(&store.documents(target, page).await.unwrap()[0].metadata), text);
    assert_eq!(as_text(&store.export(target, page).await.unwrap()[0].metadata), text);
    let hits = tenant.search(SearchMode::Vector(vector_of("x")), 1, None).await;
    assert_eq!(as_text(&hits[0].metadata), text);

    let of_collection = object(json!({"n": [1e16, -0.0, f64::MAX, u64::MAX]}));
    let new =
        NewCollection { binding: binding("space-a", DIM), metadata: of_collection.clone(), submission: None };
    let created = store.create(tenant.collection_ref("other"), new).await.unwrap();
    assert_eq!(as_text(&created.metadata), as_text(&of_collection));
}

pub async fn a_document_that_cannot_be_stored_is_refused(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    let good = || document("good", &["x"], json!({}));
    for (bad, word) in [
        (document("d", &["a\0b"], json!({})), "chunks[0].text has a NUL"),
        (document("d", &["a"], json!({"x": ["\0"]})), "metadata.x[0] has a NUL"),
        (document("d", &["a"], json!({"x\0": 1})), "metadata has a field whose name"),
        (document("d\0", &["a"], json!({})), "id has a control character"),
    ] {
        let error = tenant.upsert(vec![good(), bad]).await.unwrap_err();
        assert!(error.kind == StoreErrorKind::Invalid && error.message.contains(word), "{error}");
    }
    assert_eq!(tenant.counts().await, (0, 0));
    for (metadata, space) in [(json!({"a": "\0"}), "space"), (json!({}), "a\nb")] {
        let new =
            NewCollection { binding: binding(space, DIM), metadata: object(metadata), submission: None };
        let refused = tenant.store.create(tenant.collection_ref("other"), new).await;
        assert_eq!(error_kind(refused), StoreErrorKind::Invalid);
    }
}

pub async fn an_id_that_no_document_can_have_is_unknown(tenant: &Tenant) {
    tenant.create_with(vec![document("a", &["x"], json!({})), document("b", &["x"], json!({}))]).await;
    assert_eq!(error_kind(tenant.store.document(tenant.collection(), "a\0").await), StoreErrorKind::NotFound);
    let absent = ["a\0".to_owned(), "\0".to_owned()];
    assert_eq!(tenant.store.delete(tenant.collection(), DeleteTarget::Ids(&absent)).await.unwrap(), 0);
    let page = PageRequest { after: Some("a\0z"), limit: 5 };
    let listed = tenant.store.documents(tenant.collection(), page).await.unwrap();
    assert_eq!(listed.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(), ["b"]);
}
