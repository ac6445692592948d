//! The binary: command line in, exit code out. 0 is success, 1 a failure, 2 a wrong command line or
//! configuration, 130 a second signal during shutdown.

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
mod systemd;
mod wiring;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match commands::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            let wrong = error.is::<config::ConfigError>() || error.is::<commands::ReportedError>();
            ExitCode::from(if wrong { 2 } else { 1 })
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a failing command goes to the person at the terminal"
)]
fn report(error: &anyhow::Error) {
    eprintln!("embeddery: {error:#}");
}
