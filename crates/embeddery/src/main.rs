#![doc = include_str!("../README.md")]

mod api_key;
mod cli;
mod commands;
mod config;
mod logging;
mod model_metrics;
mod otlp;
mod pipeline_setup;
mod process_metrics;
mod reload;
mod stack;
mod stores;
mod systemd;
mod wiring;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match commands::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            let invalid = error.is::<config::ConfigError>() || error.is::<commands::ReportedError>();
            ExitCode::from(if invalid { 2 } else { 1 })
        }
    }
}

#[expect(clippy::print_stderr, reason = "the error of a failed command goes to standard error")]
fn report(error: &anyhow::Error) {
    eprintln!("embeddery: {error:#}");
}
