//! A loaded model: texts to tokens, and tokens to vectors.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::{
    EncodeError, EngineModelInfo, KernelChoice, LoadError, ModelFiles, Precision, Prompts, Threads,
    TokenizeError, Tokens, TruncationSide,
    arch::{Encoder, Loader, NetworkConfig, StaticVectors, Workspace, unknown_token},
    kernels::Kernels,
    pooling::pool,
    post_pooling::PostPoolingLayers,
    tokenizer::{Tokenizer, TokenizerFiles},
    weights::WeightFiles,
};

/// How a model is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Maximum tokens of a text; `None` for the model's own limit. A value above the number of positions of the weights
    /// is an error.
    pub max_length: Option<usize>,
    /// Precision of the linear layers.
    pub precision: Precision,
    /// The kernels to use.
    pub kernels: KernelChoice,
}

/// The part that maps tokens to vectors.
enum Network {
    Encoder(Box<Encoder>),
    Static(StaticVectors),
}

/// A model in memory. It can be used from many threads at once, and holds no lock of its own while it computes.
pub struct Model {
    info: EngineModelInfo,
    prompts: Prompts,
    fingerprint: String,
    tokenizer: Tokenizer,
    kernels: Kernels,
    precision: Precision,
    network: Network,
    post_pooling: PostPoolingLayers,
    /// Workspaces that no call uses. There are at most as many as calls have ever run at the same time.
    idle_workspaces: Mutex<Vec<Workspace>>,
}

impl ModelFiles {
    /// Reads weights and tokenizer and makes the model ready to compute.
    ///
    /// # Errors
    /// Files are damaged or contradictory, or the model does not support an option. The error names the file and
    /// tensor, or the option.
    pub fn load(&self, options: &LoadOptions) -> Result<Model, LoadError> {
        Model::load(self, options)
    }
}

