//! BERT: word, position and type embeddings, then layers of attention and feed-forward, each followed by
//! residual and LayerNorm. The reference is transformers' `BertModel` in evaluation mode.
//!
//! All texts of a call lie end to end, `t` tokens in all, with no padding: every linear layer is one matrix
//! product over all of them, and only attention looks at texts one by one. `h` is the hidden size.

use crate::{
    LoadError, Tokens,
    files::BertConfig,
    kernels::{Activation, Heads, Kernels, Norm, PackedMatrix, Part},
    weights::Tensors,
};

/// Weights, packed for the kernels.
pub(crate) struct Bert {
    kernels: &'static Kernels,
    hidden: usize,
    intermediate: usize,
    heads: Heads,
    /// `[vocabulary × h]`
    words: Vec<f32>,
    /// `[positions × h]`, with the embedding of token type 0 added: one text has no other.
    positions: Vec<f32>,
    embedding_norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    /// h → 3h: queries (scaled by 1/√head width), keys, values.
    qkv: PackedMatrix,
    /// h → h
    attention_output: PackedMatrix,
    attention_norm: Norm,
    /// h → intermediate
    feed_forward: PackedMatrix,
    /// intermediate → h
    output: PackedMatrix,
    output_norm: Norm,
}

/// Buffers of one call, kept for the next.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[t × h]`, the tokens' vectors.
    x: Vec<f32>,
    /// `[t × h]`
    y: Vec<f32>,
    /// `[t × 3h]`
    qkv: Vec<f32>,
    /// `[t × h]`, attention's result.
    context: Vec<f32>,
    /// `[FEED_FORWARD_ROWS × intermediate]`
    wide: Vec<f32>,
    /// Attention's own.
    attention: Vec<f32>,
}

/// Tokens that go through the feed-forward together: their wide vectors stay in the second-level cache.
const FEED_FORWARD_ROWS: usize = 64;

impl Bert {
    pub(crate) fn load(
        config: &BertConfig,
        tensors: &Tensors<'_>,
        kernels: &'static Kernels,
    ) -> Result<Self, LoadError> {
        let h = config.hidden_size;
        let types = tensors.get("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, h])?;
        let mut positions = tensors
            .get("embeddings.position_embeddings.weight", &[config.max_position_embeddings, h])?
            .into_owned();
        for row in positions.chunks_exact_mut(h) {
            row.iter_mut().zip(&types[..h]).for_each(|(x, t)| *x += t);
        }
        let loader = Loader { config, tensors, kernels };
        Ok(Self {
            kernels,
            hidden: h,
            intermediate: config.intermediate_size,
            heads: Heads { count: config.num_attention_heads, width: h / config.num_attention_heads },
            words: tensors.get("embeddings.word_embeddings.weight", &[config.vocab_size, h])?.into_owned(),
            positions,
            embedding_norm: loader.norm("embeddings.LayerNorm")?,
            layers: (0..config.num_hidden_layers)
                .map(|index| loader.layer(index))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Bytes of weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        let matrices: usize = self
            .layers
            .iter()
            .flat_map(|layer| [&layer.qkv, &layer.attention_output, &layer.feed_forward, &layer.output])
            .map(PackedMatrix::bytes)
            .sum();
        matrices + size_of_val(&*self.words) + size_of_val(&*self.positions)
    }

    /// The last layer's token vectors, `[t × h]`, of all texts end to end.
    pub(crate) fn forward<'a>(&self, texts: &[&Tokens], scratch: &'a mut Scratch) -> &'a [f32] {
        let (h, kernels) = (self.hidden, self.kernels);
        let t: usize = texts.iter().map(|text| text.len()).sum();
        scratch.fit(t, h, self.intermediate);
        let Scratch { x, y, qkv, context, wide, attention } = scratch;
        let (x, y) = (&mut x[..t * h], &mut y[..t * h]);
        let (qkv, context) = (&mut qkv[..t * 3 * h], &mut context[..t * h]);

        self.embed(texts, x, y);
        kernels.layer_norm(x, y, &self.embedding_norm);
        for layer in &self.layers {
            kernels.matmul(x, &layer.qkv, Activation::None, qkv);
            let mut first = 0;
            for text in texts.iter().filter(|text| !text.is_empty()) {
                let last = first + text.len();
                kernels.attention(
                    &qkv[first * 3 * h..last * 3 * h],
                    self.heads,
                    attention,
                    &mut context[first * h..last * h],
                );
                first = last;
            }
            kernels.matmul(context, &layer.attention_output, Activation::None, y);
            kernels.layer_norm(y, x, &layer.attention_norm);
            let blocks = x.chunks_mut(FEED_FORWARD_ROWS * h).zip(y.chunks(FEED_FORWARD_ROWS * h));
            for (x, y) in blocks {
                let wide = &mut wide[..y.len() / h * self.intermediate];
                kernels.matmul(y, &layer.feed_forward, Activation::Gelu, wide);
                kernels.matmul(wide, &layer.output, Activation::None, x);
                kernels.layer_norm(x, y, &layer.output_norm);
            }
        }
        x
    }

    /// Word embeddings into `x`, position and type embeddings into `y`, a row for each token.
    fn embed(&self, texts: &[&Tokens], x: &mut [f32], y: &mut [f32]) {
        let h = self.hidden;
        let row = |table: &[f32], index: usize, to: &mut [f32]| {
            // Tokens of another model could be out of range; they get a wrong vector, not another's memory.
            let index = index.min(table.len() / h - 1);
            to.copy_from_slice(&table[index * h..][..h]);
        };
        let tokens = texts.iter().flat_map(|text| text.ids().iter().enumerate());
        for ((place, id), (x, y)) in tokens.zip(x.chunks_exact_mut(h).zip(y.chunks_exact_mut(h))) {
            row(&self.words, *id as usize, x);
            row(&self.positions, place, y);
        }
    }
}

impl Scratch {
    /// Makes room for `t` tokens. Keeps what it has, so that calls of one size allocate once.
    fn fit(&mut self, t: usize, h: usize, intermediate: usize) {
        let rows = t.min(FEED_FORWARD_ROWS);
        for (buffer, needed) in [
            (&mut self.x, t * h),
            (&mut self.y, t * h),
            (&mut self.qkv, t * 3 * h),
            (&mut self.context, t * h),
            (&mut self.wide, rows * intermediate),
        ] {
            if buffer.len() < needed {
                buffer.resize(needed, 0.0);
            }
        }
    }
}

/// Takes a layer's tensors by their checkpoint names.
struct Loader<'a> {
    config: &'a BertConfig,
    tensors: &'a Tensors<'a>,
    kernels: &'static Kernels,
}

