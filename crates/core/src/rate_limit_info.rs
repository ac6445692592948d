//! What a vendor's answers say of the rates it allows: the adapters read it, a governor obeys it.

use std::time::Duration;

use crate::ProviderKind;

/// What one answer's headers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimitInfo {
    /// Of requests.
    pub requests: RateWindow,
    /// Of tokens.
    pub tokens: RateWindow,
}

/// One of a vendor's budgets. What it does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateWindow {
    /// How much a full window holds.
    pub limit: Option<u64>,
    /// How much is left of it.
    pub remaining: Option<u64>,
    /// When it is full again.
    pub reset: Option<Duration>,
}

/// Hears what a provider's answers say. Called on the request's path: it must not wait.
pub trait RateListener: Send + Sync {
    /// An answer of this provider said something of its rates.
    fn observe(&self, provider: ProviderKind, hint: RateLimitInfo);
}
