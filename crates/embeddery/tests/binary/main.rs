//! The binary as its users meet it: started, asked over HTTP, stopped by signals. One program, so that it links once.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

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
mod secrets;
mod serve;
mod support;
mod tokens;
mod traces;
mod vendors;
