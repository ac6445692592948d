//! One file per subcommand. Each loads the configuration itself, because each handles an invalid one differently.

mod bench;
mod check;
mod embed;
mod generate;
mod health;
mod import_chroma;
mod models;
mod orchestrator;
mod serve;
mod signals;
mod token;
mod worker;

use std::process::ExitCode;

use crate::{
    cli::{Cli, Command},
    config::{self, Flags},
};

/// Runs the subcommand of the command line.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let flags = Flags { config: cli.config, listen: None };
    match cli.command {
        Command::Serve(options) => serve::run(&Flags { listen: options.listen, ..flags }),
        Command::Orchestrator(options) => orchestrator::run(&options, &flags),
        Command::Worker(options) => worker::run(&options, &flags),
        Command::Health(options) => health::run(options.url.as_deref(), &flags),
        Command::Embed(options) => embed::run(&options, &config::load(&flags)?),
        Command::Models(command) => models::run(command, &config::load(&flags)?),
        Command::Token(command) => token::run(command, &config::load(&flags)?),
        Command::ImportChroma(options) => import_chroma::run(&options, &config::load(&flags)?),
        Command::Generate(options) => generate::run(&options.directory),
        Command::Check(options) if options.print_defaults => check::print_defaults(),
        Command::Check(options) if options.print_keys => check::print_keys(),
        Command::Check(_) => check::run(&flags),
    }
}

/// A command that cannot be carried out as it was given. The exit code is that of an invalid command line.
#[derive(Debug)]
pub(crate) struct ReportedError(pub(crate) String);

impl std::fmt::Display for ReportedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReportedError {}

/// Writes a line to standard output. A closed pipe (`| head`) is not an error.
fn println_stdout(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// The multi-threaded runtime for a command.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
