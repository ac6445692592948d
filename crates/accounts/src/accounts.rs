//! All parts of accounts, opened together.

use std::{path::PathBuf, sync::Arc};

use thiserror::Error;

use crate::{AuditConfig, AuditLog, Auth, Ledger, Limiter, ledger::LedgerConfig};

/// The configuration of accounts.
pub struct AccountsConfig {
    /// Authentication.
    pub auth: Auth,
    /// Rate limits.
    pub limiter: Limiter,
    /// Quotas and usage.
    pub ledger: LedgerConfig,
    /// The audit log.
    pub audit: AuditConfig,
}

/// Authentication, rate limits, quotas, usage and the audit log. Clones share all state.
#[derive(Clone)]
pub struct Accounts {
    /// Authentication.
    pub auth: Arc<Auth>,
    /// Rate limits.
    pub limiter: Arc<Limiter>,
    /// Quotas and usage.
    pub ledger: Arc<Ledger>,
    /// The audit log.
    pub audit: Arc<AuditLog>,
}

/// A failure to open the files of accounts.
#[derive(Debug, Error)]
pub enum AccountsError {
    /// A directory cannot be created.
    #[error("{}: cannot create the directory: {error}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// A file cannot be opened; the message names the file and the cause.
    #[error("{0}")]
    File(String),
}

impl Accounts {
    /// Creates the directories and opens the files.
    ///
    /// # Errors
    /// When a directory or file cannot be created or opened.
    pub fn open(config: AccountsConfig) -> Result<Self, AccountsError> {
        for path in [&config.ledger.path, &config.audit.path] {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)
                    .map_err(|error| AccountsError::Directory { path: dir.into(), error })?;
            }
        }
        Ok(Self {
            auth: Arc::new(config.auth),
            limiter: Arc::new(config.limiter),
            ledger: Arc::new(Ledger::open(config.ledger).map_err(AccountsError::File)?),
            audit: Arc::new(AuditLog::open(config.audit).map_err(AccountsError::File)?),
        })
    }
}
