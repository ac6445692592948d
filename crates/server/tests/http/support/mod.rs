//! A server with a scripted provider behind it, and short ways to ask it.

mod fake;
mod server;

pub use fake::{DIM, Fake, MAX_TOKENS, PLAIN, vector};
pub use server::{Answer, KEY, Server, app, rest, soon};
