//! All of it together, as the server takes it.

use std::{path::PathBuf, sync::Arc};

use thiserror::Error;

use crate::{Audit, AuditConfig, Auth, Ledger, Limiter, ledger::LedgerConfig};

/// What accounts are made of.
pub struct AccountsConfig {
    /// Who may ask.
    pub auth: Auth,
    /// How fast.
    pub limiter: Limiter,
    /// How much, and what it cost.
    pub ledger: LedgerConfig,
    /// What is kept for auditors.
    pub audit: AuditConfig,
}

/// Who asks, how much they may, what it cost. Clones share everything.
#[derive(Clone)]
pub struct Accounts {
    /// Who may ask.
    pub auth: Arc<Auth>,
    /// How fast.
    pub limiter: Arc<Limiter>,
    /// How much, and what it cost.
    pub ledger: Arc<Ledger>,
    /// What is kept for auditors.
    pub audit: Arc<Audit>,
}

/// Why accounts cannot be kept.
#[derive(Debug, Error)]
pub enum Error {
    /// A directory cannot be made.
    #[error("{}: cannot be made: {error}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file cannot be used; the message names it and the fix.
    #[error("{0}")]
    File(String),
}

impl Accounts {
    /// Opens the files; makes their directories.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn open(config: AccountsConfig) -> Result<Self, Error> {
        for path in [&config.ledger.path, &config.audit.path] {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).map_err(|error| Error::Directory { path: dir.into(), error })?;
            }
        }
        Ok(Self {
            auth: Arc::new(config.auth),
            limiter: Arc::new(config.limiter),
            ledger: Arc::new(Ledger::open(config.ledger).map_err(Error::File)?),
            audit: Arc::new(Audit::open(config.audit).map_err(Error::File)?),
        })
    }
}
