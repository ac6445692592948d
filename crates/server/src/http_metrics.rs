//! Metrics of the API: requests and their duration by route, and the gauges of the operator's routes. The set of label
//! values is bounded: a route is a pattern, and an unknown method is `other`.

use std::{sync::atomic::AtomicU64, time::Duration};

use axum::http::Method;
use embeddery_pipeline::Stage;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::wire::operator::stages::queue_name;

/// The metric families. Clones share their values.
#[derive(Clone)]
pub struct ServerMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<DurationLabels, Histogram, fn() -> Histogram>,
    /// Metrics of the operator's routes.
    pub(crate) operators: OperatorMetrics,
}

/// Metrics of the operator's routes. The gauges have the values of the last summary.
#[derive(Clone, Default)]
pub(crate) struct OperatorMetrics {
    /// Open event streams of the summary.
    pub(crate) watchers: Gauge,
    /// Event streams of the summary that ended.
    pub(crate) disconnects: Counter,
    /// Summaries that failed.
    pub(crate) failures: Counter,
    requeued: Family<RequeueLabels, Counter>,
    oldest_age: Family<QueueLabels, Gauge<f64, AtomicU64>>,
    stage_flags: Family<StageFlagLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequeueLabels {
    queue_name: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageFlagLabels {
    stage: &'static str,
    flag: &'static str,
}

impl OperatorMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "orchestrator_sse_connections",
            "Open event streams of the orchestrator summary",
            self.watchers.clone(),
        );
        registry.register(
            "orchestrator_sse_disconnects",
            "Event streams of the orchestrator summary that ended",
            self.disconnects.clone(),
        );
        registry.register(
            "orchestrator_summary_failures",
            "Orchestrator summaries that failed because the queue or the job store was unavailable",
            self.failures.clone(),
        );
        registry.register(
            "embedding_dlq_requeued",
            "Requests to requeue a dead letter, by queue and result",
            self.requeued.clone(),
        );
        registry.register(
            "embedding_queue_age_current_seconds",
            "Age of the oldest waiting document at the last summary, in seconds",
            self.oldest_age.clone(),
        );
        registry.register(
            "embedding_stage_flag",
            "1 if the stage was paused or draining at the last summary, else 0",
            self.stage_flags.clone(),
        );
        for stage in Stage::ALL {
            self.set_stage(stage, Duration::ZERO, false, false);
            drop(
                self.requeued
                    .get_or_create(&RequeueLabels { queue_name: queue_name(stage), status: "success" }),
            );
        }
    }

    /// Counts a request to requeue a dead letter. The status is `success`, `not_found`, `blocked` or `error`.
    pub(crate) fn record_requeue(&self, stage: Stage, status: &'static str) {
        self.requeued.get_or_create(&RequeueLabels { queue_name: queue_name(stage), status }).inc();
    }

    /// Sets the gauges of a stage: the age of its oldest waiting document, and its flags.
    pub(crate) fn set_stage(&self, stage: Stage, age: Duration, paused: bool, drain: bool) {
        self.oldest_age.get_or_create(&QueueLabels { queue_name: queue_name(stage) }).set(age.as_secs_f64());
        for (flag, on) in [("paused", paused), ("drain", drain)] {
            self.stage_flags
                .get_or_create(&StageFlagLabels { stage: stage.as_str(), flag })
                .set(i64::from(on));
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

/// The label `status` of a request whose client disconnected before the response.
const CLIENT_CLOSED: &str = "hung_up";

impl ServerMetrics {
    /// Creates and registers the metric families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            operators: OperatorMetrics::default(),
        };
        metrics.operators.register(registry);
        registry.register("http_requests", "Requests, by method, route and status", metrics.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Seconds from the headers of a request to the headers of its response",
            metrics.duration.clone(),
        );
        metrics
    }

    /// Records a request. The status is `None` if the client disconnected before the response.
    pub(crate) fn record_request(
        &self,
        method: &Method,
        route: &str,
        status: Option<u16>,
        elapsed: Duration,
    ) {
        let method = method_label(method);
        let status = status.map_or_else(|| CLIENT_CLOSED.to_owned(), |status| status.to_string());
        self.requests.get_or_create(&RequestLabels { method, endpoint: route.to_owned(), status }).inc();
        let labels = DurationLabels { method, endpoint: route.to_owned() };
        self.duration.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }
}

/// The label of a method. Clients can send any method, so unknown ones share a label.
fn method_label(method: &Method) -> &'static str {
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
