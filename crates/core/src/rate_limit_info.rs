//! Rate limits that a vendor reports in response headers. The vendor adapters read them; the gateway's upstream limiter
//! applies them.

use std::time::Duration;

use crate::UpstreamServer;

/// The rate limits of one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimitInfo {
    /// The limit of requests.
    pub requests: RateWindow,
    /// The limit of tokens.
    pub tokens: RateWindow,
}

/// One rate limit window. A value that the vendor did not report is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateWindow {
    /// Size of a full window.
    pub limit: Option<u64>,
    /// What remains of the window.
    pub remaining: Option<u64>,
    /// Time until the window is full again.
    pub reset: Option<Duration>,
}

/// Receives rate limits from responses. Called while a request is handled: an implementation must not block.
pub trait RateListener: Send + Sync {
    /// Called when a response of `server` reported its rate limits.
    fn observe(&self, server: &UpstreamServer, info: RateLimitInfo);
}
