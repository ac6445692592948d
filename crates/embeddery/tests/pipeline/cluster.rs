//! API, workers and Redis, each of which may be killed and started again at any moment.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use embeddery_test_support::{
    redis::Redis,
    vendors::{VendorApi, Vendors, vector},
};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    support::{KEY, command},
    tokens::SECRET,
};

/// Length of the stand-in's vectors.
pub const DIM: usize = 16;

/// What a cluster is made of.
pub struct Plan {
    /// Worker processes; none: the API works itself, over the embedded queue, without Redis.
    pub workers: usize,
    /// More of the configuration file.
    pub more: &'static str,
}

pub struct Cluster {
    pub vendors: Vendors,
    pub redis: Option<Redis>,
    pub dir: TempDir,
    pub api: Child,
    pub workers: Vec<Child>,
    /// Of whoever asks.
    pub key: String,
    url: String,
    client: Client,
}

impl Cluster {
    pub async fn start(plan: Plan) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), plan).await
    }

    pub async fn start_in(dir: TempDir, plan: Plan) -> Self {
        let vendors = Vendors::start().await;
        let config = format!(
            "default_model_id: tiny\n\
             models:\n  tiny: {{provider: local_api, model_name_or_path: tiny, api_url: \"{}\"}}\n\
             queue: {{lease_seconds: 2}}\n\
             workers: {{reconcile_seconds: 2, backoff_seconds: 0.2}}\n\
             server: {{shutdown_grace_seconds: 10}}\n{}\n",
            vendors.base_url(VendorApi::LocalOpenAi),
            plan.more
        );
        fs::write(dir.path().join("embeddery.yaml"), config).unwrap();
        let redis = (plan.workers > 0).then(|| Redis::durable().unwrap());
        // One port for all lives of the API.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let api = serve(&dir, redis.as_ref(), port);
        let workers = (0..plan.workers).map(|_| work(&dir, redis.as_ref())).collect();
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { vendors, redis, dir, api, workers, key: KEY.to_owned(), url, client }
    }

    fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// SIGKILL and a new start of the API.
    pub fn kill_api(&mut self) {
        kill(&mut self.api);
        self.api = serve(&self.dir, self.redis.as_ref(), self.port());
    }

    /// SIGKILL of a worker, and a new one.
    pub fn kill_worker(&mut self, which: usize) {
        kill(&mut self.workers[which]);
        self.workers[which] = work(&self.dir, self.redis.as_ref());
    }

    /// SIGKILL of Redis, and a new start over the same files.
    pub fn kill_redis(&mut self) {
        if let Some(redis) = &mut self.redis {
            redis.kill().unwrap();
            redis.restart().unwrap();
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// Asks until there is an answer: the API may be dead at the moment, or Redis.
    pub async fn patiently(&self, request: impl Fn() -> RequestBuilder) -> (StatusCode, Value) {
        for _ in 0..600 {
            if let Ok(answer) = request().send().await {
                let status = answer.status();
                if let Ok(text) = answer.text().await
                    && status != StatusCode::SERVICE_UNAVAILABLE
                {
                    return (status, serde_json::from_str(&text).unwrap_or(Value::String(text)));
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the API does not answer: {}", self.logs());
    }

    /// Submits a job, the same however often the API dies over it; its id.
    pub async fn submit(&self, key: &str, collection: &str, documents: &[(String, String)]) -> String {
        let body = body(collection, documents);
        let request = || {
            self.request(Method::POST, "/api/v1/embeddings/jobs").header("idempotency-key", key).json(&body)
        };
        let (status, answer) = self.patiently(request).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        answer["job_id"].as_str().unwrap().to_owned()
    }

    pub async fn job(&self, id: &str) -> Value {
        let path = format!("/api/v1/embeddings/jobs/{id}");
        let (status, answer) = self.patiently(|| self.request(Method::GET, &path)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Waits until a job is so.
    pub async fn until(&self, id: &str, within: Duration, so: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let job = self.job(id).await;
                if so(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(within, waiting).await {
            Ok(job) => job,
            Err(_) => panic!("{}\n{}", self.job(id).await, self.logs()),
        }
    }

    /// What Redis says to a command.
    pub fn ask_redis(&self, command: &[&str]) -> String {
        let url = self.redis.as_ref().unwrap().url();
        let answer = Command::new("redis-cli").args(["-u", &url]).args(command).output().unwrap();
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    pub async fn ended(&self, id: &str) -> Value {
        self.until(id, Duration::from_secs(180), ended).await
    }

    /// All documents of a collection, by id: the texts of their chunks. Each vector is checked.
    pub async fn stored(&self, collection: &str) -> BTreeMap<String, Vec<String>> {
        let path = format!("/api/v1/embeddings/collections/{collection}/export");
        let answer = self.request(Method::GET, &path).send().await.unwrap();
        let mut stored = BTreeMap::new();
        for line in answer.text().await.unwrap().lines() {
            let document: Value = serde_json::from_str(line).unwrap();
            let Some(id) = document["id"].as_str() else { continue };
            let chunks = document["chunks"].as_array().unwrap().iter().map(|chunk| {
                let text = chunk["text"].as_str().unwrap().to_owned();
                let bytes = BASE64_STANDARD.decode(chunk["vector"].as_str().unwrap()).unwrap();
                let got = bytes.chunks_exact(4).map(|number| f32::from_le_bytes(number.try_into().unwrap()));
                let cosine: f32 = got.zip(vector(&text, DIM)).map(|(a, b)| a * b).sum();
                assert!(cosine > 0.999, "{id}: another text's vector");
                text
            });
            assert!(stored.insert(id.to_owned(), chunks.collect()).is_none(), "{id} is there twice");
        }
        stored
    }

    pub fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
        };
        format!("{}\n{}", tail("serve.log"), tail("worker.log"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        kill(&mut self.api);
        self.workers.iter_mut().for_each(kill);
    }
}

/// A job's documents, a sentence a chunk.
pub fn body(collection: &str, documents: &[(String, String)]) -> Value {
    let documents: Vec<Value> = documents.iter().map(|(id, text)| json!({"id": id, "text": text})).collect();
    let chunking = json!({"method": "sentences", "size": 6, "overlap": 0, "unit": "words"});
    json!({"collection": collection, "documents": documents, "chunking": chunking})
}

pub fn ended(job: &Value) -> bool {
    !["pending", "running"].contains(&job["status"].as_str().unwrap())
}

pub fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn embeddery(dir: &TempDir, redis: Option<&Redis>, arguments: &[&str], log: &str) -> Command {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.path().join(log)).unwrap();
    let mut command = command(dir.path(), arguments);
    command.env("SINGLE_USER_API_KEY", KEY).env("JWT_SECRET_KEY", SECRET).stdout(Stdio::null()).stderr(log);
    if let Some(redis) = redis {
        command.env("REDIS_URL", redis.url());
    }
    command
}

fn serve(dir: &TempDir, redis: Option<&Redis>, port: u16) -> Child {
    let listen = format!("127.0.0.1:{port}");
    let mut command = embeddery(dir, redis, &["serve", "--listen", &listen], "serve.log");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    assert!(first.starts_with("listening on"), "{first}");
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn work(dir: &TempDir, redis: Option<&Redis>) -> Child {
    embeddery(dir, redis, &["worker"], "worker.log").spawn().unwrap()
}
