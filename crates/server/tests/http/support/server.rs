//! A server on its own port, and helpers that send requests over HTTP or plain TCP.

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use embeddery_accounts::AccountsConfig;
use embeddery_core::{Embedder, ModelRef, ProviderKind};
use embeddery_gateway::{
    AdjustDimensions, BreakerConfig, BreakerRegistry, ConfiguredModel, Deadline, FallbackModels, Metrics,
    Policy, RequestMetrics, Router, RouterConfig, Stack, TokenDecoder, TokenEncoding, ValidateResponse,
};
use embeddery_ingest::Ingest;
use embeddery_pipeline::{JobStore, Queue, QueueOptions, SqliteJobs, SqliteJobsConfig, SqliteQueue};
use embeddery_server::{
    AdminControls, App, BacklogLimit, Collections, JobLimits, Jobs, ReloadHandle, ReloadableApp, Reloaded,
    ServerMetrics, Settings, reload_channel, serve,
};
use embeddery_store::{SqliteConfig, SqliteStore};
use prometheus_client::registry::Registry;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header::HeaderMap};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::accounts;
use super::fake::{Fake, FakeProvider, PLAIN};

/// The key of every test server.
pub const KEY: &str = "a-key-for-tests-only";

/// The parts of the API around a fake provider, with the wrappers in the order of the binary.
fn app(fake: &Arc<Fake>, settings: Settings, accounts: AccountsConfig, jobs: Jobs) -> App {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let http_metrics = ServerMetrics::new(&mut registry);
    jobs.store.metrics().register(&mut registry);
    let router = Router::new(RouterConfig {
        providers: vec![Arc::new(FakeProvider(Arc::clone(fake)))],
        models: vec![ConfiguredModel::new("small", ProviderKind::HuggingFace, ModelRef::new(PLAIN))],
        default_model: "small".into(),
        vendor_models: Vec::new(),
        stack: Arc::new(TestStack(metrics.clone())),
        policy: Policy::default(),
        decoder: Arc::new(TokenDecoder::new(TokenEncoding::Cl100k)),
        metrics,
    });
    let controls =
        AdminControls { breakers: Arc::new(BreakerRegistry::new(BreakerConfig::default())), cache: None };
    // The directory outlives the test, because the server may still write after the test has ended.
    let base_dir = tempfile::tempdir().unwrap().keep();
    let store = SqliteStore::new(SqliteConfig {
        base_dir,
        open_users: 4,
        matrix_bytes: 16 << 20,
        search_threads: 1,
        min_free_bytes: 0,
    });
    App {
        router: Arc::new(router),
        controls,
        accounts: accounts::open(accounts),
        settings,
        collections: Collections::new(Arc::new(store)),
        jobs,
        registry: Arc::new(registry),
        traced: false,
        http_metrics,
        reloads: Some(reload_without_changes()),
    }
}

/// Reloads a configuration that never changes.
fn reload_without_changes() -> ReloadHandle {
    let (reloads, mut requests) = reload_channel();
    tokio::spawn(async move {
        while let Some(reply) = requests.recv().await {
            let _ = reply.send(Ok(Reloaded::default()));
        }
    });
    reloads
}

/// Jobs without workers: a test does what a worker would do.
fn jobs(dir: &Path) -> Jobs {
    let config = SqliteJobsConfig { path: dir.join("jobs.db"), min_free_bytes: 0 };
    let backlog = BacklogLimit { items: 100_000, bytes: 1 << 30, age: Duration::from_secs(3600) };
    let limits = JobLimits {
        documents: 100_000,
        tenant: backlog,
        all: backlog,
        retention: Duration::from_secs(7 * 86_400),
    };
    let queue = SqliteQueue::open(&dir.join("queue.db"), QueueOptions::default()).unwrap();
    Jobs { store: Arc::new(SqliteJobs::open(config).unwrap()), queue: Arc::new(queue), limits }
}

/// The wrappers that affect the API. The others are tested with the binary.
struct TestStack(Metrics);

impl Stack for TestStack {
    fn wrap_model(&self, adapter: Arc<dyn Embedder>, label: &str) -> Arc<dyn Embedder> {
        Arc::new(AdjustDimensions::new(Arc::new(ValidateResponse(adapter)), &self.0, label))
    }

