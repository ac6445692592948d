//! Accounts through the front door of the real binary: what processes share and survive, what attackers get,
//! where secrets show. One program, so that it links once.

mod attacks;
mod processes;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
