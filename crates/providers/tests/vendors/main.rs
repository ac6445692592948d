//! Tests of every adapter against mock vendors over HTTP: requests, responses, and the errors of every fault.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod endpoints;
mod faults;
mod requests;
mod support;
mod tls;
