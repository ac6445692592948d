//! Invalid input: the error names the field and the problem, and the server keeps running.

use serde_json::{Value, json};

use crate::support::Server;

/// A body and its expected error: the status below `/api/v1` and below `/v1`, code, param, and parts of the message.
struct Row {
    body: Value,
    status: (u16, u16),
    code: &'static str,
    param: &'static str,
    message: &'static [&'static str],
}

fn invalid(body: Value, param: &'static str, message: &'static [&'static str]) -> Row {
    Row { body, status: (400, 400), code: "invalid_value", param, message }
}

fn schema_error(body: Value, param: &'static str, message: &'static [&'static str]) -> Row {
    Row { body, status: (422, 400), code: "invalid_request", param, message }
}

async fn check(server: &Server, row: Row) {
    for (path, status) in [("/api/v1/embeddings", row.status.0), ("/v1/embeddings", row.status.1)] {
        let answer = server.post(path, &row.body).await;
        let sent = row.body.to_string();
        let sent = &sent[..sent.len().min(200)];
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, row.code),
            "{path} {sent}: {}",
            answer.text
        );
        assert_eq!(answer.json["error"]["param"], row.param, "{sent}: {}", answer.text);
        assert_eq!(answer.json["error"]["type"], "invalid_request_error");
        assert_eq!(answer.json["detail"], answer.json["error"]["message"]);
        for word in row.message {
            assert!(answer.message().contains(word), "{sent}: '{word}' is not in: {}", answer.message());
        }
    }
}

#[tokio::test]
async fn invalid_values() {
    let server = Server::start().await;
    for row in [
        invalid(json!({"input": ""}), "input", &["blank"]),
        invalid(json!({"input": " \t\n\u{3000}"}), "input", &["blank"]),
        invalid(json!({"input": ["a", "b", ""]}), "input[2]", &["input[2] is blank"]),
        invalid(json!({"input": ["a", "  "]}), "input[1]", &["input[1] is blank"]),
        invalid(json!({"input": []}), "input", &["empty list"]),
        invalid(json!({"input": vec!["a"; 2049]}), "input", &["2049", "2048"]),
        invalid(json!({"input": [[9906], []]}), "input[1]", &["empty list"]),
        invalid(
            json!({"input": "a", "normalize": false, "output_dtype": "int8"}),
            "output_dtype",
            &["unit length"],
        ),
        invalid(json!({"input": "a".repeat((1 << 20) + 1)}), "input", &["1048577", "1048576"]),
        invalid(
            json!({"input": ["a", "b".repeat(2 << 20)]}),
            "input[1]",
            &["input[1]", "2097152", "1048576"],
        ),
    ] {
        check(&server, row).await;
    }
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "a".repeat(1 << 20)})).await.status, 200);
}

