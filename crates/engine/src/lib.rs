#![doc = include_str!("../README.md")]

mod arch;
mod error;
mod files;
mod footprint;
mod head;
mod kernels;
mod measure;
mod model;
mod pooling;
mod precision;
mod text;
mod threads;
mod tokenizer;
mod weights;

pub use error::{EncodeError, LoadError, TokenizeError};
pub use files::{ModelFiles, ModelInfo, Pooling, Prompts};
pub use kernels::KernelChoice;
pub use measure::peak_operations_per_second;
pub use model::{LoadOptions, Model};
pub use pooling::normalize;
pub use precision::Precision;
pub use text::{TextFiles, TextModel};
pub use threads::{Threads, ThreadsError};
pub use tokenizer::{Keep, Tokens};
