//! `embeddery serve` with the real default model over HTTP.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::support::{KEY, Server, command, models, run};
use base64::Engine as _;
use serde_json::{Value, json};

fn reference() -> Vec<(String, usize, Vec<f32>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference.json");
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    file["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let tokens = entry["tokens"].as_u64().unwrap() as usize;
            (entry["text"].as_str().unwrap().to_owned(), tokens, numbers(&entry["vector"]))
        })
        .collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[tokio::test]
async fn vectors_equal_the_reference_in_both_encodings() {
    let server = Server::start();
    let texts: Vec<String> = reference().into_iter().map(|(text, ..)| text).collect();
    for path in ["/v1/embeddings", "/api/v1/embeddings"] {
        let answer = server.post(path, &json!({"input": texts})).send().await.unwrap();
        assert_eq!(answer.headers()["x-embeddings-provider"], "huggingface");
        assert_eq!(
            answer.headers()["x-embeddings-truncated"],
            "1",
            "the third text is longer than 256 tokens"
        );
        let floats: Value = answer.json().await.unwrap();
        let base64 =
            server.post(path, &json!({"input": texts, "encoding_format": "base64"})).send().await.unwrap();
        let base64: Value = base64.json().await.unwrap();
        let mut tokens = 0;
        for (index, (text, count, wanted)) in reference().into_iter().enumerate() {
            let vector = numbers(&floats["data"][index]["embedding"]);
            assert!(worst(&vector, &wanted) < 1e-4, "{text}: off by {}", worst(&vector, &wanted));
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - 1.0).abs() < 1e-5, "length {length}");
            let bytes = base64::prelude::BASE64_STANDARD
                .decode(base64["data"][index]["embedding"].as_str().unwrap())
                .unwrap();
            let decoded: Vec<f32> =
                bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect();
            assert_eq!(decoded, vector, "base64 and float are the same vector");
            tokens += count;
        }
        assert_eq!(floats["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    }
}

#[tokio::test]
async fn in_the_default_precision_vectors_are_close_to_the_reference() {
    let server = Server::with(|command| {
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", KEY);
    });
    for (text, _, wanted) in reference() {
        let answer = server.post("/v1/embeddings", &json!({"input": text})).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let vector = numbers(&answer["data"][0]["embedding"]);
        let cosine: f32 = vector.iter().zip(&wanted).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.9999, "{text}: {cosine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_return_the_same_vectors_as_single_requests() {
    let server = Server::start();
    server.ready().await;
    let texts: Vec<String> =
        (0..40).map(|n| format!("text number {n} {}", "and some more words ".repeat(n))).collect();
    let together: Value =
        server.post("/v1/embeddings", &json!({"input": texts})).send().await.unwrap().json().await.unwrap();
    let alone = texts.iter().map(|text| server.post("/v1/embeddings", &json!({"input": text})).send());
    let mut tasks = tokio::task::JoinSet::new();
    for (index, request) in alone.enumerate() {
        tasks.spawn(async move { (index, request.await.unwrap().json::<Value>().await.unwrap()) });
    }
    while let Some(done) = tasks.join_next().await {
        let (index, answer) = done.unwrap();
        assert_eq!(answer["data"][0]["embedding"], together["data"][index]["embedding"], "text {index}");
    }
}

#[tokio::test]
async fn the_official_openai_client_works() {
    let server = Server::start();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join(".cache/venv/bin/python");
    assert!(python.is_file(), "{} is missing; `make test` makes it", python.display());
    let mut client = Command::new(python);
    client.arg(root.join("tests/openai_sdk.py")).args([&server.url, KEY]);
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn too_long_inputs_are_truncated_or_refused_as_requested() {
    let server = Server::start();
    let long = "word ".repeat(400);
    let ask = |truncate| json!({"input": ["short", long], "truncate": truncate});
    let refused = server.post("/v1/embeddings", &ask("none")).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "input_too_long");
    assert_eq!(body["detail"], json!([{"index": 1, "tokens": 402}]));
    for end in ["end", "start"] {
        let cut = server.post("/v1/embeddings", &ask(end)).send().await.unwrap();
        assert_eq!(cut.headers()["x-embeddings-truncated"], "1");
    }
}

#[tokio::test]
async fn metrics_exist_from_the_start_and_count_requests() {
    let server = Server::start();
    let scrape =
        || async { reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap() };
    let series = r#"{provider="huggingface",model="sentence-transformers/all-MiniLM-L6-v2""#;
    let before = scrape().await;
    for family in [
        "embedding_requests_total",
        "embedding_cache_hits_total",
        "active_embedding_requests",
        "embedding_request_duration_seconds",
    ] {
        assert!(before.contains(&format!("# TYPE {family} ")), "{family} is missing:\n{before}");
    }
    assert!(before.contains(&format!("embedding_requests_total{series},status=\"success\"}} 0")), "{before}");
    server.ready().await;
    let answer =
        server.post("/v1/embeddings", &json!({"input": "x", "model": "no-such-model"})).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let after = scrape().await;
    assert!(after.contains(&format!("embedding_requests_total{series},status=\"success\"}} 1")), "{after}");
    assert!(
        after.contains(r#"embedding_requests_total{provider="other",model="other",status="invalid"} 1"#),
        "{after}"
    );
    assert!(!after.contains("no-such-model"), "a caller must not create labels");
}

#[tokio::test]
async fn without_a_key_one_is_generated_and_stored() {
    let server = Server::with(|command| {
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models());
    });
    let path = server.dir.path().join("Databases/user_databases/.embeddery/api-key");
    let key = fs::read_to_string(&path).unwrap();
    assert!(server.greeting.contains(key.trim()), "{}", server.greeting);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let post = |key: &str| {
        let client =
            reqwest::Client::new().post(format!("{}/v1/embeddings", server.url)).json(&json!({"input": "x"}));
        client.header("X-API-KEY", key.trim().to_owned()).send()
    };
    assert_eq!(post(&key).await.unwrap().status(), 200);
    assert_eq!(post("wrong").await.unwrap().status(), 401);
    assert!(!server.log().contains(key.trim()), "the key is in the log");
}

#[tokio::test]
async fn sigterm_finishes_requests_in_progress_and_exits_with_zero() {
    // A long grace period: the test checks that the request is finished, not how fast.
    let mut server = Server::with(|command| {
        let file = command.get_current_dir().unwrap().join("embeddery.yaml");
        fs::write(file, "server: {shutdown_grace_seconds: 600, request_timeout_seconds: 600}\n").unwrap();
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", KEY);
    });
    server.ready().await;
    let texts: Vec<String> = (0..300).map(|n| format!("{n} {}", "a longer text ".repeat(20))).collect();
    let request = server.post("/v1/embeddings", &json!({"input": texts}));
    let running = tokio::spawn(request.send());
    // The gauge shows when the server has received the request.
    while !reqwest::get(format!("{}/metrics", server.url))
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
        .contains("active_embedding_requests 1")
    {
        assert!(!running.is_finished(), "the request was finished before the gauge was read");
        tokio::task::yield_now().await;
    }
    server.signal("TERM");
    let answer = running.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["data"].as_array().unwrap().len(), 300);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_invalid_configuration_stops_the_start_with_the_key_and_a_fix() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |file: Option<&str>, environment: &[(&str, &str)]| {
        let mut command = command(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
        command.envs(environment.iter().copied());
        if let Some(text) = file {
            fs::write(dir.path().join("c.yaml"), text).unwrap();
            command.args(["--config", "c.yaml"]);
        }
        let (code, _, stderr) = run(command);
        assert_eq!(code, 2, "{stderr}");
        stderr
    };
    assert!(refused(Some("serverr: {}"), &[]).contains("did you mean 'server'?"));
    assert!(refused(None, &[("AUTH_MODE", "anything")]).contains("AUTH_MODE: 'anything' is unknown"));
    assert!(refused(None, &[("LOG_LEVEL", "LOUD")]).contains("LOG_LEVEL: 'LOUD'"));
    assert!(refused(Some("default_model_id: nonsense\n"), &[]).contains("default_model_id"));
    let both = refused(Some("server: {max_inputs: 0}\ndimension_policy: bend\n"), &[]);
    assert!(
        both.contains("line 1 column 10: server.max_inputs: ")
            && both.contains("line 2 column 1: dimension_policy: 'bend'"),
        "{both}"
    );
}

#[test]
fn listening_beyond_loopback_requires_a_long_key() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = |key: &str| {
        let mut command = command(dir.path(), &["serve", "--listen", "0.0.0.0:0"]);
        command.env("SINGLE_USER_API_KEY", key);
        run(command)
    };
    let (code, _, stderr) = attempt("");
    assert!(code == 2 && stderr.contains("SINGLE_USER_API_KEY: is required"), "{stderr}");
    let (code, _, stderr) = attempt("short");
    assert!(code == 2 && stderr.contains("has 5 characters"), "{stderr}");
    assert!(!stderr.contains("'short'"), "a key must not be shown");
}

#[test]
fn a_directory_that_is_not_writable_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let mut command = command(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    command.env("EMBEDDINGS_STATE_DIR", "file/state");
    let (code, _, stderr) = run(command);
    assert!(code == 1 && stderr.contains("EMBEDDINGS_STATE_DIR: file/state is not writable"), "{stderr}");
}

#[tokio::test]
async fn health_checks_a_running_server() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let ask = |url: &str| run(command(dir.path(), &["health", "--url", url]));
    assert_eq!(ask(&server.url).0, 0);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, stdout, _) = ask(&format!("http://{nobody}"));
    assert!(code == 1 && stdout.starts_with("unhealthy"), "{stdout}");
}
