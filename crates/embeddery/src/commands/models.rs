//! `embeddery models`: lists, downloads, describes and measures local models.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use embeddery_core::{ModelRef, ModelSource as _, Progress, ProviderKind, megabytes};
use embeddery_engine::{LoadOptions, ModelFiles};
use embeddery_gateway::hub_name;
use embeddery_model_store::ModelStore;
use embeddery_providers::onnx::{DEFAULT_GRAPH, inspect};
use indicatif::{ProgressBar, ProgressStyle};

use super::println_stdout;
use crate::{cli::Models, config::Config, stores, wiring};

pub(crate) fn run(command: Models, config: &Config) -> anyhow::Result<ExitCode> {
    crate::logging::start(config.log);
    let store = stores::model_store(config)?;
    match command {
        Models::List => list(&store),
        Models::Pull(options) => {
            let name = options.model.as_deref().unwrap_or(&config.default_model);
            let (mut model, is_graph) = parse_model(config, name)?;
            if let Some(revision) = options.revision {
                model.revision = Some(revision.into());
            }
            let store = if is_graph { stores::graph_store(config)? } else { store };
            super::runtime()?.block_on(pull(&store, &model))?;
        }
        Models::Bench(options) => {
            let name = options.model.as_deref().unwrap_or(&config.default_model);
            let model = engine_model(config, name)?;
            let graph = stores::graph_store(config)?.find(&model)?.map(|directory| super::bench::Graph {
                directory,
                options: config.onnx.models.get(&model.name).cloned().unwrap_or_default(),
                runtime: wiring::onnx_runtime(config),
            });
            let duration = Duration::from_secs(options.seconds);
            let bench = super::bench::BenchConfig { threads: config.threads, duration, graph };
            super::bench::bench(&store, &model, &bench)?;
        }
        Models::Info(options) => match parse_model(config, &options.model)? {
            (model, true) => graph_info(config, &model)?,
            (model, false) => info(&store, config, &model)?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// The model that a name on the command line means: a configured id, a model name or a directory. The second value says
/// whether it is an ONNX graph, as the prefix `onnx:` says.
fn parse_model(config: &Config, name: &str) -> anyhow::Result<(ModelRef, bool)> {
    if let Some(name) = name.strip_prefix("onnx:") {
        return Ok((hub_name(name), true));
    }
    let name = name.strip_prefix("huggingface:").unwrap_or(name);
    match config.models.iter().find(|entry| entry.id == name) {
        Some(entry) if entry.provider == ProviderKind::HuggingFace => Ok((entry.model.clone(), false)),
        Some(entry) if entry.provider == ProviderKind::Onnx => Ok((entry.model.clone(), true)),
        Some(entry) => {
            bail!("'{name}' is a model of {}, which has no files on this machine", entry.provider)
        }
        None => Ok((hub_name(name), false)),
    }
}

fn engine_model(config: &Config, name: &str) -> anyhow::Result<ModelRef> {
    match parse_model(config, name)? {
        (model, false) => Ok(model),
        (model, true) => bail!("'{model}' is an ONNX graph; name a model of the engine"),
    }
}

fn list(store: &ModelStore) {
    let names = store.list();
    if names.is_empty() {
        println_stdout("no models on this machine; download one with `embeddery models pull`");
    }
    for name in names {
        let found = store.find(&ModelRef::new(name.as_str()));
        let summary = match found.ok().flatten().map(|dir| ModelFiles::open(&dir)) {
            Some(Ok(files)) => {
                let info = files.info();
                format!(
                    "{} dimensions, {} tokens, {}",
                    info.dimensions,
                    info.max_tokens,
                    megabytes(info.weight_bytes)
                )
            }
            Some(Err(error)) => format!("not usable: {error}"),
            None => "not usable: files are missing".into(),
        };
        println_stdout(format_args!("{name:<50} {summary}"));
    }
}

async fn pull(store: &Arc<ModelStore>, model: &ModelRef) -> anyhow::Result<()> {
    if let Some(directory) = store.find(model)? {
        println_stdout(format_args!("{model} is in {}", directory.display()));
        return Ok(());
    }
    let progress = Progress::default();
    let bar = ProgressBar::new(0); // visible on a terminal only
    if let Ok(style) =
        ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
    {
        bar.set_style(style);
    }
    bar.set_message(model.to_string());
    let draw = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            let (done, total) = progress.bytes();
            bar.set_length(total);
            bar.set_position(done);
        }
    };
    let result = tokio::select! {
        result = store.fetch(model, &progress) => result,
        () = draw => unreachable!("the loop never ends"),
    };
    bar.finish_and_clear();
    println_stdout(format_args!("{model} is in {}", result?.display()));
    Ok(())
}

fn find(store: &ModelStore, model: &ModelRef) -> anyhow::Result<PathBuf> {
    store.find(model)?.with_context(|| {
        format!("'{model}' is not on this machine; download it with `embeddery models pull {}`", model.name)
    })
}

fn graph_info(config: &Config, model: &ModelRef) -> anyhow::Result<()> {
    let directory = find(&*stores::graph_store(config)?, model)?;
    let options = config.onnx.models.get(&model.name).cloned().unwrap_or_default();
    let (info, fingerprint) = inspect(&directory, &options).map_err(anyhow::Error::msg)?;
    let graph = options.onnx_file.as_deref().unwrap_or(DEFAULT_GRAPH);
    println_stdout(format_args!("model         {model}"));
    println_stdout(format_args!("directory     {}", directory.display()));
    println_stdout(format_args!(
        "graph         {graph}, for {}",
        options.onnx_providers.as_ref().unwrap_or(&config.onnx.providers).join(", ")
    ));
    println_stdout(format_args!("architecture  {}", info.architecture));
    println_stdout(format_args!("dimensions    {}", info.dimensions));
    println_stdout(format_args!("max tokens    {}", info.max_tokens));
    println_stdout(format_args!("weights       {}", megabytes(info.file_bytes)));
    println_stdout(format_args!("memory        at most {}", megabytes(info.memory_bytes)));
    println_stdout(format_args!("space         {fingerprint}:{}", info.dimensions));
    Ok(())
}

fn info(store: &ModelStore, config: &Config, model: &ModelRef) -> anyhow::Result<()> {
    let directory = find(store, model)?;
    let files = ModelFiles::open(&directory)?;
    let options = config.model_options.get(&model.name).cloned().unwrap_or_default();
    let load = LoadOptions {
        max_length: options.max_length.map(NonZeroUsize::get),
        precision: options.precision.unwrap_or(config.precision),
        ..LoadOptions::default()
    };
    let info = files.info();
    println_stdout(format_args!("model         {model}"));
    println_stdout(format_args!("directory     {}", directory.display()));
    println_stdout(format_args!(
        "architecture  {}, {} layers, vocabulary of {}",
        info.architecture, info.layers, info.vocabulary
    ));
    println_stdout(format_args!("dimensions    {}", info.dimensions));
    println_stdout(format_args!("max tokens    {}", load.max_length.unwrap_or(info.max_tokens)));
    println_stdout(format_args!("pooling       {:?}", info.pooling));
    println_stdout(format_args!("weights       {}", megabytes(info.weight_bytes)));
    println_stdout(format_args!("precision     {}", files.precision(&load)));
    println_stdout(format_args!(
        "memory        at most {}",
        megabytes(files.memory(&load, config.threads.get())?)
    ));
    println_stdout(format_args!("space         {}:{}", files.fingerprint()?, info.dimensions));
    Ok(())
}
