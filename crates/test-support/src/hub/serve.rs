//! The HTTP server of the fake hub: it maps paths to listings and files, and sends the bodies with their faults.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures_util::stream;
use serde_json::json;
use tokio::net::TcpListener;

use super::{Content, Fault, Gate, LISTING, RecordedRequest, Repo, Shared};

/// Bytes of one part of a body: small enough that a fault applies inside a file, large enough for real models.
const PART_BYTES: usize = 64 << 10;

#[expect(clippy::expect_used, reason = "a test without loopback cannot run")]
pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>, storage: bool) {
    let routes = Router::new().fallback(if storage { get(from_storage) } else { get(from_hub) });
    // It ends only when it is dropped.
    let _ = axum::serve(listener, routes.with_state(shared)).await;
}

/// `/api/models/{repo}/revision/{revision}` and `/{repo}/resolve/{revision}/{path}`.
async fn from_hub(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response<Body>, Refusal> {
    let (uri_path, headers) =
        (request.uri().path().trim_start_matches('/').replace("%2F", "/"), request.headers());
    if let Some((repo, revision)) =
        uri_path.strip_prefix("api/models/").and_then(|rest| rest.split_once("/revision/"))
    {
        shared.record(LISTING, false, headers);
        shared.check_access(repo, headers)?;
        let listing = shared.find(repo, revision, Repo::list)?;
        return deliver(&shared, LISTING, listing.into(), headers).await;
    }
    let (repo, revision, path) = split_file_path(&uri_path)?;
    shared.record(path, false, headers);
    shared.check_access(repo, headers)?;
    let (content, commit) =
        shared.find(repo, revision, |repo, commit| (repo.content(commit, path), commit.to_owned()))?;
    let content = content.ok_or(Refusal(404, "EntryNotFound", "Entry not found"))?;
    let mut response = match &content.sha256 {
        Some(sha256) => redirect(&shared, &content, sha256, &format!("{repo}/resolve/{commit}/{path}")),
        None => {
            let mut response = deliver(&shared, path, content.bytes, headers).await?;
            insert(&mut response, "etag", format!("\"{}\"", content.blob_id));
            response
        }
    };
    insert(&mut response, "x-repo-commit", commit);
    Ok(response)
}

/// The storage host: the hub's paths for large files, without access checks.
async fn from_storage(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let (repo, commit, path) = split_file_path(request.uri().path().trim_start_matches('/'))?;
    shared.record(path, true, request.headers());
    let content = shared.find(repo, commit, |repo, commit| repo.content(commit, path))?;
    deliver(&shared, path, content.ok_or(Refusal(404, "", ""))?.bytes, request.headers()).await
}

/// Splits the path of a file's URL into repository, revision and path in the repository.
fn split_file_path(uri_path: &str) -> Result<(&str, &str, &str), Refusal> {
    let parts = uri_path.split_once("/resolve/").and_then(|(repo, rest)| Some((repo, rest.split_once('/')?)));
    let (repo, (revision, path)) = parts.ok_or(Refusal(404, "", "not found"))?;
    Ok((repo, revision, path))
}

/// Sends the bytes, after the hold for the path, with the next fault for the path.
async fn deliver(
    shared: &Arc<Shared>,
    path: &str,
    mut bytes: Bytes,
    headers: &HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let gate = shared.state().gates.get(path).cloned();
    if let Some(Gate { arrived, released }) = gate {
        arrived.send_replace(true);
        let _ = released.subscribe().wait_for(|released| *released).await;
    }
    let fault = shared.state().faults.get_mut(path).and_then(VecDeque::pop_front);
    let mut from = range_start(headers).unwrap_or_default();
    match fault {
        Some(Fault::Status(status, retry_after)) => {
            let mut response = Refusal(status, "", "a fault on demand").into_response();
            if let Some(seconds) = retry_after {
                insert(&mut response, "retry-after", seconds.to_string());
            }
            return Ok(response);
        }
        Some(Fault::WrongBytes) => bytes = bytes.iter().map(|byte| !byte).collect(),
        Some(Fault::Shorter) => bytes.truncate(bytes.len() / 2),
        Some(Fault::Longer) => bytes = bytes.repeat(10).into(),
        Some(Fault::IgnoreRange) => from = 0,
        Some(Fault::RefuseRange) => from = bytes.len(),
        Some(Fault::DisconnectAfter(_) | Fault::StallAfter(_)) | None => {}
    }
    let whole = bytes.len();
    if from > 0 && from >= whole {
        let mut response = Refusal(416, "", "").into_response();
        insert(&mut response, "content-range", format!("bytes */{whole}"));
        return Ok(response);
    }
    let rest = bytes.slice(from..);
    let mut response = Response::new(body(Arc::clone(shared), path.to_owned(), &rest, fault));
    insert(&mut response, "content-length", rest.len().to_string());
    insert(&mut response, "accept-ranges", "bytes".into());
    if from > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        insert(&mut response, "content-range", format!("bytes {from}-{}/{whole}", whole - 1));
    }
    Ok(response)
}

