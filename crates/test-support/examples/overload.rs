//! More than a server can do: overload URL KEY [--model NAME] [--batch N] [--words N] [--seconds N] [--times N]
//! [--connections N] [--patience SECONDS] [--pid N]. Measures what the server does when it is asked as fast as it answers, then
//! sends `times` as much for `seconds`, however it answers, while /health and /metrics are asked twenty times a second.
//! Prints one JSON object.

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
    let plan = Plan {
        lasts: Duration::from_secs(number("seconds", 60) as u64),
        times: number("times", 10),
        connections: number("connections", 1000),
        patience: Duration::from_secs(number("patience", 30) as u64),
        pid: options.get("pid").cloned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("{}", runtime.block_on(run(client, plan)));
}

struct Plan {
    lasts: Duration,
    times: usize,
    connections: usize,
    patience: Duration,
    pid: Option<String>,
}

async fn run(client: Arc<Client>, plan: Plan) -> serde_json::Value {
    let capacity = capacity(&client, plan.lasts / 6).await;
    let memory_before = memory(plan.pid.as_deref());
    let watching = (
        tokio::spawn(watch(Arc::clone(&client), "/health", plan.lasts, None)),
        tokio::spawn(watch(Arc::clone(&client), "/metrics", plan.lasts, plan.pid.clone())),
    );
    let seen = flood(&client, &plan, capacity * plan.times as f64).await;
    let (health, metrics) = (watching.0.await.expect("watched"), watching.1.await.expect("watched"));
    let good = seen.statuses.get("200").copied().unwrap_or(0) as f64 / seen.took.as_secs_f64();
    json!({
        "capacity_per_s": capacity,
        "offered_per_s": seen.offered as f64 / plan.lasts.as_secs_f64(),
        "good_per_s": good,
        "good_of_capacity": good / capacity,
        "answers": seen.statuses,
        "busy_without_retry_after": seen.speechless,
        "good_p50_ms": at(&seen.latencies, 0.5), "good_p99_ms": at(&seen.latencies, 0.99),
        "health": health.0, "metrics": metrics.0,
        "memory_before_mb": memory_before, "memory_most_mb": health.1.max(metrics.1),
    })
}

/// Answers a second when sixteen ask one after another.
async fn capacity(client: &Arc<Client>, lasts: Duration) -> f64 {
    let (until, began) = (Instant::now() + lasts, Instant::now());
    let mut asking = JoinSet::new();
    for _ in 0..16 {
        let client = Arc::clone(client);
        asking.spawn(async move {
            let mut good = 0;
            while Instant::now() < until {
                let answer = client.ask().await.expect("an answer");
                assert_eq!(answer.status, "200", "before any load");
                good += 1;
            }
            good
        });
    }
    let good: u32 = asking.join_all().await.into_iter().sum();
    f64::from(good) / began.elapsed().as_secs_f64()
}

#[derive(Default)]
struct Seen {
    offered: usize,
    statuses: BTreeMap<String, usize>,
    /// 429 and 503 that do not say when to come back.
    speechless: usize,
    latencies: Vec<Duration>,
    took: Duration,
}

/// Requests come at this rate, whether or not others are answered.
async fn flood(client: &Arc<Client>, plan: &Plan, rate: f64) -> Seen {
    let connections = Arc::new(Semaphore::new(plan.connections));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut tick = interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut offered, mut asking) = (Instant::now(), 0, JoinSet::new());
    while began.elapsed() < plan.lasts {
        tick.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate) as usize;
        for _ in offered..due {
            // As a machine that has no more ports: these callers get nothing at all.
            let Ok(connection) = Arc::clone(&connections).try_acquire_owned() else {
                count(&seen, "not_sent");
                continue;
            };
            let (client, seen, patience) = (Arc::clone(client), Arc::clone(&seen), plan.patience);
            asking.spawn(async move {
                let sent = Instant::now();
                match timeout(patience, client.ask()).await {
                    Ok(Ok(answer)) => note(&seen, &answer, sent.elapsed()),
                    Ok(Err(_)) => count(&seen, "broken"),
                    Err(_) => count(&seen, "gave_up"),
                }
                drop(connection);
            });
        }
        offered = due;
        while asking.try_join_next().is_some() {}
    }
    // What is still under way belongs to the load.
    while asking.join_next().await.is_some() {}
    let mut seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    seen.latencies.sort_unstable();
    Seen { offered, took: began.elapsed(), ..seen }
}

