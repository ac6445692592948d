//! An overload client for `make bench`.
//!
//! Usage: `overload URL KEY [--model NAME] [--batch N] [--words N] [--seconds N] [--times N] [--connections N]
//! [--patience SECONDS] [--pid N]`
//!
//! It measures the capacity of a server with closed-loop clients. Then it sends `times` the capacity for `seconds`,
//! independent of the responses, and requests /health and /metrics twenty times a second. It prints one JSON object.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a benchmark tool, not the product")]

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

type Stream = BufReader<TcpStream>;

fn main() {
    let mut positional = Vec::new();
    let mut options: HashMap<String, String> = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(name) => drop(options.insert(name.to_owned(), arguments.next().expect("a value"))),
            None => positional.push(argument),
        }
    }
    let [url, key] = positional.try_into().expect("URL KEY");
    let number = |name: &str, default: usize| {
        options.get(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let client = Arc::new(Client {
        host: url.trim_start_matches("http://").to_owned(),
        key,
        model: options.get("model").cloned(),
        batch: number("batch", 1),
        words: "word ".repeat(number("words", 8)),
        next: AtomicUsize::new(0),
        idle: Mutex::default(),
    });
    let config = LoadConfig {
        duration: Duration::from_secs(number("seconds", 60) as u64),
        times: number("times", 10),
        connections: number("connections", 1000),
        request_timeout: Duration::from_secs(number("patience", 30) as u64),
        pid: options.get("pid").cloned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("{}", runtime.block_on(run(client, config)));
}

struct LoadConfig {
    duration: Duration,
    times: usize,
    connections: usize,
    request_timeout: Duration,
    pid: Option<String>,
}

async fn run(client: Arc<Client>, config: LoadConfig) -> serde_json::Value {
    let capacity = measure_capacity(&client, config.duration / 6).await;
    let memory_before = resident_mb(config.pid.as_deref());
    let health = tokio::spawn(probe(Arc::clone(&client), "/health", config.duration, None));
    let metrics = tokio::spawn(probe(Arc::clone(&client), "/metrics", config.duration, config.pid.clone()));
    let seen = flood(&client, &config, capacity * config.times as f64).await;
    let (health, metrics) = (health.await.expect("a result"), metrics.await.expect("a result"));
    let good = seen.statuses.get("200").copied().unwrap_or(0) as f64 / seen.took.as_secs_f64();
    json!({
        "capacity_per_s": capacity,
        "offered_per_s": seen.offered as f64 / config.duration.as_secs_f64(),
        "good_per_s": good,
        "good_of_capacity": good / capacity,
        "answers": seen.statuses,
        "busy_without_retry_after": seen.without_retry_after,
        "good_p50_ms": percentile_ms(&seen.latencies, 0.5), "good_p99_ms": percentile_ms(&seen.latencies, 0.99),
        "health": health.0, "metrics": metrics.0,
        "memory_before_mb": memory_before, "memory_most_mb": health.1.max(metrics.1),
    })
}

/// The responses a second with sixteen closed-loop clients.
async fn measure_capacity(client: &Arc<Client>, duration: Duration) -> f64 {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let client = Arc::clone(client);
        clients.spawn(async move {
            let mut good = 0;
            while start.elapsed() < duration {
                let response = client.embed().await.expect("a response");
                assert_eq!(response.status, "200", "before the overload");
                good += 1;
            }
            good
        });
    }
    let good: u32 = clients.join_all().await.into_iter().sum();
    f64::from(good) / start.elapsed().as_secs_f64()
}

#[derive(Default)]
struct LoadResult {
    offered: usize,
    statuses: BTreeMap<String, usize>,
    /// Responses with status 429 or 503 and no `Retry-After`.
    without_retry_after: usize,
    latencies: Vec<Duration>,
    took: Duration,
}

/// Sends requests at this rate, independent of the responses.
async fn flood(client: &Arc<Client>, config: &LoadConfig, rate: f64) -> LoadResult {
    let connections = Arc::new(Semaphore::new(config.connections));
    let seen = Arc::new(Mutex::new(LoadResult::default()));
    let mut tick = interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (start, mut offered, mut requests) = (Instant::now(), 0, JoinSet::new());
    while start.elapsed() < config.duration {
        tick.tick().await;
        let due = (start.elapsed().as_secs_f64() * rate) as usize;
        for _ in offered..due {
            // Stands for a client machine without free ports: the request is not sent.
            let Ok(connection) = Arc::clone(&connections).try_acquire_owned() else {
                count(&seen, "not_sent");
                continue;
            };
            let (client, seen, limit) = (Arc::clone(client), Arc::clone(&seen), config.request_timeout);
            requests.spawn(async move {
                let sent = Instant::now();
                match timeout(limit, client.embed()).await {
                    Ok(Ok(response)) => record(&seen, &response, sent.elapsed()),
                    Ok(Err(_)) => count(&seen, "broken"),
                    Err(_) => count(&seen, "gave_up"),
                }
                drop(connection);
            });
        }
        offered = due;
        while requests.try_join_next().is_some() {}
    }
    // Requests in flight are part of the load.
    while requests.join_next().await.is_some() {}
    let mut seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    seen.latencies.sort_unstable();
    LoadResult { offered, took: start.elapsed(), ..seen }
}

fn count(seen: &Mutex<LoadResult>, status: &str) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    *seen.statuses.entry(status.to_owned()).or_default() += 1;
}

