//! The processes of an installation: API, workers and Redis. A test may kill and restart each of them.

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

/// Dimensions of the fake vendor's vectors.
pub const DIM: usize = 16;

/// The processes and the configuration of a cluster.
pub struct ClusterConfig {
    /// Worker processes. With none, the API processes documents itself, with the SQLite queue and without Redis.
    pub workers: usize,
    /// Additional text of the configuration file.
    pub extra_config: &'static str,
}

pub struct Cluster {
    pub vendors: Vendors,
    pub redis: Option<Redis>,
    pub dir: TempDir,
    pub api: Child,
    pub workers: Vec<Child>,
    /// The key or token of the requests.
    pub key: String,
    url: String,
    client: Client,
}

impl Cluster {
    pub async fn start(config: ClusterConfig) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config).await
    }

    pub async fn start_in(dir: TempDir, config: ClusterConfig) -> Self {
        let vendors = Vendors::start().await;
        let file = format!(
            "default_model_id: tiny\n\
             models:\n  tiny: {{provider: local_api, model_name_or_path: tiny, api_url: \"{}\"}}\n\
             queue: {{lease_seconds: 2}}\n\
             workers: {{reconcile_seconds: 2, backoff_seconds: 0.2}}\n\
             server: {{shutdown_grace_seconds: 10}}\n{}\n",
            vendors.base_url(VendorApi::LocalOpenAi),
            config.extra_config
        );
        fs::write(dir.path().join("embeddery.yaml"), file).unwrap();
        let redis = (config.workers > 0).then(|| Redis::durable().unwrap());
        // The API keeps its port across restarts.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let api = serve(&dir, redis.as_ref(), port);
        let workers = (0..config.workers).map(|_| work(&dir, redis.as_ref())).collect();
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { vendors, redis, dir, api, workers, key: KEY.to_owned(), url, client }
    }

    fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Kills the API with SIGKILL and starts it again.
    pub fn kill_api(&mut self) {
        kill(&mut self.api);
        self.api = serve(&self.dir, self.redis.as_ref(), self.port());
    }

    /// Kills a worker with SIGKILL and starts a new one.
    pub fn kill_worker(&mut self, index: usize) {
        kill(&mut self.workers[index]);
        self.workers[index] = work(&self.dir, self.redis.as_ref());
    }

    /// Kills Redis with SIGKILL and starts it again with the same files.
    pub fn kill_redis(&mut self) {
        if let Some(redis) = &mut self.redis {
            redis.kill().unwrap();
            redis.restart().unwrap();
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// Sends a request until the API and Redis are available.
    pub async fn send_until_available(&self, request: impl Fn() -> RequestBuilder) -> (StatusCode, Value) {
        for _ in 0..600 {
            if let Ok(response) = request().send().await {
                let status = response.status();
                if let Ok(text) = response.text().await
                    && status != StatusCode::SERVICE_UNAVAILABLE
                {
                    return (status, serde_json::from_str(&text).unwrap_or(Value::String(text)));
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the API is unavailable: {}", self.logs());
    }

    /// Submits a job with an idempotency key, so that a retry after a crash of the API creates no second job. Returns its id.
    pub async fn submit(&self, key: &str, collection: &str, documents: &[(String, String)]) -> String {
        let body = body(collection, documents);
        let request = || {
            self.request(Method::POST, "/api/v1/embeddings/jobs").header("idempotency-key", key).json(&body)
        };
        let (status, response) = self.send_until_available(request).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{response}");
        response["job_id"].as_str().unwrap().to_owned()
    }

    pub async fn job(&self, id: &str) -> Value {
        let path = format!("/api/v1/embeddings/jobs/{id}");
        let (status, response) = self.send_until_available(|| self.request(Method::GET, &path)).await;
        assert_eq!(status, StatusCode::OK, "{response}");
        response
    }

    /// Waits until a job fulfils the condition.
    pub async fn until(&self, id: &str, within: Duration, condition: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let job = self.job(id).await;
                if condition(&job) {
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

    /// The response of Redis to a command.
    pub fn ask_redis(&self, command: &[&str]) -> String {
        let url = self.redis.as_ref().unwrap().url();
        let response = Command::new("redis-cli").args(["-u", &url]).args(command).output().unwrap();
        String::from_utf8(response.stdout).unwrap().trim().to_owned()
    }

    pub async fn ended(&self, id: &str) -> Value {
        self.until(id, Duration::from_secs(180), ended).await
    }

    /// The texts of the chunks of all documents in a collection, by document id. The vector of each chunk is checked.
    pub async fn stored(&self, collection: &str) -> BTreeMap<String, Vec<String>> {
        let path = format!("/api/v1/embeddings/collections/{collection}/export");
        let response = self.request(Method::GET, &path).send().await.unwrap();
        let mut stored = BTreeMap::new();
        for line in response.text().await.unwrap().lines() {
            let document: Value = serde_json::from_str(line).unwrap();
            let Some(id) = document["id"].as_str() else { continue };
            let chunks = document["chunks"].as_array().unwrap().iter().map(|chunk| {
                let text = chunk["text"].as_str().unwrap().to_owned();
                let bytes = BASE64_STANDARD.decode(chunk["vector"].as_str().unwrap()).unwrap();
                let actual =
                    bytes.chunks_exact(4).map(|number| f32::from_le_bytes(number.try_into().unwrap()));
                let cosine: f32 = actual.zip(vector(&text, DIM)).map(|(a, b)| a * b).sum();
                assert!(cosine > 0.999, "{id}: the vector of another text");
                text
            });
            assert!(stored.insert(id.to_owned(), chunks.collect()).is_none(), "{id} is stored twice");
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

/// The body of a job, with one sentence in each chunk.
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
