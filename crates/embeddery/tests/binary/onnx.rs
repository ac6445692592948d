//! ONNX graphs with the real ONNX Runtime library, compared with the engine on the same model.

use std::{
    fs,
    path::{Path, PathBuf},
};

use embeddery_test_support::hub::Hub;
use serde_json::{Value, json};

use crate::support::{KEY, Server, command, models, run};

const MINILM: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// The library of ONNX Runtime. `make test` downloads it.
fn library() -> PathBuf {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/onnxruntime/libonnxruntime.so");
    assert!(library.is_file(), "{} is missing; `make test` fetches it", library.display());
    library.canonicalize().unwrap()
}

/// A server with the model as an ONNX graph under several ids.
fn server(change: impl FnOnce(&mut std::process::Command)) -> Server {
    let graph =
        |id: &str, keys: &str| format!("  {id}: {{provider: onnx, model_name_or_path: {MINILM}{keys}}}\n");
    let entries = [
        graph("graph", ""),
        "  engine: {provider: huggingface, model_name_or_path: sentence-transformers/all-MiniLM-L6-v2}\n"
            .to_owned(),
    ];
    let configuration = format!("default_model_id: engine\nmodels:\n{}", entries.concat());
    Server::with(|command| {
        fs::write(command.get_current_dir().unwrap().join("embeddery.yaml"), configuration).unwrap();
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("SINGLE_USER_API_KEY", KEY);
        command.env("ORT_DYLIB_PATH", library()).env("EMBEDDINGS_PRECISION", "f32");
        command.env("EMBEDDINGS_CACHE_MAX_SIZE", "0");
        change(command);
    })
}

/// A server with one entry for the model, with these keys.
fn with_entry(keys: &str) -> Server {
    server(|command| {
        let file = command.get_current_dir().unwrap().join("embeddery.yaml");
        let entry = format!("  graph: {{provider: onnx, model_name_or_path: {MINILM}, {keys}}}\n");
        let engine = format!("  engine: {{provider: huggingface, model_name_or_path: {MINILM}}}\n");
        fs::write(file, format!("default_model_id: engine\nmodels:\n{entry}{engine}")).unwrap();
    })
}

async fn vectors(server: &Server, model: &str, body: &Value) -> Vec<Vec<f64>> {
    let mut body = body.clone();
    body["model"] = json!(model);
    let answer = server.post("/v1/embeddings", &body).send().await.unwrap();
    let (status, answer) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{answer}");
    let rows = answer["data"].as_array().unwrap().iter();
    rows.map(|row| serde_json::from_value(row["embedding"].clone()).unwrap()).collect()
}

/// The minimum cosine of vectors of unit length.
fn min_cosine(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let cosine = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    a.iter().zip(b).map(cosine).fold(1.0, f64::min)
}

