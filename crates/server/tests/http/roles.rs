//! Roles: every route of the OpenAPI document is requested without a token, with a forged one, with that of a user and
//! with that of an administrator. The audit log is checked afterwards.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Server,
    accounts::{self, SECRET, token},
};

/// What a route requires.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    Open,
    User,
    Admin,
}

/// The routes that require something else than a user's token. A route that is not here must require one.
const EXCEPTIONS: [(&str, Access); 27] = [
    ("/health", Access::Open),
    ("/ready", Access::Open),
    ("/api/v1/embeddings/health", Access::Open),
    ("/metrics", Access::Open),
    ("/api/v1/metrics/text", Access::Open),
    ("/api/v1/embeddings/models/download", Access::Admin),
    ("/api/v1/embeddings/models/warmup", Access::Admin),
    ("/api/v1/embeddings/models/unload", Access::Admin),
    ("/api/v1/embeddings/circuit-breakers", Access::Admin),
    ("/api/v1/embeddings/config/reload", Access::Admin),
    ("/api/v1/embeddings/circuit-breakers/{provider}/reset", Access::Admin),
    ("/api/v1/embeddings/cache", Access::Admin),
    ("/api/v1/embeddings/metrics", Access::Admin),
    ("/api/v1/embeddings/job/skip", Access::Admin),
    ("/api/v1/embeddings/job/skip/status", Access::Admin),
    ("/api/v1/embeddings/job/priority/bump", Access::Admin),
    ("/api/v1/embeddings/ledger/status", Access::Admin),
    ("/api/v1/embeddings/dlq", Access::Admin),
    ("/api/v1/embeddings/dlq/stats", Access::Admin),
    ("/api/v1/embeddings/dlq/requeue", Access::Admin),
    ("/api/v1/embeddings/dlq/requeue/bulk", Access::Admin),
    ("/api/v1/embeddings/dlq/state", Access::Admin),
    ("/api/v1/embeddings/dlq/purge", Access::Admin),
    ("/api/v1/embeddings/stage/status", Access::Admin),
    ("/api/v1/embeddings/stage/control", Access::Admin),
    ("/api/v1/embeddings/orchestrator/summary", Access::Admin),
    ("/api/v1/embeddings/orchestrator/events", Access::Admin),
];

async fn server() -> Server {
    Server::with_accounts(|_, config| config.auth = accounts::tokens()).await
}

fn audit(server: &Server) -> Vec<Value> {
    let text = fs::read_to_string(server.dir.path().join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_route_asks_for_what_it_should() {
    let server = server().await;
    let document = serde_json::to_value(embeddery_server::openapi()).unwrap();
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let access =
            EXCEPTIONS.iter().find(|(other, _)| other == path).map_or(Access::User, |(_, asks)| *asks);
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let ask = async |token: Option<String>| {
                let path = path.replace("{id}", "small").replace("{provider}", "openai");
                let mut request = server.bare(method.clone(), &path);
                if operation.get("requestBody").is_some() {
                    request = request.json(&match path.as_str() {
                        "/api/v1/embeddings/batch" => json!({"texts": ["small"]}),
                        path if path.contains("/models/") => json!({"model": "small"}),
                        _ => json!({"input": "small"}),
                    });
                }
                Answer::of(match token {
                    Some(token) => request.bearer_auth(token),
                    None => request,
                })
                .await
                .status
                .as_u16()
            };
            let forged = format!("{}x", token("root", "admin"));
            let got = [
                ask(None).await,
                ask(Some(forged)).await,
                ask(Some(token("ann", "user"))).await,
                ask(Some(token("root", "admin"))).await,
            ];
            // An authorised caller of these routes gets a 4xx: the collection or job does not exist, or a parameter is missing.
            let stored = ["/collections", "/users/", "/jobs", "/job/", "/ledger/", "/dlq", "/stage/"]
                .iter()
                .any(|part| path.contains(part));
            let normalize = |status: u16| {
                if stored && ![401, 403].contains(&status) && status < 500 { 200 } else { status }
            };
            let got = got.map(normalize);
            let expected = match access {
                Access::Open => [200, 200, 200, 200],
                Access::User => [401, 401, 200, 200],
                Access::Admin => [401, 401, 403, 200],
            };
            assert_eq!(got, expected, "{method} {path} requires {access:?}");
            let documented = operation["responses"].as_object().unwrap();
            assert_eq!(
                documented.contains_key("403") && access != Access::User,
                access == Access::Admin,
                "{path}"
            );
            count += 1;
        }
    }
    assert!(count >= 14, "{count} routes");
}

