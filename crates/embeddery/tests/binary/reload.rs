//! Reloads of the configuration of a running server: a reload is applied completely or not at all, and reports its keys.

use std::{fs, os::unix::net::UnixDatagram};

use embeddery_test_support::vendors::{VendorApi, Vendors};
use serde_json::{Value, json};

use crate::support::{KEY, Server};

/// A server with this configuration file.
fn server(vendors: &Vendors, file: &str) -> Server {
    let base = vendors.base_url(VendorApi::OpenAi);
    Server::with(|command| {
        fs::write(command.get_current_dir().unwrap().join("embeddery.yaml"), file).unwrap();
        command.env("SINGLE_USER_API_KEY", KEY).env("OPENAI_BASE_URL", base).env("LOG_FORMAT", "json");
    })
}

fn write(server: &Server, file: &str) {
    fs::write(server.dir.path().join("embeddery.yaml"), file).unwrap();
}

async fn reload(server: &Server) -> (u16, Value) {
    let response = server.post("/api/v1/embeddings/config/reload", &json!({})).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn embed(server: &Server, body: &Value) -> u16 {
    server.post("/v1/embeddings", body).send().await.unwrap().status().as_u16()
}

const BEFORE: &str = r#"
default_model_id: notes
models: {notes: {provider: openai, model_name_or_path: text-embedding-3-small}}
providers: {openai: {api_key: first-key-of-ours}}
server: {max_inputs: 1}
log: {level: info}
"#;

const AFTER: &str = r#"
default_model_id: notes
models:
  notes: {provider: openai, model_name_or_path: text-embedding-3-large}
  more: {provider: openai, model_name_or_path: text-embedding-3-small}
providers: {openai: {api_key: second-key-of-ours}}
server: {max_inputs: 2, max_connections: 9}
listen: 127.0.0.1:1
limits: {enabled: true, requests_per_second: 0.001, burst: 4}
log: {level: debug}
"#;

#[tokio::test]
async fn live_keys_take_effect_at_once_and_restart_keys_are_named() {
    let vendors = Vendors::start().await;
    let server = server(&vendors, BEFORE);
    let two = json!({"input": ["a", "b"]});
    assert_eq!(embed(&server, &json!({"input": "a"})).await, 200);
    assert_eq!(
        (embed(&server, &two).await, embed(&server, &json!({"input": "a", "model": "more"})).await),
        (400, 404)
    );

    write(&server, AFTER);
    let (status, response) = reload(&server).await;
    assert_eq!(status, 200, "{response}");
    let changed = [
        "limits.burst",
        "limits.enabled",
        "limits.requests_per_second",
        "log.level",
        "models.more.model_name_or_path",
        "models.more.provider",
        "models.notes.model_name_or_path",
        "providers.openai.api_key",
        "server.max_inputs",
    ];
    assert_eq!(
        response,
        json!({"file": "embeddery.yaml", "changed": changed, "needs_restart": ["listen", "server.max_connections"]})
    );

    assert_eq!(
        (embed(&server, &two).await, embed(&server, &json!({"input": "a", "model": "more"})).await),
        (200, 200)
    );
    let asked = vendors.requests();
    let used =
        asked.iter().map(|request| (request.model.as_str(), request.headers["authorization"].as_str()));
    let expected = [
        ("text-embedding-3-small", "Bearer first-key-of-ours"),
        ("text-embedding-3-large", "Bearer second-key-of-ours"),
    ];
    assert_eq!(used.collect::<Vec<_>>(), expected, "the third vector is cached");
    // The burst of four is in effect, too; two requests of it are left.
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(embed(&server, &json!({"input": "a"})).await);
    }
    assert_eq!(answers, [200, 200, 429]);

    let (_, again) = reload(&server).await;
    assert_eq!(
        (&again["changed"], &again["needs_restart"]),
        (&json!([]), &response["needs_restart"]),
        "a restart is still required"
    );
    assert!(reqwest::get(format!("{}/health", server.url)).await.unwrap().status().is_success());
    let log = server.log();
    assert!(log.contains("providers.openai.api_key") && log.contains("these keys need a restart"), "{log}");
    assert!(!log.contains("-key-of-ours"), "{log}");
    assert!(log.contains(r#""level":"DEBUG""#), "{log}");
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing_and_every_problem_is_named() {
    let vendors = Vendors::start().await;
    let server = server(&vendors, BEFORE);
    for (file, problem) in [
        (AFTER.replace("max_inputs: 2", "max_input: 2"), "did you mean 'max_inputs'?"),
        (AFTER.replace("default_model_id: notes", "default_model_id: nots"), "default_model_id"),
        (
            AFTER.replace("requests_per_second: 0.001", "requests_per_second: -1"),
            "limits.requests_per_second",
        ),
        (AFTER.replace("provider: openai", "provider: opnai"), "opnai"),
        ("models: [".into(), "embeddery.yaml, line"),
    ] {
        write(&server, &file);
        let (status, response) = reload(&server).await;
        assert_eq!(
            (status, response["error"]["code"].as_str()),
            (409, Some("unusable_configuration")),
            "{response}"
        );
        assert!(response["detail"]["problems"].to_string().contains(problem), "{problem}: {response}");
        assert_eq!(embed(&server, &json!({"input": ["a", "b"]})).await, 400, "the limit is still one input");
        assert_eq!(embed(&server, &json!({"input": "a", "model": "more"})).await, 404);
        assert_eq!(embed(&server, &json!({"input": "a"})).await, 200);
    }
    assert!(
        vendors
            .requests()
            .iter()
            .all(|request| request.headers["authorization"] == "Bearer first-key-of-ours")
    );
}

#[tokio::test]
async fn sighup_reloads_and_requests_in_progress_keep_the_old_configuration() {
    let vendors = Vendors::start().await;
    let server = server(&vendors, BEFORE);
    let held = vendors.hold();
    let request = server.post("/v1/embeddings", &json!({"input": "a"}));
    let under_way = tokio::spawn(async move { request.send().await.unwrap().status().as_u16() });
    held.arrived(1).await;

    write(&server, AFTER);
    server.signal("HUP");
    // The model exists only in the new file. The test sends requests until it is known; an unknown model costs nothing.
    let models = || async {
        let request = reqwest::Client::new().get(format!("{}/v1/models", server.url)).bearer_auth(KEY);
        request.send().await.unwrap().text().await.unwrap()
    };
    while !models().await.contains("\"more\"") {
        tokio::task::yield_now().await;
    }
    held.release();
    assert_eq!(under_way.await.unwrap(), 200);
    // Reloads run one after the other, so the first is logged when this one has responded.
    assert_eq!(reload(&server).await.0, 200);
    assert!(server.log().contains(r#""changed":"limits.burst"#), "{}", server.log());
}

#[tokio::test]
async fn systemd_is_notified_when_the_service_is_ready_and_when_it_stops() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut server = Server::with(|command| {
        command.env("SINGLE_USER_API_KEY", KEY).env("NOTIFY_SOCKET", &path);
    });
    let output = || {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(output(), "READY=1");
    server.signal("TERM");
    assert_eq!(output(), "STOPPING=1");
    assert!(server.wait().success());
}