/// Texts from one word to more than the model's limit.
fn texts() -> Vec<String> {
    let words = ["the", "river", "rose", "after", "a", "warm", "winter", "and", "nobody", "knew", "why"];
    let text =
        |count: usize| (0..count).map(|n| words[(n * n + count) % words.len()]).collect::<Vec<_>>().join(" ");
    [1, 2, 3, 7, 11, 12, 40, 41, 90, 180, 400, 5, 1].map(text).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_computes_the_same_vectors_as_the_engine() {
    let server = server(|_| {});
    let body = json!({"input": texts()});
    let (graph, engine) = (vectors(&server, "graph", &body).await, vectors(&server, "engine", &body).await);
    let least = min_cosine(&graph, &engine);
    assert!(least > 0.99999, "{least}");
    // The vector of a text does not depend on the padding.
    let alone =
        vectors(&server, "onnx:sentence-transformers/all-MiniLM-L6-v2", &json!({"input": texts()[3]})).await;
    assert!(min_cosine(&alone, &graph[3..4]) > 0.999_999);
    // Without normalization the vectors do not have unit length.
    let raw = json!({"input": "hello", "normalize": false});
    let (graph, engine) = (vectors(&server, "graph", &raw).await, vectors(&server, "engine", &raw).await);
    let furthest = graph[0].iter().zip(&engine[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(furthest < 1e-3, "{furthest}");
    let (log, answer) =
        (server.log(), server.post("/v1/embeddings", &json!({"model": "graph", "input": "x"})));
    assert!(log.contains("ONNX Runtime loaded"), "{log}");
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.headers()["x-embeddings-provider"], "onnx");
    let space = answer.headers()["x-embeddings-space"].clone();
    let client = reqwest::Client::new();
    let info = client.get(format!("{}/api/v1/embeddings/models/graph", server.url)).bearer_auth(KEY);
    let info: Value = info.send().await.unwrap().json().await.unwrap();
    assert_eq!((&info["state"], &info["dimensions"]), (&json!("loaded"), &json!(384)), "{info}");
    assert_eq!(info["space"], space.to_str().unwrap());
    let list = client.get(format!("{}/v1/models", server.url)).bearer_auth(KEY);
    let list: Value = list.send().await.unwrap().json().await.unwrap();
    let mut ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().filter_map(|one| one["id"].as_str()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "the ids are unique: {list}");
    let unload = json!({"model": "graph"});
    let unloaded = server.post("/api/v1/embeddings/models/unload", &unload).send().await.unwrap();
    assert_eq!(unloaded.json::<Value>().await.unwrap()["unloaded"], true);
    assert_eq!(vectors(&server, "graph", &json!({"input": "again"})).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn quantized_graphs_and_graphs_with_pooling_work() {
    let body = json!({"input": texts()});
    for (file, due) in [("onnx/model_int8.onnx", 0.95), ("onnx/model_sentence.onnx", 0.99999)] {
        let server = with_entry(&format!("onnx_file: {file}"));
        let (graph, engine) =
            (vectors(&server, "graph", &body).await, vectors(&server, "engine", &body).await);
        let least = min_cosine(&graph, &engine);
        assert!(least > due, "{file}: {least}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_bench_support_graphs() {
    let dir = tempfile::tempdir().unwrap();
    let ask = |arguments: &'static [&'static str], providers: &str, library: PathBuf| {
        let entry =
            format!("{{provider: onnx, model_name_or_path: {MINILM}, onnx_providers: [{providers}]}}");
        fs::write(dir.path().join("embeddery.yaml"), format!("models: {{graph: {entry}}}\n")).unwrap();
        let mut command = command(dir.path(), arguments);
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", models()).env("ORT_DYLIB_PATH", library);
        run(command)
    };
    let (code, stdout, _) = ask(&["check"], "CPUExecutionProvider", library());
    assert!(code == 0 && stdout.contains("ONNX Runtime with CPUExecutionProvider"), "{stdout}");
    let (code, stdout, _) = ask(&["check"], "CUDAExecutionProvider", library());
    assert!(code == 1 && stdout.contains("needs CUDAExecutionProvider"), "{stdout}");
    let (code, stdout, _) = ask(&["check"], "CPUExecutionProvider", "/nowhere.so".into());
    assert!(code == 1 && stdout.contains("make onnxruntime"), "{stdout}");
    let (code, stdout, _) = ask(&["models", "bench", "--seconds", "0"], "CPUExecutionProvider", library());
    let row = stdout.lines().find(|line| line.starts_with("onnx")).unwrap_or_default();
    let least: f64 = row.split_whitespace().last().unwrap_or_default().parse().unwrap_or(0.0);
    assert!(code == 0 && least > 0.99999, "{stdout}");
}

async fn refusal(server: &Server) -> String {
    let answer =
        server.post("/v1/embeddings", &json!({"model": "graph", "input": "x"})).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let answer: Value = answer.json().await.unwrap();
    answer["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_or_library_is_an_error_with_a_fix() {
    let elsewhere = |library: PathBuf| {
        server(move |command| {
            command.env("ORT_DYLIB_PATH", library);
        })
    };
    let message = refusal(&elsewhere("/nowhere/libonnxruntime.so".into())).await;
    assert!(
        message.contains("/nowhere/libonnxruntime.so") && message.contains("make onnxruntime"),
        "{message}"
    );
    let message = refusal(&elsewhere(models().join(MINILM).join("config.json"))).await;
    assert!(message.contains("config.json") && message.contains("ORT_DYLIB_PATH"), "{message}");
    let message = refusal(&with_entry("onnx_providers: [CUDAExecutionProvider, CPUExecutionProvider]")).await;
    assert!(
        message.contains("'CUDAExecutionProvider'") && message.contains("available: CPUExecutionProvider"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_needed_files_of_a_graph_are_downloaded() {
    let graph = models().join("onnx_models").join(MINILM);
    let hub = Hub::start().await.with_directory("org/graph", &graph);
    let dir = tempfile::tempdir().unwrap();
    let endpoint = hub.url();
    let server = server(|command| {
        let file = command.get_current_dir().unwrap().join("embeddery.yaml");
        let entry = "models: {small: {provider: onnx, model_name_or_path: org/graph, onnx_file: onnx/model_int8.onnx}}\n";
        fs::write(file, format!("default_model_id: small\n{entry}")).unwrap();
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", dir.path());
        command.env("HF_HUB_OFFLINE", "0").env("HF_ENDPOINT", &endpoint);
    });
    let download = json!({"model": "small"});
    let done = server.post("/api/v1/embeddings/models/download", &download).send().await.unwrap();
    assert_eq!(done.status(), 200, "{}", done.text().await.unwrap());
    let here = dir.path().join("onnx_models/org/graph");
    assert!(here.join("onnx/model_int8.onnx").is_file() && !here.join("onnx/model.onnx").exists());
    assert_eq!(vectors(&server, "small", &json!({"input": "x"})).await[0].len(), 384);
    let info = {
        let mut command = command(server.dir.path(), &["models", "info", "small"]);
        command.env("EMBEDDINGS_MODEL_STORAGE_DIR", dir.path()).env("ORT_DYLIB_PATH", library());
        tokio::task::spawn_blocking(move || run(command)).await.unwrap()
    };
    assert!(info.0 == 0 && info.1.contains("onnx/model_int8.onnx"), "{info:?}");
}
