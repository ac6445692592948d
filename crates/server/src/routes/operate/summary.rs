//! The pipeline at a glance: asked for, or sent every few seconds.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use embeddery_pipeline::{Depth, QueueAdmin, QueueError, Stage, StageMode, WorkerStatus};
use futures_util::{Stream, stream};

use crate::{
    App,
    auth::Admin,
    error::{ApiError, ErrorBody},
    http_metrics::OperatorMetrics,
    serve::ShutdownSignal,
    wire::operate::{self, Done, SummaryAnswer},
};

/// How often watchers are told.
const EVERY: Duration = Duration::from_secs(5);

/// The pipeline at this moment. What is out of reach is named, and what is known of the rest is told all the same.
#[utoipa::path(
    get,
    operation_id = "orchestrator_summary",
    path = "/api/v1/embeddings/orchestrator/summary",
    tag = "operation",
    responses(
        (status = 200, description = "What waits, what is dead, who works, what is out of reach", body = SummaryAnswer),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn summary(_: Admin, State(app): State<Arc<App>>) -> Json<SummaryAnswer> {
    Json(look(&app).await)
}

/// The same every five seconds, as events `summary`; `error` while the queue is out of reach.
#[utoipa::path(
    get,
    operation_id = "orchestrator_events",
    path = "/api/v1/embeddings/orchestrator/events",
    tag = "operation",
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 403, description = "The caller is no admin", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn events(
    _: Admin,
    State(app): State<Arc<App>>,
    stopping: Option<Extension<ShutdownSignal>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let watching = Watching::new(&app.http_metrics.operators);
    let events =
        stream::unfold((app, stopping, watching, true), |(app, stopping, watching, first)| async move {
            if !first {
                let stopped = async {
                    match &stopping {
                        Some(Extension(stopping)) => stopping.0.cancelled().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(EVERY) => {}
                    // The server goes; another one will be asked.
                    () = stopped => return None,
                }
            }
            let summary = look(&app).await;
            let event = match summary.unreachable.get(QUEUE) {
                None => Event::default().event("summary").json_data(&summary),
                Some(error) => Event::default().event("error").json_data(serde_json::json!({"error": error})),
            };
            Some((Ok(event.ok()?), (app, stopping, watching, false)))
        });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Somebody who watches.
struct Watching(OperatorMetrics);

impl Watching {
    fn new(metrics: &OperatorMetrics) -> Self {
        metrics.watchers.inc();
        Self(metrics.clone())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.watchers.dec();
        self.0.left.inc();
    }
}

/// Under this name the queue is told to be out of reach.
const QUEUE: &str = "queue";

/// What can be seen; an operator asks most of all when something is broken.
async fn look(app: &App) -> SummaryAnswer {
    let mut unreachable = BTreeMap::new();
    let (depth, flow, workers) = seen(&*app.jobs.queue).await.unwrap_or_else(|error| {
        unreachable.insert(QUEUE, ApiError::from(error).to_string());
        Default::default()
    });
    if let Err(error) = app.jobs.store.health().await {
        unreachable.insert("jobs", ApiError::from(error).to_string());
    }
    if !unreachable.is_empty() {
        app.http_metrics.operators.failures.inc();
    }
    let (queues, dlq) = depths(&depth);
    let mut flags = BTreeMap::new();
    for (stage, flow) in flow {
        let now = operate::Flags::from(flow);
        let age = depth.get(&stage).map_or(Duration::ZERO, |depth| depth.oldest);
        app.http_metrics.operators.stage(stage, age, (now.paused, now.drain));
        flags.insert(stage.as_str(), now);
    }
    let serving = |stage: Stage| workers.iter().filter(|worker| worker.stages.contains(&stage)).count();
    SummaryAnswer {
        unreachable,
        queues,
        newer: depth.iter().map(|(stage, depth)| (operate::queue(*stage), depth.newer)).collect(),
        dlq,
        ages: depth
            .iter()
            .map(|(stage, depth)| (operate::queue(*stage), depth.oldest.as_secs_f64()))
            .collect(),
        stages: done(&workers),
        flags,
        priority: BTreeMap::new(),
        workers: Stage::ALL.into_iter().map(|stage| (stage.as_str(), serving(stage))).collect(),
        ts: jiff::Timestamp::now().as_millisecond() as f64 / 1e3,
    }
}

type Seen = (BTreeMap<Stage, Depth>, BTreeMap<Stage, StageMode>, Vec<WorkerStatus>);

async fn seen(queue: &dyn QueueAdmin) -> Result<Seen, QueueError> {
    Ok((queue.depth().await?, queue.stage_modes().await?, queue.workers().await?))
}

/// What waits and what is dead, by queue.
pub(super) fn depths(depth: &BTreeMap<Stage, Depth>) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let waiting = depth.iter().map(|(stage, depth)| {
        (operate::queue(*stage), depth.waiting + depth.held + depth.delayed + depth.newer)
    });
    let dead = depth.iter().map(|(stage, depth)| (operate::dlq(*stage), depth.dead));
    (waiting.collect(), dead.collect())
}

/// What living workers have done, by stage.
pub(super) fn done(workers: &[WorkerStatus]) -> BTreeMap<&'static str, Done> {
    let mut stages: BTreeMap<&'static str, Done> =
        Stage::ALL.into_iter().map(|stage| (stage.as_str(), Done::default())).collect();
    for worker in workers {
        for stage in &worker.stages {
            let done = stages.entry(stage.as_str()).or_default();
            *done = Done { processed: done.processed + worker.done, failed: done.failed + worker.failed };
        }
    }
    stages
}
