//! Circuit breaker: after several consecutive failures of a provider, calls to it fail at once for a while; then a few
//! probes decide whether it closes again. Each provider has one breaker, which its models share. Only the upstream's
//! faults count: a caller's error and a 429 show that the upstream is alive.

mod state;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, ProviderKind, Retry,
};
use tokio::time::Instant;

pub use state::{BreakerConfig, BreakerState};

use crate::delegate::delegate_embedder;
use state::{CallOutcome, Machine};

/// Rejects calls while the provider's breaker is open, and reports the outcome of calls to the breaker.
pub struct CircuitBreaker {
    inner: Arc<dyn Embedder>,
    breaker: Arc<Breaker>,
}

/// The breakers of all providers.
pub struct BreakerRegistry(BTreeMap<ProviderKind, Arc<Breaker>>);

/// One provider's breaker.
pub struct Breaker {
    provider: ProviderKind,
    config: BreakerConfig,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    machine: Machine,
    totals: BreakerTotals,
    last_failure: Option<std::time::SystemTime>,
}

/// Counters of a breaker since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerTotals {
    /// Calls that failed by the upstream's fault.
    pub failures: u64,
    /// Calls that succeeded.
    pub successes: u64,
    /// Times that the breaker opened.
    pub trips: u64,
}

/// A snapshot of a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerReport {
    /// The breaker's provider.
    pub provider: ProviderKind,
    /// Closed, open or half open.
    pub state: BreakerState,
    /// Consecutive failures. While the breaker is open or half open, the number that opened it.
    pub failures: u32,
    /// Successful probes.
    pub successes: u32,
    /// Probes in progress.
    pub probes: u32,
    /// Time until the breaker becomes half open; `None` unless it is open.
    pub remaining_open: Option<Duration>,
    /// Time of the last failure.
    pub last_failure: Option<std::time::SystemTime>,
    /// The breaker's configuration.
    pub config: BreakerConfig,
    /// Counters since the process started.
    pub totals: BreakerTotals,
}

impl BreakerReport {
    /// The name in lists and metrics.
    pub fn name(&self) -> String {
        format!("embeddings_{}", self.provider)
    }
}

impl BreakerRegistry {
    /// Creates a closed breaker for each provider.
    pub fn new(config: BreakerConfig) -> Self {
        Self(ProviderKind::ALL.map(|provider| (provider, Arc::new(Breaker::new(provider, config)))).into())
    }

    /// The breaker of a provider.
    pub fn for_provider(&self, provider: ProviderKind) -> Arc<Breaker> {
        match self.0.get(&provider) {
            Some(breaker) => Arc::clone(breaker),
            None => Arc::new(Breaker::new(provider, BreakerConfig::default())), // `new` creates all of them
        }
    }

    /// Snapshots of all breakers.
    pub fn report(&self) -> Vec<BreakerReport> {
        self.0.values().map(|breaker| breaker.report()).collect()
    }
}

impl Breaker {
    fn new(provider: ProviderKind, config: BreakerConfig) -> Self {
        Self { provider, config, inner: Mutex::default() }
    }

    /// The current state. An open breaker becomes half open by time alone, without a call.
    pub fn report(&self) -> BreakerReport {
        let (config, now) = (self.config, Instant::now());
        let mut inner = self.lock();
        inner.machine.advance(now);
        let counts = inner.machine.counts(&config);
        BreakerReport {
            provider: self.provider,
            state: inner.machine.state(),
            failures: counts.failures,
            successes: counts.successes,
            probes: counts.probes,
            remaining_open: inner.machine.remaining_open(now),
            last_failure: inner.last_failure,
            config,
            totals: inner.totals,
        }
    }

    /// Closes the breaker and resets its counts.
    pub fn reset(&self) {
        self.lock().machine.reset();
    }

    /// Admits a call, or returns the error of an open breaker.
    fn admit(self: &Arc<Self>) -> Result<Call, EmbedError> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.machine.advance(now);
        if let Some(permit) = inner.machine.admit(&self.config) {
            return Ok(Call { breaker: Arc::clone(self), permit: Some(permit) });
        }
        let wait = inner.machine.remaining_open(now).unwrap_or(Duration::from_secs(1));
        Err(EmbedError::new(
            ErrorKind::BreakerOpen,
            Fault::Us,
            Retry::After(wait),
            format!(
                "provider '{}' failed {} times in a row and its circuit breaker is open; retry in {} s",
                self.provider,
                self.config.failures,
                wait.as_secs_f64().ceil()
            ),
        ))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An admitted call. A call that is dropped without an outcome counts as neither success nor failure, and its permit
/// is returned.
struct Call {
    breaker: Arc<Breaker>,
    permit: Option<state::Permit>,
}

impl Call {
    fn end(&mut self, outcome: CallOutcome) {
        let Some(permit) = self.permit.take() else { return };
        let mut inner = self.breaker.lock();
        let opened = inner.machine.end_call(&permit, outcome, &self.breaker.config);
        match outcome {
            CallOutcome::Success => inner.totals.successes += 1,
            CallOutcome::Failure => {
                inner.totals.failures += 1;
                inner.last_failure = Some(std::time::SystemTime::now());
            }
            CallOutcome::Neutral => {}
        }
        if opened {
            inner.totals.trips += 1;
            tracing::warn!(provider = %self.breaker.provider, "circuit breaker opened");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CallOutcome::Neutral);
    }
}

impl CircuitBreaker {
    /// Wraps `inner` with the breaker of its provider.
    pub fn new(inner: Arc<dyn Embedder>, breakers: &BreakerRegistry) -> Self {
        let breaker = breakers.for_provider(inner.model().provider);
        Self { inner, breaker }
    }
}

impl Embedder for CircuitBreaker {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut call = self.breaker.admit()?;
            let result = self.inner.embed(request).await;
            call.end(match &result {
                Ok(_) => CallOutcome::Success,
                Err(error) if is_outage(error) => CallOutcome::Failure,
                Err(_) => CallOutcome::Neutral,
            });
            result
        })
    }
}

/// Whether an error shows that the upstream is down.
fn is_outage(error: &EmbedError) -> bool {
    let shows_life = [ErrorKind::RateLimited, ErrorKind::UpstreamAuth, ErrorKind::BatchTooLarge];
    error.fault == Fault::Upstream && !shows_life.contains(&error.kind)
}
