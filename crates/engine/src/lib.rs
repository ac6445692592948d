#![doc = include_str!("../README.md")]

mod arch;
mod error;
mod files;
mod kernels;
mod memory_estimate;
mod model;
mod model_files;
mod peak_flops;
mod pooling;
mod post_pooling;
mod precision;
mod text_pipeline;
mod thread_pool;
mod tokenizer;
mod weights;

pub use error::{EncodeError, LoadError, TokenizeError};
pub use files::{Pooling, Prompts};
pub use kernels::KernelChoice;
pub use model::{LoadOptions, Model};
pub use model_files::{EngineModelInfo, ModelFiles};
pub use peak_flops::peak_operations_per_second;
pub use pooling::normalize;
pub use precision::Precision;
pub use text_pipeline::{TextFiles, TextModel};
pub use thread_pool::{Threads, ThreadsError};
pub use tokenizer::{Tokens, TruncationSide};
