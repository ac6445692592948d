//! Architectures. Each file of an architecture maps `config.json` to an [`EncoderConfig`]. The loader and the encoder
//! depend on that description only, not on architecture names.
//!
//! Modules import only from modules below them: `mod` → architectures → `rope_parameters`, `encoder_config`; and
//! `batch` → `forward`, and `loader` → `score_bias`, both → `encoder` → `embedding_table`, `shared_buffer`.

mod batch;
mod bert;
mod distilbert;
mod embedding_table;
mod encoder;
mod encoder_config;
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
mod rope_parameters;
mod score_bias;
mod shared_buffer;

pub(crate) use batch::Workspace;
pub(crate) use encoder::Encoder;
pub(crate) use encoder_config::EncoderConfig;
pub(crate) use loader::Loader;
pub(crate) use model2vec::{StaticConfig, StaticVectors, unknown_token};

use crate::{LoadError, files::Config};

/// A supported encoder architecture.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// Value of `model_type` in config.json.
    pub(crate) name: &'static str,
    /// Class names under `auto_map` that this engine implements, for repositories with custom code.
    custom_classes: &'static [&'static str],
    read: ReadConfig,
}

type ReadConfig = fn(&Config) -> Result<EncoderConfig, LoadError>;

/// `model_type` of static models, which have no encoder.
pub(crate) const MODEL2VEC: &str = "model2vec";

/// The network that a configuration describes.
#[derive(Clone, Debug)]
pub(crate) enum NetworkConfig {
    Encoder(EncoderConfig),
    Static(StaticConfig),
}

impl NetworkConfig {
    /// Width of a token vector.
    pub(crate) fn hidden(&self) -> usize {
        match self {
            Self::Encoder(config) => config.hidden,
            Self::Static(config) => config.width,
        }
    }

    pub(crate) fn layers(&self) -> usize {
        match self {
            Self::Encoder(config) => config.layers,
            Self::Static(_) => 0,
        }
    }

    pub(crate) fn vocabulary(&self) -> usize {
        match self {
            Self::Encoder(config) => config.vocabulary,
            Self::Static(config) => config.vocabulary,
        }
    }

    /// Maximum tokens of a text.
    pub(crate) fn max_positions(&self) -> usize {
        match self {
            Self::Encoder(config) => config.max_positions,
            Self::Static(config) => config.max_positions,
        }
    }
}

const ALL: &[Architecture] = &[
    Architecture { name: "bert", custom_classes: &[], read: bert::read },
    Architecture { name: "camembert", custom_classes: &[], read: roberta::read },
    Architecture { name: "distilbert", custom_classes: &[], read: distilbert::read },
    Architecture { name: "gemma3_text", custom_classes: &[], read: gemma3::read },
    Architecture { name: "gte", custom_classes: &["GteModel", "NewModel"], read: gte::read },
    Architecture { name: "modernbert", custom_classes: &[], read: modernbert::read },
    Architecture { name: "mpnet", custom_classes: &[], read: mpnet::read },
    Architecture { name: "new", custom_classes: &["NewModel"], read: gte::read },
    Architecture { name: "nomic_bert", custom_classes: &["NomicBertModel"], read: nomic_bert::read },
    Architecture { name: "qwen3", custom_classes: &[], read: qwen3::read },
    Architecture { name: "roberta", custom_classes: &[], read: roberta::read },
    Architecture { name: "xlm-roberta", custom_classes: &[], read: roberta::read },
];

/// JinaBERT v2 has the `model_type` `bert`; its position embeddings and custom code identify it.
const JINA: Architecture =
    Architecture { name: "jina_bert", custom_classes: &["JinaBertModel"], read: jina_bert::read };

impl Architecture {
    /// Finds the architecture of a configuration. A repository with custom code is accepted only if this engine
    /// implements the class that its `auto_map` names.
    ///
    /// # Errors
    /// The architecture or the custom class is not supported.
    pub(crate) fn for_config(config: &Config) -> Result<&'static Self, LoadError> {
        let model_type = config.str_or("model_type", "")?;
        let architecture = match config.str_or("position_embedding_type", "")? {
            "alibi" if model_type == "bert" => Some(&JINA),
            _ => ALL.iter().find(|architecture| architecture.name == model_type),
        };
        let auto_map = config.section("auto_map")?;
        let class = auto_map.str_or("AutoModel", "")?;
        let name = class.rsplit('.').next().unwrap_or_default();
        match architecture {
            Some(known) if name.is_empty() || known.custom_classes.contains(&name) => Ok(known),
            _ if !name.is_empty() => {
                let found = format!("{model_type}' with custom code, '{class}");
                let supported = format!("no custom code, and these types: {}", supported_names());
                Err(config.unsupported("model_type", &found, &supported))
            }
            _ => Err(config.unsupported("model_type", model_type, &supported_names())),
        }
    }

    /// Reads the encoder's description from the configuration.
    pub(crate) fn read_config(&self, config: &Config) -> Result<EncoderConfig, LoadError> {
        (self.read)(config)
    }
}

/// All supported names, for an error message.
fn supported_names() -> String {
    let names = ALL.iter().chain([&JINA]).map(|architecture| architecture.name);
    names.chain([MODEL2VEC]).collect::<Vec<_>>().join(", ")
}