#[tokio::test]
async fn rejections_and_admin_actions_are_in_the_audit_log_without_secrets() {
    let server = server().await;
    let path = "/api/v1/embeddings/models/warmup";
    let post =
        |token: &str| server.bare(Method::POST, path).json(&json!({"model": "small"})).bearer_auth(token);
    let stolen = token("ann", "user");
    Answer::of(server.bare(Method::GET, "/v1/models")).await;
    Answer::of(post(&format!("{stolen}x"))).await;
    Answer::of(post(&stolen)).await;
    let done = Answer::of(post(&token("root", "admin")).header("x-request-id", "my-id")).await;
    assert_eq!(done.status, 200);
    let events = audit(&server);
    let short: Vec<_> = events
        .iter()
        .map(|event| (event["event"].as_str().unwrap(), event["user"].as_str(), event["reason"].as_str()))
        .collect();
    assert_eq!(
        short,
        [
            ("login_refused", None, Some("nothing sent")),
            ("login_refused", None, Some("token signed by no key of ours")),
            ("admin_refused", Some("ann"), None),
            ("admin_action", Some("root"), None),
            ("admin_action_ended", Some("root"), None),
        ]
    );
    assert_eq!(events[4]["status"], 200);
    for event in &events {
        assert_eq!(event["address"], "127.0.0.1");
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!((&events[3]["request_id"], &events[3]["route"]), (&json!("my-id"), &json!(path)));
    let text = serde_json::to_string(&events).unwrap();
    for secret in [SECRET, &stolen, stolen.rsplit('.').next().unwrap()] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn every_invalid_token_gets_the_same_error() {
    let server = server().await;
    let good = token("ann", "user");
    let none = good.split('.').nth(1).map(|claims| format!("eyJhbGciOiJub25lIn0.{claims}.")).unwrap();
    let mut answers = Vec::new();
    for bad in ["x", "a.b.c", &format!("{good}x"), &none, &"A".repeat(20_000), "ключ"] {
        let mut request = server.bare(Method::GET, "/v1/models");
        request = request.header("authorization", format!("Bearer {bad}").into_bytes());
        let answer = Answer::of(request.header("x-request-id", "same")).await;
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer"), "{bad:.60}");
        answers.push(answer.text);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn two_keys_in_one_request_are_rejected() {
    let server = Server::start().await;
    let request = server.request(Method::GET, "/v1/models").header("x-api-key", "another");
    assert_eq!(Answer::of(request).await.status, 401);
    let request = server
        .bare(Method::GET, "/v1/models")
        .header("authorization", format!("Bearer {}", crate::support::KEY))
        .header("authorization", "Bearer another");
    assert_eq!(Answer::of(request).await.status, 401);
}

#[tokio::test]
async fn with_several_users_only_an_admin_can_download_a_model() {
    let server = server().await;
    let ask = async |token: String, model: &str| {
        let request = server.bare(Method::POST, "/v1/embeddings").bearer_auth(token);
        Answer::of(request.json(&json!({"input": "a", "model": model}))).await
    };
    server.fake.set_state(embeddery_core::ModelState::Absent);
    let refused = ask(token("ann", "user"), "test/other").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (404, "model_not_found"));
    assert!(refused.message().contains("only an admin"), "{}", refused.message());
    assert_eq!(ask(token("ann", "user"), "small").await.status, 200, "a configured model may be downloaded");
    assert_eq!(ask(token("root", "admin"), "test/other").await.status, 200);
    server.fake.set_state(embeddery_core::ModelState::OnDisk);
    assert_eq!(ask(token("ann", "user"), "test/other").await.status, 200);
}
