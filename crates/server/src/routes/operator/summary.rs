//! The state of the pipeline: once, or as events.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use embeddery_pipeline::{Depth, Queue, QueueError, Stage, StageMode, WorkerStatus};
use futures_util::{Stream, stream};

use crate::{
    App,
    auth::Admin,
    error::ApiError,
    http_metrics::OperatorMetrics,
    routes::common_errors::AdminErrors,
    shutdown_signal::ShutdownSignal,
    wire::operator::{
        stages::{StageFlags, dlq_name, queue_name},
        summary::{StageCounts, SummaryResponse},
    },
};

/// The interval between two events.
const INTERVAL: Duration = Duration::from_secs(5);

/// Get the state of the pipeline. What cannot be reached is named; the rest is reported all the same.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/orchestrator/summary",
    tag = "operation",
    responses(
        (status = 200, description = "Waiting and dead documents, workers, and what cannot be reached", body = SummaryResponse),
        AdminErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn get_orchestrator_summary(
    _: Admin,
    State(app): State<Arc<App>>,
) -> Json<SummaryResponse> {
    Json(read_summary(&app).await)
}

/// Stream the state of the pipeline.
///
/// An event `summary` every five seconds; `error` while the queue cannot be reached.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/orchestrator/events",
    tag = "operation",
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        AdminErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn stream_orchestrator_events(
    _: Admin,
    State(app): State<Arc<App>>,
    shutdown: Option<Extension<ShutdownSignal>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let open = OpenStream::new(&app.http_metrics.operators);
    let events = stream::unfold((app, shutdown, open, true), |(app, shutdown, open, first)| async move {
        if !first {
            let stopped = async {
                match &shutdown {
                    Some(Extension(shutdown)) => shutdown.0.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                // The server shuts down; the client reconnects to another one.
                () = stopped => return None,
            }
        }
        let summary = read_summary(&app).await;
        let event = match summary.unreachable.get(QUEUE) {
            None => Event::default().event("summary").json_data(&summary),
            Some(error) => Event::default().event("error").json_data(serde_json::json!({"error": error})),
        };
        Some((Ok(event.ok()?), (app, shutdown, open, false)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Counts an open stream of events.
struct OpenStream(OperatorMetrics);

impl OpenStream {
    fn new(metrics: &OperatorMetrics) -> Self {
        metrics.watchers.inc();
        Self(metrics.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.watchers.dec();
        self.0.disconnects.inc();
    }
}

/// The name of the queue in `unreachable`.
const QUEUE: &str = "queue";

/// The state as far as it can be read: operators need it most when something is broken.
async fn read_summary(app: &App) -> SummaryResponse {
    let mut unreachable = BTreeMap::new();
    let QueueState { depth, flow, workers } = read_queue(&*app.jobs.queue).await.unwrap_or_else(|error| {
        unreachable.insert(QUEUE, ApiError::from(error).to_string());
        Default::default()
    });
    if let Err(error) = app.jobs.store.health().await {
        unreachable.insert("jobs", ApiError::from(error).to_string());
    }
    if !unreachable.is_empty() {
        app.http_metrics.operators.failures.inc();
    }
    let (queues, dlq) = queue_sizes(&depth);
    let mut flags = BTreeMap::new();
    for (stage, flow) in flow {
        let now = StageFlags::from(flow);
        let age = depth.get(&stage).map_or(Duration::ZERO, |depth| depth.oldest);
        app.http_metrics.operators.set_stage(stage, age, now.paused, now.drain);
        flags.insert(stage.as_str(), now);
    }
    let serving = |stage: Stage| workers.iter().filter(|worker| worker.stages.contains(&stage)).count();
    SummaryResponse {
        unreachable,
        queues,
        newer: depth.iter().map(|(stage, depth)| (queue_name(*stage), depth.newer)).collect(),
        dlq,
        ages: depth.iter().map(|(stage, depth)| (queue_name(*stage), depth.oldest.as_secs_f64())).collect(),
        stages: worker_counts(&workers),
        flags,
        priority: BTreeMap::new(),
        workers: Stage::ALL.into_iter().map(|stage| (stage.as_str(), serving(stage))).collect(),
        ts: jiff::Timestamp::now().as_millisecond() as f64 / 1e3,
    }
}

/// What the queue knows.
#[derive(Default)]
struct QueueState {
    depth: BTreeMap<Stage, Depth>,
    flow: BTreeMap<Stage, StageMode>,
    workers: Vec<WorkerStatus>,
}

async fn read_queue(queue: &dyn Queue) -> Result<QueueState, QueueError> {
    Ok(QueueState {
        depth: queue.depth().await?,
        flow: queue.stage_modes().await?,
        workers: queue.workers().await?,
    })
}

/// The sizes of the queues and of the dead-letter queues.
pub(super) fn queue_sizes(depth: &BTreeMap<Stage, Depth>) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let waiting = depth
        .iter()
        .map(|(stage, depth)| (queue_name(*stage), depth.waiting + depth.held + depth.delayed + depth.newer));
    let dead = depth.iter().map(|(stage, depth)| (dlq_name(*stage), depth.dead));
    (waiting.collect(), dead.collect())
}

/// What the running workers have done, by stage.
pub(super) fn worker_counts(workers: &[WorkerStatus]) -> BTreeMap<&'static str, StageCounts> {
    let mut stages: BTreeMap<&'static str, StageCounts> =
        Stage::ALL.into_iter().map(|stage| (stage.as_str(), StageCounts::default())).collect();
    for worker in workers {
        for stage in &worker.stages {
            let counts = stages.entry(stage.as_str()).or_default();
            counts.processed += worker.done;
            counts.failed += worker.failed;
        }
    }
    stages
}
