//! The store through its front door, against a stand-in hub over real HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod faults;
mod fetch;
mod lookup;
mod support;
