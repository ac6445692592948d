//! The list of models, downloads and warm-ups.

use std::time::Duration;

use embeddery_core::{EmbedError, ErrorKind, Fault, ModelState, Retry};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, PLAIN, Server, soon};

const DOWNLOAD: &str = "/api/v1/embeddings/models/download";
const WARM_UP: &str = "/api/v1/embeddings/models/warmup";

#[tokio::test]
async fn the_list_has_the_state_of_each_model() {
    let server = Server::start().await;
    for (state, shown) in [
        (ModelState::Absent, json!({"state": "absent"})),
        (ModelState::Downloading { percent: 42 }, json!({"state": "downloading", "percent": 42})),
        (ModelState::OnDisk, json!({"state": "on_disk"})),
        (ModelState::Loaded, json!({"state": "loaded"})),
        (ModelState::Unloaded, json!({"state": "unloaded"})),
        (ModelState::Failed { reason: "torn".into() }, json!({"state": "failed", "reason": "torn"})),
    ] {
        server.fake.set_state(state);
        let mut expected = json!({
            "id": "small", "provider": "huggingface", "model": PLAIN, "allowed": true, "default": true,
        });
        expected.as_object_mut().unwrap().extend(shown.as_object().unwrap().clone());
        let answer = server.get("/api/v1/embeddings/models").await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.json,
            json!({"data": [expected], "allowed_providers": null, "allowed_models": null})
        );
    }
}

#[tokio::test]
async fn the_openai_routes_list_the_same_models() {
    let server = Server::start().await;
    let small = json!({"id": "small", "object": "model", "created": 0, "owned_by": "huggingface"});
    let list = server.get("/v1/models").await;
    assert_eq!((list.status.as_u16(), &list.json), (200, &json!({"object": "list", "data": [small]})));
    let one = server.get("/v1/models/small").await;
    assert_eq!((one.status.as_u16(), &one.json), (200, &small));

    for (path, shown) in [
        ("/v1/models/no-such", "'no-such'"),
        ("/v1/models/with/a/slash", "'with/a/slash'"),
        ("/v1/models/with%2Fa%20slash", "'with/a slash'"),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "model_not_found"), "{path}");
        assert!(answer.message().contains(shown), "{path}: {}", answer.message());
        assert_eq!(answer.json["error"]["param"], "model");
    }
    let answer = server.get("/v1/models/%FF").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_value"), "{}", answer.text);
}

#[tokio::test]
async fn a_model_is_downloaded_and_warmed_up_by_any_of_its_names() {
    let server = Server::start().await;
    for (path, event, key) in [(DOWNLOAD, "downloaded", "downloaded"), (WARM_UP, "warmed", "warmed")] {
        for body in [
            json!({"model": "small"}),
            json!({"model_id": "small"}),
            json!({"model": "small", "model_id": "small"}),
            json!({"model": PLAIN}),
            json!({"model": PLAIN, "provider": "huggingface"}),
            json!({"model": "huggingface:test/plain", "provider": null, "model_id": null}),
        ] {
            server.fake.events.lock().unwrap().clear();
            let answer = server.post(path, &body).await;
            assert_eq!(answer.status, 200, "{body}: {}", answer.text);
            let expected = json!({"status": "ok", "provider": "huggingface", "model": PLAIN, key: true});
            assert_eq!(answer.json, expected, "{body}");
            assert_eq!(*server.fake.events.lock().unwrap(), [format!("{event} {PLAIN}")], "{body}");
        }
    }
}

/// Asserts that both routes reject a body with this error.
async fn refused(server: &Server, body: Value, expected: (u16, &str, Value), message: &[&str]) {
    for path in [DOWNLOAD, WARM_UP] {
        let answer = server.post(path, &body).await;
        let found = (answer.status.as_u16(), answer.code(), answer.json["error"]["param"].clone());
        assert_eq!(found, expected, "{path} {body}: {}", answer.text);
        for word in message {
            assert!(answer.message().contains(word), "'{word}' is not in: {}", answer.message());
        }
    }
}

#[tokio::test]
async fn a_request_without_a_valid_model_is_rejected() {
    let server = Server::start().await;
    let model = || json!("model");
    for body in [json!({}), json!({"model": null}), json!({"model": ""}), json!({"model_id": "  "})] {
        refused(&server, body, (422, "invalid_request", model()), &["model is missing"]).await;
    }
    let two = json!({"model": "small", "model_id": "large"});
    refused(&server, two, (400, "invalid_value", model()), &["'small'", "'large'"]).await;
    refused(&server, json!({"model": 7}), (422, "invalid_request", model()), &["the number 7"]).await;
    let typo = json!({"model": "small", "provder": "huggingface"});
    refused(&server, typo, (422, "invalid_request", json!("provder")), &["did you mean 'provider'"]).await;
    let unknown = json!({"model": "small", "provider": "unknown"});
    refused(&server, unknown, (400, "invalid_value", json!("provider")), &["'unknown'", "huggingface"]).await;
    let absent = json!({"model": "text-embedding-3-small", "provider": "openai"});
    refused(&server, absent, (503, "unavailable", Value::Null), &["'openai'", "huggingface"]).await;
    refused(&server, json!({"model": "smal"}), (404, "model_not_found", model()), &["'smal'", "'small'"])
        .await;
    for path in ["/etc/passwd", "../secret", "./models/x"] {
        refused(&server, json!({"model": path}), (404, "model_not_found", model()), &["configuration"]).await;
    }
    assert!(server.fake.events.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_that_is_not_on_the_hub_is_a_404() {
    let server = Server::start().await;
    let answer = server.post(WARM_UP, &json!({"model": "unknown/model"})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, "model_not_found"));
    assert!(answer.message().contains("unknown/model"), "{}", answer.message());
}

#[tokio::test]
async fn a_failed_download_is_reported() {
    let server = Server::start().await;
    let retry_soon = Retry::After(Duration::from_secs(9));
    for (kind, fault, retry, expected) in [
        (ErrorKind::ModelNotFound, Fault::Caller, Retry::Never, (404, "model_not_found", "")),
        (
            ErrorKind::InvalidUpstreamResponse,
            Fault::Upstream,
            Retry::Backoff,
            (502, "bad_upstream_answer", ""),
        ),
        (ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff, (503, "unavailable", "5")),
        (ErrorKind::ModelLoading { percent: 3 }, Fault::Us, retry_soon, (503, "model_loading", "9")),
        (ErrorKind::ModelUnusable, Fault::Us, Retry::Never, (503, "model_unusable", "")),
    ] {
        *server.fake.failure.lock().unwrap() = EmbedError::new(kind, fault, retry, "the hub is unavailable");
        for path in [DOWNLOAD, WARM_UP] {
            let answer = server.post(path, &json!({"model": "test/failing"})).await;
            let found = (answer.status.as_u16(), answer.code(), answer.header("retry-after"));
            assert_eq!(found, expected, "{path}: {}", answer.text);
            assert_eq!(answer.message(), "the hub is unavailable");
        }
    }
}

#[tokio::test]
async fn a_download_responds_when_it_is_complete() {
    let server = Server::start().await;
    let request = server.request(Method::POST, DOWNLOAD).json(&json!({"model": "test/gated"}));
    let download = tokio::spawn(Answer::of(request));
    soon(server.fake.has_begun(1)).await;
    assert!(!download.is_finished() && server.fake.events.lock().unwrap().is_empty());
    server.fake.gate.add_permits(1);
    assert_eq!(soon(download).await.unwrap().status, 200);
    assert_eq!(*server.fake.events.lock().unwrap(), ["downloaded test/gated"]);
}
