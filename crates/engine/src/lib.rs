#![doc = include_str!("../README.md")]

mod arch;
mod error;
mod files;
mod kernels;
mod model;
mod pooling;
mod threads;
mod tokenizer;
mod weights;

pub use error::{LoadError, TokenizeError};
pub use files::{ModelFiles, ModelInfo, Pooling};
pub use kernels::KernelChoice;
pub use model::{LoadOptions, Model};
pub use pooling::normalize;
pub use threads::{Threads, ThreadsError};
pub use tokenizer::{Keep, Tokens};
