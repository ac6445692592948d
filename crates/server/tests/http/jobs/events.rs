//! The event stream of a job.

use embeddery_pipeline::JobId;
use futures_util::StreamExt as _;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::JOBS;
use crate::support::{Server, soon};

/// The events of a connection.
struct Events {
    response: futures_util::stream::BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    text: String,
}

impl Events {
    async fn of(server: &Server, id: JobId) -> Self {
        let request = server.request(Method::GET, &format!("{JOBS}/{id}/events"));
        // Browsers request compression, but it would delay the events.
        let response: Response = soon(request.header("accept-encoding", "gzip").send()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(response.headers().get("content-encoding").is_none());
        Self { response: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// The name and the data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let found = field("event")
                    .map(|name| (name.to_owned(), serde_json::from_str(field("data").unwrap()).unwrap()));
                self.text = rest.to_owned();
                match found {
                    Some(found) => return Some(found),
                    None => continue,
                }
            }
            let bytes = soon(self.response.next()).await?.unwrap();
            self.text.push_str(str::from_utf8(&bytes).unwrap());
        }
    }
}

#[tokio::test]
async fn the_stream_has_the_state_then_changes_then_the_end() {
    let server = Server::start().await;
    let id = server.submitted(2).await;
    let mut events = Events::of(&server, id).await;
    let (name, job) = events.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &job["status"], &job["job_id"]),
        ("job", &json!("pending"), &json!(id.to_string()))
    );
    server.work(id, 0).await;
    // The server polls the job, so the stream may skip states.
    let job = loop {
        let (_, job) = events.next().await.unwrap();
        if job["documents"]["stored"] == 1 {
            break job;
        }
    };
    assert_eq!(job["status"], "running");
    // A new connection begins with the current state.
    drop(events);
    let mut events = Events::of(&server, id).await;
    assert_eq!(events.next().await.unwrap().1["documents"]["stored"], 1);
    server.work(id, 1).await;
    let (mut last, mut end) = (Value::Null, Value::Null);
    while let Some((name, data)) = events.next().await {
        if name == "end" { end = data } else { last = data }
    }
    assert_eq!((&last["status"], end), (&json!("completed"), json!({})));
}

#[tokio::test]
async fn the_stream_of_an_ended_or_deleted_job_ends() {
    let server = Server::start().await;
    let id = server.submitted(1).await;
    let mut watched = Events::of(&server, id).await;
    watched.next().await.unwrap();
    server.work(id, 0).await;
    let mut events = Events::of(&server, id).await;
    assert_eq!(events.next().await.unwrap().1["status"], "completed");
    assert_eq!(events.next().await.unwrap().0, "end");
    assert!(events.next().await.is_none());
    server.jobs.delete_tenant("1").await.unwrap();
    while let Some((name, _)) = watched.next().await {
        assert!(name == "job" || name == "end");
    }
}

#[tokio::test]
async fn a_shutdown_ends_the_stream() {
    let server = Server::start().await;
    let id = server.submitted(1).await;
    let mut events = Events::of(&server, id).await;
    events.next().await.unwrap();
    server.shutdown.cancel();
    assert!(events.next().await.is_none());
}
