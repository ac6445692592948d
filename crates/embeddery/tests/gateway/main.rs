//! The gateway through the front door: the real binary over HTTP, with stand-ins for the vendors behind it
//! that enforce limits, misbehave on command and record every text they are asked for.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "../binary/support.rs"]
#[expect(dead_code, reason = "each test uses its part")]
mod support;

mod cache;
mod clients;
mod controls;
mod fallback;
mod gateway;
mod misbehaviour;
mod redis;
mod splitting;
