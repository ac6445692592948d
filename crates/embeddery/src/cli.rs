//! The command line. A flag takes precedence over the environment, and the environment over the file.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use embeddery_core::InputType;

/// An embeddings API with local models, in one binary
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
    /// Process the documents of jobs; needs Redis, and may run in many processes on many machines
    Worker(Worker),
    /// Run pools of workers that scale with the load; needs Redis, and may run in many processes
    Orchestrator(Orchestrator),
    /// Check whether a server is alive; exit code 0 or 1 (for container health checks)
    Health(Health),
    /// Embed the texts of files without a server; after an interruption the same command resumes
    Embed(Embed),
    /// Manage the models on this machine
    #[command(subcommand)]
    Models(Models),
    /// Issue and inspect tokens of multi_user mode
    #[command(subcommand)]
    Token(Token),
    /// Import the collections of a running Chroma server, with their vectors
    ImportChroma(ImportChroma),
    /// Write completions and man pages into a directory (for packagers)
    #[command(hide = true)]
    Generate(Generate),
    /// Check the configuration, directories, models and services; print a fix for each problem
    Check(Check),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on (also EMBEDDINGS_LISTEN); port 0 chooses a free port and prints it
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,
}

/// Exit codes: 0 every line has a vector, 3 some lines failed, 2 invalid command or configuration, 130 interrupted.
#[derive(Debug, Args)]
pub(crate) struct Embed {
    /// Files with one text a line: JSON objects {"id"?, "text"}, or plain texts; `-` or no file is standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// A configured id or a model name [default: the default model]
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Output: a file of lines {"id", "embedding"}, or NAME.npy for one array; `-` is standard output
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// Format of the lines [default: from the file name or the first line]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) input_format: Option<InputFormat>,
    /// Dimensions of a vector, if the model supports several
    #[arg(long, value_name = "N")]
    pub(crate) dimensions: Option<NonZeroUsize>,
    /// Purpose of the vectors, if the model distinguishes purposes
    #[arg(long, value_enum, value_name = "PURPOSE")]
    pub(crate) input_type: Option<Purpose>,
    /// Start over and replace the output of an earlier run
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// The format of an input line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// An object {"id"?, "text"}
    Jsonl,
    /// A plain text
    Text,
}

/// `input_type` of a request.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Purpose {
    /// A search query
    Query,
    /// A text that a search finds
    Document,
    /// The input of a classifier
    Classification,
    /// A text to be clustered
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
    /// Stages, separated by commas: chunking, embedding, storage
    #[arg(long, value_name = "STAGES", default_value = "chunking,embedding,storage")]
    pub(crate) stages: String,
    /// Concurrent loops of each stage [default: workers.concurrency]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroUsize>,
}

#[derive(Debug, Args)]
pub(crate) struct Orchestrator {
    /// Initial workers of each pool [default: num_workers of the pool]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Base URL of the server [default: the configured address]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// List the models on this machine
    List,
    /// Download a model from the hub
    Pull(Pull),
    /// Describe a model on this machine
    Info(Info),
    /// Measure the speed and accuracy of a model on this machine in each precision
    Bench(Bench),
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Seconds to measure each precision
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// A configured id, a model name or a directory [default: the default model]
    pub(crate) model: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// A model name such as sentence-transformers/all-MiniLM-L6-v2 [default: the default model]
    pub(crate) model: Option<String>,
    /// Branch, tag or commit
    #[arg(long)]
    pub(crate) revision: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// A configured id, a model name or a directory
    pub(crate) model: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print a new token, signed with JWT_SECRET_KEY or a private key
    Issue(Issue),
    /// Print the claims of a token and whether this configuration accepts it; exit code 0 or 1
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// User of the token (`sub`)
    #[arg(long, value_name = "ID")]
    pub(crate) user: String,
    /// Role of the user (`role`); the configured admin role permits the administration endpoints
    #[arg(long, default_value = "user")]
    pub(crate) role: String,
    /// Lifetime: 90s, 30m, 12h, 7d
    #[arg(long, value_name = "TIME", default_value = "30m")]
    pub(crate) expires: String,
    /// Id of the token (`jti`), for revocation [default: a new id]
    #[arg(long, value_name = "JTI")]
    pub(crate) id: Option<String>,
    /// PEM file with the private key for RS256 or ES256
    #[arg(long, value_name = "FILE")]
    pub(crate) private_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The token [default: standard input, which keeps it out of the process list]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportChroma {
    /// Base URL of Chroma, for example http://127.0.0.1:8001
    pub(crate) url: String,
    /// Tenant in Chroma
    #[arg(long, default_value = "default_tenant")]
    pub(crate) tenant: String,
    /// Database in Chroma
    #[arg(long, default_value = "default_database")]
    pub(crate) database: String,
    /// Import only this collection; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) collection: Vec<String>,
    /// User that owns the imported collections
    #[arg(long, default_value = "1")]
    pub(crate) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Target directory; created if it is missing
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Print the default configuration with comments, and exit
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
    fn the_command_line_is_valid() {
        super::Cli::command().debug_assert();
    }
}