impl Model {
    fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Self, LoadError> {
        let mut info = files.info().clone();
        if let Some(length) = options.max_length {
            if length == 0 || length > info.max_positions {
                return Err(LoadError::Setting {
                    setting: "max_length",
                    reason: format!(
                        "{length} is out of range; the weights have positions 1 to {}",
                        info.max_positions
                    ),
                });
            }
            info.max_tokens = length;
        }
        let kernels = Kernels::select(options.kernels).ok_or_else(|| LoadError::Setting {
            setting: "kernels",
            reason: format!("this CPU lacks the instructions of {:?}; use Auto", options.kernels),
        })?;
        let precision = kernels.resolve(options.precision);
        let tokenizer_file = files.directory.join("tokenizer.json");
        let tokenizer = TokenizerFiles {
            file: &tokenizer_file,
            limit: info.max_tokens,
            rows: info.vocabulary,
            lowercase: files.lowercase,
            static_unknown: match files.network {
                NetworkConfig::Encoder(_) => None,
                NetworkConfig::Static(_) => Some(unknown_token(&tokenizer_file)?),
            },
        };
        let weights = WeightFiles::open(&files.weights)?;
        let post_pooling = PostPoolingLayers::load(&files.modules, kernels)?;
        // Tokenizer, fingerprint and weights take about the same time, so they load in parallel.
        let (tokenizer, fingerprint, network) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::load(&tokenizer));
            let fingerprint = scope.spawn(|| fingerprint(files, &weights));
            let network = weights.tensors().and_then(|tensors| match &files.network {
                NetworkConfig::Encoder(config) => {
                    let loader = Loader::new(config, info.max_tokens, &tensors, kernels, precision);
                    loader.load().map(|encoder| Network::Encoder(Box::new(encoder)))
                }
                NetworkConfig::Static(config) => config.load(&tensors, precision).map(Network::Static),
            });
            (join(tokenizer), join(fingerprint), network)
        });
        Ok(Self {
            info,
            prompts: files.prompts().clone(),
            network: network?,
            fingerprint: fingerprint?,
            tokenizer: tokenizer?,
            kernels,
            precision,
            post_pooling,
            idle_workspaces: Mutex::default(),
        })
    }

    /// The model's properties.
    pub fn info(&self) -> &EngineModelInfo {
        &self.info
    }

    /// The prompts that the model expects before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// A hash that identifies the model's vectors: 32 hexadecimal digits over weights, tokenizer, attention settings,
    /// pooling, post-pooling steps and prompts. Models with equal fingerprints give comparable vectors in any
    /// precision.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Name of the kernels in use, such as `avx512-bf16-vnni`, `avx2` or `portable`.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name
    }

    /// The precision in use, never `Auto`.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Multiplications and additions of the linear layers for one token. Attention adds `4 · layers · hidden · tokens`
    /// for each token, which depends on the text's length.
    pub fn linear_operations_per_token(&self) -> usize {
        match &self.network {
            Network::Encoder(encoder) => encoder.linear_operations_per_token(),
            Network::Static(_) => 0,
        }
    }

    /// Bytes of weights in memory.
    pub fn weight_bytes(&self) -> usize {
        let network = match &self.network {
            Network::Encoder(encoder) => encoder.bytes(),
            Network::Static(vectors) => vectors.bytes(),
        };
        network + self.post_pooling.bytes()
    }

    /// Tokenizes a text and truncates it to [`EngineModelInfo::max_tokens`].
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] with [`TruncationSide::None`], or [`TokenizeError::Tokenizer`].
    pub fn tokenize(&self, text: &str, truncation: TruncationSide) -> Result<Tokens, TokenizeError> {
        self.tokenizer.tokenize(text, truncation)
    }

    /// Number of tokens of a text before truncation, special tokens included.
    ///
    /// # Errors
    /// [`TokenizeError::Tokenizer`].
    pub fn count_tokens(&self, text: &str) -> Result<usize, TokenizeError> {
        self.tokenizer.count(text)
    }

    /// Computes the vectors of a batch, `[texts × dimensions]`, not normalized. A text's vector is bitwise the same for
    /// any batch and any number of threads.
    ///
    /// # Errors
    /// [`EncodeError::ForeignTokens`] if tokens cannot come from this model's tokenizer; nothing is computed then.
    /// [`EncodeError::NotFinite`] if the weights overflow.
    pub fn encode(&self, threads: &Threads, batch: &[&Tokens]) -> Result<Vec<f32>, EncodeError> {
        for (text, tokens) in batch.iter().enumerate() {
            self.check_tokens(tokens).map_err(|reason| EncodeError::ForeignTokens { text, reason })?;
        }
        let pooled = match &self.network {
            Network::Encoder(encoder) => self.encode_pooled(encoder, threads, batch),
            Network::Static(vectors) => {
                let mut means = vec![0.0; batch.len() * vectors.width];
                for (text, mean) in batch.iter().zip(means.chunks_exact_mut(vectors.width)) {
                    vectors.mean(text, mean);
                }
                means
            }
        };
        let vectors = self.post_pooling.apply(pooled);
        let mut rows = vectors.chunks_exact(self.info.dimensions);
        match rows.position(|vector| vector.iter().any(|x| !x.is_finite())) {
            Some(text) => Err(EncodeError::NotFinite { text }),
            None => Ok(vectors),
        }
    }

    /// Checks that ids and length are possible for this model. The error is the reason.
    fn check_tokens(&self, tokens: &Tokens) -> Result<(), String> {
        let (vocabulary, max_tokens) = match &self.network {
            Network::Encoder(encoder) => (encoder.vocabulary(), encoder.max_tokens()),
            Network::Static(vectors) => (vectors.vocabulary, usize::MAX),
        };
        if tokens.len() > max_tokens {
            return Err(format!("it has {} tokens, but this model accepts {max_tokens}", tokens.len()));
        }
        match tokens.ids().iter().find(|id| **id as usize >= vocabulary) {
            Some(id) => Err(format!("it has token id {id}, but this model has {vocabulary} ids")),
            None => Ok(()),
        }
    }

    /// Computes the pooled vectors of a batch, `[texts × hidden]`, in calls of bounded size.
    fn encode_pooled(&self, encoder: &Encoder, threads: &Threads, batch: &[&Tokens]) -> Vec<f32> {
        let pool_guard = threads.acquire();
        let mut workspace = self.idle_workspaces().pop().unwrap_or_default();
        let hidden = encoder.hidden();
        let mut pooled = vec![0.0; batch.len() * hidden];
        let (mut texts, mut vectors) = (batch, &mut pooled[..]);
        while !texts.is_empty() {
            let count = texts_per_call(texts, MAX_TOKENS_PER_THREAD, pool_guard.count());
            let (current, later) = texts.split_at(count);
            let (current_vectors, later_vectors) = vectors.split_at_mut(count * hidden);
            let mut tokens = encoder.forward(&pool_guard, current, &mut workspace);
            for (text, vector) in current.iter().zip(current_vectors.chunks_exact_mut(hidden)) {
                let (own, others) = tokens.split_at(text.len() * hidden);
                pool(self.info.pooling, own, vector);
                tokens = others;
            }
            (texts, vectors) = (later, later_vectors);
        }
        self.idle_workspaces().push(workspace);
        pooled
    }

    fn idle_workspaces(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        self.idle_workspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maximum tokens per thread of one forward pass. Large enough that barriers cost almost nothing, small enough that
/// buffers stay small.
const MAX_TOKENS_PER_THREAD: usize = 1024;

/// Number of leading texts for the next forward pass: those with at most `max_tokens` tokens per thread, and at least
/// one. If more texts follow, the number is a multiple of the threads, because neighbouring texts of a batch mostly
/// have similar lengths.
fn texts_per_call(texts: &[&Tokens], max_tokens: usize, threads: usize) -> usize {
    let mut tokens = 0;
    let fitting = texts.iter().take_while(|text| {
        tokens += text.len();
        tokens <= max_tokens * threads
    });
    let fitting = fitting.count().max(1);
    let remainder = fitting % threads;
    if fitting == texts.len() || fitting == remainder { fitting } else { fitting - remainder }
}

/// Computes [`Model::fingerprint`] from the files.
pub(crate) fn fingerprint(files: &ModelFiles, weights: &WeightFiles) -> Result<String, LoadError> {
    let read = |file: &Path| {
        std::fs::read(file).map_err(|source| LoadError::Io { file: file.to_path_buf(), source })
    };
    let mut hasher = blake3::Hasher::new();
    // Each part is preceded by its length, so that different parts cannot give the same sequence of bytes.
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    weights.bytes().for_each(&mut add);
    add(&read(&files.directory.join("tokenizer.json"))?);
    add(format!("{:?} {}", files.modules.pooling, files.lowercase).as_bytes());
    if let NetworkConfig::Encoder(config) = &files.network
        && let identity = config.identity_bytes()
        && !identity.is_empty()
    {
        add(&identity);
    }
    for file in files.modules.files() {
        add(&read(&file)?);
    }
    for (name, prompt) in files.prompts().iter() {
        add(name.as_bytes());
        add(prompt.as_bytes());
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Joins a scoped thread and propagates its panic.
fn join<T>(handle: std::thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("info", &self.info)
            .field("kernels", &self.kernels.name)
            .field("precision", &self.precision)
            .finish_non_exhaustive()
    }
}
