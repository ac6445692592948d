//! Filters, which select the same documents in every store.

use std::collections::BTreeSet;

use embeddery_store::SearchMode;
use serde_json::{Value, json};

use crate::support::{Tenant, document, vector_of};

/// The documents that a filter selects, which must be the same in a vector search and a text search.
async fn matching_documents(tenant: &Tenant, condition: Value) -> BTreeSet<String> {
    let hits = tenant.search(SearchMode::Vector(vector_of("q")), 500, Some(condition.clone())).await;
    let by_vector: BTreeSet<String> = hits.into_iter().map(|hit| hit.document).collect();
    let hits = tenant.search(SearchMode::Text("common".into()), 500, Some(condition)).await;
    assert_eq!(
        hits.into_iter().map(|hit| hit.document).collect::<BTreeSet<_>>(),
        by_vector,
        "a text search finds the same documents"
    );
    by_vector
}

async fn assert_matches(tenant: &Tenant, condition: Value, expected: &str) {
    let expected: BTreeSet<String> = expected.split_whitespace().map(str::to_owned).collect();
    assert_eq!(matching_documents(tenant, condition.clone()).await, expected, "{condition}");
}

fn with_common_word(id: &str, metadata: Value) -> embeddery_store::Document {
    document(id, &[&format!("common {id}")], metadata)
}

pub async fn every_operator_filters(tenant: &Tenant) {
    tenant
        .create_with(vec![
            with_common_word("a", json!({"n": 1, "s": "x", "b": true})),
            with_common_word("b", json!({"n": 2.5, "s": "y", "b": false})),
            with_common_word("c", json!({"n": -3, "s": "z"})),
            with_common_word("d", json!({})),
        ])
        .await;
    for (condition, expected) in [
        (json!({}), "a b c d"),
        (json!({"n": 1}), "a"),
        (json!({"n": 1.0}), "a"),
        (json!({"s": {"$eq": "y"}}), "b"),
        (json!({"b": true}), "a"),
        (json!({"b": {"$ne": true}}), "b c d"),
        (json!({"n": {"$gt": 1}}), "b"),
        (json!({"n": {"$gte": 1}}), "a b"),
        (json!({"n": {"$lt": 1}}), "c"),
        (json!({"n": {"$lte": 1}}), "a c"),
        (json!({"s": {"$gte": "y"}}), "b c"),
        (json!({"s": {"$in": ["x", "z", 1]}}), "a c"),
        (json!({"s": {"$nin": ["x", "z"]}}), "b d"),
        (json!({"n": {"$in": []}}), ""),
        (json!({"n": {"$gt": -5, "$lt": 2}}), "a c"),
        (json!({"$or": [{"n": 1}, {"s": "z"}]}), "a c"),
        (json!({"$and": [{"n": {"$gt": 0}}, {"b": false}]}), "b"),
        (json!({"$not": {"s": {"$in": ["x", "y"]}}}), "c d"),
        (json!({"$not": {"$or": [{"n": 1}, {"$not": {"s": "y"}}]}}), "b"),
        (json!({"absent": 1}), ""),
        (json!({"absent": {"$ne": 1}}), "a b c d"),
    ] {
        assert_matches(tenant, condition, expected).await;
    }
}

pub async fn a_list_matches_by_element(tenant: &Tenant) {
    tenant
        .create_with(vec![
            with_common_word("a", json!({"tags": ["red", "blue", 3]})),
            with_common_word("b", json!({"tags": "red"})),
            with_common_word("c", json!({"tags": []})),
            with_common_word("d", json!({"tags": {"red": "red"}, "o'k\"x": 1})),
        ])
        .await;
    assert_matches(tenant, json!({"tags": "red"}), "a b").await;
    assert_matches(tenant, json!({"tags": {"$gt": 2}}), "a").await;
    assert_matches(tenant, json!({"tags": {"$ne": "red"}}), "c d").await;
    assert_matches(tenant, json!({"o'k\"x": 1}), "d").await;
}

