//! Filters mean the same in every store.

use std::collections::BTreeSet;

use embeddery_store::Mode;
use serde_json::{Value, json};

use crate::support::{Tenant, document, vector_of};

async fn found(tenant: &Tenant, condition: Value) -> BTreeSet<String> {
    let hits = tenant.search(Mode::Vector(vector_of("q")), 500, Some(condition.clone())).await;
    let near: BTreeSet<String> = hits.into_iter().map(|hit| hit.document).collect();
    let hits = tenant.search(Mode::Text("common".into()), 500, Some(condition)).await;
    assert_eq!(
        hits.into_iter().map(|hit| hit.document).collect::<BTreeSet<_>>(),
        near,
        "by words as by vector"
    );
    near
}

async fn fits(tenant: &Tenant, condition: Value, due: &str) {
    let due: BTreeSet<String> = due.split_whitespace().map(str::to_owned).collect();
    assert_eq!(found(tenant, condition.clone()).await, due, "{condition}");
}

fn with(id: &str, metadata: Value) -> embeddery_store::Document {
    document(id, &[&format!("common {id}")], metadata)
}

pub async fn every_operator(tenant: &Tenant) {
    tenant
        .with(vec![
            with("a", json!({"n": 1, "s": "x", "b": true})),
            with("b", json!({"n": 2.5, "s": "y", "b": false})),
            with("c", json!({"n": -3, "s": "z"})),
            with("d", json!({})),
        ])
        .await;
    for (condition, due) in [
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
        fits(tenant, condition, due).await;
    }
}

pub async fn lists_fit_by_element(tenant: &Tenant) {
    tenant
        .with(vec![
            with("a", json!({"tags": ["red", "blue", 3]})),
            with("b", json!({"tags": "red"})),
            with("c", json!({"tags": []})),
            with("d", json!({"tags": {"red": "red"}, "o'k\"x": 1})),
        ])
        .await;
    fits(tenant, json!({"tags": "red"}), "a b").await;
    fits(tenant, json!({"tags": {"$gt": 2}}), "a").await;
    fits(tenant, json!({"tags": {"$ne": "red"}}), "c d").await;
    fits(tenant, json!({"o'k\"x": 1}), "d").await;
}

pub async fn types_do_not_mix(tenant: &Tenant) {
    tenant
        .with(vec![
            with("n", json!({"v": 1})),
            with("s", json!({"v": "1"})),
            with("b", json!({"v": true})),
            with("0", json!({"v": null})),
        ])
        .await;
    fits(tenant, json!({"v": 1}), "n").await;
    fits(tenant, json!({"v": "1"}), "s").await;
    fits(tenant, json!({"v": true}), "b").await;
    fits(tenant, json!({"v": {"$gt": 0}}), "n").await;
    fits(tenant, json!({"v": {"$gt": ""}}), "s").await;
    fits(tenant, json!({"v": {"$ne": 1}}), "s b 0").await;
}

/// Few documents fit and are far from the query: all of them come.
pub async fn a_filter_leaves_enough(tenant: &Tenant) {
    let all = (0..1500).map(|i| {
        let mut made = with(&format!("{i}"), json!({"rare": i % 100 == 0}));
        if i % 100 == 0 {
            made.chunks[0].vector = Some(vector_of("q").iter().map(|x| -x).collect());
        }
        made
    });
    tenant.with(all.collect()).await;
    let hits = tenant.search(Mode::Vector(vector_of("q")), 15, Some(json!({"rare": true}))).await;
    assert_eq!(hits.len(), 15);
    assert!(hits.iter().all(|hit| hit.metadata["rare"] == true));
}

/// Many conditions beside a plain reading of them.
pub async fn filters_as_a_plain_program_reads_them(tenant: &Tenant) {
    let metadata: Vec<Value> = (0..60)
        .map(|i| json!({"a": i % 7, "b": (["x", "y", "z"][i % 3]), "c": i % 2 == 0, "d": [i % 4, i % 5]}))
        .collect();
    tenant.with(metadata.iter().enumerate().map(|(i, m)| with(&i.to_string(), m.clone())).collect()).await;
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
        let due =
            metadata.iter().enumerate().filter(|(_, m)| reads(&condition, m)).map(|(i, _)| i.to_string());
        assert_eq!(found(tenant, condition.clone()).await, due.collect(), "{condition}");
    }
}

fn reads(condition: &Value, metadata: &Value) -> bool {
    let (key, value) = condition.as_object().unwrap().iter().next().unwrap();
    let mut parts = value.as_array().into_iter().flatten();
    match key.as_str() {
        "$and" => parts.all(|part| reads(part, metadata)),
        "$or" => parts.any(|part| reads(part, metadata)),
        "$not" => !reads(value, metadata),
        field => {
            let there = &metadata[field];
            let items = there.as_array().cloned().unwrap_or_else(|| vec![there.clone()]);
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
