//! Builds an encoder from its description: takes its tensors by their checkpoint names and packs them, several layers at
//! once.

use std::borrow::Cow;

use super::{
    embedding_table::EmbeddingTable,
    encoder::{Angles, AttentionKind, Encoder, Layer, LayerNorms},
    jina_bert, mpnet,
    spec::{EncoderConfig, FeedForward, Names, NormKind, NormNames, QkvNames, ScoreBias, UpNames},
};
use crate::{
    LoadError, Precision,
    kernels::{Activation, Kernels, Linear, Norm, PackedMatrix, Part},
    weights::Tensors,
};

/// What loading needs.
pub(crate) struct Loader<'a> {
    pub(super) spec: &'a EncoderConfig,
    tensors: &'a Tensors<'a>,
    kernels: Kernels,
    /// Never `Auto`.
    precision: Precision,
    /// Most tokens of a text.
    reach: usize,
    /// What this checkpoint calls its tensors, and puts before their names.
    names: &'a Names,
    prefix: &'a str,
}

/// Layers with the same input, some rows of a tensor each.
struct Stack<'a> {
    parts: Vec<Rows<'a>>,
    inputs: usize,
    activation: Activation,
}

struct Rows<'a> {
    weight: Cow<'a, [f32]>,
    bias: Vec<f32>,
    factor: f32,
}

impl<'a> Loader<'a> {
    /// `reach` is how long texts will be.
    pub(crate) fn new(
        (spec, reach): (&'a EncoderConfig, usize),
        tensors: &'a Tensors<'a>,
        (kernels, precision): (Kernels, Precision),
    ) -> Self {
        let candidates = spec.names.iter().flat_map(|names| {
            let prefixes = spec.prefixes.iter().copied().chain(ANY_PREFIXES.iter().copied());
            prefixes.map(move |prefix| (names, prefix))
        });
        let there = |(names, prefix): &(&Names, &str)| {
            tensors.has(&format!("{prefix}{}.0.{}.weight", names.layers, names.attention_output))
        };
        // Where nothing fits, the plain names, so that the error names those.
        let (names, prefix) = candidates.clone().find(there).unwrap_or((&spec.names[0], ""));
        Self { spec, tensors, kernels, precision, reach, names, prefix }
    }

    pub(crate) fn encoder(&self) -> Result<Encoder, LoadError> {
        let spec = self.spec;
        let kind = |kind: &super::spec::AttentionSpec| AttentionKind {
            sight: kind.sight,
            angles: kind.rotary.map(|rotary| angles(&rotary.frequencies(spec.head_width), self.reach)),
        };
        Ok(Encoder {
            kernels: self.kernels,
            precision: self.precision,
            hidden: spec.hidden,
            intermediate: spec.intermediate,
            heads: spec.heads,
            key_value_heads: spec.key_value_heads,
            head_width: spec.head_width,
            gate: match spec.feed_forward {
                FeedForward::Gelu => None,
                FeedForward::Gated(gate) => Some(gate),
            },
            words: self.words()?,
            positions: self.positions()?,
            embedding_norm: self.names.embedding_norm.map(|name| self.norm(name, spec.hidden)).transpose()?,
            layers: self.layers()?,
            kinds: spec.attention.iter().map(kind).collect(),
            bias: match spec.score_bias {
                None => None,
                Some(ScoreBias::Buckets(buckets)) => Some(mpnet::bias(self, buckets)?),
                Some(ScoreBias::Slopes) => Some(jina_bert::bias(spec.heads, spec.positions)),
            },
            longest: if spec.position_table.is_some() { spec.positions } else { self.reach },
            final_norm: self.names.final_norm.map(|name| self.norm(name, spec.hidden)).transpose()?,
        })
    }

    /// A tensor of this shape, by the name in the checkpoint but for the prefix.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>, LoadError> {
        self.tensors.get(&format!("{}{name}", self.prefix), shape)
    }

