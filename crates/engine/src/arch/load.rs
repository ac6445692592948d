//! Takes an encoder's tensors by their checkpoint names and packs them, several layers at once.

use super::encoder::{Encoder, Layer};
use crate::{
    LoadError, Precision,
    files::EncoderConfig,
    kernels::{Activation, DistanceBias, Kernels, Linear, Norm, PackedMatrix, Part},
    weights::Tensors,
};

/// What loading needs.
pub(super) struct Loader<'a> {
    pub(super) config: &'a EncoderConfig,
    pub(super) tensors: &'a Tensors<'a>,
    pub(super) kernels: Kernels,
    /// Never `Auto`.
    pub(super) precision: Precision,
}

/// What a layer's tensors are called, each below `encoder.layer.<n>.`, without `.weight` and `.bias`.
pub(super) struct LayerNames {
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) attention_output: &'static str,
    pub(super) attention_norm: &'static str,
}

/// What architectures of this kind do alike: everything but these.
pub(super) struct Specific {
    pub(super) names: LayerNames,
    /// `[positions × h]`, the first for a text's first token, ready to be added.
    pub(super) positions: Vec<f32>,
    pub(super) bias: Option<DistanceBias>,
}

impl Loader<'_> {
    pub(super) fn encoder(&self, specific: Specific) -> Result<Encoder, LoadError> {
        let (config, h) = (self.config, self.config.hidden_size);
        let words = self.tensors.get("embeddings.word_embeddings.weight", &[config.vocab_size, h])?;
        Ok(Encoder {
            kernels: self.kernels,
            precision: self.precision,
            hidden: h,
            intermediate: config.intermediate_size,
            head_count: config.num_attention_heads,
            words: super::table::Table::new(words.into_owned(), h, self.precision),
            positions: super::table::Table::new(specific.positions, h, self.precision),
            embedding_norm: self.norm("embeddings.LayerNorm")?,
            layers: self.layers(&specific.names)?,
            bias: specific.bias,
        })
    }

    /// Packing takes most of the time, and layers know nothing of each other.
    fn layers(&self, names: &LayerNames) -> Result<Vec<Layer>, LoadError> {
        let count = self.config.num_hidden_layers;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
        let share = |index: usize| count * index / threads..count * (index + 1) / threads;
        let shares: Vec<Result<Vec<Layer>, LoadError>> = std::thread::scope(|scope| {
            let pack = |index| share(index).map(|layer| self.layer(layer, names)).collect();
            let others: Vec<_> = (1..threads).map(|index| scope.spawn(move || pack(index))).collect();
            let first = pack(0);
            let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            std::iter::once(first).chain(others.into_iter().map(join)).collect()
        });
        shares.into_iter().collect::<Result<Vec<_>, _>>().map(|shares| shares.into_iter().flatten().collect())
    }

    fn layer(&self, index: usize, names: &LayerNames) -> Result<Layer, LoadError> {
        let EncoderConfig { hidden_size: h, intermediate_size: wide, num_attention_heads: heads, .. } =
            *self.config;
        let named = |name: &str| format!("encoder.layer.{index}.{name}");
        let query_scale = 1.0 / ((h / heads) as f32).sqrt();
        let qkv = [(named(names.query), query_scale), (named(names.key), 1.0), (named(names.value), 1.0)];
        Ok(Layer {
            qkv: self.linear(&qkv, (h, h), Activation::None)?,
            attention_output: self.linear(
                &[(named(names.attention_output), 1.0)],
                (h, h),
                Activation::None,
            )?,
            attention_norm: self.norm(&named(names.attention_norm))?,
            feed_forward: self.linear(&[(named("intermediate.dense"), 1.0)], (h, wide), Activation::Gelu)?,
            output: self.linear(&[(named("output.dense"), 1.0)], (wide, h), Activation::None)?,
            output_norm: self.norm(&named("output.LayerNorm"))?,
        })
    }

    /// Linear layers with the same input, stacked; each has `outputs` outputs.
    fn linear(
        &self,
        layers: &[(String, f32)],
        (inputs, outputs): (usize, usize),
        activation: Activation,
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
        Ok(self.kernels.pack(self.precision, &Linear { parts: &parts, inputs, activation }))
    }

    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        let h = self.config.hidden_size;
        Ok(Norm {
            gamma: self.tensors.get(&format!("{name}.weight"), &[h])?.into_owned(),
            beta: self.tensors.get(&format!("{name}.bias"), &[h])?.into_owned(),
            epsilon: self.config.layer_norm_eps,
        })
    }
}
