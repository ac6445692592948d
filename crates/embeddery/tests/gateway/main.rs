//! Tests of the gateway with the compiled binary over HTTP. Its providers are fake vendors that enforce limits, return
//! faults on demand and record every text of a request.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "../binary/support.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

mod cache;
mod clients;
mod controls;
mod fallback;
mod gateway;
mod misbehaviour;
mod redis;
mod servers;
mod splitting;
mod vendor_answers;
