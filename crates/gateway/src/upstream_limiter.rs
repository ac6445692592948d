//! Keeps a provider's calls within the rates it allows: so many at a time, none while it asks for a pause,
//! and no more than its answers say are left. People's requests go before a pipeline's. One governor per
//! provider, shared by its models; it learns from 429s and from the rate headers that adapters pass on.

mod state;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input, Priority,
    ProviderKind, RateLimitInfo, RateListener, Retry, TokenCount,
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::delegate::delegate_embedder;
use state::State;

/// How a provider's calls are kept within its rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GovernorConfig {
    /// Calls at a time.
    pub concurrency: usize,
    /// A pause longer than this is not waited for here; the caller is told.
    pub max_wait: Duration,
}

impl Default for GovernorConfig {
    fn default() -> Self {
        Self { concurrency: 16, max_wait: Duration::from_secs(30) }
    }
}

/// The governors of all providers.
pub struct Governors(BTreeMap<ProviderKind, Arc<UpstreamLimiter>>);

impl Governors {
    /// One for every provider; `config` says how each works.
    pub fn new(config: impl Fn(ProviderKind) -> GovernorConfig) -> Self {
        Self(
            ProviderKind::ALL
                .map(|provider| (provider, UpstreamLimiter::new(provider, config(provider))))
                .into(),
        )
    }

    fn of(&self, provider: ProviderKind) -> Arc<UpstreamLimiter> {
        match self.0.get(&provider) {
            Some(governor) => Arc::clone(governor),
            None => UpstreamLimiter::new(provider, GovernorConfig::default()), // `new` has made all
        }
    }
}

impl RateListener for Governors {
    fn observe(&self, provider: ProviderKind, hint: RateLimitInfo) {
        if let Some(governor) = self.0.get(&provider) {
            governor.state().observe(hint, Instant::now());
            governor.changed.notify_waiters();
        }
    }
}

/// One provider's governor.
struct UpstreamLimiter {
    provider: ProviderKind,
    config: GovernorConfig,
    state: Mutex<State<oneshot::Sender<Permit>>>,
    /// A pause began or a window was heard of: those who wait set their clocks anew.
    changed: Notify,
}

/// A call may be made; dropping it ends the call.
struct Permit(Option<Arc<UpstreamLimiter>>);

impl Permit {
    /// Nobody was there to take it.
    fn give_back(mut self) {
        if let Some(governor) = self.0.take() {
            governor.state().running -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(governor) = self.0.take() {
            governor.state().running -= 1;
            governor.grant_next();
        }
    }
}

impl UpstreamLimiter {
    fn new(provider: ProviderKind, config: GovernorConfig) -> Arc<Self> {
        Arc::new(Self { provider, config, state: Mutex::default(), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State<oneshot::Sender<Permit>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a call of so many tokens may be made.
    async fn permit(self: &Arc<Self>, ask: PermitRequest) -> Result<Permit, EmbedError> {
        let mut granted = {
            let mut state = self.state();
            let now = Instant::now();
            if state.nobody_waits() && state.admit(self.config.concurrency, ask.tokens, now) {
                return Ok(Permit(Some(Arc::clone(self))));
            }
            let (sender, granted) = oneshot::channel();
            state.wait(ask.priority, ask.tokens, sender);
            granted
        };
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let pause = self.state().closed_until(ask.tokens, Instant::now());
            if let Some(until) = pause
                && until.saturating_duration_since(Instant::now()) > self.config.max_wait.min(ask.patience())
            {
                return Err(self.too_long(until));
            }
            let wake = async {
                match pause {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                permit = &mut granted => {
                    return permit.map_err(|_| EmbedError::internal("a waiting call was forgotten"));
                }
                () = wake => self.grant_next(),
                () = changed => {}
            }
        }
    }

    /// Lets those pass that may, in their order. One that no longer waits gives its turn to the next.
    fn grant_next(self: &Arc<Self>) {
        loop {
            let next = self.state().next(self.config.concurrency, Instant::now());
            let Some(waiting) = next else { return };
            if let Err(permit) = waiting.send(Permit(Some(Arc::clone(self)))) {
                permit.give_back(); // its caller has left
            }
        }
    }

    fn too_long(&self, until: Instant) -> EmbedError {
        let wait = until.saturating_duration_since(Instant::now());
        EmbedError::new(
            ErrorKind::RateLimited,
            Fault::Upstream,
            Retry::After(wait),
            format!(
                "provider '{}' takes no more requests for {} s; try again then",
                self.provider,
                wait.as_secs_f64().ceil()
            ),
        )
    }
}

/// What a call wants.
struct PermitRequest {
    tokens: u64,
    priority: Priority,
    deadline: Option<Instant>,
}

impl PermitRequest {
    fn patience(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// Makes calls only when the provider's governor lets them pass.
pub struct RateLimited {
    inner: Arc<dyn Embedder>,
    governor: Arc<UpstreamLimiter>,
}

impl RateLimited {
    /// Around `inner`, with its provider's governor.
    pub fn new(inner: Arc<dyn Embedder>, governors: &Governors) -> Self {
        let governor = governors.of(inner.model().provider);
        Self { inner, governor }
    }
}

impl Embedder for RateLimited {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let ask = PermitRequest {
                tokens: request.inputs.iter().map(|input| tokens(&*self.inner, input)).sum(),
                priority: request.context.priority,
                deadline: request.context.deadline.map(Instant::from),
            };
            let _permit = self.governor.permit(ask).await?;
            let answer = self.inner.embed(request).await;
            match &answer {
                Ok(_) => self.governor.state().answered(),
                Err(error) if error.kind == ErrorKind::RateLimited => {
                    self.governor.state().limited(error.retry, Instant::now());
                    self.governor.changed.notify_waiters();
                }
                Err(_) => {}
            }
            answer
        })
    }
}

fn tokens(embedder: &dyn Embedder, input: &Input) -> u64 {
    let count = match input {
        Input::Tokens(ids) => ids.len(),
        Input::Text(text) => match embedder.count_tokens(text) {
            TokenCount::Exact(count) | TokenCount::Estimate(count) => count,
        },
    };
    count as u64
}
