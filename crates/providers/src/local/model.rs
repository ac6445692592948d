//! One local model as an [`Embedder`]: known from its configuration files at once, its weights loaded by the
//! first request that needs them, its texts computed by one engine thread through the queue.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Identity, Input, InputFault,
    InputType, Limits, ModelCard, ModelState, ProviderKind, Retry, SpaceId, TokenCount, Truncate,
};
use embeddery_engine::{
    Keep, LoadError, LoadOptions, Model, ModelFiles, Precision, Threads, TokenizeError, Tokens,
};
use tokio::sync::{OnceCell, Semaphore};

use super::{ModelOptions, queue::Queue};

/// Texts shorter than this, together, are tokenized where they are: handing them to another thread would
/// take longer than the work.
const INLINE_BYTES: usize = 1024;

/// What all local models share.
pub(super) struct Shared {
    threads: Arc<Threads>,
    /// Tokenizing happens beside the engine's pool; as many at a time as the pool has threads.
    tokenizing: Semaphore,
    queue_tokens: usize,
    precision: Precision,
}

impl Shared {
    pub(super) fn new(threads: Threads, queue_tokens: usize, precision: Precision) -> Self {
        let tokenizing = Semaphore::new(threads.count());
        Self { tokenizing, threads: Arc::new(threads), queue_tokens, precision }
    }
}

/// One model directory.
pub(super) struct LocalModel {
    card: Arc<ModelCard>,
    limits: Limits,
    slot: Arc<Slot>,
}

/// The model's place in memory. Shared with the task that fills it, which outlives an impatient caller.
struct Slot {
    name: Arc<str>,
    files: ModelFiles,
    options: LoadOptions,
    prompts: BTreeMap<String, String>,
    shared: Arc<Shared>,
    loaded: OnceCell<Arc<Loaded>>,
    failure: Mutex<Option<String>>,
}

/// A model in memory, with its engine thread.
struct Loaded {
    model: Arc<Model>,
    queue: Arc<Queue>,
    space: SpaceId,
    /// What configuration puts in place of the model's own prompts.
    prompts: BTreeMap<String, String>,
}

impl Loaded {
    /// What is put before a text for this purpose: what configuration says, else what the model's own files say. The
    /// names are those that model authors use.
    fn prompt(&self, purpose: Option<InputType>) -> &str {
        let names: &[&str] = match purpose {
            Some(InputType::Query) => &["query", "search_query"],
            Some(InputType::Document) => &["document", "passage", "search_document"],
            Some(InputType::Classification) => &["classification", "Classification"],
            Some(InputType::Clustering) => &["clustering", "Clustering"],
            None => &[],
        };
        let configured = names.iter().find_map(|name| self.prompts.get(*name)).map(String::as_str);
        let own = self.model.prompts();
        configured.or_else(|| own.named(names)).unwrap_or_else(|| own.default_prompt())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl LocalModel {
    /// Reads the directory's configuration files; weights come later. Blocks on the disk.
    pub(super) fn open(
        name: Arc<str>,
        directory: &Path,
        options: ModelOptions,
        shared: Arc<Shared>,
    ) -> Result<Self, EmbedError> {
        let files = ModelFiles::open(directory).map_err(|error| unusable(&name, &error))?;
        let load = LoadOptions {
            max_length: options.max_length.map(NonZeroUsize::get),
            precision: options.precision.unwrap_or(shared.precision),
            ..LoadOptions::default()
        };
        let info = files.info();
        let card = ModelCard {
            name: Arc::clone(&name),
            provider: ProviderKind::HuggingFace,
            dimensions: NonZeroUsize::new(info.dimensions),
            max_tokens: options.max_length.or(NonZeroUsize::new(info.max_tokens)),
            matryoshka: options.matryoshka,
        };
        let slot = Slot {
            name,
            files,
            options: load,
            prompts: options.prompts,
            shared,
            loaded: OnceCell::new(),
            failure: Mutex::default(),
        };
        Ok(Self { card: Arc::new(card), limits: Limits::default(), slot: Arc::new(slot) })
    }

    pub(super) fn state(&self) -> ModelState {
        if self.slot.loaded.initialized() {
            return ModelState::Loaded;
        }
        match &*self.slot.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => ModelState::Failed { reason: reason.clone() },
            None => ModelState::OnDisk,
        }
    }

    /// The model in memory, loaded now if it is not: by one task at a time, which goes on when its caller hangs up.
    async fn loaded(&self) -> Result<Arc<Loaded>, EmbedError> {
        if let Some(loaded) = self.slot.loaded.get() {
            return Ok(Arc::clone(loaded));
        }
        let slot = Arc::clone(&self.slot);
        tokio::spawn(async move { slot.loaded.get_or_try_init(|| load(&slot)).await.cloned() })
            .await
            .unwrap_or_else(|_| Err(EmbedError::internal("loading the model failed")))
    }
}

impl Embedder for LocalModel {
    fn model(&self) -> &Arc<ModelCard> {
        &self.card
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn count(&self, text: &str) -> TokenCount {
        let exact = self.slot.loaded.get().and_then(|loaded| loaded.model.count_tokens(text).ok());
        // Before the model is loaded: WordPiece makes about one token of four bytes of English.
        exact.map_or(TokenCount::Estimate(text.len() / 4 + 2), TokenCount::Exact)
    }

    fn identity(&self) -> Option<Identity> {
        let loaded = self.slot.loaded.get()?;
        Some(Identity { space: loaded.space.clone(), precision: Some(loaded.model.precision().as_str()) })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let loaded = self.loaded().await?;
            let normalize = request.normalize;
            let tokens = tokenize(&loaded, &self.slot.shared, request).await?;
            let counts =
                tokens.iter().map(|tokens| u32::try_from(tokens.len()).unwrap_or(u32::MAX)).collect();
            let truncated = tokens.iter().filter(|tokens| tokens.truncated()).count();
            let mut data = loaded.queue.submit(tokens)?.await?;
            let dim = loaded.model.info().dimensions;
            if normalize {
                data.chunks_exact_mut(dim).for_each(embeddery_engine::normalize);
            }
            Ok(Embeddings {
                data,
                dim,
                space: loaded.space.clone(),
                tokens: counts,
                billed_tokens: 0,
                truncated,
                failed: Vec::new(),
                served_by: Arc::clone(&self.card),
            })
        })
    }

    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async move { self.loaded().await.map(drop) })
    }
}