pub async fn values_of_different_types_never_match(tenant: &Tenant) {
    tenant
        .create_with(vec![
            with_common_word("n", json!({"v": 1})),
            with_common_word("s", json!({"v": "1"})),
            with_common_word("b", json!({"v": true})),
            with_common_word("0", json!({"v": null})),
        ])
        .await;
    assert_matches(tenant, json!({"v": 1}), "n").await;
    assert_matches(tenant, json!({"v": "1"}), "s").await;
    assert_matches(tenant, json!({"v": true}), "b").await;
    assert_matches(tenant, json!({"v": {"$gt": 0}}), "n").await;
    assert_matches(tenant, json!({"v": {"$gt": ""}}), "s").await;
    assert_matches(tenant, json!({"v": {"$ne": 1}}), "s b 0").await;
}

/// Few documents match the filter, and all are far from the query. All are found.
pub async fn a_rare_filter_still_fills_top_k(tenant: &Tenant) {
    let all = (0..1500).map(|i| {
        let mut made = with_common_word(&format!("{i}"), json!({"rare": i % 100 == 0}));
        if i % 100 == 0 {
            made.chunks[0].vector = Some(vector_of("q").iter().map(|x| -x).collect());
        }
        made
    });
    tenant.create_with(all.collect()).await;
    let hits = tenant.search(SearchMode::Vector(vector_of("q")), 15, Some(json!({"rare": true}))).await;
    assert_eq!(hits.len(), 15);
    assert!(hits.iter().all(|hit| hit.metadata["rare"] == true));
}

pub async fn missing_fields_match_a_negation_only(tenant: &Tenant) {
    tenant
        .create_with(vec![
            with_common_word("absent", json!({})),
            with_common_word("null", json!({"v": null})),
            with_common_word("empty", json!({"v": []})),
            with_common_word("object", json!({"v": {"v": 1}})),
            with_common_word("nested", json!({"v": [[1], {"v": 1}, null]})),
            with_common_word("one", json!({"v": [2, 1]})),
        ])
        .await;
    let others = "absent null empty object nested";
    for (condition, expected) in [
        (json!({"v": 1}), "one"),
        (json!({"v": {"$gt": 0}}), "one"),
        (json!({"v": {"$in": [1, 3]}}), "one"),
        (json!({"v": {"$ne": 1}}), others),
        (json!({"v": {"$nin": [1, 3]}}), others),
        (json!({"$not": {"v": 1}}), others),
        (json!({"$not": {"v": {"$gt": 0}}}), others),
        (json!({"$not": {"$or": [{"v": {"$gt": 0}}, {"w": 1}]}}), others),
        (json!({"$not": {"$and": [{"v": {"$gt": 0}}, {"w": 1}]}}), "absent null empty object nested one"),
        (json!({"v": {"$nin": []}}), "absent null empty object nested one"),
    ] {
        assert_matches(tenant, condition, expected).await;
    }
}

/// The limit of a filter's size is that of the parser, not that of a database.
pub async fn a_filter_of_a_thousand_conditions_works(tenant: &Tenant) {
    tenant
        .create_with(vec![with_common_word("a", json!({"n": 7})), with_common_word("b", json!({"n": -1}))])
        .await;
    for operator in ["$or", "$and"] {
        let value =
            |i: i32| if operator == "$or" { json!({"n": i}) } else { json!({"n": {"$gte": i - 495}}) };
        let parts: Vec<Value> = (0..499).map(value).collect();
        assert_matches(tenant, json!({operator: parts}), "a").await;
    }
    let parts: Vec<Value> = (0..998).map(|i| json!({"n": i})).collect();
    assert_matches(tenant, json!({"$or": parts}), "a").await;
    let deep = (0..31).fold(json!({"n": 7}), |inner, i| {
        if i % 2 == 0 { json!({"$not": inner}) } else { json!({"$and": [inner, {"n": {"$gt": -5}}]}) }
    });
    matching_documents(tenant, deep).await;
}
