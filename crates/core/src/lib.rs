//! The words every other crate speaks: what is asked ([`EmbedRequest`]), what is answered
//! ([`Embeddings`]), what can go wrong ([`EmbedError`]), and who answers ([`Embedder`], [`Provider`]).
//!
//! This crate names no runtime and nothing here is serialisable: wire types sit at the edge that owns
//! the wire. A change here is a change of the architecture.

mod embedder;
mod embeddings;
mod error;
mod model;
mod nearest_name;
mod notes;
mod progress;
mod rate;
mod request;
mod source;
mod trace;

pub use embedder::{BoxFuture, Embedder, Provider};
pub use embeddings::Embeddings;
pub use error::{EmbedError, ErrorKind, Fault, InputFault, Retry};
pub use model::{
    Identity, Lengths, Limits, ModelCard, ModelDescription, ModelFacts, ModelRef, ModelState, ModelStatus,
    ProviderKind, SpaceId, TokenCount,
};
pub use nearest_name::{nearest_name, nearest_names};
pub use notes::Notes;
pub use progress::Progress;
pub use rate::{RateHint, RateListener, RateWindow};
pub use request::{Context, DimensionPolicy, EmbedRequest, Input, InputType, Priority, Truncate};
pub use source::{ModelSource, SourceError, SourceErrorKind};
pub use trace::TraceContext;
