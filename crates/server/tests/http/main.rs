//! The API through its front door: a real listener on a port of its own, the wrappers of the binary, and a
//! provider that answers, waits, fails or panics as a test tells it. One program, so that it links once.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod accounts;
mod any_body;
mod bad_input;
mod collections;
mod connections;
mod documents;
mod embeddings;
mod failures;
mod features;
mod jobs;
mod log;
mod models;
mod operation;
mod protocol;
mod request_bodies;
mod roles;
mod support;
mod untrusted_callers;
