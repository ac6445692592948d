//! A server with a fake provider, and helpers that send requests to it.

pub mod accounts;
mod fake;
mod server;

pub use fake::{DIM, MAX_TOKENS, PLAIN, vector};
pub use server::{Answer, KEY, Server, rest, soon};
