//! `embeddery check`: the doctor. Each finding says what is wrong and what mends it. Exit 0 when a server
//! would start and answer, 1 when not, 2 when the configuration itself is wrong.

use std::process::ExitCode;

use embeddery_core::{ModelRef, ModelSource as _, ProviderKind};
use embeddery_engine::{LoadOptions, ModelFiles};
use embeddery_gateway::ModelSelector;
use embeddery_pipeline::{QueueAdmin as _, QueueError, RedisConfig, RedisQueue};
use embeddery_server::Tls;
use prometheus_client::registry::Registry;

use super::{println_stdout, serve};
use crate::{
    config::{self, AuthConfig, Config, Flags},
    wiring,
};

pub(crate) fn print_defaults() -> anyhow::Result<ExitCode> {
    println_stdout(config::commented_defaults()?.trim_end());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn print_keys() -> anyhow::Result<ExitCode> {
    println_stdout(config::key_tables()?.trim_end());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let config = config::load(flags)?;
    let mut findings = Findings::default();
    let file = config
        .file
        .as_ref()
        .map_or("no file; defaults and environment".into(), |path| path.display().to_string());
    findings.good(format_args!("configuration: {file}"));
    for notice in &config.notices {
        findings.note(notice);
    }
    for (setting, dir) in serve::directories(&config) {
        match serve::writable(dir) {
            Ok(()) => findings.good(format_args!("{setting}: {}", dir.display())),
            Err(error) => findings.bad(
                format_args!("{setting}: {} cannot be written: {error}", dir.display()),
                &format!("mend its rights, or set {setting} to another directory"),
            ),
        }
    }
    accounts(&config, &mut findings);
    findings.good(format_args!("engine: {} threads", config.threads));
    for upstream in &config.upstreams.vendors {
        match upstream.access.keys.len() {
            0 => {}
            1 => findings.good(format_args!("provider {}: a key", upstream.kind)),
            keys => findings.good(format_args!("provider {}: {keys} keys, used in turn", upstream.kind)),
        }
    }
    graphs(&config, &mut findings);
    jobs(&config, &mut findings)?;
    queue(&config, &mut findings)?;
    default_model(&config, &mut findings)?;
    Ok(if findings.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// ONNX Runtime, where models are graphs, and whether it has what they ask for.
fn graphs(config: &Config, findings: &mut Findings) {
    if config.onnx.models.is_empty() {
        return;
    }
    let available = match wiring::onnx_runtime(config).available() {
        Ok(available) => available,
        Err(error) => return findings.bad(format_args!("onnx: {error}"), ""),
    };
    let here: Vec<&str> = available.iter().map(|provider| provider.as_str()).collect();
    findings.good(format_args!("onnx: ONNX Runtime with {}", here.join(", ")));
    for (name, options) in &config.onnx.models {
        let asked = options.onnx_providers.as_ref().unwrap_or(&config.onnx.providers);
        for absent in asked.iter().filter(|asked| !here.contains(&asked.as_str())) {
            findings.bad(
                format_args!("onnx: {name} asks for {absent}, which this ONNX Runtime does not have"),
                "install the package that has it (onnxruntime-gpu has CUDA's), or take it from onnx_providers",
            );
        }
    }
}

/// Opens the store of jobs, unless it is still to be made.
fn jobs(config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    let place = match &config.collections.database {
        Some(_) => "the database of DATABASE_URL".to_owned(),
        None => {
            let path = config.state_dir.join("jobs.db");
            if !path.exists() {
                findings.note(format_args!("jobs: {} will be made at the first start", path.display()));
                return Ok(());
            }
            path.display().to_string()
        }
    };
    let health = super::runtime()?.block_on(async { anyhow::Ok(wiring::job_store(config)?.health().await?) });
    match health {
        Ok(()) => findings.good(format_args!("jobs: {place}")),
        Err(error) => findings.bad(
            format_args!("jobs: {error}"),
            "do what it says; until then jobs are answered 503, and embedding goes on",
        ),
    }
    Ok(())
}

/// Asks the queue's Redis what it could lose; a file is made at the start.
fn queue(config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    let Some(redis) = &config.queue.redis else {
        findings.good(format_args!("queue: {}", config.state_dir.join("queue.db").display()));
        return Ok(());
    };
    // Here everything is to be seen, also what would be refused.
    let looked = RedisConfig { require_durable: false, ..redis.clone() };
    let found = super::runtime()?
        .block_on(async { RedisQueue::connect(looked).map_err(QueueError::Unavailable)?.health().await });
    match found {
        Ok(dangers) if dangers.is_empty() => findings.good("queue: Redis keeps what it acknowledges"),
        Ok(dangers) if redis.require_durable => {
            for danger in dangers {
                findings.bad(format_args!("queue: {danger}"), "do that, or set queue.require_durable: false");
            }
        }
        Ok(dangers) => dangers.iter().for_each(|danger| findings.note(format_args!("queue: {danger}"))),
        Err(error) => findings.bad(format_args!("queue: {error}"), "start Redis, or set REDIS_URL"),
    }
    Ok(())
}

fn accounts(config: &Config, findings: &mut Findings) {
    match &config.accounts.auth {
        AuthConfig::SingleUser(Some(_)) => findings.good("API key: SINGLE_USER_API_KEY"),
        AuthConfig::SingleUser(None) => findings.good(format_args!(
            "API key: generated at the first start, in {}",
            config.state_dir.join("api-key").display()
        )),
        AuthConfig::MultiUser(multi) => match wiring::tokens(multi) {
            Ok(_) => findings.good("tokens: the keys that they are checked with can be used"),
            Err(error) => {
                findings.bad(format_args!("tokens: {error}"), "set the key or the file that is named");
            }
        },
    }
    if let Some((certificate, key)) = &config.accounts.tls {
        match Tls::from_files(certificate, key) {
            Ok(_) => findings.good(format_args!("TLS: {}", certificate.display())),
            Err(error) => findings.bad(format_args!("TLS: {error}"), "write both files anew, as PEM"),
        }
    }
    match &config.accounts.rates.requests {
        Some(rate) => findings.good(format_args!(
            "rate limits: {} requests a second, {} at once",
            rate.per_second_value(),
            rate.burst
        )),
        None => findings.note("rate limits: off; EMBEDDINGS_RATE_LIMIT=on turns them on"),
    }
}

/// Finds the default model and loads it, which is the only proof that it works.
fn default_model(config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    let runtime = super::runtime()?;
    let (router, _) = runtime.block_on(async { wiring::router(config, &mut Registry::default()) })?;
    let resolved = router.resolve(ModelSelector { model: None, provider: None })?;
    match resolved.provider {
        ProviderKind::HuggingFace => local_model(config, &resolved.model, findings),
        // ONNX Runtime starts once in a process, and was examined above; what is left to look for is the file.
        ProviderKind::Onnx => {
            match wiring::graph_store(config)?.find(&resolved.model) {
                Ok(Some(_)) => findings.good(format_args!("default model: {}, a graph", resolved.model)),
                Ok(None) => findings.note(format_args!(
                    "default model: {}, a graph; it is fetched when it is first asked for",
                    resolved.model
                )),
                Err(error) => findings.bad(
                    format_args!("default model: {error}"),
                    "set what it names, or another default_model_id",
                ),
            }
            Ok(())
        }
        // Whether the key is good only a request can tell, and that would cost money.
        _ => {
            let opened = runtime
                .block_on(async { router.warm_up(ModelSelector { model: None, provider: None }).await });
            match opened {
                Ok(found) => {
                    findings.good(format_args!("default model: {} of {}", found.model, found.provider));
                }
                Err(error) => findings.bad(
                    format_args!("default model: {error}"),
                    "set what it names, or another default_model_id",
                ),
            }
            Ok(())
        }
    }
}

fn local_model(config: &Config, model: &ModelRef, findings: &mut Findings) -> anyhow::Result<()> {
    let store = wiring::model_store(config)?;
    let directory = match store.find(model) {
        Ok(Some(directory)) => directory,
        Ok(None) if config.store.offline || !config.auto_download => {
            findings.bad(
                format_args!("default model: {model} is not on this machine and may not be fetched"),
                &format!("run `embeddery models pull {}` with the hub allowed", model.name),
            );
            return Ok(());
        }
        Ok(None) => {
            findings.note(format_args!(
                "default model: {model} will be fetched from {} at the start",
                config.store.endpoint
            ));
            return Ok(());
        }
        Err(error) => {
            findings.bad(format_args!("default model: {error}"), "set default_model_id");
            return Ok(());
        }
    };
    let options = config.model_options.get(&model.name).cloned().unwrap_or_default();
    let load = LoadOptions {
        max_length: options.max_length.map(std::num::NonZeroUsize::get),
        precision: options.precision.unwrap_or(config.precision),
        ..LoadOptions::default()
    };
    match ModelFiles::open(&directory).and_then(|files| files.load(&load)) {
        Ok(loaded) => {
            let info = loaded.info();
            findings.good(format_args!(
                "default model: {model}, {} dimensions, {} tokens, {} in {}",
                info.dimensions,
                info.max_tokens,
                loaded.precision(),
                loaded.kernels()
            ));
        }
        Err(error) => findings.bad(
            format_args!("default model: {error}"),
            &format!("delete {} and fetch the model again, or set default_model_id", directory.display()),
        ),
    }
    Ok(())
}

/// What was found so far.
#[derive(Default)]
struct Findings {
    bad: usize,
}

impl Findings {
    fn good(&self, text: impl std::fmt::Display) {
        println_stdout(format_args!("ok    {text}"));
    }

    fn note(&self, text: impl std::fmt::Display) {
        println_stdout(format_args!("note  {text}"));
    }

    /// An empty `fix` is for a text that says what to do itself.
    fn bad(&mut self, text: impl std::fmt::Display, fix: &str) {
        self.bad += 1;
        println_stdout(format_args!("FAIL  {text}"));
        if !fix.is_empty() {
            println_stdout(format_args!("      fix: {fix}"));
        }
    }
}
