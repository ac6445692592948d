//! Random bodies: the response is a success or a 4xx with an error body, never a 5xx.

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::select,
    test_runner::{TestCaseError, TestRunner},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{Answer, Server};

const PATHS: [&str; 3] = ["/v1/embeddings", "/api/v1/embeddings", "/api/v1/embeddings/models/warmup"];

/// Posts each body to each path and checks the responses.
fn for_each(bodies: impl Strategy<Value = Vec<u8>>) {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..Default::default() });
    let result = runner.run(&bodies, |body| {
        for path in PATHS {
            check(path, &runtime.block_on(server.post_bytes(path, body.clone())))?;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert_eq!(runtime.block_on(server.get("/health")).status, 200);
}

fn check(path: &str, answer: &Answer) -> Result<(), TestCaseError> {
    if answer.status == 200 {
        prop_assert!(answer.json["data"].is_array() || answer.json["status"] == "ok", "{}", answer.text);
        return Ok(());
    }
    prop_assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.text);
    let code = answer.code();
    let expected = match code {
        "invalid_json" | "invalid_value" | "input_too_long" => 400,
        "invalid_request" if path.starts_with("/v1/") => 400,
        "invalid_request" => 422,
        "model_not_found" => 404,
        _ => return Err(TestCaseError::fail(format!("{path}: code {code}: {}", answer.text))),
    };
    prop_assert_eq!(answer.status.as_u16(), expected, "{}: {}", path, answer.text);
    prop_assert_eq!(&answer.json["error"]["type"], "invalid_request_error");
    Ok(())
}

#[test]
fn random_bytes() {
    for_each(vec(any::<u8>(), 0..200));
}

#[test]
fn text_that_is_almost_json() {
    let piece = select(vec![
        "{", "}", "[", "]", "\"", ":", ",", "\\", "\\u", "d800", "input", "model", "null", "1e", "999", "-",
        " ", "\n", "é", "\0",
    ]);
    for_each(vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes()));
}

#[test]
fn random_json_values() {
    for_each(json().prop_map(|value| value.to_string().into_bytes()));
}

#[test]
fn objects_with_names_of_fields() {
    let name = select(vec![
        "input",
        "input",
        "model",
        "model_id",
        "encoding_format",
        "dimensions",
        "truncate",
        "normalize",
        "user",
        "provider",
        "inputs",
    ]);
    let likely = prop_oneof![
        json(),
        select(vec![
            "float",
            "base64",
            "end",
            "start",
            "none",
            "small",
            "test/plain",
            "huggingface:",
            "/etc"
        ])
        .prop_map(Value::from),
        (0..20_u32).prop_map(Value::from),
        vec("[a-z ]{0,40}", 0..4).prop_map(Value::from),
    ];
    let object = btree_map(name.prop_map(str::to_owned), likely, 0..6);
    for_each(object.prop_map(|fields| serde_json::to_vec(&fields).unwrap()));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(".{0,10}", inner, 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
