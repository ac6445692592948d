//! Reads the configuration anew, on SIGHUP or when an administrator asks: checked as a whole first, in force whole or
//! not at all. What changed is logged by its keys.

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

/// Everything that reading anew needs.
pub(crate) struct Reloader {
    pub(crate) flags: Flags,
    /// What is in force.
    pub(crate) config: Config,
    /// What the file said when the process started: keys that need a restart are compared with it.
    pub(crate) started_with: KeyFingerprints,
    pub(crate) lasting: ProcessState,
    pub(crate) live: Arc<ReloadableApp>,
    pub(crate) log_level: LogLevel,
}

impl Reloader {
    /// Serves wishes, one after the other, until the process ends.
    pub(crate) async fn run(
        mut self,
        mut requests: ReloadRequests,
        mut hangup: Signal,
        stop: CancellationToken,
    ) {
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => None,
                request = requests.recv() => request,
                () = stop.cancelled() => return,
            };
            // Files are read, and certificates of upstreams.
            let outcome = tokio::task::block_in_place(|| self.reload());
            if let Some(reply) = asked {
                // An administrator who hung up finds the outcome in the log.
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
                    tracing::warn!(keys = needs_restart.join(", "), "these keys hold after a restart only");
                }
                Ok(reloaded)
            }
            Err(error) => {
                tracing::error!("configuration not reloaded, it stays as it was: {error:#}");
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
        let app = wiring::rebuild_app((&self.live.app(), &self.lasting), (&self.config, &new), &key)?;
        self.live.replace(app);
        self.log_level.set(new.log.level);
        let (changed, _) = self.config.fingerprints.changes(&new.fingerprints);
        let (_, needs_restart) = self.started_with.changes(&new.fingerprints);
        let file = new.file.as_ref().map(|file| file.display().to_string());
        self.config = new;
        Ok(Reloaded { file, changed, needs_restart })
    }
}
