//! The progress of a job as server-sent events. Each connection begins with the current state, so that a client whose
//! connection broke opens a new one; no state is kept between two.

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

use crate::routes::common_errors::JobErrors;
use crate::{App, auth::Caller, error::ApiError, shutdown_signal::ShutdownSignal, wire::jobs::view::JobView};

/// How often the job is read. Its worker may be another process, which cannot notify this one.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Proxies close connections that are silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Stream the progress of a job until it ends.
///
/// Events `job`, each with the job as JSON: one at once, one after each change. After `completed`, `partial`, `failed`
/// or `cancelled` an event `end` follows, and the connection closes. Close a browser's `EventSource` then, because it
/// would connect again.
#[utoipa::path(
    get,
    path = "/api/v1/embeddings/jobs/{id}/events",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        JobErrors,
    ),
    security(("key" = []), ("bearer" = [])),
)]
pub(in crate::routes) async fn stream_job_events(
    caller: Caller,
    State(app): State<Arc<App>>,
    shutdown: Option<Extension<ShutdownSignal>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let user: Arc<str> = caller.identity.user.shared();
    let job = app.jobs.find(&user, &id).await?;
    let stream_state = JobStream {
        app,
        user,
        id: job.id,
        shutdown: shutdown.map(|Extension(shutdown)| shutdown),
        sent: None,
        next: Next::Send(Box::new(job)),
    };
    let events = stream::unfold(stream_state, |mut stream_state| async move {
        Some((stream_state.step().await?, stream_state))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// A connection that follows a job.
struct JobStream {
    app: Arc<App>,
    user: Arc<str>,
    id: JobId,
    shutdown: Option<ShutdownSignal>,
    sent: Option<JobView>,
    next: Next,
}

enum Next {
    Send(Box<Job>),
    Poll,
    End,
    Close,
}

impl JobStream {
    async fn step(&mut self) -> Option<Result<Event, Infallible>> {
        loop {
            match std::mem::replace(&mut self.next, Next::Poll) {
                Next::Send(job) => {
                    if job.ended_at_ms.is_some() {
                        self.next = Next::End;
                    }
                    let view = JobView::from(&*job);
                    // The estimated time changes without progress.
                    if self.sent.as_ref().is_some_and(|sent| sent.equals_except_eta(&view)) {
                        continue;
                    }
                    let event = Event::default().event("job").json_data(&view).ok()?;
                    self.sent = Some(view);
                    return Some(Ok(event));
                }
                Next::Poll => {
                    let stopped = async {
                        match &self.shutdown {
                            Some(shutdown) => shutdown.0.cancelled().await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = tokio::time::sleep(POLL_INTERVAL) => {}
                        // The server shuts down; the client reconnects to another one.
                        () = stopped => return None,
                    }
                    match self.app.jobs.store.job(&self.user, self.id).await {
                        Ok(Some(job)) => self.next = Next::Send(Box::new(job)),
                        Ok(None) => self.next = Next::End,
                        Err(error) => tracing::debug!(%error, "a followed job cannot be read; retrying"),
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
