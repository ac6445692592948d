//! What travels: requests as callers write them, answers as they read them. Nothing here leaves this crate.

pub(crate) mod accounts;
pub(crate) mod embeddings;
pub(crate) mod fields;
pub(crate) mod models;
