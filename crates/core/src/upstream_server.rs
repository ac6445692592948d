//! The server behind a remote model. Failures and rate limits belong to it, and not to the provider's kind.

use std::{fmt, sync::Arc};

use crate::ProviderKind;

/// The server that a model's calls go to. Calls with the same provider and address share a circuit breaker; calls that
/// also have the same account share an upstream limiter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamServer {
    /// The provider of the model.
    pub provider: ProviderKind,
    /// `scheme://host:port`, without path and credentials; `None` for a model of this process.
    pub address: Option<Arc<str>>,
    /// Distinguishes accounts at one address, because vendors limit the rate of each: a hash of the keys, the configured
    /// headers and, for Azure, the resource.
    pub account: u64,
}

impl UpstreamServer {
    /// For models of this process, which have no server.
    pub const fn in_process(provider: ProviderKind) -> Self {
        Self { provider, address: None, account: 0 }
    }
}

/// The address, or the provider's name without one. For logs and administrators; callers do not see addresses.
impl fmt::Display for UpstreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.address.as_deref().unwrap_or_else(|| self.provider.as_str()))
    }
}
