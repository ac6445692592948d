//! Accounts through the front door of the real binary: what processes share and survive, what attackers get,
//! where secrets show. One program, so that it links once.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod attacks;
mod processes;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
