//! Everything that implements [`Embedder`](embeddery_core::Embedder) and
//! [`Provider`](embeddery_core::Provider): this machine's own engine ([`local`]), ONNX Runtime ([`onnx`]) and everybody else
//! ([`Vendor`]), one file per vendor's form. Adapters decide what a failure means; the gateway's wrappers only
//! obey.

mod access;
mod catalogue;
mod cohere;
mod google;
mod http;
#[cfg(feature = "local")]
pub mod local;
mod local_api;
mod mistral;
#[cfg(feature = "onnx")]
pub mod onnx;
mod openai;
mod rows;
mod tokens;
mod vendor;
mod voyage;
mod wire;

pub use access::Access;
pub use catalogue::{CallLimits, Catalogue, Family, Known, WrittenLengths};
pub use http::{Address, Outbound, Sender};
pub use local_api::Dialect;
pub use vendor::{ModelSettings, Vendor, VendorConfig};
