//! Tests of wrappers that depend on time or hold for any input, around a mock embedder; time is paused.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod breaker;
mod fallback;
mod mock_embedder;
mod retry;
mod splitter;
mod upstream_limiter;
