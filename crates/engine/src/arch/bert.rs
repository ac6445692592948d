//! BERT: absolute positions, and a token type that is always the first, because one text has no other. The
//! reference is transformers' `BertModel` in evaluation mode.

use super::{
    encoder::Encoder,
    load::{LayerNames, Loader, Specific},
};
use crate::LoadError;

pub(super) fn load(loader: &Loader<'_>) -> Result<Encoder, LoadError> {
    let (config, h) = (loader.config, loader.config.hidden_size);
    let types =
        loader.tensors.get("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, h])?;
    let positions = "embeddings.position_embeddings.weight";
    let mut positions = loader.tensors.get(positions, &[config.max_position_embeddings, h])?.into_owned();
    for row in positions.chunks_exact_mut(h) {
        row.iter_mut().zip(&types[..h]).for_each(|(x, t)| *x += t);
    }
    loader.encoder(Specific {
        names: LayerNames {
            query: "attention.self.query",
            key: "attention.self.key",
            value: "attention.self.value",
            attention_output: "attention.output.dense",
            attention_norm: "attention.output.LayerNorm",
        },
        positions,
        bias: None,
    })
}
