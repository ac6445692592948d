//! The API through its front door: a real listener on a port of its own, the wrappers of the binary, and a
//! provider that answers, waits, fails or panics as a test tells it. One program, so that it links once.

mod bad_input;
mod embeddings;
mod support;
