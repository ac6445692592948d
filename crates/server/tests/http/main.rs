//! Tests of the API over HTTP. Each test starts a server on its own port, with a fake provider that responds, waits,
//! fails or panics as the test configures it. All tests are one program, so that it links once.

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
