//! Everything that implements [`Embedder`](embeddery_core::Embedder) and
//! [`Provider`](embeddery_core::Provider): this machine's own engine ([`local`]), ONNX Runtime ([`onnx`]) and everybody else
//! ([`Vendor`]), one file per vendor's form. Adapters decide what a failure means; the gateway's wrappers only
//! obey.

mod billed_tokens;
mod catalogue;
mod cohere;
mod endpoint;
mod google;
mod http;
#[cfg(feature = "local")]
pub mod local;
mod local_api;
mod mistral;
#[cfg(feature = "onnx")]
pub mod onnx;
mod openai;
mod response_vectors;
mod vendor;
mod vendor_protocol;
mod voyage;

pub use catalogue::{Catalogue, CatalogueLimits, Family, Known, WrittenLengths};
pub use endpoint::Endpoint;
pub use http::{BaseUrl, HttpClient, Outbound};
pub use local_api::Dialect;
pub use vendor::{ModelSettings, Vendor, VendorConfig};
