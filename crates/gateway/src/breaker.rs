//! Spares a provider that is down, and its callers the wait: after some failures in a row nobody asks it for a
//! while, then a few trial calls decide. One breaker per provider, shared by its models. It counts the
//! upstream's faults only: a caller's mistake and a 429 say that the upstream is alive.

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
use state::{Machine, Outcome};

/// Refuses calls while its provider's breaker is open, and tells the breaker how calls end.
pub struct CircuitBreaker {
    inner: Arc<dyn Embedder>,
    breaker: Arc<Breaker>,
}

/// The breakers of all providers, there from the start.
pub struct BreakerRegistry(BTreeMap<ProviderKind, Arc<Breaker>>);

/// One provider's breaker.
pub struct Breaker {
    provider: ProviderKind,
    config: BreakerConfig,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    machine: Machine,
    totals: Totals,
    last_failure: Option<std::time::SystemTime>,
}

/// What a breaker has counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that the upstream failed.
    pub failures: u64,
    /// Calls that it answered.
    pub successes: u64,
    /// How often the breaker opened.
    pub trips: u64,
}

/// A breaker as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerReport {
    /// Whose it is.
    pub provider: ProviderKind,
    /// Closed, open or half open.
    pub state: BreakerState,
    /// Failures in a row while closed; what opened it otherwise.
    pub failures: u32,
    /// Successful trial calls.
    pub successes: u32,
    /// Trial calls under way.
    pub trials: u32,
    /// How long it stays open.
    pub opens_for: Option<Duration>,
    /// When the upstream last failed.
    pub last_failure: Option<std::time::SystemTime>,
    /// Its settings.
    pub config: BreakerConfig,
    /// What it has counted.
    pub totals: Totals,
}

impl BreakerReport {
    /// The breaker's name in lists and metrics.
    pub fn name(&self) -> String {
        format!("embeddings_{}", self.provider)
    }
}

impl BreakerRegistry {
    /// A closed breaker for every provider.
    pub fn new(config: BreakerConfig) -> Self {
        Self(ProviderKind::ALL.map(|provider| (provider, Arc::new(Breaker::new(provider, config)))).into())
    }

    /// A provider's breaker.
    pub fn of(&self, provider: ProviderKind) -> Arc<Breaker> {
        match self.0.get(&provider) {
            Some(breaker) => Arc::clone(breaker),
            None => Arc::new(Breaker::new(provider, BreakerConfig::default())), // `new` has made all
        }
    }

    /// How each stands.
    pub fn report(&self) -> Vec<BreakerReport> {
        self.0.values().map(|breaker| breaker.report()).collect()
    }
}

impl Breaker {
    fn new(provider: ProviderKind, config: BreakerConfig) -> Self {
        Self { provider, config, shared: Mutex::default() }
    }

    /// How it stands at this moment, whether or not anybody called.
    pub fn report(&self) -> BreakerReport {
        let (config, now) = (self.config, Instant::now());
        let mut shared = self.shared();
        shared.machine.advance(now);
        let (failures, successes, trials) = shared.machine.counts(&config);
        BreakerReport {
            provider: self.provider,
            state: shared.machine.name(),
            failures,
            successes,
            trials,
            opens_for: shared.machine.open_for(now),
            last_failure: shared.last_failure,
            config,
            totals: shared.totals,
        }
    }

    /// Closes it, whatever it has seen.
    pub fn reset(&self) {
        self.shared().machine.reset();
    }

    /// Lets a call pass, or says why not.
    fn admit(self: &Arc<Self>) -> Result<Call, EmbedError> {
        let now = Instant::now();
        let mut shared = self.shared();
        shared.machine.advance(now);
        match shared.machine.admit(&self.config) {
            Some(ticket) => Ok(Call { breaker: Arc::clone(self), ticket: Some(ticket) }),
            None => {
                let wait = shared.machine.open_for(now).unwrap_or(Duration::from_secs(1));
                Err(EmbedError::new(
                    ErrorKind::BreakerOpen,
                    Fault::Us,
                    Retry::After(wait),
                    format!(
                        "provider '{}' failed {} times in a row and is left alone for now; try again in {} s",
                        self.provider,
                        self.config.failures,
                        wait.as_secs_f64().ceil()
                    ),
                ))
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that was let pass. Dropped without an outcome it says nothing, and its place is free again.
struct Call {
    breaker: Arc<Breaker>,
    ticket: Option<state::Permit>,
}

impl Call {
    fn ended(&mut self, outcome: Outcome) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut shared = self.breaker.shared();
        let tripped = shared.machine.ended(&ticket, outcome, &self.breaker.config);
        match outcome {
            Outcome::Success => shared.totals.successes += 1,
            Outcome::Failure => {
                shared.totals.failures += 1;
                shared.last_failure = Some(std::time::SystemTime::now());
            }
            Outcome::Neither => {}
        }
        if tripped {
            shared.totals.trips += 1;
            tracing::warn!(provider = %self.breaker.provider, "circuit breaker opened");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.ended(Outcome::Neither);
    }
}

impl CircuitBreaker {
    /// Around `inner`, with its provider's breaker.
    pub fn new(inner: Arc<dyn Embedder>, breakers: &BreakerRegistry) -> Self {
        let breaker = breakers.of(inner.model().provider);
        Self { inner, breaker }
    }
}

impl Embedder for CircuitBreaker {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut call = self.breaker.admit()?;
            let answer = self.inner.embed(request).await;
            call.ended(match &answer {
                Ok(_) => Outcome::Success,
                Err(error) if counts(error) => Outcome::Failure,
                Err(_) => Outcome::Neither,
            });
            answer
        })
    }
}

/// Whether a failure says that the upstream is down.
fn counts(error: &EmbedError) -> bool {
    let alive = [ErrorKind::RateLimited, ErrorKind::UpstreamAuth, ErrorKind::BatchTooLarge];
    error.fault == Fault::Upstream && !alive.contains(&error.kind)
}
