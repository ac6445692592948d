//! A server with a scripted provider behind it, and short ways to ask it.

pub mod accounts;
mod fake;
mod server;

pub use fake::{DIM, MAX_TOKENS, PLAIN, vector};
pub use server::{Answer, KEY, Server, rest, soon};
