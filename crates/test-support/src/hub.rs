//! A stand-in for the Hugging Face hub: real HTTP on loopback, the real hub's addresses, headers, redirects
//! and refusals, and faults on demand. Every wait in it is for an event, so tests need no sleeps.
//!
//! Small files come from the hub itself, `*.safetensors` by a redirect to a second listener, as LFS files do.
//! A fault or a hold strikes where the bytes of a file are served.

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

/// The key of a listing where a file's path is asked for.
pub const LISTING: &str = "";

/// A running hub; it stops when dropped.
pub struct Hub {
    shared: Arc<Shared>,
    address: SocketAddr,
    _servers: JoinSet<()>,
}

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks after so many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after so many bytes of the body, and the connection stays open.
    StallAfter(usize),
    /// The right number of bytes, but others.
    WrongBytes,
    /// A shorter file, honestly announced as such.
    Shorter,
    /// A file ten times as long, honestly announced as such.
    Longer,
    /// The whole file with status 200, whatever range was asked for.
    IgnoreRange,
    /// 416 whatever range was asked for.
    RefuseRange,
    /// An error status, with a `Retry-After` in seconds if given.
    Status(u16, Option<u64>),
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// A file's path, or [`LISTING`].
    pub path: String,
    /// Whether it came to the storage host to which the hub redirects.
    pub storage: bool,
    /// The header `Range`.
    pub range: Option<String>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
}

/// Answers that wait. Dropping it does not release them.
pub struct Held {
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
    seen: Vec<RecordedRequest>,
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
    /// Git blob id of the content; for large files the hub has that of a pointer, which no client uses.
    blob_id: String,
    /// Of large files only.
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

    /// The endpoint, as HF_ENDPOINT wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// This hub, with all files below a directory as a repository's `main`.
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

    /// Makes a revision of a repository, new or moved, stand for these files. Returns its commit.
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

    /// Refuses every request without this token, as the hub does for private repositories.
    pub fn require_token(&self, token: &str) {
        self.shared.state().token = Some(token.to_owned());
    }

    /// Refuses everyone: the repository's conditions are accepted by nobody.
    pub fn gate(&self, repo: &str) {
        self.shared.state().repos.entry(repo.to_owned()).or_default().gated = true;
    }

    /// Answers listings of a repository with this text.
    pub fn answer_listing(&self, repo: &str, body: impl Into<String>) {
        self.shared.state().repos.entry(repo.to_owned()).or_default().listing = Some(body.into());
    }

    /// Spoils the next answer for a path ([`LISTING`] too); several faults strike one after the other.
    pub fn inject_fault(&self, path: &str, fault: Fault) {
        self.shared.state().faults.entry(path.to_owned()).or_default().push_back(fault);
    }

    /// Lets answers for a path wait until they are released.
    pub fn hold(&self, path: &str) -> Held {
        let gate = Gate { arrived: watch::Sender::new(false), released: watch::Sender::new(false) };
        self.shared.state().gates.insert(path.to_owned(), gate.clone());
        Held { gate }
    }

    /// All requests so far, in order.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.state().seen.clone()
    }

    /// How often a path was asked for; a redirect followed to the storage host is not another time.
    pub fn requests_for(&self, path: &str) -> usize {
        self.shared.state().seen.iter().filter(|seen| seen.path == path && !seen.storage).count()
    }

    /// How many bytes of a file have been sent, over all requests.
    pub fn bytes_sent(&self, path: &str) -> usize {
        self.shared.state().sent.get(path).copied().unwrap_or_default()
    }
}

impl Held {
    /// Waits until a request has come.
    pub async fn arrived(&self) {
        // An error means that the gate is gone, and with it every reason to wait.
        let _ = self.gate.arrived.subscribe().wait_for(|arrived| *arrived).await;
    }

    /// Lets the waiting answers, and all later ones, go.
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
