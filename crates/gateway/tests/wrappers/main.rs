//! Wrappers that depend on time or on any input, over a scripted model; time is paused.

mod governor;
mod retry;
mod scripted;
mod splitter;
