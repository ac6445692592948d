//! Exports spans to a collector as OTLP JSON over HTTP, in batches of up to one second. A failure of the collector loses
//! spans and has no other effect.

use std::{fmt, time::Duration};

use embeddery_gateway::trace::TARGET;
use embeddery_providers::{HttpClient, Outbound};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::{FilterFn, filter_fn},
    layer::Context,
};

use crate::config::TracesConfig;

/// Maximum spans that wait for the collector. Further spans are dropped.
const QUEUE_CAPACITY: usize = 16_384;
/// Maximum spans in one request.
const MAX_BATCH: usize = 512;
/// Maximum time that the first span of a batch waits for others.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// A subscriber layer that sends finished spans to the exporter.
pub(crate) struct SpanLayer(mpsc::Sender<Value>);

/// The receiver of finished spans, which sends them to the collector.
pub(crate) struct OtlpExporter {
    spans: mpsc::Receiver<Value>,
    config: TracesConfig,
    client: HttpClient,
}

/// Creates the layer and its exporter.
///
/// # Errors
/// If the HTTP client cannot be created, because of an invalid proxy or certificate.
pub(crate) fn open(config: &TracesConfig, outbound: &Outbound) -> anyhow::Result<(SpanLayer, OtlpExporter)> {
    let (sender, spans) = mpsc::channel(QUEUE_CAPACITY);
    let client = HttpClient::new(outbound).map_err(anyhow::Error::msg)?;
    Ok((SpanLayer(sender), OtlpExporter { spans, config: config.clone(), client }))
}

/// Runs `work` while the exporter sends spans. The remaining spans are sent after the end of `work`.
pub(crate) async fn with_exporter<T>(exporter: Option<OtlpExporter>, work: impl Future<Output = T>) -> T {
    let done = CancellationToken::new();
    let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(done.clone())));
    let result = work.await;
    done.cancel();
    if let Some(exporting) = exporting {
        let _ = exporting.await;
    }
    result
}

/// A filter that passes only the events of finished spans.
pub(crate) fn spans_only() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata| metadata.target() == TARGET)
}

impl<S: Subscriber> Layer<S> for SpanLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut span = SpanFields::default();
        event.record(&mut span);
        // The queue is bounded, so an unreachable collector does not fill the memory.
        let _ = self.0.try_send(span.finish());
    }
}

/// The fields of an event, in OTLP's form of a span.
#[derive(Default)]
struct SpanFields {
    span: Map<String, Value>,
    attributes: Vec<Value>,
}

impl SpanFields {
    fn put(&mut self, name: &str, value: Value) {
        let key = match name {
            "trace" => "traceId",
            "span" => "spanId",
            "parent" => "parentSpanId",
            "name" | "kind" => name,
            "began" => "startTimeUnixNano",
            "ended" => "endTimeUnixNano",
            _ => return self.attributes.push(attribute(name, &value)),
        };
        self.span.insert(key.to_owned(), value);
    }

    fn finish(mut self) -> Value {
        self.span.insert("attributes".to_owned(), self.attributes.into());
        self.span.into()
    }
}

fn attribute(key: &str, value: &Value) -> Value {
    let kind = if value.is_string() { "stringValue" } else { "intValue" };
    json!({"key": key, "value": {kind: value}})
}

impl Visit for SpanFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        // OTLP JSON writes 64-bit integers as strings, but enumerations as numbers.
        self.put(field.name(), if field.name() == "kind" { value.into() } else { value.to_string().into() });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "failed" && value {
            self.span.insert("status".to_owned(), json!({"code": 2}));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            self.put(field.name(), format!("{value:?}").into());
        }
    }
}

impl OtlpExporter {
    /// Sends spans until `stop`, and then the spans that are still in the queue.
    async fn run(mut self, stop: CancellationToken) {
        let mut spans = Vec::with_capacity(MAX_BATCH);
        loop {
            tokio::select! {
                received = self.spans.recv_many(&mut spans, MAX_BATCH) => if received == 0 { return },
                () = stop.cancelled() => break,
            }
            let fill = async {
                while spans.len() < MAX_BATCH {
                    let remaining = MAX_BATCH - spans.len();
                    self.spans.recv_many(&mut spans, remaining).await;
                }
            };
            tokio::select! {
                _ = tokio::time::timeout(FLUSH_INTERVAL, fill) => {},
                () = stop.cancelled() => {},
            }
            self.send(&mut spans).await;
        }
        while let Ok(span) = self.spans.try_recv() {
            spans.push(span);
        }
        self.send(&mut spans).await;
    }

    async fn send(&self, spans: &mut Vec<Value>) {
        let Self { config, client, .. } = self;
        if spans.is_empty() {
            return;
        }
        let count = spans.len();
        let resource = [
            attribute("service.name", &json!(config.service)),
            attribute("service.version", &json!(env!("CARGO_PKG_VERSION"))),
        ];
        let body = json!({"resourceSpans": [{
            "resource": {"attributes": resource},
            "scopeSpans": [{"scope": {"name": "embeddery"}, "spans": std::mem::take(spans)}],
        }]});
        if let Err(reason) =
            client.post_json(&config.url, &config.headers, body.to_string().into_bytes()).await
        {
            tracing::warn!(
                url = config.url,
                reason,
                spans = count,
                "spans lost: the collector did not accept them"
            );
        }
    }
}