    /// Word embeddings, with the token type's where no positions take it.
    fn words(&self) -> Result<EmbeddingTable, LoadError> {
        let EncoderConfig { hidden: h, vocabulary, word_scale: scale, position_table, .. } = *self.spec;
        let token_type = if position_table.is_none() { self.token_type()? } else { None };
        let mut words = EmbeddingTable::new(vocabulary, h, self.precision);
        let name = format!("{}{}.weight", self.prefix, self.names.words);
        self.tensors.each_row(&name, [vocabulary, h], |row| {
            row.iter_mut().for_each(|x| *x *= scale);
            add(row, token_type.as_deref());
            words.push(row);
        })?;
        Ok(words)
    }

    fn positions(&self) -> Result<Option<EmbeddingTable>, LoadError> {
        let Some(table) = self.spec.position_table else { return Ok(None) };
        let h = self.spec.hidden;
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

    /// What every token gets, because all are of the first type.
    fn token_type(&self) -> Result<Option<Vec<f32>>, LoadError> {
        let EncoderConfig { hidden: h, token_types, .. } = *self.spec;
        if token_types == 0 {
            return Ok(None);
        }
        let types = self.tensor(&format!("{}.weight", self.names.token_types), &[token_types, h])?;
        Ok(Some(types[..h].to_vec()))
    }

    /// Packing takes most of the time, and layers know nothing of each other.
    fn layers(&self) -> Result<Vec<Layer>, LoadError> {
        let count = self.spec.layers;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
        let share = |index: usize| count * index / threads..count * (index + 1) / threads;
        let shares: Vec<Result<Vec<Layer>, LoadError>> = std::thread::scope(|scope| {
            let pack = |index| {
                share(index).map(|layer| self.layer(layer)).inspect(|_| self.tensors.release()).collect()
            };
            let others: Vec<_> = (1..threads).map(|index| scope.spawn(move || pack(index))).collect();
            let first = pack(0);
            let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            std::iter::once(first).chain(others.into_iter().map(join)).collect()
        });
        shares.into_iter().collect::<Result<Vec<_>, _>>().map(|shares| shares.into_iter().flatten().collect())
    }

    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (spec, names) = (self.spec, self.names);
        let (h, wide, attended) = (spec.hidden, spec.intermediate, spec.heads * spec.head_width);
        let named = |name: &str| format!("{}.{index}.{name}", names.layers);
        let activation = match spec.feed_forward {
            FeedForward::Gelu => Activation::Gelu,
            FeedForward::Gated(_) => Activation::None,
        };
        let single = |name, (inputs, outputs), has_bias| {
            let parts = vec![self.linear(&named(name), (inputs, outputs), has_bias)?];
            Ok::<_, LoadError>(self.pack(Stack { parts, inputs, activation: Activation::None }))
        };
        Ok(Layer {
            kind: spec.layer_types[index],
            qkv: self.pack(Stack { parts: self.qkv(&named)?, inputs: h, activation: Activation::None }),
            head_norms: names.head_norms.map(|names| self.head_norms(names, &named)).transpose()?,
            attention_output: single(names.attention_output, (attended, h), spec.biases.attention_output)?,
            up: self.pack(Stack { parts: self.up(&named)?, inputs: h, activation }),
            down: single(names.down, (wide, h), spec.biases.down)?,
            norms: self.norms(index, &named)?,
        })
    }

