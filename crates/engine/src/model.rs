//! A loaded model: text in, tokens out; tokens in, vectors out.

use std::sync::{Mutex, PoisonError};

use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};

use crate::{
    Keep, KernelChoice, LoadError, ModelFiles, ModelInfo, Threads, TokenizeError, Tokens,
    arch::bert::{Bert, Scratch},
    kernels::Kernels,
    pooling::pool,
    tokenizer::Tokenizer,
    weights::WeightFile,
};

/// How a model is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Most tokens of one text, where it should not be the model's own limit. More than the weights have
    /// positions for is an error.
    pub max_length: Option<usize>,
    /// Which kernels compute.
    pub kernels: KernelChoice,
}

/// A model in memory. It holds no locks while it computes and can be used from many threads.
pub struct Model {
    info: ModelInfo,
    fingerprint: String,
    tokenizer: Tokenizer,
    kernels: &'static Kernels,
    network: Bert,
    /// Buffers not in use: at most one for each thread that has ever computed at the same time.
    scratch: Mutex<Vec<Scratch>>,
}

/// Tokens that a thread computes together. More would not make the matrix products more efficient, and
/// less could not be divided among threads as evenly.
const PIECE_TOKENS: usize = 512;

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
        let kernels = Kernels::select(options).ok_or_else(|| LoadError::Setting {
            setting: "kernels",
            reason: format!("this CPU lacks the instructions of {:?}; use Auto", options.kernels),
        })?;
        let tokenizer_file = files.directory.join("tokenizer.json");
        let weights = WeightFile::open(&files.directory.join("model.safetensors"))?;
        // Tokenizer and fingerprint beside the weights: each takes as long as the other.
        let (tokenizer, fingerprint, network) = std::thread::scope(|scope| {
            let tokenizer =
                scope.spawn(|| Tokenizer::load(&tokenizer_file, info.max_tokens, info.vocabulary));
            let fingerprint = scope.spawn(|| fingerprint(&weights, &tokenizer_file, &info));
            let network = weights.tensors().and_then(|tensors| Bert::load(&files.bert, &tensors, kernels));
            (joined(tokenizer), joined(fingerprint), network)
        });
        let network = network?;
        Ok(Self {
            info,
            fingerprint: fingerprint?,
            tokenizer: tokenizer?,
            kernels,
            network,
            scratch: Mutex::default(),
        })
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Identifies the vectors: a hash of weights, tokenizer and pooling, 32 hexadecimal digits. Models with
    /// equal fingerprints give comparable vectors.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The name of the kernels that compute: `avx512`, `avx2` or `portable`.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name
    }

    /// Bytes of weights in memory.
    pub fn weight_bytes(&self) -> usize {
        self.network.bytes()
    }

    /// A text as the model reads it, cut to [`ModelInfo::max_tokens`] as `keep` says.
    ///
    /// # Errors
    /// [`TokenizeError::TooLong`] with [`Keep::All`], or what the tokenizer says.
    pub fn tokenize(&self, text: &str, keep: Keep) -> Result<Tokens, TokenizeError> {
        self.tokenizer.tokenize(text, keep)
    }

    /// Tokens of a text before any cut, special tokens included.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn count_tokens(&self, text: &str) -> Result<usize, TokenizeError> {
        self.tokenizer.count(text)
    }

    /// Vectors of a batch, `[texts × dimensions]`, pooled and not yet of unit length. A text's vector is the
    /// same, to the bit, whatever else is in the batch and however many threads there are.
    pub fn encode(&self, threads: &Threads, batch: &[&Tokens]) -> Vec<f32> {
        let dimensions = self.info.dimensions;
        let mut vectors = vec![0.0; batch.len() * dimensions];
        let total: usize = batch.iter().map(|text| text.len()).sum();
        let target = total.div_ceil(threads.count()).min(PIECE_TOKENS);
        let mut work = Vec::new();
        let (mut texts, mut out) = (batch, &mut vectors[..]);
        while !texts.is_empty() {
            let count = piece(texts, target);
            let (now, later) = texts.split_at(count);
            let (here, rest) = out.split_at_mut(count * dimensions);
            work.push((now, here));
            (texts, out) = (later, rest);
        }
        threads.install(|| {
            work.into_par_iter().with_max_len(1).for_each(|(texts, out)| self.compute(texts, out))
        });
        vectors
    }

    /// Vectors of a few texts on this thread.
    fn compute(&self, texts: &[&Tokens], out: &mut [f32]) {
        let mut scratch =
            self.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let dimensions = self.info.dimensions;
        let mut tokens = self.network.forward(texts, &mut scratch);
        for (text, vector) in texts.iter().zip(out.chunks_exact_mut(dimensions)) {
            let (own, others) = tokens.split_at(text.len() * dimensions);
            pool(self.info.pooling, own, vector);
            tokens = others;
        }
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}

/// How many of the first texts make a piece of about `target` tokens; at least one.
fn piece(texts: &[&Tokens], target: usize) -> usize {
    let (mut count, mut tokens) = (0, 0);
    for text in texts {
        // Stop where going on would overshoot by more than stopping falls short.
        if count > 0 && tokens + text.len() / 2 > target {
            break;
        }
        tokens += text.len();
        count += 1;
    }
    count
}

fn fingerprint(
    weights: &WeightFile,
    tokenizer: &std::path::Path,
    info: &ModelInfo,
) -> Result<String, LoadError> {
    let text =
        std::fs::read(tokenizer).map_err(|source| LoadError::Io { file: tokenizer.to_path_buf(), source })?;
    let mut hasher = blake3::Hasher::new();
    for part in [weights.bytes(), &text, format!("{:?}", info.pooling).as_bytes()] {
        // Lengths first, so that no two models can run together.
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
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
            .finish_non_exhaustive()
    }
}
