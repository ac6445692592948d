//! A load client for `make bench`.
//!
//! Usage: `load URL KEY TEXTS_FILE --connections N --requests N --batch N [--base64] [--model NAME] [--distinct]
//! [--headers "Name: value|Name: value"]`. With `--distinct` no two texts are equal.
//!
//! It uses keep-alive connections over plain sockets, so that it takes little CPU time from the server on the same machine.
//! It prints one JSON object, which includes its own CPU time.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a benchmark tool, not the product")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

fn main() {
    let mut positional = Vec::new();
    let mut options: HashMap<String, String> = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(flag @ ("base64" | "distinct")) => drop(options.insert(flag.to_owned(), String::new())),
            Some(name) => drop(options.insert(name.to_owned(), arguments.next().expect("a value"))),
            None => positional.push(argument),
        }
    }
    let [url, key, texts] = positional.try_into().expect("URL KEY TEXTS");
    let number = |name: &str, default: usize| {
        options.get(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (connections, total, batch) = (number("connections", 1), number("requests", 100), number("batch", 1));
    let texts: Vec<String> =
        std::fs::read_to_string(texts).expect("texts").lines().map(str::to_owned).collect();
    let host = url.trim_start_matches("http://").to_owned();
    let headers: String = options
        .get("headers")
        .map_or("", String::as_str)
        .split_terminator('|')
        .map(|header| format!("{header}\r\n"))
        .collect();
    let bodies: Vec<Vec<u8>> = (0..total)
        .map(|request| {
            let input = |n: usize| {
                let index = request * batch + n;
                let text = texts[index % texts.len()].clone();
                if options.contains_key("distinct") { format!("{index} {text}") } else { text }
            };
            let inputs: Vec<String> = (0..batch).map(input).collect();
            let format = if options.contains_key("base64") { "base64" } else { "float" };
            let mut body = serde_json::json!({"input": inputs, "encoding_format": format});
            if let Some(model) = options.get("model") {
                body["model"] = model.as_str().into();
            }
            let body = body.to_string();
            format!(
                "POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n{headers}\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        })
        .collect();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut latencies, elapsed) = runtime.block_on(run(host, Arc::new(bodies), connections));
    latencies.sort_unstable();
    let percentile_ms =
        |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{}",
        serde_json::json!({
            "connections": connections, "batch": batch, "requests": total,
            "requests_per_s": total as f64 / elapsed.as_secs_f64(),
            "texts_per_s": (total * batch) as f64 / elapsed.as_secs_f64(),
            "p50_ms": percentile_ms(0.5), "p99_ms": percentile_ms(0.99),
            "client_cpu_share": cpu_seconds() / elapsed.as_secs_f64(),
        })
    );
}

async fn run(host: String, bodies: Arc<Vec<Vec<u8>>>, connections: usize) -> (Vec<Duration>, Duration) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = tokio::task::JoinSet::new();
    let start = Instant::now();
    for _ in 0..connections {
        let (host, bodies, next) = (host.clone(), Arc::clone(&bodies), Arc::clone(&next));
        workers.spawn(async move {
            let stream = TcpStream::connect(&host).await.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            let mut stream = BufReader::new(stream);
            let mut latencies = Vec::new();
            loop {
                let Some(body) = bodies.get(next.fetch_add(1, Relaxed)) else { return latencies };
                let sent = Instant::now();
                stream.write_all(body).await.expect("sent");
                read_response(&mut stream).await;
                latencies.push(sent.elapsed());
            }
        });
    }
    let latencies = workers.join_all().await.concat();
    (latencies, start.elapsed())
}

/// Reads one response, by its length or in chunks.
///
/// # Panics
/// If the status is not 200.
async fn read_response(stream: &mut BufReader<TcpStream>) {
    let (mut line, mut length, mut first) = (String::new(), None, true);
    loop {
        line.clear();
        stream.read_line(&mut line).await.expect("a response");
        if first {
            assert!(line.contains(" 200 "), "{line}");
            first = false;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = Some(value.trim().parse().expect("a length"));
        }
        if line == "\r\n" {
            break;
        }
    }
    if let Some(length) = length {
        return read(stream, length).await;
    }
    loop {
        line.clear();
        stream.read_line(&mut line).await.expect("a chunk");
        let length = usize::from_str_radix(line.trim(), 16).expect("a chunk's length");
        read(stream, length + 2).await;
        if length == 0 {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>, length: usize) {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.expect("a body");
}

/// The user and system time of this process in seconds, from /proc.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}