    fn wrap_request(
        &self,
        model: Arc<dyn Embedder>,
        _: Option<FallbackModels>,
        label: &str,
    ) -> Arc<dyn Embedder> {
        Arc::new(RequestMetrics::new(Arc::new(Deadline(model)), &self.0, label))
    }
}

/// A running server. It shuts down when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub fake: Arc<Fake>,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<std::io::Result<()>>,
    /// The job store, as workers use it.
    pub jobs: Arc<dyn JobStore>,
    pub queue: Arc<dyn Queue>,
    /// The ingest of the server, for workers in its process.
    pub ingest: Ingest,
    /// Directory of the usage database, the audit log, the job store and the queue.
    pub dir: TempDir,
    client: Client,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// Starts with changed settings. The key is [`KEY`].
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_accounts(|settings, _| change(settings)).await
    }

    /// Starts with changed settings and accounts.
    pub async fn with_accounts(change: impl FnOnce(&mut Settings, &mut AccountsConfig)) -> Self {
        Self::with_jobs(change, |_| ()).await
    }

    /// Starts with changed settings, accounts and jobs.
    pub async fn with_jobs(
        change: impl FnOnce(&mut Settings, &mut AccountsConfig),
        change_jobs: impl FnOnce(&mut Jobs),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut settings, mut accounts) = (Settings::default(), accounts::plain(dir.path()));
        change(&mut settings, &mut accounts);
        let mut parts = jobs(dir.path());
        change_jobs(&mut parts);
        let (jobs, queue) = (Arc::clone(&parts.store), Arc::clone(&parts.queue));
        let fake = Fake::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let app = app(&fake, settings, accounts, parts);
        let ingest = app.ingest();
        let live = Arc::new(ReloadableApp::new(app));
        let task = tokio::spawn(serve(listener, live, shutdown.clone(), Duration::from_secs(20)));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { address, fake, shutdown, task, jobs, queue, ingest, dir, client }
    }

    /// A request without a key.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("x-api-key", KEY)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// Posts bytes with the content type of JSON.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        Answer::of(request.body(body.into())).await
    }

    /// A connection that has sent `bytes`.
    pub async fn tcp(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }

    /// The headers of a POST to `/v1/embeddings` for plain TCP. `more` are further header lines, each with its line end.
    pub fn head(more: &str) -> String {
        format!(
            "POST /v1/embeddings HTTP/1.1\r\nhost: test\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n{more}\r\n"
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A response with its whole body.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    /// The body, or null if it is not JSON.
    pub json: Value,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        Self::read(soon(request.send()).await.unwrap()).await
    }

    pub async fn read(mut response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        // This event stream does not end, so only its first event is read.
        let endless = status == 200 && response.url().path().ends_with("/orchestrator/events");
        let text = if endless {
            let first = soon(response.chunk()).await.unwrap().unwrap_or_default();
            String::from_utf8_lossy(&first).into_owned()
        } else {
            soon(response.text()).await.unwrap()
        };
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, text, json }
    }

    /// A header's value, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn message(&self) -> &str {
        self.json["error"]["message"]
            .as_str()
            .unwrap_or_else(|| panic!("not an error of the API: {}", self.text))
    }

    /// Asserts the format of an error response, and returns its code.
    pub fn code(&self) -> &str {
        assert!(!self.message().is_empty());
        assert!(!self.header("x-request-id").is_empty(), "no request id: {:?}", self.headers);
        let error = &self.json["error"];
        assert!(error["type"].is_string() && error.get("param").is_some(), "{}", self.text);
        assert!(!self.json["detail"].is_null(), "{}", self.text);
        error["code"].as_str().unwrap_or_else(|| panic!("no code: {}", self.text))
    }

    /// The vectors of a response with floats.
    pub fn vectors(&self) -> Vec<Vec<f32>> {
        let data = self.json["data"].as_array().unwrap_or_else(|| panic!("no vectors: {}", self.text));
        data.iter().map(|item| serde_json::from_value(item["embedding"].clone()).unwrap()).collect()
    }
}

/// Fails a test that hangs. The timeout is long, so that no test depends on the speed of the machine.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("done within the timeout")
}

/// Everything that the server still sends on a connection until its end.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the last byte also ends the connection.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
