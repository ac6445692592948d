//! `embeddery check`: checks the installation and prints a fix for each problem. The exit code is 0 if a server would
//! start and serve requests, 1 if not, and 2 if the configuration is invalid.

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
    stores, wiring,
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
                format_args!("{setting}: {} is not writable: {error}", dir.display()),
                &format!("correct its permissions, or set {setting} to another directory"),
            ),
        }
    }
    accounts(&config, &mut findings);
    findings.good(format_args!("engine: {} threads", config.threads));
    for upstream in &config.upstreams.vendors {
        match upstream.access.keys.len() {
            0 => {}
            1 => findings.good(format_args!("provider {}: 1 key", upstream.kind)),
            keys => findings.good(format_args!("provider {}: {keys} keys, used in turn", upstream.kind)),
        }
    }
    graphs(&config, &mut findings);
    jobs(&config, &mut findings)?;
    queue(&config, &mut findings)?;
    default_model(&config, &mut findings)?;
    Ok(if findings.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Loads ONNX Runtime if a model is an ONNX graph, and checks that it has the execution providers of the models.
fn graphs(config: &Config, findings: &mut Findings) {
    if config.onnx.models.is_empty() {
        return;
    }
    let available = match wiring::onnx_runtime(config).available() {
        Ok(available) => available,
        Err(error) => return findings.bad(format_args!("onnx: {error}"), ""),
    };
    let names: Vec<&str> = available.iter().map(|provider| provider.as_str()).collect();
    findings.good(format_args!("onnx: ONNX Runtime with {}", names.join(", ")));
    for (name, options) in &config.onnx.models {
        let required = options.onnx_providers.as_ref().unwrap_or(&config.onnx.providers);
        for missing in required.iter().filter(|name| !names.contains(&name.as_str())) {
            findings.bad(
                format_args!("onnx: {name} needs {missing}, which this ONNX Runtime does not have"),
                "install the package that has it (onnxruntime-gpu has CUDA), or remove it from onnx_providers",
            );
        }
    }
}

/// Opens the job store, unless its file does not exist yet.
fn jobs(config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    let location = match &config.collections.database {
        Some(_) => "the database of DATABASE_URL".to_owned(),
        None => {
            let path = config.state_dir.join("jobs.db");
            if !path.exists() {
                findings.note(format_args!("jobs: {} is created at the first start", path.display()));
                return Ok(());
            }
            path.display().to_string()
        }
    };
    let health = super::runtime()?.block_on(async { anyhow::Ok(stores::job_store(config)?.health().await?) });
    match health {
        Ok(()) => findings.good(format_args!("jobs: {location}")),
        Err(error) => findings.bad(
            format_args!("jobs: {error}"),
            "correct it; until then requests for jobs return 503, and embedding works",
        ),
    }
    Ok(())
}

/// Checks whether the queue's Redis could lose data. A queue in a file is created at the start.
fn queue(config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    let Some(redis) = &config.queue.redis else {
        findings.good(format_args!("queue: {}", config.state_dir.join("queue.db").display()));
        return Ok(());
    };
    // The findings are listed here even if the server would refuse this Redis.
    let redis_config = RedisConfig { require_durable: false, ..redis.clone() };
    let health = super::runtime()?.block_on(async {
        RedisQueue::connect(redis_config).map_err(QueueError::Unavailable)?.health().await
    });
    match health {
        Ok(risks) if risks.is_empty() => findings.good("queue: Redis is durable"),
        Ok(risks) if redis.require_durable => {
            for risk in risks {
                findings.bad(
                    format_args!("queue: {risk}"),
                    "change that setting, or set queue.require_durable: false",
                );
            }
        }
        Ok(risks) => risks.iter().for_each(|risk| findings.note(format_args!("queue: {risk}"))),
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
            Ok(_) => findings.good("tokens: the verification keys are valid"),
            Err(error) => {
                findings.bad(format_args!("tokens: {error}"), "set the key or the file that it names");
            }
        },
    }
    if let Some((certificate, key)) = &config.accounts.tls {
        match Tls::from_files(certificate, key) {
            Ok(_) => findings.good(format_args!("TLS: {}", certificate.display())),
            Err(error) => findings.bad(format_args!("TLS: {error}"), "write both files again, as PEM"),
        }
    }
    match &config.accounts.rates.requests {
        Some(rate) => findings.good(format_args!(
            "rate limits: {} requests a second, bursts of {}",
            rate.per_second_value(),
            rate.burst
        )),
        None => findings.note("rate limits: off; EMBEDDINGS_RATE_LIMIT=on turns them on"),
    }
}

/// Finds the default model and loads it, because only a load shows that it works.
fn default_model(config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    let runtime = super::runtime()?;
    let (router, _) = runtime.block_on(async { wiring::router(config, &mut Registry::default()) })?;
    let resolved = router.resolve(ModelSelector { model: None, provider: None })?;
    match resolved.provider {
        ProviderKind::HuggingFace => local_model(config, &resolved.model, findings),
        // ONNX Runtime starts once in a process and was checked above, so only the file is checked here.
        ProviderKind::Onnx => {
            match stores::graph_store(config)?.find(&resolved.model) {
                Ok(Some(_)) => {
                    findings.good(format_args!("default model: {}, an ONNX graph", resolved.model));
                }
                Ok(None) => findings.note(format_args!(
                    "default model: {}, an ONNX graph; it is downloaded at the first request",
                    resolved.model
                )),
                Err(error) => findings.bad(
                    format_args!("default model: {error}"),
                    "correct the setting that it names, or set another default_model_id",
                ),
            }
            Ok(())
        }
        // Only a request would show whether the key is valid, and a request costs money.
        _ => {
            let opened = runtime
                .block_on(async { router.warm_up(ModelSelector { model: None, provider: None }).await });
            match opened {
                Ok(found) => {
                    findings.good(format_args!("default model: {} of {}", found.model, found.provider));
                }
                Err(error) => findings.bad(
                    format_args!("default model: {error}"),
                    "correct the setting that it names, or set another default_model_id",
                ),
            }
            Ok(())
        }
    }
}

fn local_model(config: &Config, model: &ModelRef, findings: &mut Findings) -> anyhow::Result<()> {
    let store = stores::model_store(config)?;
    let directory = match store.find(model) {
        Ok(Some(directory)) => directory,
        Ok(None) if config.store.offline || !config.auto_download => {
            findings.bad(
                format_args!("default model: {model} is not on this machine, and downloads are disabled"),
                &format!("run `embeddery models pull {}` with downloads enabled", model.name),
            );
            return Ok(());
        }
        Ok(None) => {
            findings.note(format_args!(
                "default model: {model} is downloaded from {} at the start",
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
            &format!("delete {} and download the model again, or set default_model_id", directory.display()),
        ),
    }
    Ok(())
}

/// Prints the findings and counts the problems.
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

    /// `fix` is empty if the text itself says what to do.
    fn bad(&mut self, text: impl std::fmt::Display, fix: &str) {
        self.bad += 1;
        println_stdout(format_args!("FAIL  {text}"));
        if !fix.is_empty() {
            println_stdout(format_args!("      fix: {fix}"));
        }
    }
}
