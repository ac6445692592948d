#![doc = include_str!("../README.md")]

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
mod reported_tokens;
mod response_vectors;
mod token_counter;
mod vendor;
mod vendor_protocol;
mod voyage;

pub use catalogue::{Catalogue, CatalogueLimits, CatalogueModel, CatalogueVendor, ConfiguredDimensions};
pub use endpoint::Endpoint;
pub use http::{BaseUrl, HttpClient, Outbound};
pub use local_api::Dialect;
pub use token_counter::VendorTokenizer;
pub use vendor::{ModelSettings, Vendor, VendorConfig};
