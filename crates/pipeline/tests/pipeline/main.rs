//! Documents through all stages, in one process: what goes well, what fails alone, and what waits.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail so")]

mod deaths;
mod failures;
mod journey;
mod orchestrator;
mod order;
mod support;
