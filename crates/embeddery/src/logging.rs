//! Logs go to standard error, as text or as JSON lines. Repeated warnings are rate limited ([`rate_limit`]).

mod rate_limit;

use std::io::IsTerminal as _;

use tracing_subscriber::{
    Layer as _, Registry,
    filter::{LevelFilter, Targets},
    fmt::format::{Format, JsonFields},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{Config, LogConfig},
    otlp::{self, OtlpExporter, SpanLayer, spans_only},
};
use rate_limit::RateLimitedFormat;

/// Changes the log level at run time.
#[derive(Clone)]
pub(crate) struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Sets the level.
    pub(crate) fn set(&self, level: tracing::Level) {
        // It fails only if no subscriber is installed.
        let _ = self.0.reload(targets(level));
    }
}

/// Starts logging for the whole process. A second call has no effect.
pub(crate) fn start(config: LogConfig) -> LogLevel {
    start_with(config, None)
}

/// Starts logging, and sends traces to the configured collector, if any.
pub(crate) fn start_traced(config: &Config) -> anyhow::Result<(LogLevel, Option<OtlpExporter>)> {
    let Some(traces) = &config.traces else { return Ok((start(config.log), None)) };
    let (layer, exporter) = otlp::open(traces, &config.upstreams.outbound)?;
    Ok((start_with(config.log, Some(layer)), Some(exporter)))
}

fn start_with(config: LogConfig, traces: Option<SpanLayer>) -> LogLevel {
    let output = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let format = Format::default().with_target(false);
    let output = if config.json {
        output
            .event_format(RateLimitedFormat::new(format.json().flatten_event(true), true))
            .fmt_fields(JsonFields::new())
            .boxed()
    } else {
        let colours = std::io::stderr().is_terminal();
        output
            .with_ansi(colours)
            .event_format(RateLimitedFormat::new(format.with_ansi(colours), false))
            .boxed()
    };
    let (filter, handle) = reload::Layer::new(targets(config.level));
    let output = output.with_filter(filter);
    let traces = traces.map(|traces| traces.with_filter(spans_only()));
    let _ = tracing_subscriber::registry().with(output).with(traces).try_init();
    LogLevel(handle)
}

/// Dependencies log warnings and errors only, unless the level is `trace`.
fn targets(level: tracing::Level) -> Targets {
    let libraries = if level == tracing::Level::TRACE { LevelFilter::TRACE } else { LevelFilter::WARN };
    Targets::new().with_default(libraries.min(LevelFilter::from_level(level))).with_target("embeddery", level)
}
