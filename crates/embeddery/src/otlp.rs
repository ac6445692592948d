//! Traces for a collector: spans become OTLP, as JSON over HTTP, a second's worth at a time. Whatever is wrong with the
//! collector costs spans and nothing else.

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

/// Spans that may wait for the collector; more are lost.
const QUEUE_CAPACITY: usize = 16_384;
/// Spans that are delivered together.
const MAX_BATCH: usize = 512;
/// How long the first of them waits for others.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Takes ended spans out of the stream of events.
pub(crate) struct SpanLayer(mpsc::Sender<Value>);

/// Spans on their way to the collector.
pub(crate) struct OtlpExporter {
    spans: mpsc::Receiver<Value>,
    to: TracesConfig,
    sender: HttpClient,
}

/// Both ends. Fails when nothing can be sent from this machine.
pub(crate) fn open(to: &TracesConfig, outbound: &Outbound) -> anyhow::Result<(SpanLayer, OtlpExporter)> {
    let (taking, spans) = mpsc::channel(QUEUE_CAPACITY);
    let sender = HttpClient::new(outbound).map_err(anyhow::Error::msg)?;
    Ok((SpanLayer(taking), OtlpExporter { spans, to: to.clone(), sender }))
}

/// Does the work while spans are delivered; the last ones after its end, so that what was finished just now is told.
pub(crate) async fn with_exporter<T>(delivery: Option<OtlpExporter>, work: impl Future<Output = T>) -> T {
    let done = CancellationToken::new();
    let delivering = delivery.map(|delivery| tokio::spawn(delivery.run(done.clone())));
    let worked = work.await;
    done.cancel();
    if let Some(delivering) = delivering {
        let _ = delivering.await;
    }
    worked
}

/// Spans, and nothing else.
pub(crate) fn spans_only() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata| metadata.target() == TARGET)
}

impl<S: Subscriber> Layer<S> for SpanLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut span = SpanFields::default();
        event.record(&mut span);
        // A collector that is away must not fill the memory.
        let _ = self.0.try_send(span.finish());
    }
}

/// An event's fields as OTLP writes a span.
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
        // OTLP writes 64-bit integers as text, but not enumerations.
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
    /// Delivers spans until `stop`, and then those that wait.
    async fn run(mut self, stop: CancellationToken) {
        let mut spans = Vec::with_capacity(MAX_BATCH);
        loop {
            tokio::select! {
                received = self.spans.recv_many(&mut spans, MAX_BATCH) => if received == 0 { return },
                () = stop.cancelled() => break,
            }
            let gathered = async {
                while spans.len() < MAX_BATCH {
                    let room = MAX_BATCH - spans.len();
                    self.spans.recv_many(&mut spans, room).await;
                }
            };
            tokio::select! {
                _ = tokio::time::timeout(FLUSH_INTERVAL, gathered) => {},
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
        let Self { to, sender, .. } = self;
        if spans.is_empty() {
            return;
        }
        let count = spans.len();
        let resource = [
            attribute("service.name", &json!(to.service)),
            attribute("service.version", &json!(env!("CARGO_PKG_VERSION"))),
        ];
        let body = json!({"resourceSpans": [{
            "resource": {"attributes": resource},
            "scopeSpans": [{"scope": {"name": "embeddery"}, "spans": std::mem::take(spans)}],
        }]});
        if let Err(reason) = sender.post_json(&to.url, &to.headers, body.to_string().into_bytes()).await {
            tracing::warn!(
                url = to.url,
                reason,
                spans = count,
                "traces are lost: the collector does not take them"
            );
        }
    }
}
