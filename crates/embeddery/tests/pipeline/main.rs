//! The pipeline as an operator runs it: a real Redis, an API and workers of their own processes, and SIGKILL.
//! The vendor is a stand-in that counts what it was asked for.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail so")]
#![expect(clippy::print_stdout, reason = "a soak tells its figures")]

#[path = "../binary/support.rs"]
#[expect(dead_code, reason = "shared with the other program, which uses the rest")]
mod support;
#[path = "../binary/tokens.rs"]
mod tokens;

mod cluster;
mod disk;
mod kills;
mod operation;
mod orchestrator;
mod outages;
