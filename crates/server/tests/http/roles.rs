//! Users and admins: every route of the OpenAPI document is walked with nothing, with a user's token and with
//! an admin's, and the audit log is read afterwards.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Server,
    accounts::{self, SECRET, token},
};

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asks {
    Nothing,
    Key,
    Admin,
}

/// The routes that do not ask for a user's key. A new route is not here, so the walk expects it to ask for one.
const OTHERS: [(&str, Asks); 27] = [
    ("/health", Asks::Nothing),
    ("/ready", Asks::Nothing),
    ("/api/v1/embeddings/health", Asks::Nothing),
    ("/metrics", Asks::Nothing),
    ("/api/v1/metrics/text", Asks::Nothing),
    ("/api/v1/embeddings/models/download", Asks::Admin),
    ("/api/v1/embeddings/models/warmup", Asks::Admin),
    ("/api/v1/embeddings/models/unload", Asks::Admin),
    ("/api/v1/embeddings/circuit-breakers", Asks::Admin),
    ("/api/v1/embeddings/config/reload", Asks::Admin),
    ("/api/v1/embeddings/circuit-breakers/{provider}/reset", Asks::Admin),
    ("/api/v1/embeddings/cache", Asks::Admin),
    ("/api/v1/embeddings/metrics", Asks::Admin),
    ("/api/v1/embeddings/job/skip", Asks::Admin),
    ("/api/v1/embeddings/job/skip/status", Asks::Admin),
    ("/api/v1/embeddings/job/priority/bump", Asks::Admin),
    ("/api/v1/embeddings/ledger/status", Asks::Admin),
    ("/api/v1/embeddings/dlq", Asks::Admin),
    ("/api/v1/embeddings/dlq/stats", Asks::Admin),
    ("/api/v1/embeddings/dlq/requeue", Asks::Admin),
    ("/api/v1/embeddings/dlq/requeue/bulk", Asks::Admin),
    ("/api/v1/embeddings/dlq/state", Asks::Admin),
    ("/api/v1/embeddings/dlq/purge", Asks::Admin),
    ("/api/v1/embeddings/stage/status", Asks::Admin),
    ("/api/v1/embeddings/stage/control", Asks::Admin),
    ("/api/v1/embeddings/orchestrator/summary", Asks::Admin),
    ("/api/v1/embeddings/orchestrator/events", Asks::Admin),
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
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let asks = OTHERS.iter().find(|(other, _)| other == path).map_or(Asks::Key, |(_, asks)| *asks);
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
            // Who is let in there is told that there is no such collection or job, or what was not sent.
            let kept = ["/collections", "/users/", "/jobs", "/job/", "/ledger/", "/dlq", "/stage/"]
                .iter()
                .any(|part| path.contains(part));
            let inside = |status: u16| {
                if kept && ![401, 403].contains(&status) && status < 500 { 200 } else { status }
            };
            let got = got.map(inside);
            let wanted = match asks {
                Asks::Nothing => [200, 200, 200, 200],
                Asks::Key => [401, 401, 200, 200],
                Asks::Admin => [401, 401, 403, 200],
            };
            assert_eq!(got, wanted, "{method} {path} asks for {asks:?}");
            let documented = operation["responses"].as_object().unwrap();
            assert_eq!(documented.contains_key("403") && asks != Asks::Key, asks == Asks::Admin, "{path}");
            walked += 1;
        }
    }
    assert!(walked >= 14, "{walked} routes");
}

#[tokio::test]
async fn refusals_and_admins_deeds_are_written_down_without_a_secret() {
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
async fn every_bad_token_gets_the_same_answer() {
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
async fn two_keys_in_one_request_are_refused() {
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
async fn only_an_admin_brings_new_models_to_a_machine_that_many_share() {
    let server = server().await;
    let ask = async |token: String, model: &str| {
        let request = server.bare(Method::POST, "/v1/embeddings").bearer_auth(token);
        Answer::of(request.json(&json!({"input": "a", "model": model}))).await
    };
    server.fake.set_state(embeddery_core::ModelState::Absent);
    let refused = ask(token("ann", "user"), "test/other").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (404, "model_not_found"));
    assert!(refused.message().contains("only an admin"), "{}", refused.message());
    assert_eq!(ask(token("ann", "user"), "small").await.status, 200, "what is configured may be fetched");
    assert_eq!(ask(token("root", "admin"), "test/other").await.status, 200);
    server.fake.set_state(embeddery_core::ModelState::OnDisk);
    assert_eq!(ask(token("ann", "user"), "test/other").await.status, 200);
}