impl Loader<'_> {
    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let BertConfig { hidden_size: h, intermediate_size: wide, num_attention_heads: heads, .. } =
            *self.config;
        let part = |name: &str| format!("encoder.layer.{index}.{name}");
        let query_scale = 1.0 / ((h / heads) as f32).sqrt();
        let attention = |name: &str| part(&format!("attention.self.{name}"));
        Ok(Layer {
            qkv: self.linear(
                &[(attention("query"), query_scale), (attention("key"), 1.0), (attention("value"), 1.0)],
                h,
                h,
            )?,
            attention_output: self.linear(&[(part("attention.output.dense"), 1.0)], h, h)?,
            attention_norm: self.norm(&part("attention.output.LayerNorm"))?,
            feed_forward: self.linear(&[(part("intermediate.dense"), 1.0)], h, wide)?,
            output: self.linear(&[(part("output.dense"), 1.0)], wide, h)?,
            output_norm: self.norm(&part("output.LayerNorm"))?,
        })
    }

    /// Linear layers of one input, packed as one; each with a factor for its outputs.
    fn linear(
        &self,
        layers: &[(String, f32)],
        inputs: usize,
        outputs: usize,
    ) -> Result<PackedMatrix, LoadError> {
        let tensors = layers
            .iter()
            .map(|(name, factor)| {
                let weight = self.tensors.get(&format!("{name}.weight"), &[outputs, inputs])?;
                let bias = self.tensors.get(&format!("{name}.bias"), &[outputs])?;
                Ok((weight, bias, *factor))
            })
            .collect::<Result<Vec<_>, LoadError>>()?;
        let parts: Vec<Part<'_>> =
            tensors.iter().map(|(weight, bias, factor)| Part { weight, bias, factor: *factor }).collect();
        Ok(self.kernels.pack(&parts, inputs))
    }

    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        let h = self.config.hidden_size;
        let get = |part: &str| self.tensors.get(&format!("{name}.{part}"), &[h]);
        Ok(Norm {
            gamma: get("weight")?.into_owned(),
            beta: get("bias")?.into_owned(),
            epsilon: self.config.layer_norm_eps,
        })
    }
}
