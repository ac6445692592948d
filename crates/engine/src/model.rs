//! A loaded model: text in, tokens out; tokens in, vectors out.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::{
    EncodeError, KernelChoice, LoadError, ModelFiles, ModelInfo, Precision, Prompts, Threads, TokenizeError,
    Tokens, TruncationSide,
    arch::{Encoder, Loader, NetworkSpec, StaticVectors, Workspace, unknown},
    kernels::Kernels,
    pooling::pool,
    post_pooling::PostPoolingLayers,
    tokenizer::{Tokenizer, TokenizerFiles},
    weights::WeightFiles,
};

/// How a model is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Most tokens of one text, where it should not be the model's own limit. More than the weights have
    /// positions for is an error.
    pub max_length: Option<usize>,
    /// How exactly it computes.
    pub precision: Precision,
    /// Which kernels compute.
    pub kernels: KernelChoice,
}

/// What makes vectors of tokens.
enum Network {
    Encoder(Box<Encoder>),
    Static(StaticVectors),
}

/// A model in memory. It holds no locks while it computes and can be used from many threads.
pub struct Model {
    info: ModelInfo,
    prompts: Prompts,
    fingerprint: String,
    tokenizer: Tokenizer,
    kernels: Kernels,
    precision: Precision,
    network: Network,
    head: PostPoolingLayers,
    /// Buffers not in use: one for each call that has ever run at the same time as others.
    idle: Mutex<Vec<Workspace>>,
}

impl Model {
    pub(crate) fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Self, LoadError> {
        let mut info = files.info().clone();
        if let Some(length) = options.max_length {
            if length == 0 || length > info.positions {
                return Err(LoadError::Setting {
                    setting: "max_length",
                    reason: format!(
                        "{length} is not in 1 to {}, the positions that the weights have",
                        info.positions
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
            leaves_out: match files.network {
                NetworkSpec::Encoder(_) => None,
                NetworkSpec::Static(_) => Some(unknown(&tokenizer_file)?),
            },
        };
        let weights = WeightFiles::open(&files.weights)?;
        let head = PostPoolingLayers::load(&files.modules, kernels)?;
        // Tokenizer and fingerprint beside the weights: each takes as long as the other.
        let (tokenizer, fingerprint, network) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::load(&tokenizer));
            let fingerprint = scope.spawn(|| fingerprint(files, &weights));
            let network = weights.tensors().and_then(|tensors| match &files.network {
                NetworkSpec::Encoder(spec) => {
                    let described = (spec, info.max_tokens);
                    Loader::new(described, &tensors, (kernels, precision))
                        .encoder()
                        .map(|encoder| Network::Encoder(Box::new(encoder)))
                }
                NetworkSpec::Static(spec) => spec.load(&tensors, precision).map(Network::Static),
            });
            (joined(tokenizer), joined(fingerprint), network)
        });
        Ok(Self {
            info,
            prompts: files.prompts().clone(),
            network: network?,
            fingerprint: fingerprint?,
            tokenizer: tokenizer?,
            kernels,
            precision,
            head,
            idle: Mutex::default(),
        })
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What the model wants put before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// Identifies the vectors: a hash of weights, tokenizer, attention, pooling, what follows it, and prompts, 32 hexadecimal
    /// digits. Models with equal fingerprints give comparable vectors, in whatever precision.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The name of the kernels that compute, as `avx512-bf16-vnni`, `avx2` or `portable`.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name
    }

    /// The precision that computes, never `Auto`.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Multiplications and additions of the linear layers for one token. Attention comes on top and depends on the
    /// text's length: `4 · layers · hidden · tokens` for each token.
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
        network + self.head.bytes()
    }

    /// A text as the model reads it, cut to [`ModelInfo::max_tokens`] as `keep` says.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] with [`TruncationSide::All`], or what the tokenizer says.
    pub fn tokenize(&self, text: &str, keep: TruncationSide) -> Result<Tokens, TokenizeError> {
        self.tokenizer.tokenize(text, keep)
    }

