//! Logs go to standard error: text for people, or JSON lines for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::LogConfig;

/// Starts logging for the whole process. A second call changes nothing.
pub(crate) fn start(config: LogConfig) {
    let output = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let output = if config.json {
        output.json().flatten_event(true).boxed()
    } else {
        output.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    // Libraries speak only when something is wrong, unless everything was asked for.
    let libraries =
        if config.level == tracing::Level::TRACE { LevelFilter::TRACE } else { LevelFilter::WARN };
    let targets = Targets::new()
        .with_default(libraries.min(LevelFilter::from_level(config.level)))
        .with_target("embeddery", config.level);
    let _ = tracing_subscriber::registry().with(output.with_filter(targets)).try_init();
}
