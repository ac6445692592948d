//! Stand-ins for the vendors: real HTTP on loopback, each vendor's addresses, fields, limits and errors, and
//! misbehaviour on command. What was asked of them is recorded, so that tests can say what was billed.
//!
//! One server speaks all forms, each below its own address ([`Vendors::base_url`]). A text's vector is a
//! function of the text alone ([`vector()`]), whatever the form, so tests know which vectors are due. Nothing
//! in it sleeps except the slow drip; whoever needs requests to wait holds them ([`Vendors::hold`]).

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

/// Running stand-ins; they stop when dropped.
pub struct Vendors {
    shared: Arc<Shared>,
    address: SocketAddr,
    _server: JoinSet<()>,
}

/// The ways of asking for vectors that the server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VendorApi {
    /// OpenAI.
    OpenAi,
    /// Azure OpenAI: the deployment in the path, `api-key`, `api-version`.
    Azure,
    /// Cohere v2.
    Cohere,
    /// Gemini's own form.
    Google,
    /// Mistral.
    Mistral,
    /// Voyage.
    Voyage,
    /// A server near by that speaks OpenAI's form and knows no other `encoding_format` than its two.
    LocalOpenAi,
    /// Ollama's `/api/embed`.
    Ollama,
    /// Ollama's `/api/embeddings`: one text, and the vector is not of unit length.
    OllamaLegacy,
    /// Text Embeddings Inference.
    Tei,
    /// The replaced service's own form for local servers.
    Tldw,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// In which form.
    pub form: VendorApi,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The whole body; null when it was no JSON.
    pub body: Value,
    /// The model it named (for Azure: the deployment).
    pub model: String,
    /// The texts it asked vectors for; token ids as [`token_text`] writes them.
    pub texts: Vec<String>,
}

/// Requests that wait. Dropping it does not release them.
pub struct Held {
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
    always: Option<Behaviour>,
    poison: HashSet<String>,
    lengths: HashMap<String, usize>,
    keys: Option<Vec<String>>,
    answer_headers: Vec<(String, String)>,
    gate: Option<Gate>,
    /// Requests with this text wait.
    text_gate: Option<(String, Gate)>,
    seen: Vec<Seen>,
}

impl Vendors {
    /// Starts well-behaved stand-ins that accept any key.
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

    /// What goes where the real vendor's base address would: with `/v1` for OpenAI, Mistral and Voyage, the
    /// root for Cohere and Google, the resource for Azure; for local servers the whole address (`api_url`).
    pub fn base_url(&self, form: VendorApi) -> String {
        let path = match form {
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

    /// How the next request is treated; several calls make a script, one request after the other.
    pub fn next(&self, behaviour: Behaviour) {
        self.shared.state().script.push_back(behaviour);
    }

    /// How every request is treated once the script is over; `None`: well.
    pub fn always(&self, behaviour: Option<Behaviour>) {
        self.shared.state().always = behaviour;
    }

    /// Every request that holds this text is refused as a whole, as the vendors do.
    pub fn poison(&self, text: &str) {
        self.shared.state().poison.insert(text.to_owned());
    }

    /// The length of a model's vectors, where it should not be the real model's (or 16, for unknown models).
    pub fn set_length(&self, model: &str, length: usize) {
        self.shared.state().lengths.insert(model.to_owned(), length);
    }

    /// Refuses every other key.
    pub fn accept_only(&self, keys: &[&str]) {
        self.shared.state().keys = Some(keys.iter().map(|key| (*key).to_owned()).collect());
    }

    /// Sends these headers with every answer (`x-ratelimit-remaining-requests`, …).
    pub fn answer_with_headers(&self, headers: &[(&str, &str)]) {
        self.shared.state().answer_headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Lets requests wait until they are released.
    pub fn hold(&self) -> Held {
        let gate = Gate::new();
        self.shared.state().gate = Some(gate.clone());
        Held { gate }
    }

    /// Lets requests with this text wait until they are released.
    pub fn hold_text(&self, text: &str) -> Held {
        let gate = Gate::new();
        self.shared.state().text_gate = Some((text.to_owned(), gate.clone()));
        Held { gate }
    }

    /// All requests so far, in the order of their coming.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// All texts asked for so far, over all requests: what a vendor would have billed.
    pub fn texts(&self) -> Vec<String> {
        self.shared.state().seen.iter().flat_map(|seen| seen.texts.iter().cloned()).collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.state().seen.clear();
    }
}

impl Gate {
    fn new() -> Self {
        Self { arrived: watch::Sender::new(0), released: watch::Sender::new(false) }
    }
}

impl Held {
    /// Waits until so many requests have come.
    pub async fn arrived(&self, count: usize) {
        // An error means that the gate is gone, and with it every reason to wait.
        let _ = self.gate.arrived.subscribe().wait_for(|arrived| *arrived >= count).await;
    }

    /// Lets the waiting requests, and all later ones, go.
    pub fn release(&self) {
        self.gate.released.send_replace(true);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
