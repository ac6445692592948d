//! The state of a server's limiter: the waiting calls, the number of running calls, and the budget that the server's
//! responses report. Nothing here waits or reads a clock: time is an argument.

use std::{collections::VecDeque, time::Duration};

use embeddery_core::{Backoff, Priority, RateLimitInfo, RateWindow, Retry};
use tokio::time::Instant;

/// The delay after a 429 that names none. It doubles with each further one, up to [`MAX_BACKOFF`].
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

pub(super) struct State<W> {
    pub(super) running: usize,
    paused_until: Option<Instant>,
    /// Consecutive 429s that named no delay.
    consecutive_429s: u32,
    requests: Budget,
    tokens: Budget,
    interactive: VecDeque<WaitingCall<W>>,
    batch: VecDeque<WaitingCall<W>>,
}

struct WaitingCall<W> {
    tokens: u64,
    waiter: W,
}

/// The remaining budget of the last window that the server reported. A window that is over is ignored.
#[derive(Default)]
struct Budget(Option<Window>);

struct Window {
    remaining: u64,
    limit: Option<u64>,
    until: Instant,
}

impl<W> Default for State<W> {
    fn default() -> Self {
        Self {
            running: 0,
            paused_until: None,
            consecutive_429s: 0,
            requests: Budget::default(),
            tokens: Budget::default(),
            interactive: VecDeque::new(),
            batch: VecDeque::new(),
        }
    }
}

impl<W> State<W> {
    pub(super) fn queue_is_empty(&self) -> bool {
        self.interactive.is_empty() && self.batch.is_empty()
    }

    pub(super) fn enqueue(&mut self, priority: Priority, tokens: u64, waiter: W) {
        let call = WaitingCall { tokens, waiter };
        match priority {
            Priority::Interactive => self.interactive.push_back(call),
            Priority::Batch => self.batch.push_back(call),
        }
    }

    /// The moment until which the server's rate limit forbids a call of `tokens` tokens. `None` if it is allowed.
    pub(super) fn blocked_until(&self, tokens: u64, now: Instant) -> Option<Instant> {
        let paused_until = self.paused_until.filter(|until| *until > now);
        let budgets = [self.requests.exhausted_until(1, now), self.tokens.exhausted_until(tokens, now)];
        budgets.into_iter().chain([paused_until]).flatten().max()
    }

    /// Admits a call and counts it as running, if it may be made now.
    pub(super) fn admit(&mut self, concurrency: usize, tokens: u64, now: Instant) -> bool {
        if self.running >= concurrency || self.blocked_until(tokens, now).is_some() {
            return false;
        }
        self.running += 1;
        self.requests.spend(1);
        self.tokens.spend(tokens);
        true
    }

    /// Removes the next waiting call and counts it as running, if it may be made now.
    pub(super) fn next(&mut self, concurrency: usize, now: Instant) -> Option<W> {
        let queue = if self.interactive.is_empty() { &self.batch } else { &self.interactive };
        let tokens = queue.front()?.tokens;
        if !self.admit(concurrency, tokens, now) {
            return None;
        }
        self.interactive.pop_front().or_else(|| self.batch.pop_front()).map(|call| call.waiter)
    }

    /// Applies the rate limits of a response.
    pub(super) fn observe(&mut self, info: RateLimitInfo, now: Instant) {
        self.requests.observe(info.requests, now);
        self.tokens.observe(info.tokens, now);
    }

    /// Records a successful call.
    pub(super) fn record_success(&mut self) {
        self.consecutive_429s = 0;
    }

    /// Records a 429.
    pub(super) fn record_rate_limited(&mut self, retry: Retry, now: Instant) {
        let delay = match retry {
            Retry::After(delay) => delay,
            Retry::Backoff => {
                let doublings = self.consecutive_429s;
                self.consecutive_429s += 1;
                Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF).ceiling(doublings)
            }
            Retry::Never => return, // an exhausted quota: a delay does not help
        };
        self.paused_until = self.paused_until.max(Some(now + delay));
    }
}

impl Budget {
    fn observe(&mut self, window: RateWindow, now: Instant) {
        if let (Some(remaining), Some(reset)) = (window.remaining, window.reset) {
            self.0 = Some(Window { remaining, limit: window.limit, until: now + reset });
        }
    }

    fn spend(&mut self, amount: u64) {
        if let Some(window) = &mut self.0 {
            window.remaining = window.remaining.saturating_sub(amount);
        }
    }

    /// The end of the window if it has less than `amount` left. An amount larger than a full window only needs a full
    /// window, so that it is not blocked for ever.
    fn exhausted_until(&self, amount: u64, now: Instant) -> Option<Instant> {
        let window = self.0.as_ref().filter(|window| window.until > now)?;
        let needed = amount.min(window.limit.unwrap_or(u64::MAX));
        (window.remaining < needed).then_some(window.until)
    }
}
