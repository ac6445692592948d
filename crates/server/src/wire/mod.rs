//! What travels: requests as callers write them, answers as they read them. Nothing here leaves this crate.

pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod answer;
pub(crate) mod batch;
pub(crate) mod collections;
pub(crate) mod dtype;
pub(crate) mod embeddings;
pub(crate) mod fields;
pub(crate) mod input;
pub(crate) mod jobs;
mod json;
pub(crate) mod models;
pub(crate) mod operate;
pub(crate) mod samples;
