//! A provider whose models do what their names say. Vectors depend on the text alone, so that a test can say
//! which ones are due.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, InputError,
    ModelInfo, ModelRef, ModelState, ModelStatus, Provider, ProviderKind, Retry, SpaceId, TokenCount,
    Truncate,
};
use tokio::sync::{Semaphore, watch};

/// The default model; it answers at once.
pub const PLAIN: &str = "test/plain";
/// Length of its vectors.
pub const DIM: usize = 8;
/// Tokens it reads: one a word, and two special ones.
pub const MAX_TOKENS: usize = 12;

/// The provider. Models: `test/plain` answers, `test/gated` waits for the gate, `test/failing` fails as told,
/// `test/panicking` panics; nobody else is known.
pub struct Fake {
    /// Where every model stands.
    pub state: Mutex<Option<ModelState>>,
    /// How `test/failing` fails.
    pub failure: Mutex<EmbedError>,
    /// Lets gated requests pass, one for each permit.
    pub gate: Semaphore,
    /// Gated requests that have begun.
    pub begun: watch::Sender<usize>,
    /// Gated requests that have ended, answered or dropped.
    pub ended: watch::Sender<usize>,
    /// What was asked last.
    pub asked: Mutex<Option<EmbedRequest>>,
    /// Models that were downloaded and warmed, in order.
    pub brought: Mutex<Vec<String>>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(Some(ModelState::Loaded)),
            failure: Mutex::new(EmbedError::internal("not told how to fail")),
            gate: Semaphore::new(0),
            begun: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            asked: Mutex::default(),
            brought: Mutex::default(),
        })
    }

    pub fn set_state(&self, state: impl Into<Option<ModelState>>) {
        *self.state.lock().unwrap() = state.into();
    }

    /// What the provider was asked last.
    pub fn last(&self) -> EmbedRequest {
        self.asked.lock().unwrap().clone().expect("the provider was asked")
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

/// The provider behind a newtype: the trait is foreign, and models must outlive the call that opens them.
pub struct FakeProvider(pub Arc<Fake>);

impl Provider for FakeProvider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::HuggingFace
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        Box::pin(async move {
            if !model.name.starts_with("test/") {
                return Err(EmbedError::model_not_found(format!(
                    "model '{model}' is neither here nor on the hub"
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
            let _ending = (&*model.name == "test/gated").then(|| Running::begin(&self.0));
            if &*model.name == "test/gated" {
                self.0.gate.acquire().await.unwrap().forget();
            }
            if &*model.name == "test/failing" {
                return Err(self.0.failure.lock().unwrap().clone());
            }
            self.0.brought.lock().unwrap().push(format!("downloaded {model}"));
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

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            *self.fake.asked.lock().unwrap() = Some(request.clone());
            match &*self.card.name {
                "test/gated" => {
                    let _ending = Running::begin(&self.fake);
                    self.fake.gate.acquire().await.unwrap().forget();
                    self.answer(&request)
                }
                "test/failing" => Err(self.fake.failure.lock().unwrap().clone()),
                "test/panicking" => panic!("told to"),
                _ => self.answer(&request),
            }
        })
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async move {
            if &*self.card.name == "test/failing" {
                return Err(self.fake.failure.lock().unwrap().clone());
            }
            self.fake.brought.lock().unwrap().push(format!("warmed {}", self.card.name));
            Ok(())
        })
    }
}

impl FakeModel {
    fn answer(&self, request: &EmbedRequest) -> Result<Embeddings, EmbedError> {
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

/// The vector of a text: numbers of every magnitude that a short decimal form could spoil.
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

/// A gated request under way.
struct Running<'a>(&'a Fake);

impl<'a> Running<'a> {
    fn begin(fake: &'a Fake) -> Self {
        fake.begun.send_modify(|begun| *begun += 1);
        Self(fake)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}
