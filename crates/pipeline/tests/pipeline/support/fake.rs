//! A provider whose behaviour a test sets, and which records the texts that it embeds. Texts that start with
//! `Are you there?` are probes of the pipeline.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input,
    ModelInfo, ModelRef, ModelState, ModelStatus, Provider, ProviderKind, Retry, SpaceId, TokenCount,
    TokenCounter,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The length of its vectors.
pub const DIM: usize = 8;

/// The behaviour of the provider, and its calls.
#[derive(Default)]
pub struct State {
    /// Calls with a text that contains this are refused as invalid.
    pub refused: Option<&'static str>,
    /// Calls with a text that contains this fail as if the upstream had crashed.
    pub crashing: Option<&'static str>,
    /// The next call with a text that contains this blocks its thread until the channel is sent to or closed.
    pub blocking: Option<(&'static str, std::sync::mpsc::Receiver<()>)>,
    /// Every call fails with this.
    pub down: Option<EmbedError>,
    /// The space of the vectors.
    pub space: Option<&'static str>,
    /// Texts that were embedded.
    pub texts: Vec<String>,
    /// The number of texts of each call, including failed calls.
    pub calls: Vec<usize>,
    /// A call ends when the next one has begun, or when none begins for this time: a worker is always busy.
    pub overlapping: Option<Duration>,
    /// The memory of the machine, in models. A model is loaded while a token counter of it exists.
    pub memory: Option<Arc<Semaphore>>,
    /// Calls with a text that contains this panic, like a defect.
    pub panicking: Option<&'static str>,
}

pub struct Fake {
    state: Mutex<State>,
    /// Calls wait while this is false.
    pub open: watch::Sender<bool>,
    /// Calls that have begun.
    pub begun: watch::Sender<usize>,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            open: watch::Sender::new(true),
            begun: watch::Sender::new(0),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Texts that were embedded, sorted, without probes.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<_> =
            self.state().texts.iter().filter(|text| !text.starts_with("Are you")).cloned().collect();
        texts.sort();
        texts
    }
}

/// The error of an upstream that is out of service.
pub fn unavailable() -> EmbedError {
    EmbedError::new(ErrorKind::Unavailable, Fault::Upstream, Retry::Backoff, "fake failed (503)")
}

pub struct FakeProvider(pub Arc<Fake>);

impl Provider for FakeProvider {
    fn kind(&self) -> ProviderKind {
        ProviderKind::OpenAi
    }

    fn open<'a>(&'a self, model: &'a ModelRef) -> BoxFuture<'a, Result<Arc<dyn Embedder>, EmbedError>> {
        Box::pin(async move {
            let card = Arc::new(ModelInfo {
                name: Arc::clone(&model.name),
                provider: ProviderKind::OpenAi,
                dimensions: NonZeroUsize::new(DIM),
                max_tokens: NonZeroUsize::new(100),
                matryoshka: false,
            });
            Ok(Arc::new(FakeModel { fake: Arc::clone(&self.0), card, limits: CallLimits::default() })
                as Arc<dyn Embedder>)
        })
    }

    fn download<'a>(&'a self, _: &'a ModelRef) -> BoxFuture<'a, Result<(), EmbedError>> {
        Box::pin(async { Ok(()) })
    }

    fn state(&self, _: &ModelRef) -> Option<ModelState> {
        None
    }

    fn models(&self) -> Vec<ModelStatus> {
        Vec::new()
    }
}

struct FakeModel {
    fake: Arc<Fake>,
    card: Arc<ModelInfo>,
    limits: CallLimits,
}

/// Counts words.
struct Words {
    _memory: Option<OwnedSemaphorePermit>,
}

impl TokenCounter for Words {
    fn count(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn added_tokens(&self) -> usize {
        0
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
        TokenCount::Exact(text.split_whitespace().count())
    }

    fn token_counter(&self) -> BoxFuture<'_, Result<Arc<dyn TokenCounter>, EmbedError>> {
        Box::pin(async {
            let memory = self.fake.state().memory.clone();
            let _memory = match memory {
                Some(memory) => Some(memory.acquire_owned().await.unwrap()),
                None => None,
            };
            Ok(Arc::new(Words { _memory }) as Arc<dyn TokenCounter>)
        })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut begun = self.fake.begun.subscribe();
            self.fake.begun.send_modify(|begun| *begun += 1);
            let (own, overlapping) = (*begun.borrow_and_update(), self.fake.state().overlapping);
            if let Some(max_wait) = overlapping {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _ = tokio::time::timeout(max_wait, begun.wait_for(|begun| *begun > own)).await;
            }
            self.fake.open.subscribe().wait_for(|open| *open).await.unwrap();
            let texts: Vec<&str> = request.inputs.iter().filter_map(Input::text).collect();
            let contains =
                |word: Option<&str>| word.is_some_and(|word| texts.iter().any(|text| text.contains(word)));
            let blocks = |(word, _): &mut (&str, _)| contains(Some(*word));
            let blocking = self.fake.state().blocking.take_if(blocks);
            if let Some((_, until)) = blocking {
                let _ = until.recv();
            }
            let mut state = self.fake.state();
            state.calls.push(texts.len());
            if contains(state.panicking) {
                drop(state);
                panic!("a defect");
            }
            if let Some(error) = &state.down {
                return Err(error.clone());
            }
            if contains(state.crashing) {
                return Err(unavailable());
            }
            if contains(state.refused) {
                return Err(EmbedError::invalid("one of the inputs cannot be processed"));
            }
            state.texts.extend(texts.iter().map(|text| (*text).to_owned()));
            Ok(Embeddings {
                data: texts.iter().flat_map(|text| vector(text)).collect(),
                dim: DIM,
                space: SpaceId::new(state.space.unwrap_or("fake-space")),
                tokens: texts.iter().map(|text| text.split_whitespace().count() as u32).collect(),
                billed_tokens: 0,
                truncated: 0,
                failed: Vec::new(),
                served_by: Arc::clone(&self.card),
            })
        })
    }
}

/// The vector of a text.
pub fn vector(text: &str) -> Vec<f32> {
    let hash = blake3::hash(text.as_bytes());
    let numbers: Vec<f32> = hash.as_bytes()[..DIM].iter().map(|byte| f32::from(*byte) - 127.5).collect();
    let length = numbers.iter().map(|x| x * x).sum::<f32>().sqrt();
    numbers.iter().map(|x| x / length).collect()
}
