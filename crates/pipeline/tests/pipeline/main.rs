//! Documents through all stages, in one process: what goes well, what fails alone, and what waits.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail so")]

mod crashes;
mod end_to_end;
mod failures;
mod orchestrator;
mod order;
mod support;
