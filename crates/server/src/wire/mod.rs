//! Types of requests and responses. Nothing here leaves this crate. A request type is also its OpenAPI schema: a new
//! field is added to the struct, and used.

pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod batch;
pub(crate) mod collections;
pub(crate) mod dtype;
pub(crate) mod embeddings;
pub(crate) mod embeddings_response;
pub(crate) mod exact_json;
mod fast_json;
mod field;
pub(crate) mod input;
pub(crate) mod jobs;
pub(crate) mod models;
pub(crate) mod operator;
pub(crate) mod parse;
pub(crate) mod prometheus_json;
