//! A provider that does what a test says, and remembers which texts it was asked for. Texts starting with
//! `Are you there?` are the pipeline's own probes.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input,
    ModelInfo, ModelRef, ModelState, ModelStatus, Provider, ProviderKind, Retry, SpaceId, TokenCount,
};
use tokio::sync::watch;

/// Length of its vectors.
pub const DIM: usize = 8;

/// What the provider does.
#[derive(Default)]
pub struct State {
    /// Calls with a text that holds this are refused as the caller's mistake.
    pub refused: Option<&'static str>,
    /// Calls with a text that holds this make the upstream fall over.
    pub crashing: Option<&'static str>,
    /// The next call with a text that holds this blocks its thread until somebody sends, or hangs up.
    pub blocking: Option<(&'static str, std::sync::mpsc::Receiver<()>)>,
    /// Every call fails so.
    pub down: Option<EmbedError>,
    /// The space of its vectors.
    pub space: Option<&'static str>,
    /// Texts answered.
    pub texts: Vec<String>,
    /// Calls, failed ones too.
    pub calls: Vec<usize>,
    /// A call ends when the next has begun, or none comes for so long: somebody is always at work.
    pub overlapping: Option<Duration>,
    /// Calls with a text that holds this panic, as a defect of ours would.
    pub panicking: Option<&'static str>,
}

pub struct Fake {
    state: Mutex<State>,
    /// Calls wait while it is shut.
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

    /// Texts answered, probes left out, sorted.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<_> =
            self.state().texts.iter().filter(|text| !text.starts_with("Are you")).cloned().collect();
        texts.sort();
        texts
    }
}

/// An upstream that is out of order.
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

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut begun = self.fake.begun.subscribe();
            self.fake.begun.send_modify(|begun| *begun += 1);
            let (mine, overlapping) = (*begun.borrow_and_update(), self.fake.state().overlapping);
            if let Some(longest) = overlapping {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let _ = tokio::time::timeout(longest, begun.wait_for(|begun| *begun > mine)).await;
            }
            self.fake.open.subscribe().wait_for(|open| *open).await.unwrap();
            let texts: Vec<&str> = request.inputs.iter().filter_map(Input::text).collect();
            let holds =
                |what: Option<&str>| what.is_some_and(|what| texts.iter().any(|text| text.contains(what)));
            let blocks = |(what, _): &mut (&str, _)| holds(Some(*what));
            let blocking = self.fake.state().blocking.take_if(blocks);
            if let Some((_, until)) = blocking {
                let _ = until.recv();
            }
            let mut state = self.fake.state();
            state.calls.push(texts.len());
            if holds(state.panicking) {
                drop(state);
                panic!("a defect");
            }
            if let Some(error) = &state.down {
                return Err(error.clone());
            }
            if holds(state.crashing) {
                return Err(unavailable());
            }
            if holds(state.refused) {
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

/// The vector that is due for a text.
pub fn vector(text: &str) -> Vec<f32> {
    let hash = blake3::hash(text.as_bytes());
    let numbers: Vec<f32> = hash.as_bytes()[..DIM].iter().map(|byte| f32::from(*byte) - 127.5).collect();
    let length = numbers.iter().map(|x| x * x).sum::<f32>().sqrt();
    numbers.iter().map(|x| x / length).collect()
}
