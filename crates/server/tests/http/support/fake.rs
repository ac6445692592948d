//! A fake provider. The name of a model decides what the model does. A vector depends on the text alone, so that a test
//! can compute the expected one.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, InputError,
    ModelInfo, ModelRef, ModelState, ModelStatus, Provider, ProviderKind, Retry, SpaceId, TokenCount,
    TokenCounter, Truncate,
};
use tokio::sync::{Semaphore, watch};

/// The default model. It responds without delay.
pub const PLAIN: &str = "test/plain";
/// Length of its vectors.
pub const DIM: usize = 8;
/// Maximum tokens of an input: one per word, and two special ones.
pub const MAX_TOKENS: usize = 12;

/// The state of the provider. `test/gated` waits for a permit of the gate, `test/failing` fails with `failure`,
/// `test/panicking` panics, the tokenizer of `test/never-loaded` is never loaded, and every other `test/…` embeds. Other names are unknown.
pub struct Fake {
    /// The state of every model.
    pub state: Mutex<Option<ModelState>>,
    /// The error of `test/failing`.
    pub failure: Mutex<EmbedError>,
    /// One permit lets one gated request continue.
    pub gate: Semaphore,
    /// Number of gated requests that have begun.
    pub begun: watch::Sender<usize>,
    /// Number of gated requests that have ended, by a response or by a drop.
    pub ended: watch::Sender<usize>,
    /// The last request.
    pub last_request: Mutex<Option<EmbedRequest>>,
    /// Number of requests to the models.
    pub requests: AtomicUsize,
    /// Texts that contain this are refused.
    pub refused: Mutex<Option<&'static str>>,
    /// Downloads and warm-ups, in order.
    pub events: Mutex<Vec<String>>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(Some(ModelState::Loaded)),
            failure: Mutex::new(EmbedError::internal("no failure is configured")),
            gate: Semaphore::new(0),
            begun: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            last_request: Mutex::default(),
            requests: AtomicUsize::new(0),
            refused: Mutex::default(),
            events: Mutex::default(),
        })
    }

    pub fn set_state(&self, state: impl Into<Option<ModelState>>) {
        *self.state.lock().unwrap() = state.into();
    }

    /// The last request to the provider.
    pub fn last(&self) -> EmbedRequest {
        self.last_request.lock().unwrap().clone().expect("a request to the provider")
    }

    /// The number of requests to the models.
    pub fn calls(&self) -> usize {
        self.requests.load(SeqCst)
    }

    /// Waits until `count` gated requests have begun.
    pub async fn has_begun(&self, count: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= count).await.unwrap();
    }

    /// Waits until `count` gated requests have ended.
    pub async fn has_ended(&self, count: usize) {
        self.ended.subscribe().wait_for(|ended| *ended >= count).await.unwrap();
    }
}

/// The provider. It is a newtype, because `Provider` is a trait of another crate, and because its models keep an `Arc`.
pub struct FakeProvider(pub Arc<Fake>);

impl Provider for FakeProvider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::HuggingFace
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        Box::pin(async move {
            if !model.name.starts_with("test/") {
                return Err(EmbedError::model_not_found(format!(
                    "model '{model}' is neither on this machine nor on the hub"
                )));
            }
            let card = Arc::new(ModelInfo {
                name: Arc::clone(&model.name),
                provider: ProviderKind::HuggingFace,
                dimensions: NonZeroUsize::new(DIM),
                max_tokens: NonZeroUsize::new(MAX_TOKENS),
                matryoshka: false,
            });
            Ok(Arc::new(FakeModel { fake: Arc::clone(&self.0), card, limits: CallLimits::default() })
                as Arc<dyn Embedder>)
        })
    }

    fn download<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>> {
        Box::pin(async move {
            let _in_progress = (&*model.name == "test/gated").then(|| GatedRequest::begin(&self.0));
            if &*model.name == "test/gated" {
                self.0.gate.acquire().await.unwrap().forget();
            }
            if &*model.name == "test/failing" {
                return Err(self.0.failure.lock().unwrap().clone());
            }
            self.0.events.lock().unwrap().push(format!("downloaded {model}"));
            Ok(())
        })
    }

    fn state(&self, _: &ModelRef) -> Option<ModelState> {
        self.0.state.lock().unwrap().clone()
    }

    fn models(&self) -> Vec<ModelStatus> {
        let state = self.0.state.lock().unwrap().clone();
        state.map(|state| ModelStatus { name: PLAIN.into(), state }).into_iter().collect()
    }
}