/// Loads the weights and starts the engine thread.
async fn load(slot: &Arc<Slot>) -> Result<Arc<Loaded>, EmbedError> {
    let task = Arc::clone(slot);
    let began = std::time::Instant::now();
    let result = tokio::task::spawn_blocking(move || task.files.load(&task.options))
        .await
        .map_err(|_| EmbedError::internal("loading the model failed"))?;
    let mut failure = slot.failure.lock().unwrap_or_else(PoisonError::into_inner);
    let model = match result {
        Ok(model) => Arc::new(model),
        Err(error) => {
            *failure = Some(error.to_string());
            return Err(unusable(&slot.name, &error));
        }
    };
    *failure = None;
    tracing::info!(
        model = %slot.name, kernels = model.kernels(), precision = %model.precision(), dimensions = model.info().dimensions,
        max_tokens = model.info().max_tokens, elapsed_ms = began.elapsed().as_millis() as u64, "model loaded"
    );
    let queue = Queue::start(Arc::clone(&model), Arc::clone(&slot.shared.threads), slot.shared.queue_tokens)
        .map_err(|error| {
            tracing::error!(model = %slot.name, %error, "the engine thread did not start");
            EmbedError::internal("the engine thread could not be started")
        })?;
    let space = SpaceId::new(format!("{}:{}", model.fingerprint(), model.info().dimensions));
    Ok(Arc::new(Loaded { model, queue, space, prompts: slot.prompts.clone() }))
}

/// Tokens of every input, cut as asked; over-long inputs that must not be cut are refused together.
async fn tokenize(
    loaded: &Arc<Loaded>,
    shared: &Shared,
    request: EmbedRequest,
) -> Result<Vec<Tokens>, EmbedError> {
    let bytes: usize = request.inputs.iter().filter_map(Input::text).map(str::len).sum();
    if bytes <= INLINE_BYTES {
        return tokenize_all(loaded, &request);
    }
    let _permit = shared.tokenizing.acquire().await;
    let loaded = Arc::clone(loaded);
    tokio::task::spawn_blocking(move || tokenize_all(&loaded, &request))
        .await
        .map_err(|_| EmbedError::internal("reading the inputs failed"))?
}

fn tokenize_all(loaded: &Loaded, request: &EmbedRequest) -> Result<Vec<Tokens>, EmbedError> {
    let model = &loaded.model;
    let prompt = loaded.prompt(request.input_type);
    let keep = match request.truncate {
        None | Some(Truncate::End) => Keep::Start,
        Some(Truncate::Start) => Keep::End,
        Some(Truncate::None) => Keep::All,
    };
    let mut all = Vec::with_capacity(request.inputs.len());
    let mut too_long = Vec::new();
    for (index, input) in request.inputs.iter().enumerate() {
        let text = input.text().ok_or_else(|| EmbedError::internal("token ids reached a model of text"))?;
        let prompted = if prompt.is_empty() { text.into() } else { Cow::from([prompt, text].concat()) };
        match model.tokenize(&prompted, keep) {
            Ok(tokens) => all.push(tokens),
            Err(TokenizeError::TooLong { tokens, .. }) => {
                too_long.push(InputFault { index, tokens: Some(tokens) });
            }
            Err(error) => {
                return Err(EmbedError::invalid(format!("the input cannot be read by this model: {error}"))
                    .with_inputs(vec![InputFault { index, tokens: None }]));
            }
        }
    }
    if too_long.is_empty() {
        return Ok(all);
    }
    Err(EmbedError::new(
        ErrorKind::InputTooLong,
        Fault::Caller,
        Retry::Never,
        format!(
            "the model reads at most {} tokens; shorten the input, or ask for `truncate`: \"end\" or \"start\"",
            model.info().max_tokens
        ),
    )
    .with_inputs(too_long))
}

fn unusable(name: &str, error: &LoadError) -> EmbedError {
    EmbedError::new(
        ErrorKind::ModelUnusable,
        Fault::Us,
        Retry::Never,
        format!("model '{name}' cannot be used: {error}"),
    )
}
