//! What Prometheus sees of answers: every one counted and timed, by route. Labels are bounded: a route is a pattern,
//! and a method that nobody has heard of is `other`.

use std::time::Duration;

use axum::http::Method;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// The families. Clones share their numbers.
#[derive(Clone)]
pub struct HttpMetrics {
    requests: Family<Answered, Counter>,
    duration: Family<Asked, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    endpoint: String,
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    endpoint: String,
}

/// The `status` of a caller who did not wait for one.
const HUNG_UP: &str = "hung_up";

impl HttpMetrics {
    /// Registers the families.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(histogram as fn() -> Histogram),
        };
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
        let status = status.map_or_else(|| HUNG_UP.to_owned(), |status| status.to_string());
        self.requests.get_or_create(&Answered { method, endpoint: route.to_owned(), status }).inc();
        let asked = Asked { method, endpoint: route.to_owned() };
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