#[tokio::test]
async fn bodies_that_do_not_match_the_schema() {
    let server = Server::start().await;
    for row in [
        schema_error(json!({}), "input", &["input is missing"]),
        schema_error(json!({"input": null}), "input", &["input is missing"]),
        schema_error(json!({"input": 7}), "input", &["the number 7", "text"]),
        schema_error(json!({"input": {"text": "a"}}), "input", &["an object", "text"]),
        schema_error(json!({"input": true}), "input", &["true"]),
        schema_error(json!({"input": ["a", "b", "c", 7]}), "input[3]", &["input[3] is the number 7", "text"]),
        schema_error(json!({"input": ["a", null]}), "input[1]", &["input[1] is null"]),
        schema_error(json!({"input": ["a", ["b"]]}), "input[1]", &["input[1] is a list"]),
        schema_error(json!({"input": [1, "a"]}), "input[1]", &["token id"]),
        schema_error(json!({"input": [1, -2]}), "input[1]", &["-2", "token id"]),
        schema_error(json!({"input": [[1], "a"]}), "input[1]", &["token ids"]),
        schema_error(json!({"input": "a", "output_dtype": "int4"}), "output_dtype", &["int8"]),
        schema_error(json!({"input": "a", "input_type": "passage"}), "input_type", &["query"]),
        schema_error(json!({"input": "a", "model": 1}), "model", &["model is the number 1", "string"]),
        schema_error(json!({"input": "a", "dimensions": 0}), "dimensions", &["the number 0", "at least 1"]),
        schema_error(json!({"input": "a", "dimensions": -1}), "dimensions", &["-1", "at least 1"]),
        schema_error(json!({"input": "a", "dimensions": 1.5}), "dimensions", &["1.5"]),
        schema_error(json!({"input": "a", "dimensions": "8"}), "dimensions", &["\"8\""]),
        schema_error(
            json!({"input": "a", "encoding_format": "hex"}),
            "encoding_format",
            &["\"hex\"", "\"float\"", "\"base64\""],
        ),
        schema_error(
            json!({"input": "a", "truncate": "middle"}),
            "truncate",
            &["\"middle\"", "\"end\"", "\"none\""],
        ),
        schema_error(json!({"input": "a", "normalize": "yes"}), "normalize", &["\"yes\"", "true or false"]),
        schema_error(json!({"input": "a", "user": 5}), "user", &["the number 5"]),
        schema_error(
            json!({"input": "a", "dimension": 8}),
            "dimension",
            &["'dimension'", "did you mean 'dimensions'"],
        ),
        schema_error(json!({"input": "a", "zzz": 8}), "zzz", &["'zzz'", "encoding_format", "truncate"]),
    ] {
        check(&server, row).await;
    }
    for body in [json!([]), json!("text"), json!(null), json!(3)] {
        let answer = server.post("/api/v1/embeddings", &body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (422, "invalid_request"));
        assert!(answer.message().contains("JSON object"), "{}", answer.message());
    }
}

#[tokio::test]
async fn bodies_that_are_not_json() {
    let server = Server::start().await;
    let rows: [(&[u8], &[&str]); 7] = [
        (b"", &["empty"]),
        (b"  \n ", &["empty"]),
        (b"{\"input\": \"a\",\n  nonsense}", &["line 2 column 3"]),
        (b"{\"input\": \"a\"", &["line 1 column 13"]),
        (b"{\"input\": \"a\"} trailing", &["trailing", "line 1 column 16"]),
        (b"{\"input\": \"\xff\"}", &["UTF-8", "11"]),
        (b"{\"input\": \"\\ud800\"}", &["line 1"]),
    ];
    for (body, parts) in rows {
        for path in ["/api/v1/embeddings", "/v1/embeddings", "/api/v1/embeddings/models/warmup"] {
            let answer = server.post_bytes(path, body).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_json"), "{}", answer.text);
            for word in parts {
                assert!(answer.message().contains(word), "'{word}' is not in: {}", answer.message());
            }
        }
    }
    let deep = format!("{{\"input\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        server.post_bytes("/v1/embeddings", deep).await.status,
        400,
        "deep nesting must not crash the process"
    );
}

#[tokio::test]
async fn the_error_for_an_unknown_model_suggests_a_similar_name() {
    let server = Server::start().await;
    let answer = server.post("/v1/embeddings", &json!({"input": "a", "model": "smal"})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, "model_not_found"));
    assert_eq!(answer.json["error"]["param"], "model");
    assert!(
        answer.message().contains("'smal'") && answer.message().contains("did you mean 'small'"),
        "{}",
        answer.text
    );
    let answer = server.post("/v1/embeddings", &json!({"input": "a", "model": "no/such"})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, "model_not_found"));
}

#[tokio::test]
async fn a_misspelt_input_is_reported_as_unknown_and_not_as_missing() {
    let server = Server::start().await;
    let answer = server.post("/v1/embeddings", &json!({"inptu": "x"})).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().contains("did you mean 'input'"), "{}", answer.message());
}
