//! Documents through all stages in one process: success, isolated failures and deferrals.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod crashes;
mod end_to_end;
mod failures;
mod orchestrator;
mod order;
mod support;
