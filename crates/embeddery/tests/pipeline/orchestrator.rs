//! `embeddery orchestrator` with a real Redis: pools that scale, and orchestrators that start, stop and crash.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    cluster::{Cluster, ClusterConfig, kill},
    support::{KEY, command},
};

const POOLS: &str = "worker_pools:\n  chunking: {num_workers: 1}\n  embedding: {num_workers: 2, batch_size: 4}\n  \
                     storage: {num_workers: 1}\nenable_autoscaling: true\nscale_check_interval: 0.2\n\
                     scale_up_threshold: 0.2\nscale_down_threshold: 0.1";

struct Orchestrator {
    child: Child,
    url: String,
}

impl Orchestrator {
    fn start(cluster: &Cluster) -> Self {
        let log = cluster.dir.path().join("worker.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = command(cluster.dir.path(), &["orchestrator"]);
        command.env("SINGLE_USER_API_KEY", KEY).env("PROMETHEUS_PORT", "0");
        command.env("REDIS_URL", cluster.redis.as_ref().unwrap().url());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        let Some(url) = first.strip_prefix("metrics on ") else { panic!("{first}\n{}", cluster.logs()) };
        let url = url.trim_end_matches("/metrics").to_owned();
        Self { child, url }
    }

    async fn read(&self, path: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    /// Waits until the metric has this value.
    async fn until(&self, metric: &str, value: f64, cluster: &Cluster) {
        let waiting = async {
            loop {
                let metrics = self.read("/metrics").await;
                let line = metrics.lines().find_map(|line| line.strip_prefix(metric));
                if line.and_then(|rest| rest.trim().parse::<f64>().ok()) == Some(value) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(90), waiting).await.is_err() {
            panic!("{metric} is not {value}\n{}\n{}", self.read("/metrics").await, cluster.logs());
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

/// A cluster without worker processes, so that only orchestrators process documents.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::start(ClusterConfig { workers: 1, extra_config: POOLS }).await;
    cluster.workers.iter_mut().for_each(kill);
    cluster
}

fn documents(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("d{n:05}"), format!("Document {n} says this. And {} too.", n + 1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_grow_while_documents_wait_and_shrink_afterwards() {
    let cluster = cluster().await;
    let mut orchestrator = Orchestrator::start(&cluster);
    let embedding = "embedding_workers{worker_type=\"embedding\"}";
    orchestrator.until(embedding, 2.0, &cluster).await;
    let held = cluster.vendors.hold();
    let job = cluster.submit("grow", "grow", &documents(300)).await;
    // The maximum is twice the initial size of the pool.
    orchestrator.until(embedding, 4.0, &cluster).await;
    let metrics = orchestrator.read("/metrics").await;
    assert!(metrics.contains("embedding_queue_depth{queue_name=\"embeddings:embedding\"}"), "{metrics}");
    assert!(orchestrator.read("/health").await.contains("\"embedding\":\"4 workers"));
    held.release();
    assert_eq!(cluster.ended(&job).await["status"], "completed", "{}", cluster.logs());
    orchestrator.until(embedding, 2.0, &cluster).await;
    assert_eq!(cluster.stored("grow").await.len(), 300);
    orchestrator.until("embedding_jobs_total{status=\"completed\"}", 1.0, &cluster).await;
    orchestrator.signal("-TERM");
    let code = tokio::task::block_in_place(|| orchestrator.child.wait().unwrap().code());
    assert_eq!(code, Some(0), "{}", cluster.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes_while_orchestrators_are_killed_stopped_and_started() {
    let cluster = cluster().await;
    let (first, second) = (Orchestrator::start(&cluster), Orchestrator::start(&cluster));
    let job = cluster.submit("go", "go", &documents(600)).await;
    let stored =
        |least: u64| move |job: &serde_json::Value| job["documents"]["stored"].as_u64() >= Some(least);
    let done = |job: &serde_json::Value, least| stored(least)(job) || job["status"] == "completed";
    cluster.until(&job, Duration::from_secs(120), |job| done(job, 50)).await;
    drop(first); // SIGKILL
    let third = Orchestrator::start(&cluster);
    cluster.until(&job, Duration::from_secs(120), |job| done(job, 200)).await;
    second.signal("-TERM");
    assert_eq!(cluster.ended(&job).await["status"], "completed", "{}", cluster.logs());
    assert_eq!(cluster.stored("go").await.len(), 600);
    drop(third);
}

/// The heartbeats and leases of a stopped process expire. When it continues, its documents belong to other workers.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_stopped_orchestrator_are_taken_over_and_it_continues_without_duplicates() {
    let cluster = cluster().await;
    let mut frozen = Orchestrator::start(&cluster);
    let held = cluster.vendors.hold();
    let job = cluster.submit("frozen", "frozen", &documents(60)).await;
    held.arrived(1).await;
    frozen.signal("-STOP");
    let other = Orchestrator::start(&cluster);
    held.release();
    assert_eq!(cluster.ended(&job).await["status"], "completed", "{}", cluster.logs());
    let workers = async || {
        let path = "/api/v1/embeddings/orchestrator/summary";
        cluster.send_until_available(|| cluster.request(reqwest::Method::GET, path)).await.1["workers"]["storage"]
            .clone()
    };
    while workers().await != 1 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    frozen.signal("-CONT");
    while workers().await != 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(other); // SIGKILL; the continued orchestrator processes the rest
    let more: Vec<_> = documents(120).split_off(60);
    let more = cluster.submit("more", "frozen", &more).await;
    assert_eq!(cluster.ended(&more).await["status"], "completed", "{}", cluster.logs());
    assert_eq!(cluster.stored("frozen").await.len(), 120, "each once");
    frozen.signal("-TERM");
    let code = tokio::task::block_in_place(|| frozen.child.wait().unwrap().code());
    assert_eq!(code, Some(0), "{}", cluster.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_and_draining_under_load_loses_no_document() {
    let cluster = cluster().await;
    let _orchestrator = Orchestrator::start(&cluster);
    let control = async |stage: &str, action: &str| {
        let body = serde_json::json!({"stage": stage, "action": action});
        let path = "/api/v1/embeddings/stage/control";
        let (status, response) =
            cluster.send_until_available(|| cluster.request(reqwest::Method::POST, path).json(&body)).await;
        assert_eq!(status, 200, "{response}");
    };
    let first = cluster.submit("first", "flow", &documents(300)).await;
    let done = |job: &serde_json::Value, least| job["documents"]["stored"].as_u64() >= Some(least);
    cluster.until(&first, Duration::from_secs(60), |job| done(job, 20) || job["status"] == "completed").await;
    control("embedding", "pause").await;
    control("storage", "drain").await;
    let more: Vec<_> = documents(400).split_off(300);
    let second = cluster.submit("second", "flow", &more).await;
    let (_, flags) = cluster
        .send_until_available(|| cluster.request(reqwest::Method::GET, "/api/v1/embeddings/stage/status"))
        .await;
    assert_eq!(flags["embedding"], serde_json::json!({"paused": true, "drain": false}));
    assert_eq!(flags["storage"], serde_json::json!({"paused": false, "drain": true}));
    assert_ne!(cluster.job(&second).await["status"], "completed");
    control("all", "resume").await;
    for job in [first, second] {
        assert_eq!(cluster.ended(&job).await["status"], "completed", "{}", cluster.logs());
    }
    assert_eq!(cluster.stored("flow").await.len(), 400);
}
