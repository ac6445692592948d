#![doc = include_str!("../README.md")]

mod accounts;
mod audit;
pub mod auth;
pub mod ledger;
pub mod limit;
mod metered_call;
mod reloading_file;
mod user;

pub use accounts::{Accounts, AccountsConfig, AccountsError};
pub use audit::{AuditConfig, AuditEvent, AuditLog};
pub use auth::{Auth, AuthError};
pub use ledger::{Ledger, Prices};
pub use limit::Limiter;
pub use metered_call::{MeteredCall, MeteredCallError, MeteredResponse};
pub use user::{Identity, Role, UserId};
