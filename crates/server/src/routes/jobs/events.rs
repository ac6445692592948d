//! A job as it moves, as events sent by the server. Each connection begins with how the job stands, so that one
//! that broke is simply opened again; nothing has to be remembered between two.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, State},
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use embeddery_pipeline::{Job, JobId};
use futures_util::{Stream, stream};

use crate::{
    App,
    auth::Caller,
    error::{ApiError, ErrorBody},
    serve::ShutdownSignal,
    wire::jobs::view::JobView,
};

/// How often the job is looked at. Whoever works on it may be another process, so nobody calls.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A silence of this long would make proxies hang up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A job as it moves, until it ends.
///
/// Events `job`, each with the job as JSON: one at once, one whenever something has changed. After `completed`,
/// `partial`, `failed` or `cancelled` comes an event `end`, and the connection closes; a browser's `EventSource` is to
/// be closed then, because it would connect again.
#[utoipa::path(
    get,
    operation_id = "job_events",
    path = "/api/v1/embeddings/jobs/{id}/events",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = 401, description = "No key, or a wrong one", body = ErrorBody),
        (status = 404, description = "The caller has no such job", body = ErrorBody),
        (status = 503, description = "The store of jobs is out of reach", body = ErrorBody),
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn events(
    caller: Caller,
    State(app): State<Arc<App>>,
    stopping: Option<Extension<ShutdownSignal>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let user: Arc<str> = caller.identity.user.shared();
    let job = app.jobs.find(&user, &id).await?;
    let watch = Watch {
        app,
        user,
        id: job.id,
        stopping: stopping.map(|Extension(stopping)| stopping),
        told: None,
        next: Next::Tell(Box::new(job)),
    };
    let events = stream::unfold(watch, |mut watch| async move { Some((watch.step().await?, watch)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// A connection that watches a job.
struct Watch {
    app: Arc<App>,
    user: Arc<str>,
    id: JobId,
    stopping: Option<ShutdownSignal>,
    told: Option<JobView>,
    next: Next,
}

enum Next {
    Tell(Box<Job>),
    Look,
    End,
    Close,
}

impl Watch {
    async fn step(&mut self) -> Option<Result<Event, Infallible>> {
        loop {
            match std::mem::replace(&mut self.next, Next::Look) {
                Next::Tell(job) => {
                    if job.ended_at_ms.is_some() {
                        self.next = Next::End;
                    }
                    let view = JobView::from(&*job);
                    // The time that is left changes by itself.
                    if self.told.as_ref().is_some_and(|told| told.same_but_eta(&view)) {
                        continue;
                    }
                    let event = Event::default().event("job").json_data(&view).ok()?;
                    self.told = Some(view);
                    return Some(Ok(event));
                }
                Next::Look => {
                    let stopped = async {
                        match &self.stopping {
                            Some(stopping) => stopping.0.cancelled().await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                        // The server goes; another one will be asked.
                        () = stopped => return None,
                    }
                    match self.app.jobs.store.job(&self.user, self.id).await {
                        Ok(Some(job)) => self.next = Next::Tell(Box::new(job)),
                        Ok(None) => self.next = Next::End,
                        Err(error) => tracing::debug!(%error, "a watched job cannot be read; trying again"),
                    }
                }
                Next::End => {
                    self.next = Next::Close;
                    return Some(Ok(Event::default().event("end").data("{}")));
                }
                Next::Close => return None,
            }
        }
    }
}
