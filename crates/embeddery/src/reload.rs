//! Reloads the configuration, on SIGHUP or on the request of an administrator. The new configuration is applied only if
//! all of it is valid; otherwise the current one stays in effect. The log names the keys that have changed.

use std::sync::Arc;

use embeddery_server::{ReloadRequests, ReloadableApp, Reloaded};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::{
    api_key::ApiKey,
    config::{self, AuthConfig, Config, ConfigError, Flags, KeyFingerprints},
    logging::LogLevel,
    wiring::{self, ProcessState},
};

/// The state that a reload needs.
pub(crate) struct Reloader {
    pub(crate) flags: Flags,
    /// The configuration that is in effect.
    pub(crate) config: Config,
    /// The configuration at the start of the process. The keys that need a restart are compared with it.
    pub(crate) fingerprints_at_start: KeyFingerprints,
    /// The state that outlives a reload.
    pub(crate) process_state: ProcessState,
    pub(crate) live: Arc<ReloadableApp>,
    pub(crate) log_level: LogLevel,
}

impl Reloader {
    /// Handles signals and requests, one at a time, until `stop` is cancelled.
    pub(crate) async fn run(
        mut self,
        mut requests: ReloadRequests,
        mut hangup: Signal,
        stop: CancellationToken,
    ) {
        loop {
            let request = tokio::select! {
                _ = hangup.recv() => None,
                request = requests.recv() => request,
                () = stop.cancelled() => return,
            };
            // A reload blocks while it reads files, such as the configuration and the certificates.
            let outcome = tokio::task::block_in_place(|| self.reload());
            if let Some(reply) = request {
                // If the administrator has disconnected, the outcome is in the log.
                let _ = reply.send(outcome);
            }
        }
    }

    fn reload(&mut self) -> Result<Reloaded, Vec<String>> {
        match self.try_reload() {
            Ok(reloaded) => {
                let Reloaded { changed, needs_restart, .. } = &reloaded;
                tracing::info!(changed = changed.join(", "), "configuration reloaded");
                if !needs_restart.is_empty() {
                    tracing::warn!(keys = needs_restart.join(", "), "these keys need a restart");
                }
                Ok(reloaded)
            }
            Err(error) => {
                tracing::error!("configuration not reloaded; the current one stays in effect: {error:#}");
                Err(match error.downcast::<ConfigError>() {
                    Ok(ConfigError(problems)) => problems,
                    Err(other) => vec![format!("{other:#}")],
                })
            }
        }
    }

    fn try_reload(&mut self) -> anyhow::Result<Reloaded> {
        let new = config::load(&self.flags)?;
        let key = match &new.accounts.auth {
            AuthConfig::SingleUser(given) => ApiKey::obtain(given.as_ref(), &self.config.state_dir)?.secret(),
            AuthConfig::MultiUser(_) => Default::default(),
        };
        let app = wiring::rebuild_app((&self.live.app(), &self.process_state), (&self.config, &new), &key)?;
        self.live.replace(app);
        self.log_level.set(new.log.level);
        let (changed, _) = self.config.fingerprints.changes(&new.fingerprints);
        let (_, needs_restart) = self.fingerprints_at_start.changes(&new.fingerprints);
        let file = new.file.as_ref().map(|file| file.display().to_string());
        self.config = new;
        Ok(Reloaded { file, changed, needs_restart })
    }
}