    /// Tokens of a text before any cut, special tokens included.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn count_tokens(&self, text: &str) -> Result<usize, TokenizeError> {
        self.tokenizer.count(text)
    }

    /// Vectors of a batch, `[texts × dimensions]`, not yet of unit length. A text's vector is the same, to the bit,
    /// whatever else is in the batch and however many threads there are.
    ///
    /// # Errors
    /// [`EncodeError::ForeignTokens`] when tokens cannot be this model's; nothing is computed then.
    /// [`EncodeError::NotFinite`] when the weights overflow.
    pub fn encode(&self, threads: &Threads, batch: &[&Tokens]) -> Result<Vec<f32>, EncodeError> {
        for (text, tokens) in batch.iter().enumerate() {
            self.check(tokens).map_err(|reason| EncodeError::ForeignTokens { text, reason })?;
        }
        let pooled = match &self.network {
            Network::Encoder(encoder) => self.pooled(encoder, threads, batch),
            Network::Static(vectors) => {
                let mut means = vec![0.0; batch.len() * vectors.width];
                for (text, mean) in batch.iter().zip(means.chunks_exact_mut(vectors.width)) {
                    vectors.mean(text, mean);
                }
                means
            }
        };
        let vectors = self.head.apply(pooled);
        let mut rows = vectors.chunks_exact(self.info.dimensions);
        match rows.position(|vector| vector.iter().any(|x| !x.is_finite())) {
            Some(text) => Err(EncodeError::NotFinite { text }),
            None => Ok(vectors),
        }
    }

    /// Whether the model can have made these tokens; if not, why.
    fn check(&self, tokens: &Tokens) -> Result<(), String> {
        let (words, longest) = match &self.network {
            Network::Encoder(encoder) => encoder.reads(),
            Network::Static(vectors) => (vectors.vocabulary, usize::MAX),
        };
        if tokens.len() > longest {
            return Err(format!("{} tokens, where this model reads {longest}", tokens.len()));
        }
        match tokens.ids().iter().find(|id| **id as usize >= words) {
            Some(id) => Err(format!("token {id}, where this model knows {words}")),
            None => Ok(()),
        }
    }

    fn pooled(&self, encoder: &Encoder, threads: &Threads, batch: &[&Tokens]) -> Vec<f32> {
        let turn = threads.acquire();
        let mut work = self.idle().pop().unwrap_or_default();
        let hidden = encoder.hidden();
        let mut pooled = vec![0.0; batch.len() * hidden];
        let (mut texts, mut vectors) = (batch, &mut pooled[..]);
        while !texts.is_empty() {
            let (now, later) = texts.split_at(fitting(texts, CALL_TOKENS, turn.count()));
            let (here, rest) = vectors.split_at_mut(now.len() * hidden);
            let mut tokens = encoder.forward(&turn, now, &mut work);
            for (text, vector) in now.iter().zip(here.chunks_exact_mut(hidden)) {
                let (own, others) = tokens.split_at(text.len() * hidden);
                pool(self.info.pooling, own, vector);
                tokens = others;
            }
            (texts, vectors) = (later, rest);
        }
        self.idle().push(work);
        pooled
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens for each thread that one call computes together: enough that waiting for each other costs nothing, few
/// enough that buffers stay small.
const CALL_TOKENS: usize = 1024;

/// How many of the first texts have at most `each` tokens for each of `members`, at least one; as many for every member
/// where others follow, because texts that are near each other in a batch are mostly of about the same length.
fn fitting(texts: &[&Tokens], each: usize, members: usize) -> usize {
    let mut tokens = 0;
    let fitting = texts.iter().take_while(|text| {
        tokens += text.len();
        tokens <= each * members
    });
    let fitting = fitting.count().max(1);
    let uneven = fitting % members;
    if fitting == texts.len() || fitting == uneven { fitting } else { fitting - uneven }
}

pub(crate) fn fingerprint(files: &ModelFiles, weights: &WeightFiles) -> Result<String, LoadError> {
    let read = |file: &Path| {
        std::fs::read(file).map_err(|source| LoadError::Io { file: file.to_path_buf(), source })
    };
    let mut hasher = blake3::Hasher::new();
    // Lengths first, so that no two models can run together.
    let mut take = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    weights.bytes().for_each(&mut take);
    take(&read(&files.directory.join("tokenizer.json"))?);
    take(format!("{:?} {}", files.modules.pooling, files.lowercase).as_bytes());
    if let NetworkSpec::Encoder(spec) = &files.network
        && let identity = spec.identity()
        && !identity.is_empty()
    {
        take(&identity);
    }
    for file in files.modules.files() {
        take(&read(&file)?);
    }
    for (name, prompt) in files.prompts().iter() {
        take(name.as_bytes());
        take(prompt.as_bytes());
    }
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// A scoped thread's result; its panic goes on here.
fn joined<T>(handle: std::thread::ScopedJoinHandle<'_, T>) -> T {
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
