//! Every adapter against the stand-in vendors over real HTTP: what is asked, what comes back, and what every
//! misbehaviour means.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod access;
mod forms;
mod misbehaviour;
mod support;
mod tls;
