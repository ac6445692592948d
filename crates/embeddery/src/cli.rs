//! The command line. Flags win over the environment, which wins over the file.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use embeddery_core::InputType;

/// Turns text into vectors: an embeddings API with local models, in one binary.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Configuration file (also EMBEDDINGS_CONFIG_PATH); `check --print-defaults` shows every key
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the API
    Serve(Serve),
    /// Work on documents of jobs: any number of processes, on any number of machines; needs Redis
    Worker(Worker),
    /// Run pools of workers that grow and shrink with the work, beside `serve` with Redis; any number of them
    Orchestrator(Orchestrator),
    /// Ask a running server whether it is alive; exit 0 or 1 (for container health checks)
    Health(Health),
    /// Turn many texts into vectors without a server; after an interruption the same command goes on
    Embed(Embed),
    /// Look after the models on this machine
    #[command(subcommand)]
    Models(Models),
    /// Tokens of multi_user
    #[command(subcommand)]
    Token(Token),
    /// Take over the collections of a running Chroma server, with their vectors
    ImportChroma(ImportChroma),
    /// Write completions and man pages into a directory (for packagers)
    #[command(hide = true)]
    Generate(Generate),
    /// Examine configuration, directories, models and processor; say the fix for each finding
    Check(Check),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen (also EMBEDDINGS_LISTEN); port 0 picks one and prints it
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,
}

/// Exit codes: 0 every line has a vector, 3 some have none, 2 a wrong command or configuration, 130 interrupted.
#[derive(Debug, Args)]
pub(crate) struct Embed {
    /// Files with a text a line: JSON objects {"id"?, "text"}, or plain texts; `-` or none is standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// A configured id or a model's name; without it the default model
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Where vectors go: a file of lines {"id", "embedding"}, or NAME.npy for one array; `-` is standard output
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// What the lines are; without it the file's name or the first line tells
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) input_format: Option<InputFormat>,
    /// Numbers of a vector, where the model gives a choice
    #[arg(long, value_name = "N")]
    pub(crate) dimensions: Option<NonZeroUsize>,
    /// What the vectors are for, where the model makes a difference
    #[arg(long, value_enum, value_name = "PURPOSE")]
    pub(crate) input_type: Option<Purpose>,
    /// Start over, whatever an earlier run has written
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// What a line of input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// An object {"id"?, "text"}
    Jsonl,
    /// The text itself
    Text,
}

/// `input_type` of a request.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Purpose {
    /// Something that is searched with
    Query,
    /// Something that is found
    Document,
    /// The input of a classifier
    Classification,
    /// A member of clusters
    Clustering,
}

impl From<Purpose> for InputType {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Query => Self::Query,
            Purpose::Document => Self::Document,
            Purpose::Classification => Self::Classification,
            Purpose::Clustering => Self::Clustering,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Which stages: chunking, embedding, storage; several separated by commas
    #[arg(long, value_name = "STAGES", default_value = "chunking,embedding,storage")]
    pub(crate) stages: String,
    /// Loops of each stage; without it workers.concurrency
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroUsize>,
}

#[derive(Debug, Args)]
pub(crate) struct Orchestrator {
    /// Workers that each pool begins with; without it num_workers of the pool
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// The server's base URL; without it the configured address
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// Models on this machine
    List,
    /// Fetch a model from the hub
    Pull(Pull),
    /// What a model on this machine is
    Info(Info),
    /// How fast a model is on this machine, in each precision, and how exact
    Bench(Bench),
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// How long each precision is measured
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// A configured id, a model's name, or a directory; without it the default model
    pub(crate) model: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// For example sentence-transformers/all-MiniLM-L6-v2; without it the default model
    pub(crate) model: Option<String>,
    /// Branch, tag or commit
    #[arg(long)]
    pub(crate) revision: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// A configured id, a model's name, or a directory
    pub(crate) model: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print a new token, signed with JWT_SECRET_KEY or with a private key
    Issue(Issue),
    /// Say what a token holds and whether this configuration accepts it; exit 0 or 1
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// Whose token it is (`sub`)
    #[arg(long, value_name = "ID")]
    pub(crate) user: String,
    /// What they may do (`role`); the configured admin role opens what concerns all
    #[arg(long, default_value = "user")]
    pub(crate) role: String,
    /// For how long it holds: 90s, 30m, 12h, 7d
    #[arg(long, value_name = "TIME", default_value = "30m")]
    pub(crate) expires: String,
    /// Its id (`jti`), by which it can be revoked; without it a new one
    #[arg(long, value_name = "JTI")]
    pub(crate) id: Option<String>,
    /// Sign RS256 or ES256 with the private key in this PEM file
    #[arg(long, value_name = "FILE")]
    pub(crate) private_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The token; without it standard input is read, so that it does not show in the list of processes
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportChroma {
    /// Chroma's base URL, for example http://127.0.0.1:8001
    pub(crate) url: String,
    /// Chroma's tenant
    #[arg(long, default_value = "default_tenant")]
    pub(crate) tenant: String,
    /// Chroma's database
    #[arg(long, default_value = "default_database")]
    pub(crate) database: String,
    /// Only these collections; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) collection: Vec<String>,
    /// Our user who gets them
    #[arg(long, default_value = "1")]
    pub(crate) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Where; made when it is not there
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Print the default configuration, commented, and do nothing else
    #[arg(long)]
    pub(crate) print_defaults: bool,
    /// Print tables of all keys, for the documentation, and do nothing else
    #[arg(long, hide = true)]
    pub(crate) print_keys: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
