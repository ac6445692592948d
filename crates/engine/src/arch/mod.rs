//! Architectures: one file each, which names the tensors and fills in what is its own.

mod bert;
mod encoder;
mod load;
mod mpnet;
mod shared;
mod table;

pub(crate) use encoder::{Encoder, Workspace};

use crate::{LoadError, Precision, files::EncoderConfig, kernels::Kernels, weights::Tensors};

/// An architecture that this engine runs, by its `model_type` in config.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Bert,
    MpNet,
}

impl Architecture {
    const ALL: [Self; 2] = [Self::Bert, Self::MpNet];

    pub(crate) fn named(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == model_type)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::MpNet => "mpnet",
        }
    }

    /// All names, for an error.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Most tokens of a text that the weights have positions for.
    pub(crate) fn positions(self, config: &EncoderConfig) -> usize {
        match self {
            Self::Bert => config.max_position_embeddings,
            Self::MpNet => config.max_position_embeddings.saturating_sub(mpnet::FIRST_POSITION),
        }
    }

    /// What checkpoints saved with a task's head put before the encoder's own names.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::MpNet => "mpnet.",
        }
    }

    /// Packs the weights.
    pub(crate) fn load(
        self,
        config: &EncoderConfig,
        tensors: &Tensors<'_>,
        (kernels, precision): (Kernels, Precision),
    ) -> Result<Encoder, LoadError> {
        let loader = load::Loader { config, tensors, kernels, precision };
        match self {
            Self::Bert => bert::load(&loader),
            Self::MpNet => mpnet::load(&loader),
        }
    }
}