fn record(seen: &Mutex<LoadResult>, response: &Response, took: Duration) {
    count(seen, &response.status);
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match response.status.as_str() {
        "200" => seen.latencies.push(took),
        "429" | "503" if !response.retry_after => seen.without_retry_after += 1,
        _ => {}
    }
}

/// Requests a path twenty times a second. Returns the latencies and the maximum memory of the process `pid`.
async fn probe(
    client: Arc<Client>,
    path: &str,
    duration: Duration,
    pid: Option<String>,
) -> (serde_json::Value, u64) {
    let (start, mut latencies, mut failed, mut max_memory) = (Instant::now(), Vec::new(), 0, 0);
    let mut stream = None;
    while start.elapsed() < duration {
        let sent = Instant::now();
        match timeout(Duration::from_secs(10), client.get(path, &mut stream)).await {
            Ok(Ok(response)) if response.status == "200" => latencies.push(sent.elapsed()),
            _ => {
                failed += 1;
                stream = None;
            }
        }
        max_memory = max_memory.max(resident_mb(pid.as_deref()));
        sleep(Duration::from_millis(50)).await;
    }
    latencies.sort_unstable();
    let sent = latencies.len() + failed;
    (
        json!({"asked": sent, "failed": failed, "p50_ms": percentile_ms(&latencies, 0.5), "p99_ms": percentile_ms(&latencies, 0.99)}),
        max_memory,
    )
}

struct Client {
    host: String,
    key: String,
    model: Option<String>,
    batch: usize,
    words: String,
    /// The number in the next text. No two texts are equal, so none is in the cache.
    next: AtomicUsize,
    idle: Mutex<Vec<Stream>>,
}

struct Response {
    status: String,
    retry_after: bool,
}

impl Client {
    async fn embed(&self) -> std::io::Result<Response> {
        let texts: Vec<String> =
            (0..self.batch).map(|_| format!("{} {}", self.next.fetch_add(1, Relaxed), self.words)).collect();
        let mut body = json!({"input": texts, "encoding_format": "base64"});
        if let Some(model) = &self.model {
            body["model"] = model.as_str().into();
        }
        let body = body.to_string();
        let request = format!(
            "POST /v1/embeddings HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            self.key,
            body.len()
        );
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(request.as_bytes()).await?;
        let response = read_response(&mut stream).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(response)
    }

    async fn get(&self, path: &str, stream: &mut Option<Stream>) -> std::io::Result<Response> {
        if stream.is_none() {
            *stream = Some(self.connect().await?);
        }
        let stream = stream.as_mut().expect("connected");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host).as_bytes()).await?;
        read_response(stream).await
    }

    async fn connect(&self) -> std::io::Result<Stream> {
        let stream = TcpStream::connect(&self.host).await?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

/// Reads one response, by its length or in chunks.
async fn read_response(stream: &mut Stream) -> std::io::Result<Response> {
    let (mut line, mut length) = (String::new(), None);
    let mut response = Response { status: String::new(), retry_after: false };
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.to_ascii_lowercase();
        if response.status.is_empty() {
            response.status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        } else if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        } else if lower.starts_with("retry-after:") {
            response.retry_after = true;
        } else if line == "\r\n" {
            break;
        }
    }
    let Some(length) = length else {
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            read(stream, length + 2).await?;
            if length == 0 {
                return Ok(response);
            }
        }
    };
    read(stream, length).await?;
    Ok(response)
}

async fn read(stream: &mut Stream, length: usize) -> std::io::Result<()> {
    stream.read_exact(&mut vec![0; length]).await.map(drop)
}

fn percentile_ms(sorted: &[Duration], share: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
}

/// The resident memory of a process in megabytes; 0 without a pid.
fn resident_mb(pid: Option<&str>) -> u64 {
    let status = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let kilobytes = status.as_deref().and_then(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or(0) / 1024
}
