//! `embeddery serve`: binds the address, prints it, loads the default model in the background, and serves until a signal.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use embeddery_gateway::{ModelSelector, Router};
use embeddery_pipeline::{Stage, WorkerMetrics};
use embeddery_server::{App, ReloadableApp, reload_channel};
use secrecy::ExposeSecret as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{println_stdout, signals::on_signals};
use crate::{
    api_key::ApiKey,
    config::{self, AuthConfig, Config, Flags},
    logging::{self, LogLevel},
    otlp,
    pipeline_setup::{PipelineHandles, WorkerDeps, check_shared_directory},
    reload::Reloader,
    systemd::{READY, STOPPING, notify},
    wiring,
};

pub(crate) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let config = config::load(flags)?;
    let (log_level, traces) = logging::start_traced(&config)?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    check_directories(&config)?;
    super::runtime()?.block_on(otlp::with_exporter(traces, serve(config, flags.clone(), log_level)))
}

async fn serve(config: Config, flags: Flags, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    let key = match &config.accounts.auth {
        AuthConfig::SingleUser(key) => Some(ApiKey::obtain(key.as_ref(), &config.state_dir)?),
        AuthConfig::MultiUser(_) => None,
    };
    let secret = key.as_ref().map(ApiKey::secret).unwrap_or_default();
    let mut registry = wiring::registry();
    let metrics = WorkerMetrics::new(&mut registry);
    let (app, state) = wiring::app(&config, &secret, registry)?;
    let pipeline = PipelineHandles { jobs: Arc::clone(&app.jobs.store), queue: Arc::clone(&app.jobs.queue) };
    // With Redis, the workers are separate processes.
    let work = match &config.queue.redis {
        None => Some((Stage::ALL.to_vec(), WorkerDeps::for_app(&app, metrics))),
        Some(_) => None,
    };
    let (reloads, requests) = reload_channel();
    let app = App { reloads: Some(reloads), ..app };
    // Before the address is printed, because its reader may send a signal at once.
    let (shutdown, hangup) = (on_signals()?, signal(SignalKind::hangup())?);
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}; is another server running there?", config.listen))?;
    let scheme = if app.settings.tls.is_some() { "https" } else { "http" };
    println_stdout(format_args!("listening on {scheme}://{}", listener.local_addr()?));
    match &key {
        None | Some(ApiKey::Configured(_)) => {}
        Some(ApiKey::Stored(_, path)) => println_stdout(format_args!("the API key is in {}", path.display())),
        Some(ApiKey::Generated(key, path)) => {
            println_stdout(format_args!(
                "a new API key: {} (kept in {})",
                key.expose_secret(),
                path.display()
            ));
        }
    }
    if config.queue.redis.is_some() {
        // The API works without its queue, so a failure is logged only.
        let queue = Arc::clone(&pipeline.queue);
        let (state_dir, database) = (config.state_dir.clone(), config.collections.database.is_some());
        tokio::spawn(async move {
            if let Err(error) = check_shared_directory((&state_dir, database), &*queue).await {
                tracing::error!("{error:#}");
            }
        });
    }
    let warming = tokio::spawn(warm_up(Arc::clone(&app.router)));
    let background = pipeline.start(&config, work, &shutdown)?;
    let live = Arc::new(ReloadableApp::new(app));
    let (grace, socket) = (config.shutdown_grace, config.notify_socket.clone());
    let fingerprints_at_start = config.fingerprints.clone();
    let reloader = Reloader {
        flags,
        config,
        fingerprints_at_start,
        process_state: state,
        live: Arc::clone(&live),
        log_level,
    };
    tokio::spawn(reloader.run(requests, hangup, shutdown.clone()));
    notify(socket.as_deref(), READY);
    let serving = embeddery_server::serve(listener, live, shutdown.clone(), grace);
    let stopping = async {
        shutdown.cancelled().await;
        notify(socket.as_deref(), STOPPING);
    };
    tokio::join!(serving, stopping).0?;
    warming.abort();
    background.wait().await;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Downloads and loads the default model before the first request. A failure does not stop the server: `/ready` reports
/// it, and the next request tries again.
async fn warm_up(router: Arc<Router>) {
    let default = ModelSelector { model: None, provider: None };
    let warmed = match router.download(default).await {
        Ok(_) => router.warm_up(default).await,
        Err(error) => Err(error),
    };
    if let Err(error) = warmed {
        tracing::warn!(model = router.default_model(), %error, "the default model is not ready");
    }
}

/// The directories that must be writable, each with its setting.
pub(crate) fn directories(config: &Config) -> [(&'static str, &Path); 3] {
    [
        ("USER_DB_BASE_DIR", &config.user_dir),
        ("EMBEDDINGS_STATE_DIR", &config.state_dir),
        ("EMBEDDINGS_MODEL_STORAGE_DIR", &config.store.base_dir),
    ]
}

/// Checks that all directories are writable.
///
/// # Errors
/// Names the setting of a directory that is not writable.
pub(super) fn check_directories(config: &Config) -> anyhow::Result<()> {
    for (setting, dir) in directories(config) {
        writable(dir).with_context(|| {
            format!(
                "{setting}: {} is not writable; correct its permissions, or set {setting} to another directory",
                dir.display()
            )
        })?;
    }
    Ok(())
}

/// Creates the directory if it is missing, and checks that a file can be created in it.
pub(crate) fn writable(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let probe = dir.join(format!(".write-probe-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
}
