//! What Prometheus sees of answers: every one counted and timed, by route. Labels are bounded: a route is a pattern,
//! and a method that nobody has heard of is `other`.

use std::{sync::atomic::AtomicU64, time::Duration};

use axum::http::Method;
use embeddery_pipeline::Stage;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::wire::operator::stages::queue_name;

/// The families. Clones share their numbers.
#[derive(Clone)]
pub struct ServerMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<DurationLabels, Histogram, fn() -> Histogram>,
    /// What operators look at.
    pub(crate) operators: OperatorMetrics,
}

/// What operators look at, as it was when they last did.
#[derive(Clone, Default)]
pub(crate) struct OperatorMetrics {
    /// Who watches the summary now.
    pub(crate) watchers: Gauge,
    /// Who watched it and left.
    pub(crate) left: Counter,
    /// Summaries that could not be made.
    pub(crate) failures: Counter,
    requeued: Family<Requeued, Counter>,
    ages: Family<OfQueue, Gauge<f64, AtomicU64>>,
    flags: Family<OfFlag, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQueue {
    queue_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requeued {
    queue_name: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFlag {
    stage: &'static str,
    flag: &'static str,
}

impl OperatorMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "orchestrator_sse_connections",
            "Callers who watch the summary",
            self.watchers.clone(),
        );
        registry.register(
            "orchestrator_sse_disconnects",
            "Callers who watched the summary and left",
            self.left.clone(),
        );
        registry.register(
            "orchestrator_summary_failures",
            "Summaries that lacked something out of reach",
            self.failures.clone(),
        );
        registry.register(
            "embedding_dlq_requeued",
            "Dead letters that were to run again, by how that ended",
            self.requeued.clone(),
        );
        registry.register(
            "embedding_queue_age_current_seconds",
            "How long the longest waiting document had waited at the last summary",
            self.ages.clone(),
        );
        registry.register(
            "embedding_stage_flag",
            "Whether a stage was paused or drained at the last summary",
            self.flags.clone(),
        );
        for stage in Stage::ALL {
            self.stage(stage, Duration::ZERO, (false, false));
            drop(self.requeued.get_or_create(&Requeued { queue_name: queue_name(stage), status: "success" }));
        }
    }

    /// A dead letter was to run again: `success`, `not_found`, `blocked` or `error`.
    pub(crate) fn requeued(&self, stage: Stage, status: &'static str) {
        self.requeued.get_or_create(&Requeued { queue_name: queue_name(stage), status }).inc();
    }

    /// How a stage is.
    pub(crate) fn stage(&self, stage: Stage, age: Duration, (paused, drain): (bool, bool)) {
        self.ages.get_or_create(&OfQueue { queue_name: queue_name(stage) }).set(age.as_secs_f64());
        for (flag, on) in [("paused", paused), ("drain", drain)] {
            self.flags.get_or_create(&OfFlag { stage: stage.as_str(), flag }).set(i64::from(on));
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    endpoint: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    method: &'static str,
    endpoint: String,
}

/// The `status` of a caller who did not wait for one.
const CLIENT_CLOSED: &str = "hung_up";

impl ServerMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            operators: OperatorMetrics::default(),
        };
        metrics.operators.register(registry);
        registry.register("http_requests", "Answers, by route and status", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's head to its answer's head",
            metrics.duration.clone(),
        );
        metrics
    }

    /// Counts an answer; `None` where the caller hung up before it.
    pub(crate) fn answered(&self, (method, route): (&Method, &str), status: Option<u16>, took: Duration) {
        let method = bounded(method);
        let status = status.map_or_else(|| CLIENT_CLOSED.to_owned(), |status| status.to_string());
        self.requests.get_or_create(&RequestLabels { method, endpoint: route.to_owned(), status }).inc();
        let asked = DurationLabels { method, endpoint: route.to_owned() };
        self.duration.get_or_create(&asked).observe(took.as_secs_f64());
    }
}

/// A caller may invent methods; labels must not follow.
fn bounded(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}