struct FakeModel {
    fake: Arc<Fake>,
    card: Arc<ModelInfo>,
    limits: CallLimits,
}

/// Counts words.
struct Words;

impl TokenCounter for Words {
    fn count(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn added_tokens(&self) -> usize {
        2
    }

    fn is_exact(&self) -> bool {
        true
    }
}

impl Embedder for FakeModel {
    fn model(&self) -> &Arc<ModelInfo> {
        &self.card
    }

    fn limits(&self) -> &CallLimits {
        &self.limits
    }

    fn count_tokens(&self, text: &str) -> TokenCount {
        TokenCount::Exact(text.split_whitespace().count() + 2)
    }

    fn token_counter(&self) -> BoxFuture<'_, Result<Arc<dyn TokenCounter>, EmbedError>> {
        Box::pin(async {
            if &*self.card.name == "test/never-loaded" {
                std::future::pending::<()>().await;
            }
            Ok(Arc::new(Words) as Arc<dyn TokenCounter>)
        })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            *self.fake.last_request.lock().unwrap() = Some(request.clone());
            self.fake.requests.fetch_add(1, SeqCst);
            match &*self.card.name {
                "test/gated" => {
                    let _in_progress = GatedRequest::begin(&self.fake);
                    self.fake.gate.acquire().await.unwrap().forget();
                    self.respond(&request)
                }
                "test/failing" => Err(self.fake.failure.lock().unwrap().clone()),
                "test/panicking" => panic!("as configured"),
                _ => self.respond(&request),
            }
        })
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async move {
            if &*self.card.name == "test/failing" {
                return Err(self.fake.failure.lock().unwrap().clone());
            }
            self.fake.events.lock().unwrap().push(format!("warmed {}", self.card.name));
            Ok(())
        })
    }
}

impl FakeModel {
    fn respond(&self, request: &EmbedRequest) -> Result<Embeddings, EmbedError> {
        let counts: Vec<usize> =
            request.inputs.iter().map(|input| input.text().unwrap().split_whitespace().count() + 2).collect();
        let long = || counts.iter().enumerate().filter(|(_, count)| **count > MAX_TOKENS);
        if request.truncate == Some(Truncate::None) && long().next().is_some() {
            let inputs = long().map(|(index, &tokens)| InputError { index, tokens: Some(tokens) }).collect();
            let message =
                format!("an input is longer than the {MAX_TOKENS} tokens that '{}' reads", self.card.name);
            return Err(EmbedError::new(ErrorKind::InputTooLong, Fault::Caller, Retry::Never, message)
                .with_inputs(inputs));
        }
        let refused = *self.fake.refused.lock().unwrap();
        let is_refused = |input: &embeddery_core::Input| {
            refused.is_some_and(|word| input.text().is_some_and(|text| text.contains(word)))
        };
        let inputs: Vec<_> =
            request.inputs.iter().enumerate().filter(|(_, input)| is_refused(input)).collect();
        if !inputs.is_empty() {
            let inputs = inputs.into_iter().map(|(index, _)| InputError { index, tokens: None }).collect();
            return Err(EmbedError::invalid("the vendor refuses the text").with_inputs(inputs));
        }
        Ok(Embeddings {
            data: request
                .inputs
                .iter()
                .flat_map(|input| vector(input.text().unwrap(), request.normalize))
                .collect(),
            dim: DIM,
            space: SpaceId::new(if &*self.card.name == "test/gated" { "gated-space" } else { "test-space" }),
            tokens: counts.iter().map(|&count| count.min(MAX_TOKENS) as u32).collect(),
            billed_tokens: counts.iter().map(|&count| count.min(MAX_TOKENS) as u64).sum(),
            truncated: long().count(),
            failed: Vec::new(),
            served_by: Arc::clone(&self.card),
        })
    }
}

/// The vector of a text. Its numbers have many digits, so that a test notices a loss of precision.
pub fn vector(text: &str, normalize: bool) -> Vec<f32> {
    let mut seed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut vector: Vec<f32> = (0..DIM)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((seed >> 33) as f32 / (1_u64 << 30) as f32) - 1.0
        })
        .collect();
    if normalize {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

/// A gated request in progress.
struct GatedRequest<'a>(&'a Fake);

impl<'a> GatedRequest<'a> {
    fn begin(fake: &'a Fake) -> Self {
        fake.begun.send_modify(|begun| *begun += 1);
        Self(fake)
    }
}

impl Drop for GatedRequest<'_> {
    fn drop(&mut self) {
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}
