//! Tests of the public API against a mock hub over HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod faults;
mod fetch;
mod lookup;
mod support;