    /// Queries, scaled, keys and values.
    fn qkv(&self, named: &impl Fn(&str) -> String) -> Result<Vec<Rows<'a>>, LoadError> {
        let EncoderConfig { hidden: h, heads, key_value_heads, head_width, query_scale, .. } = *self.spec;
        let rows = [heads * head_width, key_value_heads * head_width, key_value_heads * head_width];
        let bias = self.spec.biases.qkv;
        let mut parts = match self.names.qkv {
            QkvNames::Separate(names) => names
                .iter()
                .zip(rows)
                .map(|(name, rows)| self.linear(&named(name), (h, rows), bias))
                .collect::<Result<Vec<_>, _>>()?,
            QkvNames::Fused(name) => self.linear(&named(name), (h, rows.iter().sum()), bias)?.split(h, &rows),
        };
        // Norms of the heads undo a scale; then they have it.
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
        let EncoderConfig { head_width, query_scale, .. } = *self.spec;
        let mut query = self.norm(&named(query), head_width)?;
        query.gamma.iter_mut().for_each(|x| *x *= query_scale);
        Ok([query, self.norm(&named(key), head_width)?])
    }

    /// The first layer of the feed-forward part, the gate first where it has one.
    fn up(&self, named: &impl Fn(&str) -> String) -> Result<Vec<Rows<'a>>, LoadError> {
        let EncoderConfig { hidden: h, intermediate: wide, .. } = *self.spec;
        let linear = |name: &str, outputs| self.linear(&named(name), (h, outputs), self.spec.biases.up);
        Ok(match self.names.up {
            UpNames::Plain(name) => vec![linear(name, wide)?],
            UpNames::Separate { gate, up } => vec![linear(gate, wide)?, linear(up, wide)?],
            UpNames::GateUp(name) => vec![linear(name, 2 * wide)?],
            UpNames::UpGate(name) => {
                let mut parts = linear(name, 2 * wide)?.split(h, &[wide, wide]);
                parts.reverse();
                parts
            }
        })
    }

    fn norms(&self, index: usize, named: &impl Fn(&str) -> String) -> Result<LayerNorms, LoadError> {
        let norm = |name: &str| self.norm(&named(name), self.spec.hidden);
        Ok(match self.names.norms {
            NormNames::Post([attention, feed_forward]) => {
                LayerNorms::Post { attention: norm(attention)?, feed_forward: norm(feed_forward)? }
            }
            NormNames::PreButFirst([_, feed_forward]) if index == 0 => {
                LayerNorms::Pre { attention: None, feed_forward: norm(feed_forward)?, behind: None }
            }
            NormNames::Pre([attention, feed_forward]) | NormNames::PreButFirst([attention, feed_forward]) => {
                let attention = Some(norm(attention)?);
                LayerNorms::Pre { attention, feed_forward: norm(feed_forward)?, behind: None }
            }
            NormNames::Sandwich { before, behind } => LayerNorms::Pre {
                attention: Some(norm(before[0])?),
                feed_forward: norm(before[1])?,
                behind: Some([norm(behind[0])?, norm(behind[1])?]),
            },
        })
    }

    fn linear(
        &self,
        name: &str,
        (inputs, outputs): (usize, usize),
        has_bias: bool,
    ) -> Result<Rows<'a>, LoadError> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = match has_bias {
            true => self.tensor(&format!("{name}.bias"), &[outputs])?.into_owned(),
            false => vec![0.0; outputs],
        };
        Ok(Rows { weight, bias, factor: 1.0 })
    }

    fn pack(&self, Stack { parts, inputs, activation }: Stack<'_>) -> PackedMatrix {
        let parts: Vec<Part<'_>> = parts
            .iter()
            .map(|rows| Part { weight: &rows.weight, bias: &rows.bias, factor: rows.factor })
            .collect();
        self.kernels.pack(self.precision, &Linear { parts: &parts, inputs, activation })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, LoadError> {
        let norm = self.spec.norm;
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

/// What any checkpoint may put before its names: nothing, or where sentence-transformers saved it as a whole.
const ANY_PREFIXES: &[&str] = &["", "0.auto_model."];

impl<'a> Rows<'a> {
    /// The rows of several layers that one tensor holds.
    fn split(self, inputs: usize, rows: &[usize]) -> Vec<Self> {
        let mut first = 0;
        let mut part = |rows: usize| {
            let here = first..first + rows;
            first += rows;
            let range = here.start * inputs..here.end * inputs;
            let weight = match &self.weight {
                Cow::Borrowed(weight) => Cow::Borrowed(&weight[range]),
                Cow::Owned(weight) => Cow::Owned(weight[range].to_vec()),
            };
            Self { weight, bias: self.bias[here].to_vec(), factor: self.factor }
        };
        rows.iter().map(|rows| part(*rows)).collect()
    }
}

fn add(row: &mut [f32], other: Option<&[f32]>) {
    row.iter_mut().zip(other.into_iter().flatten()).for_each(|(x, y)| *x += y);
}

/// In f32, as the references compute them.
fn angles(turns: &[f32], positions: usize) -> Angles {
    let row = |position: usize| {
        let angle = move |turn: &f32| position as f32 * turn;
        turns.iter().map(move |turn| angle(turn).cos()).chain(turns.iter().map(move |turn| angle(turn).sin()))
    };
    Angles { numbers: (0..positions).flat_map(row).collect(), head_width: 2 * turns.len() }
}
