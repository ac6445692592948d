//! Wrappers that depend on time or on any input, over a scripted model; time is paused.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod governor;
mod mock_embedder;
mod retry;
mod splitter;
