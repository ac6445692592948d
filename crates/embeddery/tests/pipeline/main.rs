//! Tests of the pipeline with several processes: a real Redis, the API, workers, orchestrators and SIGKILL. The provider is
//! a fake vendor that records all texts.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a soak test prints its measurements")]

#[path = "../binary/support.rs"]
#[expect(dead_code, reason = "shared with the test program binary, which uses the rest")]
mod support;
#[path = "../binary/tokens.rs"]
mod tokens;

mod cluster;
mod disk;
mod kills;
mod operation;
mod orchestrator;
mod outages;
