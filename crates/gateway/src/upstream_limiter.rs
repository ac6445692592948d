//! Limits the calls to a server: a maximum of concurrent calls, no calls while the server requests a delay, and no
//! more than the budget that its responses report. Interactive requests go before batch requests. Each account at a server
//! has one limiter, which its models share; it learns from 429s and from the rate limit headers that adapters pass on.

mod state;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input, Priority,
    RateLimitInfo, RateListener, Retry, TokenCount, UpstreamServer,
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::delegate::delegate_embedder;
use state::State;

/// The limits of calls to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamLimiterConfig {
    /// Maximum concurrent calls.
    pub concurrency: usize,
    /// Maximum time that a call waits for the server's rate limit. If the wait would be longer, the call fails at once.
    pub max_wait: Duration,
}

impl Default for UpstreamLimiterConfig {
    fn default() -> Self {
        Self { concurrency: 16, max_wait: Duration::from_secs(30) }
    }
}

/// The limiters of all servers.
pub struct UpstreamLimiters {
    config: UpstreamLimiterConfig,
    limiters: Mutex<BTreeMap<UpstreamServer, Arc<ServerLimiter>>>,
}

impl UpstreamLimiters {
    /// Creates a limiter for each server when its first model is opened.
    pub fn new(config: UpstreamLimiterConfig) -> Self {
        Self { config, limiters: Mutex::default() }
    }

    /// Drops the limiters of all other servers.
    pub fn retain(&self, servers: &[UpstreamServer]) {
        self.lock().retain(|server, _| servers.contains(server));
    }

    fn for_server(&self, server: &UpstreamServer) -> Arc<ServerLimiter> {
        let new = || ServerLimiter::new(server.clone(), self.config);
        Arc::clone(self.lock().entry(server.clone()).or_insert_with(new))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UpstreamServer, Arc<ServerLimiter>>> {
        self.limiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateListener for UpstreamLimiters {
    fn observe(&self, server: &UpstreamServer, info: RateLimitInfo) {
        let limiter = self.lock().get(server).cloned();
        if let Some(limiter) = limiter {
            limiter.state().observe(info, Instant::now());
            limiter.changed.notify_waiters();
        }
    }
}

/// The limiter of one account at a server.
struct ServerLimiter {
    server: UpstreamServer,
    config: UpstreamLimiterConfig,
    state: Mutex<State<oneshot::Sender<Permit>>>,
    /// Notified when a delay begins or a rate limit is reported: waiting calls then compute their wait again.
    changed: Notify,
}

/// The permission to make a call. Dropping it ends the call.
struct Permit(Option<Arc<ServerLimiter>>);

impl Permit {
    /// Returns a permit whose receiver is gone, without granting the next one.
    fn release(mut self) {
        if let Some(limiter) = self.0.take() {
            limiter.state().running -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(limiter) = self.0.take() {
            limiter.state().running -= 1;
            limiter.grant_next();
        }
    }
}

impl ServerLimiter {
    fn new(server: UpstreamServer, config: UpstreamLimiterConfig) -> Arc<Self> {
        Arc::new(Self { server, config, state: Mutex::default(), changed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State<oneshot::Sender<Permit>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the call may be made.
    async fn acquire(self: &Arc<Self>, request: PermitRequest) -> Result<Permit, EmbedError> {
        let mut granted = {
            let mut state = self.state();
            let now = Instant::now();
            if state.queue_is_empty() && state.admit(self.config.concurrency, request.tokens, now) {
                return Ok(Permit(Some(Arc::clone(self))));
            }
            let (sender, granted) = oneshot::channel();
            state.enqueue(request.priority, request.tokens, sender);
            granted
        };
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let blocked_until = self.state().blocked_until(request.tokens, Instant::now());
            if let Some(until) = blocked_until
                && until.saturating_duration_since(Instant::now())
                    > self.config.max_wait.min(request.remaining_time())
            {
                return Err(self.rate_limited(until));
            }
            let unblocked = async {
                match blocked_until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                permit = &mut granted => {
                    return permit.map_err(|_| EmbedError::internal("the queue of waiting calls is gone"));
                }
                () = unblocked => self.grant_next(),
                () = changed => {}
            }
        }
    }

    /// Grants permits to waiting calls, in order, as long as calls may be made. Skips calls that no longer wait.
    fn grant_next(self: &Arc<Self>) {
        loop {
            let next = self.state().next(self.config.concurrency, Instant::now());
            let Some(waiting) = next else { return };
            if let Err(permit) = waiting.send(Permit(Some(Arc::clone(self)))) {
                permit.release(); // the waiting call was cancelled
            }
        }
    }

    fn rate_limited(&self, until: Instant) -> EmbedError {
        let wait = until.saturating_duration_since(Instant::now());
        EmbedError::new(
            ErrorKind::RateLimited,
            Fault::Upstream,
            Retry::After(wait),
            format!(
                "the rate limit of provider '{}' is exceeded; retry in {} s",
                self.server.provider,
                wait.as_secs_f64().ceil()
            ),
        )
    }
}

/// A call that waits for a permit.
struct PermitRequest {
    tokens: u64,
    priority: Priority,
    deadline: Option<Instant>,
}

impl PermitRequest {
    /// Time until the deadline.
    fn remaining_time(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

/// Makes a call only with a permit of the server's limiter.
pub struct UpstreamLimiter {
    inner: Arc<dyn Embedder>,
    limiter: Arc<ServerLimiter>,
}

impl UpstreamLimiter {
    /// Wraps `inner` with the limiter of its server.
    pub fn new(inner: Arc<dyn Embedder>, limiters: &UpstreamLimiters) -> Self {
        let limiter = limiters.for_server(&inner.server());
        Self { inner, limiter }
    }
}

impl Embedder for UpstreamLimiter {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let permit = PermitRequest {
                tokens: request.inputs.iter().map(|input| tokens(&*self.inner, input)).sum(),
                priority: request.context.priority,
                deadline: request.context.deadline.map(Instant::from),
            };
            let _permit = self.limiter.acquire(permit).await?;
            let result = self.inner.embed(request).await;
            match &result {
                Ok(_) => self.limiter.state().record_success(),
                Err(error) if error.kind == ErrorKind::RateLimited => {
                    self.limiter.state().record_rate_limited(error.retry, Instant::now());
                    self.limiter.changed.notify_waiters();
                }
                Err(_) => {}
            }
            result
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
