//! Content type, method, path and size of a request, and the errors for unsupported ones.

use reqwest::Method;

use crate::support::{Answer, Server, rest};

#[tokio::test]
async fn the_content_type_is_json_or_absent() {
    let server = Server::start().await;
    let ask = |kind: Option<&'static str>| {
        let request = server.request(Method::POST, "/v1/embeddings").body(r#"{"input": "a"}"#);
        Answer::of(match kind {
            Some(kind) => request.header("content-type", kind),
            None => request,
        })
    };
    let good = ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"];
    for kind in good.into_iter().map(Some).chain([None]) {
        assert_eq!(ask(kind).await.status, 200, "{kind:?}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "json", "application/jsonx"] {
        let answer = ask(Some(kind)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (415, "unsupported_media_type"), "{kind}");
        assert!(answer.message().contains(kind) && answer.message().contains("application/json"));
    }
}

#[tokio::test]
async fn an_unsupported_method_or_path_has_an_error_body() {
    let server = Server::start().await;
    for (path, allowed) in [
        ("/v1/embeddings", "POST"),
        ("/api/v1/embeddings", "POST"),
        ("/v1/models", "GET"),
        ("/health", "GET"),
    ] {
        let answer = Answer::of(server.request(Method::DELETE, path)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (405, "method_not_allowed"), "{path}");
        assert!(answer.header("allow").contains(allowed), "{path}: {}", answer.header("allow"));
    }
    for path in ["/", "/v2/embeddings", "/v1/embeddings/", "/api/v1/embeddings/x"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "not_found"), "{path}");
        assert!(answer.message().contains(path), "{}", answer.message());
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_rejected_with_and_without_content_length() {
    let server = Server::with(|settings| settings.body_limit = 1000).await;
    let fitting = format!("{{\"input\": \"{}\"}}", "a".repeat(1000 - 13));
    assert_eq!(fitting.len(), 1000);
    assert_eq!(server.post_bytes("/v1/embeddings", fitting).await.status, 200);
    for size in [1001, 1999, 10_000] {
        let answer = server.post_bytes("/v1/embeddings", "a".repeat(size)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (413, "body_too_large"), "{size}");
        assert!(answer.message().contains("1000"), "{}", answer.message());
    }
    for size in [1001, 10_000] {
        let chunk = format!("{size:x}\r\n{}\r\n0\r\n\r\n", "a".repeat(size));
        let head = Server::head("transfer-encoding: chunked\r\nconnection: close\r\n");
        let answer = rest(&mut server.tcp(head + &chunk).await).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{size} in chunks: {answer}");
    }
}
