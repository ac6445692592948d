//! `embeddery generate DIRECTORY`: writes completions and man pages from the definition of the command line, and the
//! commented defaults.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

use crate::{cli::Cli, config};

pub(crate) fn run(directory: &Path) -> anyhow::Result<ExitCode> {
    let defaults = config::commented_defaults()?;
    let write = || -> std::io::Result<()> {
        let (completions, man) = (directory.join("completions"), directory.join("man"));
        fs::create_dir_all(&completions)?;
        fs::create_dir_all(&man)?;
        fs::write(directory.join("embeddery.default.yaml"), defaults)?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut Cli::command(), "embeddery", &completions)?;
        }
        clap_mangen::generate_to(Cli::command(), man)
    };
    write().with_context(|| format!("writing to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