fn count(seen: &Mutex<Seen>, what: &str) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    *seen.statuses.entry(what.to_owned()).or_default() += 1;
}

fn note(seen: &Mutex<Seen>, answer: &Answer, took: Duration) {
    count(seen, &answer.status);
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    match answer.status.as_str() {
        "200" => seen.latencies.push(took),
        "429" | "503" if !answer.retry_after => seen.speechless += 1,
        _ => {}
    }
}

/// Asks a path twenty times a second; also the most memory that was seen.
async fn watch(
    client: Arc<Client>,
    path: &str,
    lasts: Duration,
    pid: Option<String>,
) -> (serde_json::Value, u64) {
    let (began, mut latencies, mut failed, mut most) = (Instant::now(), Vec::new(), 0, 0);
    let mut stream = None;
    while began.elapsed() < lasts {
        let sent = Instant::now();
        match timeout(Duration::from_secs(10), client.get(path, &mut stream)).await {
            Ok(Ok(answer)) if answer.status == "200" => latencies.push(sent.elapsed()),
            _ => {
                failed += 1;
                stream = None;
            }
        }
        most = most.max(memory(pid.as_deref()));
        sleep(Duration::from_millis(50)).await;
    }
    latencies.sort_unstable();
    let asked = latencies.len() + failed;
    (
        json!({"asked": asked, "failed": failed, "p50_ms": at(&latencies, 0.5), "p99_ms": at(&latencies, 0.99)}),
        most,
    )
}

struct Client {
    host: String,
    key: String,
    model: Option<String>,
    batch: usize,
    words: String,
    /// No two texts are equal: nothing is in the cache.
    next: AtomicUsize,
    idle: Mutex<Vec<Stream>>,
}

struct Answer {
    status: String,
    retry_after: bool,
}

impl Client {
    async fn ask(&self) -> std::io::Result<Answer> {
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
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stream = match kept {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(request.as_bytes()).await?;
        let answer = read_answer(&mut stream).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(answer)
    }

    async fn get(&self, path: &str, stream: &mut Option<Stream>) -> std::io::Result<Answer> {
        if stream.is_none() {
            *stream = Some(self.connect().await?);
        }
        let stream = stream.as_mut().expect("connected");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host).as_bytes()).await?;
        read_answer(stream).await
    }

    async fn connect(&self) -> std::io::Result<Stream> {
        let stream = TcpStream::connect(&self.host).await?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }
}

/// Reads one answer, by its length or in chunks.
async fn read_answer(stream: &mut Stream) -> std::io::Result<Answer> {
    let (mut line, mut length) = (String::new(), None);
    let mut answer = Answer { status: String::new(), retry_after: false };
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.to_ascii_lowercase();
        if answer.status.is_empty() {
            answer.status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        } else if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        } else if lower.starts_with("retry-after:") {
            answer.retry_after = true;
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
                return Ok(answer);
            }
        }
    };
    read(stream, length).await?;
    Ok(answer)
}

async fn read(stream: &mut Stream, length: usize) -> std::io::Result<()> {
    stream.read_exact(&mut vec![0; length]).await.map(drop)
}

fn at(sorted: &[Duration], share: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
}

/// Megabytes that a process has in memory; 0 when nobody said which.
fn memory(pid: Option<&str>) -> u64 {
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
