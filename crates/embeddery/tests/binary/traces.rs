//! Traces of the binary with a fake vendor and a small collector that records all spans.

use std::sync::{Arc, Mutex};

use embeddery_test_support::vendors::{Behaviour, VendorApi, Vendors};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::{KEY, Server};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector for OTLP over HTTP that accepts all spans.
struct Collector {
    url: String,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    count: watch::Receiver<usize>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (counted, count) = watch::channel(0);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, counted) = (Arc::clone(&kept), counted.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = Self::read(&mut stream).await {
                        kept.lock().unwrap().push(request);
                        counted.send_modify(|count| *count += 1);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}";
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        Self { url, requests, count }
    }

    /// Reads one request: its headers and its body.
    async fn read(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.ok()?;
        Some((head, serde_json::from_slice(&body).unwrap()))
    }

    /// Waits for at min `min` spans and returns all spans.
    async fn spans(&mut self, min: usize) -> Vec<Value> {
        loop {
            let spans = self.now();
            if spans.len() >= min {
                return spans;
            }
            self.count.changed().await.unwrap();
        }
    }

    fn now(&self) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        let of = |(_, body): &(String, Value)| {
            body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
        };
        requests.iter().flat_map(of).collect()
    }
}

fn server(collector: &Collector, vendors: &Vendors) -> Server {
    let (endpoint, base) = (collector.url.clone(), vendors.base_url(VendorApi::OpenAi));
    Server::with(|command| {
        command.env("SINGLE_USER_API_KEY", KEY).env("OPENAI_API_KEY", "x").env("OPENAI_BASE_URL", base);
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-team=search");
        command.env("EMBEDDINGS_MAX_RETRIES", "1");
    })
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let found = span["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
    found.map_or(&Value::Null, |found| found["value"].as_object().unwrap().values().next().unwrap())
}

#[tokio::test]
async fn the_spans_of_a_request_are_below_the_callers_span() {
    let (mut collector, vendors) = (Collector::start().await, Vendors::start().await);
    let server = server(&collector, &vendors);
    vendors.next(Behaviour::Status(503));
    let body = json!({"model": "text-embedding-3-small", "input": ["not to be seen", "b"]});
    let answer = server.post("/v1/embeddings", &body).header("traceparent", PARENT).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();

    let spans = collector.spans(4).await;
    let (request, embed, attempts) =
        (named(&spans, "request"), named(&spans, "embed"), named(&spans, "attempt"));
    assert_eq!((request.len(), embed.len(), attempts.len()), (1, 1, 2), "{spans:#?}");
    let (request, embed) = (request[0], embed[0]);
    assert!(spans.iter().all(|span| span["traceId"] == "0af7651916cd43dd8448eb211c80319c"), "{spans:#?}");
    assert_eq!((&request["parentSpanId"], &request["kind"]), (&json!("b7ad6b7169203331"), &json!(2)));
    assert_eq!(embed["parentSpanId"], request["spanId"]);
    assert!(attempts.iter().all(|attempt| attempt["parentSpanId"] == embed["spanId"]), "{spans:#?}");
    let failed = attempts.iter().filter(|attempt| attempt["status"]["code"] == 2).count();
    assert_eq!(failed, 1, "the first attempt: {attempts:#?}");
    assert_eq!(attribute(request, "http.route"), "POST /v1/embeddings");
    assert_eq!(attribute(request, "http.response.status_code"), "200");
    assert_eq!(attribute(request, "request.id"), &json!(id));
    assert_eq!(
        (attribute(embed, "gen_ai.request.model"), attribute(embed, "embeddery.inputs")),
        (&json!("text-embedding-3-small"), &json!("2"))
    );
    let time = |span: &Value, end: &str| span[end].as_str().unwrap().parse::<u64>().unwrap();
    for part in [embed, attempts[0], attempts[1]] {
        assert!(time(request, "startTimeUnixNano") <= time(part, "startTimeUnixNano"));
        assert!(time(part, "startTimeUnixNano") <= time(part, "endTimeUnixNano"));
    }

    let requests = collector.requests.lock().unwrap();
    let (head, body) = &requests[0];
    assert!(head.starts_with("post /v1/traces ") && head.contains("\r\nx-team: search\r\n"), "{head}");
    assert_eq!(attribute(&body["resourceSpans"][0]["resource"], "service.name"), "embeddery");
    assert!(!body.to_string().contains("not to be seen") && !body.to_string().contains(KEY));
}

#[tokio::test]
async fn a_job_is_one_trace_from_the_request_to_the_store() {
    let (mut collector, vendors) = (Collector::start().await, Vendors::start().await);
    let server = server(&collector, &vendors);
    let documents = [json!({"id": "a", "text": "one document"})];
    let body = json!({"collection": "notes", "model": "text-embedding-3-small", "documents": documents});
    let request = server.post("/api/v1/embeddings/jobs", &body).header("traceparent", PARENT);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    let mut spans = Vec::new();
    while named(&spans, "storage").is_empty() || named(&spans, "request").is_empty() {
        spans = collector.spans(spans.len() + 1).await;
    }
    let request = named(&spans, "request")[0];
    for stage in ["chunking", "embedding", "storage"] {
        let stage = named(&spans, stage)[0];
        let place = (&stage["traceId"], &stage["parentSpanId"]);
        assert_eq!(place, (&request["traceId"], &request["spanId"]), "{spans:#?}");
        assert!(stage.get("status").is_none(), "{stage:#?}");
    }
}

#[tokio::test]
async fn a_request_without_a_parent_begins_a_trace_and_an_unsampled_one_is_not_exported() {
    let (collector, vendors) = (Collector::start().await, Vendors::start().await);
    let mut server = server(&collector, &vendors);
    let ask = |parent: &str| {
        let body = json!({"model": "text-embedding-3-small", "input": "a"});
        let request = server.post("/v1/embeddings", &body);
        let request = if parent.is_empty() { request } else { request.header("traceparent", parent) };
        async { request.send().await.unwrap().status() }
    };
    assert_eq!(ask(&PARENT.replace("-01", "-00")).await, 200);
    assert_eq!(ask("").await, 200);
    assert_eq!(ask("nonsense").await, 200);
    // The remaining spans are sent before the process ends. The collector needs this thread for that.
    server.signal("TERM");
    assert!(tokio::task::spawn_blocking(move || server.wait()).await.unwrap().success());
    let spans = collector.now();
    let requests = named(&spans, "request");
    assert_eq!(requests.len(), 2, "{spans:#?}");
    assert!(requests.iter().all(|span| span.get("parentSpanId").is_none()));
    assert_ne!(requests[0]["traceId"], requests[1]["traceId"]);
    assert!(spans.iter().all(|span| span["traceId"] != "0af7651916cd43dd8448eb211c80319c"));
}

#[tokio::test]
async fn an_unreachable_collector_loses_only_spans() {
    let vendors = Vendors::start().await;
    let base = vendors.base_url(VendorApi::OpenAi);
    let mut server = Server::with(|command| {
        command.env("SINGLE_USER_API_KEY", KEY).env("OPENAI_API_KEY", "x").env("OPENAI_BASE_URL", base);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    });
    let body = json!({"model": "text-embedding-3-small", "input": "a"});
    assert_eq!(server.post("/v1/embeddings", &body).send().await.unwrap().status(), 200);
    server.signal("TERM");
    assert!(server.wait().success());
    assert!(server.log().contains("spans lost"), "{}", server.log());
}