/// A body that counts the sent bytes and ends with the fault.
fn body(shared: Arc<Shared>, path: String, bytes: &Bytes, fault: Option<Fault>) -> Body {
    let end = match fault {
        Some(Fault::DisconnectAfter(end) | Fault::StallAfter(end)) => end.min(bytes.len()),
        _ => bytes.len(),
    };
    let rest = bytes.slice(..end);
    Body::from_stream(stream::unfold((rest, false), move |(mut rest, broken)| {
        let (shared, path) = (Arc::clone(&shared), path.clone());
        async move {
            if !rest.is_empty() {
                let part = rest.split_to(rest.len().min(PART_BYTES));
                *shared.state().sent.entry(path).or_default() += part.len();
                return Some((Ok(part), (rest, broken)));
            }
            match fault {
                Some(Fault::DisconnectAfter(_)) if !broken => {
                    // The yield lets hyper flush its buffer before it receives the error.
                    tokio::task::yield_now().await;
                    Some((Err(io::Error::other("closed on demand")), (rest, true)))
                }
                Some(Fault::StallAfter(_)) => std::future::pending().await,
                _ => None,
            }
        }
    }))
}

impl Shared {
    fn record(&self, path: &str, storage: bool, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (range, authorization) = (text(header::RANGE), text(header::AUTHORIZATION));
        self.state().requests.push(RecordedRequest { path: path.to_owned(), storage, range, authorization });
    }

    /// Checks the token in the hub's order: an invalid token is refused for public repositories, too.
    fn check_access(&self, repo: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let state = self.state();
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let expected = state.token.as_ref().map(|token| format!("Bearer {token}"));
        let gated = state.repos.get(repo).is_some_and(|repo| repo.gated);
        match (given, expected) {
            (Some(given), Some(expected)) if given != expected => {
                Err(Refusal(401, "", "Invalid credentials in Authorization header"))
            }
            (None, _) if gated => Err(Refusal(401, "GatedRepo", "Access to this model is restricted.")),
            (Some(_), _) if gated => Err(Refusal(403, "GatedRepo", "Access to this model is restricted.")),
            (None, Some(_)) => Err(Refusal(401, "", "Invalid username or password.")),
            _ => Ok(()),
        }
    }

    /// Calls `read` with a repository and the commit of a revision.
    fn find<T>(&self, repo: &str, revision: &str, read: impl Fn(&Repo, &str) -> T) -> Result<T, Refusal> {
        let state = self.state();
        let Some(repo) = state.repos.get(repo) else {
            return Err(Refusal(401, "RepoNotFound", "Invalid username or password."));
        };
        let commit = repo.revisions.get(revision).map_or(revision, String::as_str);
        if repo.listing.is_none() && !repo.commits.contains_key(commit) {
            return Err(Refusal(404, "RevisionNotFound", "Invalid rev id"));
        }
        Ok(read(repo, commit))
    }
}

impl Repo {
    fn content(&self, commit: &str, path: &str) -> Option<Content> {
        self.commits.get(commit)?.get(path).cloned()
    }

    fn list(&self, commit: &str) -> String {
        if let Some(listing) = &self.listing {
            return listing.clone();
        }
        let siblings = self.commits.get(commit).into_iter().flatten().map(|(path, content)| {
            let size = content.bytes.len();
            let mut sibling = json!({"rfilename": path, "size": size, "blobId": content.blob_id});
            if let Some(sha256) = &content.sha256 {
                sibling["lfs"] = json!({"sha256": sha256, "size": size, "pointerSize": 134});
            }
            sibling
        });
        json!({"sha": commit, "private": false, "siblings": siblings.collect::<Vec<_>>()}).to_string()
    }
}

fn redirect(shared: &Shared, content: &Content, sha256: &str, path: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    insert(&mut response, "location", format!("http://{}/{path}", shared.storage));
    insert(&mut response, "x-linked-etag", format!("\"{sha256}\""));
    insert(&mut response, "x-linked-size", content.bytes.len().to_string());
    response
}

#[expect(clippy::expect_used, reason = "the values are constants of visible ASCII")]
fn insert(response: &mut Response<Body>, name: &'static str, value: String) {
    response.headers_mut().insert(name, value.try_into().expect("a header's value"));
}

/// The first byte of a `Range: bytes=N-` header.
fn range_start(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// A status with the hub's error code and message.
struct Refusal(u16, &'static str, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let Self(status, code, message) = self;
        let mut response = Response::new(Body::from(json!({"error": message}).to_string()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in [("x-error-code", code), ("x-error-message", message)] {
            if !value.is_empty() {
                insert(&mut response, name, value.to_owned());
            }
        }
        response
    }
}
