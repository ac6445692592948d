//! Fake vendors: real HTTP on loopback with each vendor's paths, fields, limits and errors, and faults on demand. All
//! requests are recorded, so that a test can check what a vendor would have billed.
//!
//! One server serves all APIs, each below its own path ([`Vendors::base_url`]). The vector of a text is a function of the
//! text alone ([`vector()`]) in every API, so a test can compute the expected vectors. A test that needs requests to wait
//! holds them ([`Vendors::hold`]); the server sleeps only in [`Behaviour::Drip`].

mod behaviour;
mod faults;
mod limits;
mod request;
mod response;
mod serve;
mod vector;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};

pub use behaviour::Behaviour;
pub use vector::{token_text, vector};

/// The running fake vendors. They stop when dropped.
pub struct Vendors {
    shared: Arc<Shared>,
    address: SocketAddr,
    _server: JoinSet<()>,
}

/// The embedding APIs that the server implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VendorApi {
    /// OpenAI.
    OpenAi,
    /// Azure OpenAI: the deployment in the path, `api-key`, `api-version`.
    Azure,
    /// Cohere v2.
    Cohere,
    /// Gemini's native API.
    Google,
    /// Mistral.
    Mistral,
    /// Voyage.
    Voyage,
    /// A local server with OpenAI's API that accepts only OpenAI's two values of `encoding_format`.
    LocalOpenAi,
    /// Ollama's `/api/embed`.
    Ollama,
    /// Ollama's `/api/embeddings`: one text, and the vector is not of unit length.
    OllamaLegacy,
    /// Text Embeddings Inference.
    Tei,
    /// The API of the replaced service for local servers.
    Tldw,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct VendorRequest {
    /// The API that the path belongs to.
    pub api: VendorApi,
    /// Path and query.
    pub path: String,
    /// The headers, with names in lower case.
    pub headers: HashMap<String, String>,
    /// The body; null if it is not JSON.
    pub body: Value,
    /// The model in the request (for Azure: the deployment).
    pub model: String,
    /// The input texts; token ids are written as by [`token_text`].
    pub texts: Vec<String>,
}

/// Requests that wait until they are released. Dropping the value does not release them.
pub struct HeldRequests {
    gate: Gate,
}

#[derive(Clone)]
struct Gate {
    arrived: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Behaviour>,
    default: Option<Behaviour>,
    poison: HashSet<String>,
    dimensions: HashMap<String, usize>,
    keys: Option<Vec<String>>,
    /// The status of the refusal of base64.
    base64_refusal: Option<u16>,
    response_headers: Vec<(String, String)>,
    gate: Option<Gate>,
    /// Holds requests with this text.
    text_gate: Option<(String, Gate)>,
    requests: Vec<VendorRequest>,
}

impl Vendors {
    /// Starts fake vendors without faults, which accept any key.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let mut server = JoinSet::new();
        let address = serve::start(Arc::clone(&shared), &mut server).await;
        Self { shared, address, _server: server }
    }

    /// The server's root.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL to configure instead of the real vendor's base URL: with `/v1` for OpenAI, Mistral and Voyage, the root for
    /// Cohere and Google, the resource for Azure, and the complete URL (`api_url`) for local servers.
    pub fn base_url(&self, api: VendorApi) -> String {
        let path = match api {
            VendorApi::OpenAi => "openai/v1",
            VendorApi::Azure => "azure",
            VendorApi::Cohere => "cohere",
            VendorApi::Google => "google",
            VendorApi::Mistral => "mistral/v1",
            VendorApi::Voyage => "voyage/v1",
            VendorApi::LocalOpenAi => "local/v1/embeddings",
            VendorApi::Ollama => "ollama/api/embed",
            VendorApi::OllamaLegacy => "ollama/api/embeddings",
            VendorApi::Tei => "tei/embed",
            VendorApi::Tldw => "tldw/embed",
        };
        format!("{}/{path}", self.url())
    }

    /// Appends a behaviour to the script. Each request takes the next behaviour of the script.
    pub fn next(&self, behaviour: Behaviour) {
        self.shared.state().script.push_back(behaviour);
    }

    /// Sets the behaviour of requests after the end of the script; `None` is [`Behaviour::Normal`].
    pub fn set_default(&self, behaviour: Option<Behaviour>) {
        self.shared.state().default = behaviour;
    }

    /// Makes the vendors refuse every request that contains this text, as a whole.
    pub fn poison(&self, text: &str) {
        self.shared.state().poison.insert(text.to_owned());
    }

    /// Overrides the dimensions of a model. The default is the real model's dimensions, or 16 for an unknown model.
    pub fn set_dimensions(&self, model: &str, dimensions: usize) {
        self.shared.state().dimensions.insert(model.to_owned(), dimensions);
    }

    /// Makes the vendors refuse all other keys.
    pub fn accept_only(&self, keys: &[&str]) {
        self.shared.state().keys = Some(keys.iter().map(|key| (*key).to_owned()).collect());
    }

    /// Makes the vendors refuse `encoding_format: base64` with this status, as some servers with OpenAI's API do.
    pub fn refuse_base64(&self, status: u16) {
        self.shared.state().base64_refusal = Some(status);
    }

    /// Adds these headers to every response, for example `x-ratelimit-remaining-requests`.
    pub fn set_response_headers(&self, headers: &[(&str, &str)]) {
        self.shared.state().response_headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Holds all requests until they are released.
    pub fn hold(&self) -> HeldRequests {
        let gate = Gate::new();
        self.shared.state().gate = Some(gate.clone());
        HeldRequests { gate }
    }

    /// Holds requests with this text until they are released.
    pub fn hold_text(&self, text: &str) -> HeldRequests {
        let gate = Gate::new();
        self.shared.state().text_gate = Some((text.to_owned(), gate.clone()));
        HeldRequests { gate }
    }

    /// All recorded requests, in order of arrival.
    pub fn requests(&self) -> Vec<VendorRequest> {
        self.shared.state().requests.clone()
    }

    /// The texts of all recorded requests: what a vendor would have billed.
    pub fn texts(&self) -> Vec<String> {
        self.shared.state().requests.iter().flat_map(|request| request.texts.iter().cloned()).collect()
    }

    /// Deletes the recorded requests.
    pub fn clear_requests(&self) {
        self.shared.state().requests.clear();
    }
}

impl Gate {
    fn new() -> Self {
        Self { arrived: watch::Sender::new(0), released: watch::Sender::new(false) }
    }
}

impl HeldRequests {
    /// Waits until `count` requests have arrived.
    pub async fn arrived(&self, count: usize) {
        // An error means that the server has stopped, so no request can arrive.
        let _ = self.gate.arrived.subscribe().wait_for(|arrived| *arrived >= count).await;
    }

    /// Releases the waiting requests and all later ones.
    pub fn release(&self) {
        self.gate.released.send_replace(true);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
