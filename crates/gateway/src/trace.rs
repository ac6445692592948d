//! Spans: what was done, when, for how long, and as a part of what. A span is told when it ends, as one event with the
//! target [`TARGET`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embeddery_core::TraceContext;

/// The target of the events that are spans.
pub const TARGET: &str = "trace";

/// A piece of work under way; told when dropped.
pub struct Span {
    context: TraceContext,
    parent: Option<u64>,
    name: &'static str,
    began: (SystemTime, Instant),
    /// What is known of the work.
    pub facts: SpanAttributes,
}

/// What is known of a piece of work. Absent facts are not told.
#[derive(Clone, Debug, Default)]
pub struct SpanAttributes {
    /// For whom or by whom it is done, as OpenTelemetry counts: 1 here, 2 for a caller, 3 by another service, 5 for a
    /// message.
    pub kind: u64,
    /// The method and route of an HTTP request.
    pub route: Option<String>,
    /// The status it was answered.
    pub status: Option<u64>,
    /// The id that ties its log lines together.
    pub request_id: Option<String>,
    /// Who serves the model.
    pub provider: Option<&'static str>,
    /// The model, as metrics call it.
    pub model: Option<String>,
    /// How many texts.
    pub inputs: Option<u64>,
    /// Whether it failed.
    pub failed: bool,
}

impl Span {
    /// Begins a piece of work below `parent`, or a trace. `None` when the trace's beginner does not want it collected.
    /// Whether anybody listens is not asked here: after `tracing::enabled!` layers with filters of their own miss the
    /// thread's next event.
    pub fn begin(name: &'static str, parent: Option<TraceContext>, facts: SpanAttributes) -> Option<Self> {
        if parent.is_some_and(|parent| !parent.sampled) {
            return None;
        }
        let trace = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace);
        let context = TraceContext { trace, span: fastrand::u64(1..), sampled: true };
        let parent = parent.map(|parent| parent.span);
        Some(Self { context, parent, name, began: (SystemTime::now(), Instant::now()), facts })
    }

    /// Where its parts belong.
    pub fn context(&self) -> TraceContext {
        self.context
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let began = self.began.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ended = began + self.began.1.elapsed();
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let SpanAttributes { kind, route, status, request_id, provider, model, inputs, failed } = &self.facts;
        tracing::info!(
            target: TARGET,
            trace = format!("{:032x}", self.context.trace),
            span = format!("{:016x}", self.context.span),
            parent = self.parent.map(|parent| format!("{parent:016x}")),
            name = self.name,
            kind,
            began = nanoseconds(began),
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
