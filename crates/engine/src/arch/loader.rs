//! Builds an encoder from its description: reads its tensors by their checkpoint names and packs them, several layers
//! in parallel.

use std::borrow::Cow;

use super::{
    embedding_table::EmbeddingTable,
    encoder::{AttentionType, Encoder, Layer, LayerNorms, RotaryTable},
    encoder_config::{
        AttentionConfig, EncoderConfig, FeedForward, NormKind, NormNames, QkvNames, ScoreBias, TensorNames,
        UpNames,
    },
    score_bias,
};
use crate::{
    LoadError, Precision,
    kernels::{Activation, DistanceBias, Kernels, Linear, Norm, PackedMatrix, Part},
    weights::Tensors,
};

/// The inputs of a load.
pub(crate) struct Loader<'a> {
    config: &'a EncoderConfig,
    tensors: &'a Tensors<'a>,
    kernels: Kernels,
    /// Never `Auto`.
    precision: Precision,
    /// Maximum tokens of a text.
    max_tokens: usize,
    /// The naming scheme of this checkpoint.
    names: &'a TensorNames,
    /// The prefix of all tensor names in this checkpoint.
    prefix: &'a str,
}

/// Linear layers with the same input, stacked along their outputs.
struct StackedLinear<'a> {
    parts: Vec<LinearRows<'a>>,
    inputs: usize,
    activation: Activation,
}

/// The weights of one linear layer.
struct LinearRows<'a> {
    weight: Cow<'a, [f32]>,
    bias: Vec<f32>,
    factor: f32,
}

impl<'a> Loader<'a> {
    /// `max_tokens` is the maximum length of a text.
    pub(crate) fn new(
        config: &'a EncoderConfig,
        max_tokens: usize,
        tensors: &'a Tensors<'a>,
        kernels: Kernels,
        precision: Precision,
    ) -> Self {
        let candidates = config.tensor_names.iter().flat_map(|names| {
            let prefixes = config.prefixes.iter().copied().chain(COMMON_PREFIXES.iter().copied());
            prefixes.map(move |prefix| (names, prefix))
        });
        let exists = |(names, prefix): &(&TensorNames, &str)| {
            tensors.has(&format!("{prefix}{}.0.{}.weight", names.layers, names.attention_output))
        };
        // If no scheme matches, the error reports the names of the first scheme without a prefix.
        let (names, prefix) = candidates.clone().find(exists).unwrap_or((&config.tensor_names[0], ""));
        Self { config, tensors, kernels, precision, max_tokens, names, prefix }
    }

    /// Reads and packs all weights.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or holds a value that is not finite.
    pub(crate) fn load(&self) -> Result<Encoder, LoadError> {
        let config = self.config;
        let attention_type = |attention: &AttentionConfig| AttentionType {
            window: attention.window,
            rotary: attention
                .rotary
                .map(|rotary| rotary_table(&rotary.frequencies(config.head_width), self.max_tokens)),
        };
        Ok(Encoder {
            kernels: self.kernels,
            precision: self.precision,
            hidden: config.hidden,
            intermediate: config.intermediate,
            heads: config.heads,
            key_value_heads: config.key_value_heads,
            head_width: config.head_width,
            glu: match config.feed_forward {
                FeedForward::Gelu => None,
                FeedForward::Gated(activation) => Some(activation),
            },
            word_embeddings: self.word_embeddings()?,
            position_embeddings: self.position_embeddings()?,
            embedding_norm: self
                .names
                .embedding_norm
                .map(|name| self.norm(name, config.hidden))
                .transpose()?,
            layers: self.layers()?,
            attention_types: config.attention.iter().map(attention_type).collect(),
            score_bias: self.score_bias()?,
            max_tokens: if config.position_table.is_some() { config.max_positions } else { self.max_tokens },
            final_norm: self.names.final_norm.map(|name| self.norm(name, config.hidden)).transpose()?,
        })
    }

