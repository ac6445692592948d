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

/// Many filters against a plain implementation.
pub async fn filters_agree_with_a_plain_implementation(tenant: &Tenant) {
    let metadata: Vec<Value> = (0..60)
        .map(|i| json!({"a": i % 7, "b": (["x", "y", "z"][i % 3]), "c": i % 2 == 0, "d": [i % 4, i % 5]}))
        .collect();
    tenant
        .create_with(
            metadata.iter().enumerate().map(|(i, m)| with_common_word(&i.to_string(), m.clone())).collect(),
        )
        .await;
    let leaves = [
        json!({"a": {"$gte": 3}}),
        json!({"b": {"$in": ["x", "z"]}}),
        json!({"c": true}),
        json!({"d": 3}),
        json!({"a": {"$nin": [1, 2]}}),
    ];
    let mut conditions = leaves.to_vec();
    for (i, left) in leaves.iter().enumerate() {
        let right = &leaves[(i + 1) % leaves.len()];
        conditions.push(json!({"$and": [left, {"$not": right}]}));
        conditions.push(json!({"$or": [{"$not": left}, right]}));
    }
    for condition in conditions {
        let expected = metadata
            .iter()
            .enumerate()
            .filter(|(_, m)| filter_matches(&condition, m))
            .map(|(i, _)| i.to_string());
        assert_eq!(matching_documents(tenant, condition.clone()).await, expected.collect(), "{condition}");
    }
}

/// A plain implementation of filters.
fn filter_matches(condition: &Value, metadata: &Value) -> bool {
    let (key, value) = condition.as_object().unwrap().iter().next().unwrap();
    let mut parts = value.as_array().into_iter().flatten();
    match key.as_str() {
        "$and" => parts.all(|part| filter_matches(part, metadata)),
        "$or" => parts.any(|part| filter_matches(part, metadata)),
        "$not" => !filter_matches(value, metadata),
        field => {
            let stored = &metadata[field];
            let items = stored.as_array().cloned().unwrap_or_else(|| vec![stored.clone()]);
            let any = |test: &dyn Fn(&Value) -> bool| items.iter().any(test);
            match value.as_object().and_then(|operators| operators.iter().next()) {
                None => any(&|item| item == value),
                Some((operator, value)) => match operator.as_str() {
                    "$gte" => any(&|item| item.as_i64() >= value.as_i64()),
                    "$in" => any(&|item| value.as_array().unwrap().contains(item)),
                    "$nin" => !any(&|item| value.as_array().unwrap().contains(item)),
                    other => panic!("{other}"),
                },
            }
        }
    }
}
