//! `embeddery models`, and a server whose model is not downloaded yet, with a fake hub over real HTTP.

use std::fs;

use crate::support::{KEY, Server, command, models, run};
use embeddery_test_support::hub::Hub;
use serde_json::{Value, json};

const NAME: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// A fake hub with the real default model.
async fn hub() -> Hub {
    Hub::start().await.with_directory(NAME, &models().join(NAME))
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_list_and_info() {
    let hub = hub().await;
    let dir = tempfile::tempdir().unwrap();
    let with_hub = |arguments: &[&str]| {
        let mut command = command(dir.path(), arguments);
        command.env("HF_HUB_OFFLINE", "0").env("HF_ENDPOINT", hub.url());
        tokio::task::spawn_blocking(move || run(command))
    };
    let (code, stdout, _) = with_hub(&["models", "list"]).await.unwrap();
    assert!(code == 0 && stdout.contains("models pull"), "{stdout}");
    let (code, stdout, stderr) = with_hub(&["models", "pull"]).await.unwrap();
    assert!(code == 0 && stdout.contains(&format!("{NAME} is in ")), "{stdout}{stderr}");
    let pulled = dir.path().join("models/embedding_models_data").join(NAME).join("model.safetensors");
    assert_eq!(fs::metadata(pulled).unwrap().len(), 90_868_376);
    let (_, stdout, _) = with_hub(&["models", "list"]).await.unwrap();
    assert!(stdout.contains(NAME) && stdout.contains("384 dimensions, 256 tokens"), "{stdout}");
    let (code, stdout, _) = with_hub(&["models", "info", NAME]).await.unwrap();
    assert!(code == 0 && stdout.contains("bert, 6 layers"), "{stdout}");
    let (code, _, stderr) = with_hub(&["models", "info", "nobody/nothing"]).await.unwrap();
    assert!(code == 1 && stderr.contains("models pull nobody/nothing"), "{stderr}");
    let (code, _, stderr) = with_hub(&["models", "pull", "nobody/nothing"]).await.unwrap();
    assert!(code == 1 && stderr.contains("nobody/nothing"), "{stderr}");
}

#[test]
fn an_offline_pull_names_the_searched_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(command(dir.path(), &["models", "pull", "a/b"]));
    assert!(
        code == 1 && stderr.contains("HF_HUB_OFFLINE") && stderr.contains("models/embedding_models_data"),
        "{stderr}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_during_a_download_get_a_503_with_retry_after() {
    let hub = hub().await;
    let held = hub.hold("model.safetensors");
    let endpoint = hub.url();
    let server = Server::with(|command| {
        command.env("HF_HUB_OFFLINE", "0").env("HF_ENDPOINT", &endpoint).env("SINGLE_USER_API_KEY", KEY);
    });
    let ask = || server.post("/v1/embeddings", &json!({"input": "x"})).send();
    let answer = ask().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "model_loading");
    let ready = reqwest::get(format!("{}/ready", server.url)).await.unwrap();
    assert_eq!(ready.status(), 503);
    let health = reqwest::get(format!("{}/api/v1/embeddings/health", server.url)).await.unwrap();
    assert_eq!(health.status(), 200);

    held.release();
    let download =
        server.post("/api/v1/embeddings/models/download", &json!({"model": NAME})).send().await.unwrap();
    assert_eq!(download.status(), 200, "{}", download.text().await.unwrap());
    let warmup = json!({"provider": "huggingface", "model_id": NAME});
    let warmed = server.post("/api/v1/embeddings/models/warmup", &warmup).send().await.unwrap();
    assert_eq!(warmed.json::<Value>().await.unwrap()["warmed"], true);
    assert_eq!(ask().await.unwrap().status(), 200);
    assert_eq!(reqwest::get(format!("{}/ready", server.url)).await.unwrap().status(), 200);
    assert_eq!(hub.requests_for("model.safetensors"), 1, "downloaded once");
}

#[test]
fn check_reports_each_problem_with_a_fix() {
    let dir = tempfile::tempdir().unwrap();
    let check_with = |models: &str, redis: &str| {
        let mut command = command(dir.path(), &["check"]);
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models).env("REDIS_URL", redis);
        run(command)
    };
    let check = |models: &str| check_with(models, "");
    let (code, stdout, _) = check(models().to_str().unwrap());
    assert!(code == 0 && stdout.contains("384 dimensions"), "{stdout}");
    // Port 1 is closed.
    let (code, stdout, _) = check_with(models().to_str().unwrap(), "redis://127.0.0.1:1");
    assert!(code == 1 && stdout.contains("FAIL  queue: Redis at 127.0.0.1:1"), "{stdout}");
    let (code, stdout, _) = check("empty");
    assert!(
        code == 1
            && stdout.contains("FAIL  default model")
            && stdout.contains("fix: run `embeddery models pull"),
        "{stdout}"
    );
}

#[test]
fn the_printed_defaults_are_a_valid_file() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, _) = run(command(dir.path(), &["check", "--print-defaults"]));
    assert_eq!(code, 0);
    fs::write(dir.path().join("embeddery.yaml"), stdout).unwrap();
    let mut again = command(dir.path(), &["check"]);
    again.env("EMBEDDINGS_MODEL_STORAGE_DIR", models());
    let (code, stdout, stderr) = run(again);
    assert!(code == 0 && stdout.contains("configuration: embeddery.yaml"), "{stdout}{stderr}");
}

#[test]
fn bench_measures_every_precision() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), &["models", "bench", "--seconds", "0"]);
    command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models());
    let (code, stdout, stderr) = run(command);
    assert_eq!(code, 0, "{stderr}");
    let row = |precision: &str| {
        let row =
            stdout.lines().find(|line| line.starts_with(precision)).unwrap_or_else(|| panic!("{stdout}"));
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for (precision, due) in [("f32", 1.0), ("bf16", 0.9999), ("int8", 0.998)] {
        let least: f64 = row(precision).last().unwrap().parse().unwrap();
        assert!(least >= due - 1e-6, "{stdout}");
    }
}
