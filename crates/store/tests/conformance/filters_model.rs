//! Random filters on random metadata against a plain model: a search and a deletion select the documents that the model
//! selects. The model compares numbers by their decimal digits.

use std::{cmp::Ordering, collections::BTreeSet};

use embeddery_store::{DeleteTarget, SearchMode};
use proptest::{prelude::*, sample::select, strategy::ValueTree as _, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use crate::support::{Tenant, document, filter, vector_of};

const DOCUMENTS: usize = 150;
const FILTERS: usize = 250;
/// Every so many filters, the documents that match are deleted and stored again.
const DELETION_INTERVAL: usize = 10;

/// Values that are easily confused with each other.
fn scalars() -> Vec<Value> {
    let mut values = vec![
        json!(0),
        json!(-0.0),
        json!(1),
        json!(1.0),
        json!(-1),
        json!(1.5),
        json!(0.1 + 0.2),
        json!(0.3),
        json!(5e-324),
        json!(9_007_199_254_740_991_u64),
        json!(9_007_199_254_740_992_u64),
        json!(9_007_199_254_740_992.0),
        json!(9_007_199_254_740_993_u64),
        json!(9_007_199_254_740_994_u64),
        json!(1_234_567_890_123_456_789_u64),
        json!(1_234_567_890_123_456_788_u64),
        json!(i64::MAX),
        json!(i64::MAX as u64 + 1),
        json!(9_223_372_036_854_775_808.0),
        json!(18_446_744_073_709_549_568.0),
        json!(18_446_744_073_709_549_900_u64),
        json!(u64::MAX),
        json!(18_446_744_073_709_551_616.0),
        json!(i64::MIN),
        json!(i64::MIN + 1),
        json!(-9.3e18),
        json!(1e22),
        json!(1e300),
        json!(f64::MAX),
        json!(f64::MIN),
        json!(true),
        json!(false),
    ];
    let texts = [
        "", "a", "A", "ab", "z", "~", "ä", "a\u{308}", "\u{ffff}", "🦊", "日本", "it's", "\"q\"", "\\", "%_",
        "1", "true", "null", "$x", "a\nb", "\u{1}",
    ];
    values.extend(texts.map(Value::from));
    values
}

const FIELDS: [&str; 8] = ["a", "b", "a.b", "", "o'k\"x", "ä🦊", "a b", "\\"];

fn metadata() -> impl Strategy<Value = Map<String, Value>> {
    let scalar = || select(scalars());
    let element = prop_oneof![
        6 => scalar(),
        1 => Just(Value::Null),
        1 => scalar().prop_map(|value| json!([value])),
        1 => scalar().prop_map(|value| json!({"a": value})),
    ];
    let value = prop_oneof![
        6 => scalar(),
        1 => Just(Value::Null),
        4 => prop::collection::vec(element, 0..4).prop_map(Value::from),
        1 => scalar().prop_map(|value| json!({"a": value})),
    ];
    prop::collection::btree_map(select(FIELDS.to_vec()), value, 0..5)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn condition() -> impl Strategy<Value = Value> {
    let comparison = (select(vec!["$gt", "$gte", "$lt", "$lte"]), select(scalars()))
        .prop_filter("true and false are not ordered", |(_, value)| !value.is_boolean())
        .prop_map(|(operator, value)| json!({operator: value}));
    let equality = (select(vec!["$eq", "$ne"]), select(scalars()))
        .prop_map(|(operator, value)| json!({operator: value}));
    let membership = (select(vec!["$in", "$nin"]), prop::collection::vec(select(scalars()), 0..5))
        .prop_map(|(operator, values)| json!({operator: values}));
    let test = prop_oneof![4 => comparison, 2 => equality, 2 => membership, 1 => select(scalars())];
    let leaf = (select(FIELDS.to_vec()), test).prop_map(|(field, test)| json!({field: test}));
    let leaf = prop_oneof![20 => leaf, 1 => Just(json!({}))];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| json!({"$and": parts})),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| json!({"$or": parts})),
            inner.prop_map(|part| json!({"$not": part})),
        ]
    })
}

