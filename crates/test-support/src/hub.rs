//! A fake Hugging Face hub: real HTTP on loopback with the real hub's paths, headers, redirects and errors, and faults on
//! demand. It waits only for events, so tests need no sleeps.
//!
//! The hub serves small files itself and redirects `*.safetensors` to a second listener, as for LFS files. A fault or a
//! hold applies where the bytes of a file are served.

mod serve;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio::{sync::watch, task::JoinSet};

/// Stands for the listing of a repository where a method takes the path of a file.
pub const LISTING: &str = "";

/// A running hub. It stops when dropped.
pub struct Hub {
    shared: Arc<Shared>,
    address: SocketAddr,
    _servers: JoinSet<()>,
}

/// The fault of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed after this many bytes of the body.
    DisconnectAfter(usize),
    /// The body stops after this many bytes, and the connection stays open.
    StallAfter(usize),
    /// The correct number of bytes with wrong values.
    WrongBytes,
    /// Half of the file, with its actual length in the headers.
    Shorter,
    /// A file ten times as long, with its actual length in the headers.
    Longer,
    /// The whole file with status 200, also for a range request.
    IgnoreRange,
    /// Status 416 for any range.
    RefuseRange,
    /// An error status, with a `Retry-After` in seconds if given.
    Status(u16, Option<u64>),
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// A file's path, or [`LISTING`].
    pub path: String,
    /// Whether the storage host received it, to which the hub redirects.
    pub storage: bool,
    /// The header `Range`.
    pub range: Option<String>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
}

/// Responses that wait until they are released. Dropping the value does not release them.
pub struct HeldResponses {
    gate: Gate,
}

#[derive(Clone)]
struct Gate {
    arrived: watch::Sender<bool>,
    released: watch::Sender<bool>,
}

struct Shared {
    storage: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    repos: HashMap<String, Repo>,
    token: Option<String>,
    faults: HashMap<String, VecDeque<Fault>>,
    gates: HashMap<String, Gate>,
    requests: Vec<RecordedRequest>,
    sent: HashMap<String, usize>,
}

#[derive(Default)]
struct Repo {
    revisions: HashMap<String, String>,
    commits: HashMap<String, BTreeMap<String, Content>>,
    gated: bool,
    listing: Option<String>,
}

#[derive(Clone)]
struct Content {
    bytes: Bytes,
    /// The git blob id of the content. For a large file the real hub has the id of its pointer, which no client uses.
    blob_id: String,
    /// For large files only.
    sha256: Option<String>,
}

impl Hub {
    /// Starts an empty hub.
    pub async fn start() -> Self {
        let (hub, address) = serve::listen().await;
        let (storage_listener, storage) = serve::listen().await;
        let shared = Arc::new(Shared { storage, state: Mutex::default() });
        let mut servers = JoinSet::new();
        servers.spawn(serve::run(hub, Arc::clone(&shared), false));
        servers.spawn(serve::run(storage_listener, Arc::clone(&shared), true));
        Self { shared, address, _servers: servers }
    }

    /// The URL for `HF_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Publishes all files below a directory as the revision `main` of a repository.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test's own files are readable")]
    pub fn with_directory(self, repo: &str, directory: &Path) -> Self {
        let mut files = Vec::new();
        let mut pending = vec![directory.to_path_buf()];
        while let Some(current) = pending.pop() {
            for entry in fs::read_dir(current).expect("a directory").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let name = path
                        .strip_prefix(directory)
                        .expect("below the directory")
                        .to_string_lossy()
                        .into_owned();
                    files.push((name, fs::read(&path).expect("a file")));
                }
            }
        }
        self.publish(repo, "main", files);
        self
    }

    /// Publishes these files as a revision of a repository. An existing revision is moved. Returns the commit.
    pub fn publish<P, B>(&self, repo: &str, revision: &str, files: impl IntoIterator<Item = (P, B)>) -> String
    where
        P: Into<String>,
        B: Into<Bytes>,
    {
        let files: BTreeMap<String, Content> = files
            .into_iter()
            .map(|(path, bytes)| (path.into(), bytes.into()))
            .map(|(path, bytes)| (path.clone(), Content::new(&path, bytes)))
            .collect();
        let mut commit = Sha1::new_with_prefix(repo);
        for (path, content) in &files {
            commit.update(format!("\0{path}\0{}", content.blob_id));
        }
        let commit = hex(&commit.finalize());
        let mut state = self.shared.state();
        let repo = state.repos.entry(repo.to_owned()).or_default();
        repo.commits.insert(commit.clone(), files);
        repo.revisions.insert(revision.to_owned(), commit.clone());
        commit
    }

    /// Makes the hub refuse every request without this token, as for private repositories.
    pub fn require_token(&self, token: &str) {
        self.shared.state().token = Some(token.to_owned());
    }

    /// Makes the repository gated: every request is refused, because no user has accepted its conditions.
    pub fn set_gated(&self, repo: &str) {
        self.shared.state().repos.entry(repo.to_owned()).or_default().gated = true;
    }

    /// Replaces the listing of a repository by this text.
    pub fn set_listing(&self, repo: &str, body: impl Into<String>) {
        self.shared.state().repos.entry(repo.to_owned()).or_default().listing = Some(body.into());
    }

    /// Adds a fault for a path or [`LISTING`]. Each response for the path takes the next fault.
    pub fn inject_fault(&self, path: &str, fault: Fault) {
        self.shared.state().faults.entry(path.to_owned()).or_default().push_back(fault);
    }

    /// Holds the responses for a path until they are released.
    pub fn hold(&self, path: &str) -> HeldResponses {
        let gate = Gate { arrived: watch::Sender::new(false), released: watch::Sender::new(false) };
        self.shared.state().gates.insert(path.to_owned(), gate.clone());
        HeldResponses { gate }
    }

    /// All recorded requests, in order of arrival.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.state().requests.clone()
    }

    /// The number of requests for a path, without those to the storage host.
    pub fn requests_for(&self, path: &str) -> usize {
        let state = self.shared.state();
        state.requests.iter().filter(|request| request.path == path && !request.storage).count()
    }

    /// The number of bytes of a file that were sent, over all requests.
    pub fn bytes_sent(&self, path: &str) -> usize {
        self.shared.state().sent.get(path).copied().unwrap_or_default()
    }
}

impl HeldResponses {
    /// Waits until a request has arrived.
    pub async fn arrived(&self) {
        // An error means that the hub has stopped, so no request can arrive.
        let _ = self.gate.arrived.subscribe().wait_for(|arrived| *arrived).await;
    }

    /// Releases the waiting responses and all later ones.
    pub fn release(&self) {
        self.gate.released.send_replace(true);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn new(path: &str, bytes: Bytes) -> Self {
        let mut blob = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
        blob.update(&bytes);
        let sha256 = path.ends_with(".safetensors").then(|| hex(&Sha256::digest(&bytes)));
        Self { blob_id: hex(&blob.finalize()), sha256, bytes }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