    /// Reads a tensor of this shape by its name without the prefix.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>, LoadError> {
        self.tensors.get(&format!("{}{name}", self.prefix), shape)
    }

    fn score_bias(&self) -> Result<Option<DistanceBias>, LoadError> {
        let EncoderConfig { heads, max_positions, score_bias, .. } = *self.config;
        Ok(match score_bias {
            None => None,
            Some(ScoreBias::RelativeBuckets(buckets)) => {
                let table = self.tensor("encoder.relative_attention_bias.weight", &[buckets, heads])?;
                Some(score_bias::relative_buckets(&table, buckets, heads, max_positions))
            }
            Some(ScoreBias::Alibi) => Some(score_bias::alibi(heads, max_positions)),
        })
    }

    /// Word embeddings. Includes the token type embedding if there are no position embeddings to include it.
    fn word_embeddings(&self) -> Result<EmbeddingTable, LoadError> {
        let EncoderConfig { hidden: h, vocabulary, word_scale: scale, position_table, .. } = *self.config;
        let token_type = if position_table.is_none() { self.token_type()? } else { None };
        let mut table = EmbeddingTable::new(vocabulary, h, self.precision);
        let name = format!("{}{}.weight", self.prefix, self.names.words);
        self.tensors.each_row(&name, [vocabulary, h], |row| {
            row.iter_mut().for_each(|x| *x *= scale);
            add(row, token_type.as_deref());
            table.push(row);
        })?;
        Ok(table)
    }

    /// Position embeddings with the token type embedding added.
    fn position_embeddings(&self) -> Result<Option<EmbeddingTable>, LoadError> {
        let Some(table) = self.config.position_table else { return Ok(None) };
        let h = self.config.hidden;
        let all = self.tensor(&format!("{}.weight", self.names.positions), &[table.rows, h])?;
        let token_type = self.token_type()?;
        let mut rows = EmbeddingTable::new(table.rows - table.first, h, self.precision);
        for row in all[table.first * h..].chunks_exact(h) {
            let mut row = row.to_vec();
            add(&mut row, token_type.as_deref());
            rows.push(&row);
        }
        Ok(Some(rows))
    }

    /// The embedding of token type 0, which is the type of every token.
    fn token_type(&self) -> Result<Option<Vec<f32>>, LoadError> {
        let EncoderConfig { hidden: h, token_types, .. } = *self.config;
        if token_types == 0 {
            return Ok(None);
        }
        let types = self.tensor(&format!("{}.weight", self.names.token_types), &[token_types, h])?;
        Ok(Some(types[..h].to_vec()))
    }

    /// Packs all layers in parallel. Packing takes most of the load time, and layers are independent.
    fn layers(&self) -> Result<Vec<Layer>, LoadError> {
        let count = self.config.layers;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
        let range = |index: usize| count * index / threads..count * (index + 1) / threads;
        let parts: Vec<Result<Vec<Layer>, LoadError>> = std::thread::scope(|scope| {
            let pack = |index| {
                range(index).map(|layer| self.layer(layer)).inspect(|_| self.tensors.release()).collect()
            };
            let others: Vec<_> = (1..threads).map(|index| scope.spawn(move || pack(index))).collect();
            let first = pack(0);
            let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            std::iter::once(first).chain(others.into_iter().map(join)).collect()
        });
        parts.into_iter().collect::<Result<Vec<_>, _>>().map(|parts| parts.into_iter().flatten().collect())
    }

    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (config, names) = (self.config, self.names);
        let (h, intermediate, attended) =
            (config.hidden, config.intermediate, config.heads * config.head_width);
        let named = |name: &str| format!("{}.{index}.{name}", names.layers);
        let activation = match config.feed_forward {
            FeedForward::Gelu => Activation::Gelu,
            FeedForward::Gated(_) => Activation::None,
        };
        let single = |name, (inputs, outputs), has_bias| {
            let parts = vec![self.linear(&named(name), (inputs, outputs), has_bias)?];
            Ok::<_, LoadError>(self.pack(StackedLinear { parts, inputs, activation: Activation::None }))
        };
        Ok(Layer {
            attention_type: config.layer_types[index],
            qkv: self.pack(StackedLinear {
                parts: self.qkv(&named)?,
                inputs: h,
                activation: Activation::None,
            }),
            head_norms: names.head_norms.map(|names| self.head_norms(names, &named)).transpose()?,
            attention_output: single(names.attention_output, (attended, h), config.biases.attention_output)?,
            up: self.pack(StackedLinear { parts: self.up(&named)?, inputs: h, activation }),
            down: single(names.down, (intermediate, h), config.biases.down)?,
            norms: self.norms(index, &named)?,
        })
    }

    /// Queries (scaled), keys and values.
    fn qkv(&self, named: &impl Fn(&str) -> String) -> Result<Vec<LinearRows<'a>>, LoadError> {
        let EncoderConfig { hidden: h, heads, key_value_heads, head_width, query_scale, .. } = *self.config;
        let rows = [heads * head_width, key_value_heads * head_width, key_value_heads * head_width];
        let bias = self.config.biases.qkv;
        let mut parts = match self.names.qkv {
            QkvNames::Separate(names) => names
                .iter()
                .zip(rows)
                .map(|(name, rows)| self.linear(&named(name), (h, rows), bias))
                .collect::<Result<Vec<_>, _>>()?,
            QkvNames::Fused(name) => self.linear(&named(name), (h, rows.iter().sum()), bias)?.split(h, &rows),
        };
        // A head norm would undo the scale. With head norms, `head_norms` applies the scale instead.
        if self.names.head_norms.is_none() {
            parts[0].factor = query_scale;
        }
        Ok(parts)
    }

    fn head_norms(
        &self,
        [query, key]: [&str; 2],
        named: &impl Fn(&str) -> String,
    ) -> Result<[Norm; 2], LoadError> {
        let EncoderConfig { head_width, query_scale, .. } = *self.config;
        let mut query = self.norm(&named(query), head_width)?;
        query.gamma.iter_mut().for_each(|x| *x *= query_scale);
        Ok([query, self.norm(&named(key), head_width)?])
    }

    /// The first layer of the feed-forward part, with the gate first if there is one.
    fn up(&self, named: &impl Fn(&str) -> String) -> Result<Vec<LinearRows<'a>>, LoadError> {
        let EncoderConfig { hidden: h, intermediate, .. } = *self.config;
        let linear = |name: &str, outputs| self.linear(&named(name), (h, outputs), self.config.biases.up);
        Ok(match self.names.up {
            UpNames::Plain(name) => vec![linear(name, intermediate)?],
            UpNames::Separate { gate, up } => vec![linear(gate, intermediate)?, linear(up, intermediate)?],
            UpNames::GateUp(name) => vec![linear(name, 2 * intermediate)?],
            UpNames::UpGate(name) => {
                let mut parts = linear(name, 2 * intermediate)?.split(h, &[intermediate, intermediate]);
                parts.reverse();
                parts
            }
        })
    }

    fn norms(&self, index: usize, named: &impl Fn(&str) -> String) -> Result<LayerNorms, LoadError> {
        let norm = |name: &str| self.norm(&named(name), self.config.hidden);
        Ok(match self.names.norms {
            NormNames::Post([attention, feed_forward]) => {
                LayerNorms::Post { attention: norm(attention)?, feed_forward: norm(feed_forward)? }
            }
            NormNames::PreButFirst([_, feed_forward]) if index == 0 => {
                LayerNorms::Pre { attention: None, feed_forward: norm(feed_forward)?, after: None }
            }
            NormNames::Pre([attention, feed_forward]) | NormNames::PreButFirst([attention, feed_forward]) => {
                let attention = Some(norm(attention)?);
                LayerNorms::Pre { attention, feed_forward: norm(feed_forward)?, after: None }
            }
            NormNames::Sandwich { before, after } => LayerNorms::Pre {
                attention: Some(norm(before[0])?),
                feed_forward: norm(before[1])?,
                after: Some([norm(after[0])?, norm(after[1])?]),
            },
        })
    }

    fn linear(
        &self,
        name: &str,
        (inputs, outputs): (usize, usize),
        has_bias: bool,
    ) -> Result<LinearRows<'a>, LoadError> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = match has_bias {
            true => self.tensor(&format!("{name}.bias"), &[outputs])?.into_owned(),
            false => vec![0.0; outputs],
        };
        Ok(LinearRows { weight, bias, factor: 1.0 })
    }

    fn pack(&self, StackedLinear { parts, inputs, activation }: StackedLinear<'_>) -> PackedMatrix {
        let parts: Vec<Part<'_>> = parts
            .iter()
            .map(|rows| Part { weight: &rows.weight, bias: &rows.bias, factor: rows.factor })
            .collect();
        self.kernels.pack(self.precision, &Linear { parts: &parts, inputs, activation })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, LoadError> {
        let norm = self.config.norm;
        let mut gamma = self.tensor(&format!("{name}.weight"), &[width])?.into_owned();
        let beta = match norm.kind {
            NormKind::Layer { bias: true } => {
                Some(self.tensor(&format!("{name}.bias"), &[width])?.into_owned())
            }
            NormKind::Layer { bias: false } => Some(vec![0.0; width]),
            NormKind::RootMeanSquare => None,
            NormKind::RootMeanSquareAroundOne => {
                gamma.iter_mut().for_each(|x| *x += 1.0);
                None
            }
        };
        Ok(Norm { gamma, beta, epsilon: norm.epsilon })
    }
}