pub async fn random_filters_agree_with_a_model(tenant: &Tenant) {
    let mut runner = TestRunner::deterministic();
    let all: Vec<(String, Map<String, Value>)> = (0..DOCUMENTS)
        .map(|i| (format!("{i:03}"), metadata().new_tree(&mut runner).unwrap().current()))
        .collect();
    let stored = |(id, metadata): &(String, Map<String, Value>)| {
        document(id, &[&format!("common {id}")], Value::Object(metadata.clone()))
    };
    tenant.create_with(all.iter().map(stored).collect()).await;
    for round in 0..FILTERS {
        let condition = condition().new_tree(&mut runner).unwrap().current();
        let matching = all.iter().filter(|(_, metadata)| matches(&condition, metadata));
        let expected: BTreeSet<String> = matching.map(|(id, _)| id.clone()).collect();
        for mode in [SearchMode::Vector(vector_of("q")), SearchMode::Text("common".into())] {
            let hits = tenant.search(mode.clone(), 1000, Some(condition.clone())).await;
            let found: BTreeSet<String> = hits.into_iter().map(|hit| hit.document).collect();
            assert_eq!(found, expected, "{mode:?} with {condition}");
        }
        if round % DELETION_INTERVAL == 0 {
            let parsed = filter(&condition);
            let deleted =
                tenant.store.delete(tenant.collection(), DeleteTarget::Where(&parsed)).await.unwrap();
            assert_eq!(deleted, expected.len() as u64, "deleted by {condition}");
            let hits = tenant.search(SearchMode::Vector(vector_of("q")), 1000, None).await;
            let left: BTreeSet<String> = hits.into_iter().map(|hit| hit.document).collect();
            assert!(left.is_disjoint(&expected) && left.len() + expected.len() == all.len(), "{condition}");
            assert!(expected.len() == all.len() || !parsed.matches_every_document(), "{condition}");
            let again = all.iter().filter(|(id, _)| expected.contains(id)).map(stored).collect();
            tenant.upsert(again).await.unwrap();
        }
    }
}

/// The model: whether a document with this metadata matches.
fn matches(condition: &Value, metadata: &Map<String, Value>) -> bool {
    condition.as_object().unwrap().iter().all(|(key, value)| match key.as_str() {
        "$and" => value.as_array().unwrap().iter().all(|part| matches(part, metadata)),
        "$or" => value.as_array().unwrap().iter().any(|part| matches(part, metadata)),
        "$not" => !matches(value, metadata),
        field => {
            let values = match metadata.get(field) {
                None => &[],
                Some(Value::Array(elements)) => elements.as_slice(),
                Some(value) => std::slice::from_ref(value),
            };
            let any = |test: &dyn Fn(Ordering) -> bool, other: &Value| {
                values.iter().any(|value| compare(value, other).is_some_and(test))
            };
            let any_of = |list: &Value| list.as_array().unwrap().iter().any(|one| any(&Ordering::is_eq, one));
            let Some(operators) = value.as_object() else { return any(&Ordering::is_eq, value) };
            operators.iter().all(|(operator, value)| match operator.as_str() {
                "$eq" => any(&Ordering::is_eq, value),
                "$ne" => !any(&Ordering::is_eq, value),
                "$in" => any_of(value),
                "$nin" => !any_of(value),
                "$gt" => any(&Ordering::is_gt, value),
                "$gte" => any(&Ordering::is_ge, value),
                "$lt" => any(&Ordering::is_lt, value),
                "$lte" => any(&Ordering::is_le, value),
                other => panic!("{other}"),
            })
        }
    })
}

/// The order of two values of one type.
fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.chars().cmp(b.chars())),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => {
            let ((a_negative, a), (b_negative, b)) = (decimal(a), decimal(b));
            Some(match (a_negative, b_negative) {
                (false, false) => a.cmp(&b),
                (true, true) => b.cmp(&a),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
            })
        }
        _ => None,
    }
}

/// The sign of a number, and its digits with a fixed number of places before and after the point. Zero is not negative.
fn decimal(number: &serde_json::Number) -> (bool, String) {
    let text = match (number.as_i64(), number.as_u64()) {
        (Some(integer), _) => integer.to_string(),
        (_, Some(integer)) => integer.to_string(),
        _ => format!("{:.1074}", number.as_f64().unwrap()),
    };
    let digits = text.trim_start_matches('-');
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_zero = digits.chars().all(|digit| matches!(digit, '0' | '.'));
    (text.starts_with('-') && !is_zero, format!("{whole:0>400}{fraction:0<1100}"))
}
