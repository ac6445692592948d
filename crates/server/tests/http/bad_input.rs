//! Bad input: a clear answer that says what was wrong and where, and a server that lives on.

use serde_json::{Value, json};

use crate::support::Server;

/// What is sent, and what must come back: status under /api/v1 and under /v1, code, param, words of the message.
struct Row {
    body: Value,
    status: (u16, u16),
    code: &'static str,
    param: &'static str,
    says: &'static [&'static str],
}

fn invalid(body: Value, param: &'static str, says: &'static [&'static str]) -> Row {
    Row { body, status: (400, 400), code: "invalid_value", param, says }
}

fn unfit(body: Value, param: &'static str, says: &'static [&'static str]) -> Row {
    Row { body, status: (422, 400), code: "invalid_request", param, says }
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
        for word in row.says {
            assert!(answer.message().contains(word), "{sent}: '{word}' is not in: {}", answer.message());
        }
    }
}

#[tokio::test]
async fn values_that_cannot_be_used() {
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
async fn bodies_that_do_not_fit_the_schema() {
    let server = Server::start().await;
    for row in [
        unfit(json!({}), "input", &["input is missing"]),
        unfit(json!({"input": null}), "input", &["input is missing"]),
        unfit(json!({"input": 7}), "input", &["the number 7", "text"]),
        unfit(json!({"input": {"text": "a"}}), "input", &["an object", "text"]),
        unfit(json!({"input": true}), "input", &["true"]),
        unfit(json!({"input": ["a", "b", "c", 7]}), "input[3]", &["input[3] is the number 7", "text"]),
        unfit(json!({"input": ["a", null]}), "input[1]", &["input[1] is null"]),
        unfit(json!({"input": ["a", ["b"]]}), "input[1]", &["input[1] is a list"]),
        unfit(json!({"input": [1, "a"]}), "input[1]", &["token id"]),
        unfit(json!({"input": [1, -2]}), "input[1]", &["-2", "token id"]),
        unfit(json!({"input": [[1], "a"]}), "input[1]", &["token ids"]),
        unfit(json!({"input": "a", "output_dtype": "int4"}), "output_dtype", &["int8"]),
        unfit(json!({"input": "a", "input_type": "passage"}), "input_type", &["query"]),
        unfit(json!({"input": "a", "model": 1}), "model", &["model is the number 1", "string"]),
        unfit(json!({"input": "a", "dimensions": 0}), "dimensions", &["the number 0", "at least 1"]),
        unfit(json!({"input": "a", "dimensions": -1}), "dimensions", &["-1", "at least 1"]),
        unfit(json!({"input": "a", "dimensions": 1.5}), "dimensions", &["1.5"]),
        unfit(json!({"input": "a", "dimensions": "8"}), "dimensions", &["\"8\""]),
        unfit(
            json!({"input": "a", "encoding_format": "hex"}),
            "encoding_format",
            &["\"hex\"", "\"float\"", "\"base64\""],
        ),
        unfit(
            json!({"input": "a", "truncate": "middle"}),
            "truncate",
            &["\"middle\"", "\"end\"", "\"none\""],
        ),
        unfit(json!({"input": "a", "normalize": "yes"}), "normalize", &["\"yes\"", "true or false"]),
        unfit(json!({"input": "a", "user": 5}), "user", &["the number 5"]),
        unfit(
            json!({"input": "a", "dimension": 8}),
            "dimension",
            &["'dimension'", "did you mean 'dimensions'"],
        ),
        unfit(json!({"input": "a", "zzz": 8}), "zzz", &["'zzz'", "encoding_format", "truncate"]),
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
async fn bodies_that_are_no_json() {
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
    for (body, says) in rows {
        for path in ["/api/v1/embeddings", "/v1/embeddings", "/api/v1/embeddings/models/warmup"] {
            let answer = server.post_bytes(path, body).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_json"), "{}", answer.text);
            for word in says {
                assert!(answer.message().contains(word), "'{word}' is not in: {}", answer.message());
            }
        }
    }
    let deep = format!("{{\"input\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(server.post_bytes("/v1/embeddings", deep).await.status, 400, "depth must not end the process");
}

#[tokio::test]
async fn an_unknown_model_is_named_with_those_near_it() {
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
async fn a_misspelt_input_is_named_and_not_called_missing() {
    let server = Server::start().await;
    let answer = server.post("/v1/embeddings", &json!({"inptu": "x"})).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().contains("did you mean 'input'"), "{}", answer.message());
}
