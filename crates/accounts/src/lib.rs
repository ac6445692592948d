//! Who asks, how much they may, and what it cost. [`Auth`] turns a key or a token into an [`Identity`];
//! [`Limiter`] holds rates, in this process or in Redis for all replicas; [`Ledger`] holds quotas and usage in
//! SQLite; [`Audit`] keeps what an auditor asks for. [`Accounts`] is all of them, as the server takes them.
//!
//! Nothing here knows of HTTP: the server maps refusals to statuses, and the binary reads the configuration.

mod accounts;
mod audit;
pub mod auth;
pub mod ledger;
pub mod limit;
mod reloading_file;
mod user;

pub use accounts::{Accounts, AccountsConfig, Error};
pub use audit::{Audit, AuditConfig, Event};
pub use auth::{Auth, AuthError};
pub use ledger::{Ledger, Prices};
pub use limit::Limiter;
pub use user::{Identity, Role, UserId};
