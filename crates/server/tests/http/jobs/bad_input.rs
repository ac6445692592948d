//! Invalid jobs. The error names the field and the problem.

use reqwest::Method;
use serde_json::{Value, json};

use super::{JOBS, request};
use crate::support::{Answer, Server};

#[tokio::test]
async fn each_error_names_its_document() {
    let server = Server::with(|settings| settings.text_limit = 100).await;
    let with = |field: &str, value: Value| {
        let mut body = request(2);
        body[field] = value;
        body
    };
    let document = |value: Value| with("documents", json!([{"text": "fine"}, value]));
    let cases = [
        (json!({}), 422, "documents", "documents is missing"),
        (with("documents", json!([])), 400, "documents", "1 to 10000"),
        (with("documents", json!("text")), 422, "documents", "documents is \"text\"; send a list"),
        (json!({"documents": [{"text": "x"}]}), 422, "collection", "collection is missing"),
        (with("collection", json!(".hidden")), 400, "collection", "begins with a dot"),
        (with("collection", json!(7)), 422, "collection", "send a string"),
        (document(json!("text")), 422, "documents[1]", "send an object"),
        (document(json!({"id": "a"})), 422, "documents[1].text", "text is missing"),
        (document(json!({"text": "\t \n"})), 400, "documents[1].text", "blank"),
        (document(json!({"text": "x".repeat(101)})), 400, "documents[1].text", "101 bytes"),
        (document(json!({"text": "x", "id": ""})), 400, "documents[1].id", "1 to 512"),
        (document(json!({"text": "x", "id": "a\u{7}"})), 400, "documents[1].id", "control"),
        (document(json!({"text": "x", "metadata": []})), 422, "documents[1].metadata", "send an object"),
        (
            document(json!({"text": "x", "metadata": {"a": "m".repeat(70_000)}})),
            400,
            "documents[1].metadata",
            "bytes",
        ),
        (document(json!({"text": "a\0"})), 400, "documents[1].text", "NUL character"),
        (
            document(json!({"text": "x", "metadata": {"a": {"b": "\0"}}})),
            400,
            "documents[1].metadata.a.b",
            "NUL character",
        ),
        (
            document(json!({"text": "x", "content_type": "a\nb"})),
            400,
            "documents[1].content_type",
            "printable",
        ),
        (
            document(json!({"text": "x", "metdata": {}})),
            422,
            "documents[1].metdata",
            "did you mean 'metadata'",
        ),
        (
            document(json!({"text": "fine", "metadata": {"a": 1}})),
            400,
            "documents[1]",
            "text of documents[0]",
        ),
        (with("chunking", json!({"method": "semantic"})), 400, "chunking", "recursive"),
        (with("chunking", json!({"size": 10, "overlap": 10})), 400, "chunking", "must be smaller than size"),
        (with("chunking", json!({"size": 0})), 400, "chunking.size", "between 1"),
        (with("chunking", json!({"sise": 1})), 422, "chunking.sise", "did you mean 'size'"),
        (with("chunking", json!({"method": "words", "unit": "tokens"})), 400, "chunking", "counts in words"),
        (with("priority", json!("urgent")), 422, "priority", "\"high\" or \"normal\" or \"low\""),
        (with("model", json!("unknown:model")), 404, "model", "unknown:model"),
        (with("provider", json!("unknown")), 400, "provider", "unknown"),
        (with("dimensions", json!(0)), 400, "dimensions", "between 1"),
        (with("colection", json!("x")), 422, "colection", "did you mean 'collection'"),
    ];
    for (body, status, param, message) in cases {
        let refused = server.submit(&body).await;
        let found = (refused.status.as_u16(), refused.json["error"]["param"].as_str().unwrap_or_default());
        assert_eq!(found, (status, param), "{body}: {}", refused.text);
        assert!(refused.message().contains(message), "{body}: {}", refused.message());
    }
    let many: Vec<Value> = (0..10_001).map(|at| json!({"text": at.to_string()})).collect();
    let refused = server.submit(&with("documents", many.into())).await;
    assert!(refused.status == 400 && refused.message().contains("application/x-ndjson"));
    assert_eq!(server.get(JOBS).await.json["jobs"], json!([]));
    let refused = server.post_bytes(JOBS, b"{\"collection\": ".to_vec()).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_json"));
    let refused =
        Answer::of(server.request(Method::POST, JOBS).header("content-type", "text/plain").body("x")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (415, "unsupported_media_type"));
}

#[tokio::test]
async fn an_unknown_job_is_not_found() {
    let server = Server::start().await;
    let unknown = uuid::Uuid::now_v7();
    for id in [unknown.to_string(), "1".into(), "x%00y".into(), "..%2F..".into()] {
        for (method, rest) in [
            (Method::GET, ""),
            (Method::DELETE, ""),
            (Method::POST, "/retry"),
            (Method::GET, "/events"),
            (Method::GET, "/documents"),
        ] {
            let refused = Answer::of(server.request(method.clone(), &format!("{JOBS}/{id}{rest}"))).await;
            assert_eq!(
                (refused.status.as_u16(), refused.code()),
                (404, "job_not_found"),
                "{method} {id}{rest}"
            );
        }
    }
}
