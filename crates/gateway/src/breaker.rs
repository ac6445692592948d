//! Circuit breaker: after several consecutive failures of a server, calls to it fail at once for a while; then a few
//! probes decide whether it closes again. Each server of a provider has one breaker, which the models at its address
//! share. Only the upstream's faults count: a caller's error and a 429 show that the upstream is alive.

mod registry;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, ModelInfo, ProviderKind,
    Retry, UpstreamServer,
};
use tokio::time::Instant;

pub use registry::{BreakerRegistry, BreakerReport, BreakerTotals, Service, UnknownBreaker};
pub use state::{BreakerConfig, BreakerState};

use crate::delegate::delegate_embedder;
use state::{CallOutcome, Counts, Machine};

/// Rejects calls while the breaker of the model's server is open, and reports the outcome of calls to the breaker.
pub struct CircuitBreaker {
    inner: Arc<dyn Embedder>,
    breaker: Arc<Breaker>,
}

/// The breaker of one server.
struct Breaker {
    server: UpstreamServer,
    config: BreakerConfig,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    machine: Machine,
    totals: BreakerTotals,
    last_failure: Option<std::time::SystemTime>,
}

/// What a breaker reports of itself.
#[derive(Clone, Copy)]
struct Snapshot {
    state: BreakerState,
    counts: Counts,
    remaining_open: Option<Duration>,
    last_failure: Option<std::time::SystemTime>,
    totals: BreakerTotals,
}

impl Breaker {
    fn new(server: UpstreamServer, config: BreakerConfig) -> Self {
        Self { server, config, inner: Mutex::default() }
    }

    /// The current state. An open breaker becomes half open by time alone, without a call.
    fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.machine.advance(now);
        Snapshot {
            state: inner.machine.state(),
            counts: inner.machine.counts(&self.config),
            remaining_open: inner.machine.remaining_open(now),
            last_failure: inner.last_failure,
            totals: inner.totals,
        }
    }

    /// Closes the breaker and resets its counts.
    fn reset(&self) {
        self.lock().machine.reset();
    }

    /// Admits a call, or returns the error of an open breaker.
    fn admit(self: &Arc<Self>, model: &ModelInfo) -> Result<Call, EmbedError> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.machine.advance(now);
        if let Some(permit) = inner.machine.admit(&self.config) {
            return Ok(Call { breaker: Arc::clone(self), permit: Some(permit) });
        }
        let wait = inner.machine.remaining_open(now).unwrap_or(Duration::from_secs(1));
        // The servers of `local_api` have nothing in common but the API.
        let subject = match self.server.provider {
            ProviderKind::LocalApi => format!("the server of local_api model '{}'", model.name),
            provider => format!("provider '{provider}'"),
        };
        let (failures, seconds) = (self.config.failures, wait.as_secs_f64().ceil());
        let message = format!(
            "{subject} failed {failures} times in a row and its circuit breaker is open; retry in {seconds} s"
        );
        Err(EmbedError::new(ErrorKind::BreakerOpen, Fault::Us, Retry::After(wait), message))
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
            let server = &self.breaker.server;
            tracing::warn!(provider = %server.provider, address = %server, "circuit breaker opened");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(CallOutcome::Neutral);
    }
}

impl CircuitBreaker {
    /// Wraps `inner` with the breaker of its server.
    pub fn new(inner: Arc<dyn Embedder>, breakers: &BreakerRegistry) -> Self {
        let breaker = breakers.for_server(&inner.server());
        Self { inner, breaker }
    }
}

impl Embedder for CircuitBreaker {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let mut call = self.breaker.admit(self.inner.model())?;
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

/// Whether an error shows that the upstream is down. An error that names inputs is about their texts: one text must not
/// open the breaker for all.
fn is_outage(error: &EmbedError) -> bool {
    let shows_life = [ErrorKind::RateLimited, ErrorKind::UpstreamAuth, ErrorKind::BatchTooLarge];
    error.fault == Fault::Upstream && error.inputs.is_empty() && !shows_life.contains(&error.kind)
}