/// Prefixes of any checkpoint: none, and the one of models that sentence-transformers saved as a whole.
const COMMON_PREFIXES: &[&str] = &["", "0.auto_model."];

impl<'a> LinearRows<'a> {
    /// Splits a tensor that stacks several layers into parts of `rows` outputs.
    fn split(self, inputs: usize, rows: &[usize]) -> Vec<Self> {
        let mut first = 0;
        let mut part = |rows: usize| {
            let outputs = first..first + rows;
            first += rows;
            let range = outputs.start * inputs..outputs.end * inputs;
            let weight = match &self.weight {
                Cow::Borrowed(weight) => Cow::Borrowed(&weight[range]),
                Cow::Owned(weight) => Cow::Owned(weight[range].to_vec()),
            };
            Self { weight, bias: self.bias[outputs].to_vec(), factor: self.factor }
        };
        rows.iter().map(|rows| part(*rows)).collect()
    }
}

/// Adds `other` to `row`, if there is one.
fn add(row: &mut [f32], other: Option<&[f32]>) {
    row.iter_mut().zip(other.into_iter().flatten()).for_each(|(x, y)| *x += y);
}

/// Cosines and sines of all positions. Angles are computed in f32, as in the references.
fn rotary_table(frequencies: &[f32], positions: usize) -> RotaryTable {
    let row = |position: usize| {
        let angle = move |frequency: &f32| position as f32 * frequency;
        let cosines = frequencies.iter().map(move |frequency| angle(frequency).cos());
        cosines.chain(frequencies.iter().map(move |frequency| angle(frequency).sin()))
    };
    RotaryTable { values: (0..positions).flat_map(row).collect(), head_width: 2 * frequencies.len() }
}
