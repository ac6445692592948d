//! Loading and unloading of models during requests: more models than the memory holds, unloading by an administrator,
//! information on unloaded models, and kills during a load or a download.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use embeddery_test_support::{hub::Hub, tiny::Tiny};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{KEY, Server, command, models, run};

const MINILM: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// `count` small models, named `test/0` and so on.
fn small_models(count: u32, hidden: usize) -> TempDir {
    let base = tempfile::tempdir().unwrap();
    for seed in 0..count {
        Tiny { hidden, layers: 2, seed }.write(base.path(), &format!("test/{seed}")).unwrap();
    }
    base
}

/// A server with these models and this configuration, without a cache, so that every request uses a model.
fn server(models: &Path, configuration: &str) -> Server {
    Server::with(|command| {
        let file = command.get_current_dir().unwrap().join("embeddery.yaml");
        fs::write(file, configuration).unwrap();
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models).env("SINGLE_USER_API_KEY", KEY);
        command.env("EMBEDDINGS_CACHE_MAX_SIZE", "0").env("EMBEDDINGS_PRECISION", "f32");
    })
}

async fn get(server: &Server, path: &str) -> (u16, Value) {
    let client = reqwest::Client::new();
    let answer = client.get(format!("{}{path}", server.url)).bearer_auth(KEY).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn post(server: &Server, path: &str, body: Value) -> (u16, Value) {
    let answer = server.post(path, &body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The value of a metric.
async fn metric(url: &str, name: &str) -> f64 {
    let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    let line =
        text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until no model uses memory.
async fn wait_for_no_model_memory(url: &str) {
    while metric(url, "embeddery_model_memory_bytes").await > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_models_share_the_memory_of_three() {
    const MODELS: usize = 20;
    let base = small_models(MODELS as u32, 64);
    let default = "default_model_id: test/0\n";
    let roomy = server(base.path(), default);
    let (_, info) = get(&roomy, "/api/v1/embeddings/models/test/0").await;
    let limit = info["memory_bytes"].as_u64().unwrap() * 7 / 2;
    let mut due = HashMap::new();
    for model in 0..MODELS {
        let body = json!({"model": format!("test/{model}"), "input": "w1 w2 w3"});
        let (status, answer) = post(&roomy, "/v1/embeddings", body).await;
        assert_eq!(status, 200, "{answer}");
        due.insert(model, answer["data"][0]["embedding"].clone());
    }
    drop(roomy);

    let server = Arc::new(server(base.path(), &format!("{default}engine: {{max_memory: {limit}}}\n")));
    let ended = Arc::new(AtomicBool::new(false));
    let watch = {
        let (url, ended) = (server.url.clone(), Arc::clone(&ended));
        tokio::spawn(async move {
            let mut most: f64 = 0.0;
            while !ended.load(SeqCst) {
                most = most.max(metric(&url, "embeddery_model_memory_bytes").await);
            }
            most
        })
    };
    let due = Arc::new(due);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..6 {
        let (server, due) = (Arc::clone(&server), Arc::clone(&due));
        callers.spawn(async move {
            for turn in 0..2 * MODELS {
                let model = (turn * (1 + caller) + caller * 3) % MODELS;
                let body = json!({"model": format!("test/{model}"), "input": "w1 w2 w3"});
                let (status, answer) = post(&server, "/v1/embeddings", body).await;
                assert_eq!(status, 200, "{answer}");
                assert_eq!(answer["data"][0]["embedding"], due[&model], "model {model}");
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    ended.store(true, SeqCst);
    let most = watch.await.unwrap();
    assert!(most <= limit as f64, "{most} of {limit}");
    let log = server.log();
    assert!(log.matches("model unloaded").count() >= MODELS, "models were unloaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn unloading_frees_the_memory_and_the_next_request_loads_again() {
    let server = server(&models(), "");
    server.ready().await;
    let taken = metric(&server.url, "embeddery_model_memory_bytes").await;
    let before = metric(&server.url, "process_resident_memory_bytes").await;
    let named = json!({"model_id": MINILM, "provider": "huggingface"});
    let (status, answer) = post(&server, "/api/v1/embeddings/models/unload", named.clone()).await;
    assert_eq!((status, &answer["unloaded"]), (200, &json!(true)), "{answer}");
    wait_for_no_model_memory(&server.url).await;
    let after = metric(&server.url, "process_resident_memory_bytes").await;
    // The weights in f32 take 90 MB; the tokenizer comes on top.
    assert!(before - after > 90e6, "{before} bytes, then {after}; {taken} were reserved");
    let (_, answer) = post(&server, "/api/v1/embeddings/models/unload", named.clone()).await;
    assert_eq!(answer["unloaded"], false);
    let (_, info) = get(&server, &format!("/api/v1/embeddings/models/{MINILM}")).await;
    assert_eq!(info["state"], "unloaded");
    let ready = reqwest::get(format!("{}/ready", server.url)).await.unwrap();
    assert_eq!(ready.status(), 200, "an unloaded model is ready");
    let (status, answer) = post(&server, "/api/v1/embeddings/models/warmup", named).await;
    assert_eq!((status, &answer["warmed"]), (200, &json!(true)));
    let (_, info) = get(&server, &format!("/api/v1/embeddings/models/{MINILM}")).await;
    assert_eq!(info["state"], "loaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_information_on_an_unloaded_model_is_complete() {
    let base = small_models(2, 32);
    let configuration = "default_model_id: test/0\nmodels:\n  short: {provider: huggingface, model_name_or_path: test/1, \
                         max_length: 16, precision: int8, unload_timeout_seconds: 0}\n";
    let server = server(base.path(), configuration);
    let (status, info) = get(&server, "/api/v1/embeddings/models/short").await;
    assert_eq!(status, 200, "{info}");
    for (key, value) in [
        ("id", json!("short")),
        ("model", json!("test/1")),
        ("provider", json!("huggingface")),
        ("state", json!("on_disk")),
        ("architecture", json!("bert")),
        ("dimensions", json!(32)),
        ("max_tokens", json!(16)),
        ("precision", json!("int8")),
    ] {
        assert_eq!(info[key], value, "{key} of {info}");
    }
    let answer =
        server.post("/v1/embeddings", &json!({"model": "short", "input": "w1"})).send().await.unwrap();
    assert_eq!(answer.headers()["x-embeddings-space"], info["space"].as_str().unwrap());
    assert_eq!(get(&server, "/api/v1/embeddings/models/nobody/nothing").await.0, 404);
    let (status, vendor) = get(&server, "/api/v1/embeddings/models/openai:text-embedding-3-small").await;
    assert!(status == 404 || vendor["space"].is_null(), "{vendor}");

    let (code, stdout, _) = {
        let mut command = command(server.dir.path(), &["models", "info", "short"]);
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", base.path());
        tokio::task::spawn_blocking(move || run(command)).await.unwrap()
    };
    assert_eq!(code, 0);
    for line in ["max tokens    16", "precision     int8", info["space"].as_str().unwrap()] {
        assert!(stdout.contains(line), "{stdout}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_over_the_memory_limit_is_an_error_that_names_the_setting() {
    let base = small_models(1, 32);
    let server = server(base.path(), "default_model_id: test/0\nengine: {max_memory: 100KB}\n");
    let (status, answer) = post(&server, "/v1/embeddings", json!({"input": "w1"})).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 503 && message.contains("engine.max_memory"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_after_a_kill_during_a_load() {
    let base = small_models(1, 256);
    for _ in 0..5 {
        let mut server = server(base.path(), "default_model_id: test/0\n");
        // The default model is loaded from the start on.
        let asked = server.post("/v1/embeddings", &json!({"input": "w1"})).timeout(Duration::from_millis(20));
        let _ = asked.send().await;
        server.signal("KILL");
        server.wait();
    }
    let server = server(base.path(), "default_model_id: test/0\n");
    assert_eq!(post(&server, "/v1/embeddings", json!({"input": "w1"})).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_resumes_after_a_kill() {
    let base = small_models(1, 64);
    let hub = Hub::start().await.with_directory("test/0", &base.path().join("test/0"));
    let held = hub.hold("model.safetensors");
    let endpoint = hub.url();
    let here = tempfile::tempdir().unwrap();
    let start = || {
        Server::with(|command| {
            command.env("HF_HUB_OFFLINE", "0").env("HF_ENDPOINT", &endpoint).env("SINGLE_USER_API_KEY", KEY);
            command.env("EMBEDDINGS_MODEL_STORAGE_DIR", here.path());
        })
    };
    let mut server = start();
    let ask = json!({"model": "test/0", "input": "w1"});
    let (status, answer) = post(&server, "/v1/embeddings", ask.clone()).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("model_loading")));
    server.signal("KILL");
    server.wait();
    held.release();
    let server = start();
    let (status, answer) =
        post(&server, "/api/v1/embeddings/models/download", json!({"model": "test/0"})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(post(&server, "/v1/embeddings", ask).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_queue_limit_get_a_429_with_retry_after() {
    let server = Arc::new(server(&models(), "engine: {queue_tokens: 600}\n"));
    let long = "a fox, a dog, and a river ".repeat(30);
    // Texts of more than two hundred tokens, of which the queue holds only a few.
    let (mut served, mut refused) = (0, 0);
    while served == 0 || refused == 0 {
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..24 {
            // The texts are different, because equal texts would share a computation.
            let (server, long) = (Arc::clone(&server), format!("{caller} {long}"));
            callers.spawn(async move {
                let body = json!({"model": MINILM, "input": long});
                let answer = server.post("/v1/embeddings", &body).send().await.unwrap();
                let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
                (answer.status().as_u16(), wait, answer.json::<Value>().await.unwrap())
            });
        }
        while let Some(answer) = callers.join_next().await {
            match answer.unwrap() {
                (200, _, body) => {
                    assert_eq!(body["data"][0]["embedding"].as_array().unwrap().len(), 384);
                    served += 1;
                }
                (429, wait, body) => {
                    assert!(wait.unwrap().parse::<u64>().unwrap() >= 1);
                    let message = body["error"]["message"].as_str().unwrap();
                    assert!(message.contains("retry later"), "{message}");
                    refused += 1;
                }
                (status, _, body) => panic!("{status}: {body}"),
            }
        }
    }
    let (status, _) = post(&server, "/v1/embeddings", json!({"model": MINILM, "input": long})).await;
    assert_eq!(status, 200, "later requests succeed");
}
