//! Trace spans. A span is emitted when it ends, as one `tracing` event with the target [`TARGET`]; the binary exports these
//! events as OTLP.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embeddery_core::TraceContext;

/// The `tracing` target of span events.
pub const TARGET: &str = "trace";

/// A span in progress. It is emitted on drop.
pub struct Span {
    context: TraceContext,
    parent: Option<u64>,
    name: &'static str,
    started: (SystemTime, Instant),
    /// The attributes of the span.
    pub attributes: SpanAttributes,
}

/// The attributes of a span. An absent attribute is not emitted.
#[derive(Clone, Debug, Default)]
pub struct SpanAttributes {
    /// OpenTelemetry's span kind: 1 internal, 2 server, 3 client, 5 consumer.
    pub kind: u64,
    /// The method and route of an HTTP request.
    pub route: Option<String>,
    /// The status of the HTTP response.
    pub status: Option<u64>,
    /// The request id, which log lines share.
    pub request_id: Option<String>,
    /// The provider of the model.
    pub provider: Option<&'static str>,
    /// The model's label in metrics.
    pub model: Option<String>,
    /// The number of inputs.
    pub inputs: Option<u64>,
    /// Whether the work failed.
    pub failed: bool,
}

impl Span {
    /// Begins a child of `parent`, or a new trace without a parent. `None` if the parent is not sampled.
    ///
    /// This does not check `tracing::enabled!`: after that check, layers with filters of their own miss the next event of
    /// the thread.
    pub fn begin(
        name: &'static str,
        parent: Option<TraceContext>,
        attributes: SpanAttributes,
    ) -> Option<Self> {
        if parent.is_some_and(|parent| !parent.sampled) {
            return None;
        }
        let trace_id = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace_id);
        let context = TraceContext { trace_id, span_id: fastrand::u64(1..), sampled: true };
        let parent = parent.map(|parent| parent.span_id);
        Some(Self { context, parent, name, started: (SystemTime::now(), Instant::now()), attributes })
    }

    /// The trace context for children of this span.
    pub fn context(&self) -> TraceContext {
        self.context
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let started = self.started.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ended = started + self.started.1.elapsed();
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let SpanAttributes { kind, route, status, request_id, provider, model, inputs, failed } =
            &self.attributes;
        tracing::info!(
            target: TARGET,
            trace = format!("{:032x}", self.context.trace_id),
            span = format!("{:016x}", self.context.span_id),
            parent = self.parent.map(|parent| format!("{parent:016x}")),
            name = self.name,
            kind,
            began = nanoseconds(started),
            ended = nanoseconds(ended),
            failed,
            "http.route" = route.as_deref(),
            "http.response.status_code" = *status,
            "request.id" = request_id.as_deref(),
            "gen_ai.provider.name" = *provider,
            "gen_ai.request.model" = model.as_deref(),
            "embeddery.inputs" = *inputs,
        );
    }
}
