//! Architectures: one file each, which reads `config.json` into a [`EncoderConfig`]. The loader and the encoder know nothing of
//! their names.

mod bert;
mod distilbert;
mod embedding_table;
mod encoder;
mod forward;
mod gemma3;
mod gte;
mod jina_bert;
mod loader;
mod model2vec;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod qwen3;
mod roberta;
mod rotary;
mod shared_buffer;
mod spec;

pub(crate) use encoder::{Encoder, Workspace};
pub(crate) use loader::Loader;
pub(crate) use model2vec::{StaticSpec, StaticVectors, unknown};
pub(crate) use spec::EncoderConfig;

use crate::{LoadError, files::Config};

/// An architecture that this engine runs.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// Its `model_type` in config.json.
    pub(crate) name: &'static str,
    /// The classes that repositories with code of their own give for it.
    remote: &'static [&'static str],
    read: Read,
}

type Read = fn(&Config) -> Result<EncoderConfig, LoadError>;

/// A model without an encoder.
pub(crate) const MODEL2VEC: &str = "model2vec";

/// What a configuration describes.
#[derive(Clone, Debug)]
pub(crate) enum NetworkSpec {
    Encoder(EncoderConfig),
    Static(StaticSpec),
}

impl NetworkSpec {
    /// Numbers in a token's vector.
    pub(crate) fn hidden(&self) -> usize {
        match self {
            Self::Encoder(spec) => spec.hidden,
            Self::Static(spec) => spec.width,
        }
    }

    pub(crate) fn layers(&self) -> usize {
        match self {
            Self::Encoder(spec) => spec.layers,
            Self::Static(_) => 0,
        }
    }

    pub(crate) fn vocabulary(&self) -> usize {
        match self {
            Self::Encoder(spec) => spec.vocabulary,
            Self::Static(spec) => spec.vocabulary,
        }
    }

    /// Most tokens of a text.
    pub(crate) fn positions(&self) -> usize {
        match self {
            Self::Encoder(spec) => spec.positions,
            Self::Static(spec) => spec.positions,
        }
    }
}

const ALL: &[Architecture] = &[
    Architecture { name: "bert", remote: &[], read: bert::read },
    Architecture { name: "camembert", remote: &[], read: roberta::read },
    Architecture { name: "distilbert", remote: &[], read: distilbert::read },
    Architecture { name: "gemma3_text", remote: &[], read: gemma3::read },
    Architecture { name: "gte", remote: &["GteModel", "NewModel"], read: gte::read },
    Architecture { name: "modernbert", remote: &[], read: modernbert::read },
    Architecture { name: "mpnet", remote: &[], read: mpnet::read },
    Architecture { name: "new", remote: &["NewModel"], read: gte::read },
    Architecture { name: "nomic_bert", remote: &["NomicBertModel"], read: nomic_bert::read },
    Architecture { name: "qwen3", remote: &[], read: qwen3::read },
    Architecture { name: "roberta", remote: &[], read: roberta::read },
    Architecture { name: "xlm-roberta", remote: &[], read: roberta::read },
];

/// JinaBERT v2 calls itself `bert`, and its code tells it.
const JINA: Architecture =
    Architecture { name: "jina_bert", remote: &["JinaBertModel"], read: jina_bert::read };

impl Architecture {
    /// The architecture that a configuration asks for. One that comes with code of its own is run only where that code
    /// is known to be what this engine does.
    pub(crate) fn of(config: &Config) -> Result<&'static Self, LoadError> {
        let model_type = config.text_or("model_type", "")?;
        let found = match config.text_or("position_embedding_type", "")? {
            "alibi" if model_type == "bert" => Some(&JINA),
            _ => ALL.iter().find(|architecture| architecture.name == model_type),
        };
        let code = config.below("auto_map")?;
        let class = code.text_or("AutoModel", "")?;
        let name = class.rsplit('.').next().unwrap_or_default();
        match found {
            Some(known) if name.is_empty() || known.remote.contains(&name) => Ok(known),
            _ if !name.is_empty() => {
                let found = format!("{model_type}' with code of its own, '{class}");
                Err(config.unsupported(
                    "model_type",
                    &found,
                    &format!("no foreign code; it runs {}", names()),
                ))
            }
            _ => Err(config.unsupported("model_type", model_type, &names())),
        }
    }

    /// What the configuration describes.
    pub(crate) fn spec(&self, config: &Config) -> Result<EncoderConfig, LoadError> {
        (self.read)(config)
    }
}

/// All names, for an error.
fn names() -> String {
    let named = ALL.iter().chain([&JINA]).map(|architecture| architecture.name);
    named.chain([MODEL2VEC]).collect::<Vec<_>>().join(", ")
}
