//! Prints the OpenAPI document: `make openapi` keeps it in `openapi.json`, which a test compares.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a developer's tool")]

fn main() {
    println!("{}", embeddery_server::openapi().to_pretty_json().expect("the document is JSON"));
}
