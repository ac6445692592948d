//! A fast fake vendor for `make bench`.
//!
//! Usage: `fake_upstream [--listen ADDR:PORT] [--workers N] [--delay-ms N] [--length DIMENSIONS]`
//!
//! It serves OpenAI's API on any path. It renders a response once for each number of inputs, so that a benchmark measures
//! the gateway in front of it. It prints `listening on http://ADDR:PORT` at the start, and its counters on SIGINT.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a benchmark tool, not the product")]

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::{Body, Bytes, to_bytes};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use embeddery_test_support::vendors::vector;
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use tokio::net::TcpListener;

fn main() {
    let mut options: HashMap<String, String> = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let name = argument.strip_prefix("--").expect("an option").to_owned();
        options.insert(name, arguments.next().expect("a value"));
    }
    let number = |name: &str, default: usize| {
        options.get(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let listen = options.get("listen").map_or("127.0.0.1:0", String::as_str).to_owned();
    let upstream = Arc::new(Upstream::new(number("length", 1536), number("delay-ms", 0) as u64));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(number("workers", 1))
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(serve(&listen, upstream));
}

async fn serve(listen: &str, upstream: Arc<Upstream>) {
    let listener = TcpListener::bind(listen).await.expect("a free port");
    println!("listening on http://{}", listener.local_addr().expect("an address"));
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.expect("a connection"),
            _ = tokio::signal::ctrl_c() => break,
        };
        stream.set_nodelay(true).expect("no delay");
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(Arc::clone(&upstream), request));
            // A closed connection is not an error.
            let _ = http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
    println!(
        "{}",
        serde_json::json!({
            "requests": upstream.requests.load(Relaxed), "texts": upstream.texts.load(Relaxed)
        })
    );
}

struct Upstream {
    floats: String,
    base64: String,
    delay: Duration,
    /// Response bodies by number of inputs and whether they are in base64.
    rendered: Mutex<HashMap<(usize, bool), Bytes>>,
    requests: AtomicU64,
    texts: AtomicU64,
}

/// The fields of a request that the response depends on.
#[derive(Deserialize)]
struct EmbeddingsRequest {
    input: InputCount,
    #[serde(default)]
    encoding_format: Option<String>,
}

/// The number of inputs. The inputs themselves are not stored.
struct InputCount(usize);

impl<'de> Deserialize<'de> for InputCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl<'de> Visitor<'de> for CountVisitor {
            type Value = InputCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list")
            }

            fn visit_str<E>(self, _: &str) -> Result<InputCount, E> {
                Ok(InputCount(1))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<InputCount, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(InputCount(count))
            }
        }
        deserializer.deserialize_any(CountVisitor)
    }
}

impl Upstream {
    fn new(dimensions: usize, delay_ms: u64) -> Self {
        let numbers = vector("benchmark", dimensions);
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self {
            floats: serde_json::to_string(&numbers).expect("numbers"),
            base64: format!("\"{}\"", STANDARD.encode(bytes)),
            delay: Duration::from_millis(delay_ms),
            rendered: Mutex::default(),
            requests: AtomicU64::new(0),
            texts: AtomicU64::new(0),
        }
    }

    fn render(&self, inputs: usize, base64: bool) -> Bytes {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        let vector = if base64 { &self.base64 } else { &self.floats };
        let body = rendered.entry((inputs, base64)).or_insert_with(|| {
            let data: Vec<String> = (0..inputs)
                .map(|index| format!(r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#))
                .collect();
            let tokens = inputs * 8;
            format!(
                r#"{{"object":"list","data":[{}],"model":"text-embedding-3-small","usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#,
                data.join(",")
            )
            .into()
        });
        body.clone()
    }
}

async fn respond(upstream: Arc<Upstream>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = to_bytes(Body::new(request.into_body()), 64 << 20).await.expect("a body");
    let (status, body) = match serde_json::from_slice::<EmbeddingsRequest>(&body) {
        Ok(EmbeddingsRequest { input: InputCount(inputs), encoding_format }) => {
            upstream.requests.fetch_add(1, Relaxed);
            upstream.texts.fetch_add(inputs as u64, Relaxed);
            if !upstream.delay.is_zero() {
                tokio::time::sleep(upstream.delay).await;
            }
            (200, upstream.render(inputs, encoding_format.as_deref() == Some("base64")))
        }
        Err(error) => (400, format!(r#"{{"error":{{"message":"{error}"}}}}"#).into()),
    };
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .expect("a response");
    Ok(response)
}
