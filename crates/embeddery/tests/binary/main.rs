//! Tests of the compiled binary: commands, HTTP, files and signals. They are one test program, so that it links once.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod accounts;
mod attacks;
mod collections;
mod documented;
mod embed;
mod generate;
mod import_chroma;
mod lifecycle;
mod models;
mod onnx;
mod reload;
mod retrieval;
mod secrets;
mod serve;
mod support;
mod tokens;
mod traces;
mod vendors;
