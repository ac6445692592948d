//! DistilBERT: BERT without token types, under names of its own. The reference is transformers' `DistilBertModel` in
//! evaluation mode.

use super::{
    bert,
    spec::{Names, NormNames, PositionTable, QkvNames, Sizes, Spec, UpNames},
};
use crate::{LoadError, files::Config};

const NAMES: Names = Names {
    layers: "transformer.layer",
    qkv: QkvNames::Apart(["attention.q_lin", "attention.k_lin", "attention.v_lin"]),
    attention_output: "attention.out_lin",
    norms: NormNames::Post(["sa_layer_norm", "output_layer_norm"]),
    up: UpNames::Plain("ffn.lin1"),
    down: "ffn.lin2",
    ..super::spec::BERT_NAMES
};

pub(super) fn read(config: &Config) -> Result<Spec, LoadError> {
    config.only("activation", "gelu")?;
    let (hidden, heads) = (config.width("dim")?, config.width("n_heads")?);
    let rows = config.size("max_position_embeddings")?;
    let spec = Spec::of_bert(&Sizes {
        hidden,
        layers: config.size("n_layers")?,
        heads: bert::dividing(config, "n_heads", (heads, hidden))?,
        intermediate: config.width("hidden_dim")?,
        vocabulary: config.size("vocab_size")?,
        positions: rows,
        epsilon: 1e-12,
    });
    let position_table = Some(PositionTable { rows, first: 0 });
    Ok(Spec { position_table, names: &[NAMES], prefixes: &["distilbert."], ..spec })
}
