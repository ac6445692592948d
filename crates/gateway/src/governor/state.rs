//! What a governor knows: who waits, how many run, and what the provider's answers say is left. Time is an
//! argument, and nothing here waits.

use std::{collections::VecDeque, time::Duration};

use embeddery_core::{Backoff, Priority, RateHint, RateWindow, Retry};
use tokio::time::Instant;

/// The pause after a 429 that names none; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct State<W> {
    pub(super) running: usize,
    paused_until: Option<Instant>,
    /// 429s in a row that named no pause.
    limited: u32,
    requests: Left,
    tokens: Left,
    interactive: VecDeque<(u64, W)>,
    batch: VecDeque<(u64, W)>,
}

/// What is left of a window, as far as the provider has said; a window that is over says nothing.
#[derive(Default)]
struct Left(Option<Window>);

struct Window {
    left: u64,
    limit: Option<u64>,
    until: Instant,
}

impl<W> Default for State<W> {
    fn default() -> Self {
        Self {
            running: 0,
            paused_until: None,
            limited: 0,
            requests: Left::default(),
            tokens: Left::default(),
            interactive: VecDeque::new(),
            batch: VecDeque::new(),
        }
    }
}

impl<W> State<W> {
    pub(super) fn nobody_waits(&self) -> bool {
        self.interactive.is_empty() && self.batch.is_empty()
    }

    pub(super) fn wait(&mut self, priority: Priority, tokens: u64, who: W) {
        match priority {
            Priority::Interactive => self.interactive.push_back((tokens, who)),
            Priority::Batch => self.batch.push_back((tokens, who)),
        }
    }

    /// Until when a call of so many tokens may not be made, however few run; `None`: it may.
    pub(super) fn closed_until(&self, tokens: u64, now: Instant) -> Option<Instant> {
        let pause = self.paused_until.filter(|until| *until > now);
        [pause, self.requests.closed(1, now), self.tokens.closed(tokens, now)].into_iter().flatten().max()
    }

    /// Counts a call as running if it may be made now.
    pub(super) fn admit(&mut self, concurrency: usize, tokens: u64, now: Instant) -> bool {
        if self.running >= concurrency || self.closed_until(tokens, now).is_some() {
            return false;
        }
        self.running += 1;
        self.requests.spend(1);
        self.tokens.spend(tokens);
        true
    }

    /// The next of those who wait, if it may go; it is counted as running.
    pub(super) fn next(&mut self, concurrency: usize, now: Instant) -> Option<W> {
        let first = if self.interactive.is_empty() { &self.batch } else { &self.interactive };
        let tokens = first.front()?.0;
        if !self.admit(concurrency, tokens, now) {
            return None;
        }
        self.interactive.pop_front().or_else(|| self.batch.pop_front()).map(|(_, who)| who)
    }

    /// An answer's headers.
    pub(super) fn hear(&mut self, hint: RateHint, now: Instant) {
        self.requests.hear(hint.requests, now);
        self.tokens.hear(hint.tokens, now);
    }

    /// A call was answered.
    pub(super) fn answered(&mut self) {
        self.limited = 0;
    }

    /// The provider asks for fewer calls.
    pub(super) fn limited(&mut self, retry: Retry, now: Instant) {
        let pause = match retry {
            Retry::After(pause) => pause,
            Retry::Backoff => {
                self.limited += 1;
                Backoff::new(FIRST_PAUSE, LONGEST_PAUSE).ceiling(self.limited - 1)
            }
            Retry::Never => return, // an exhausted quota: no pause would mend it
        };
        self.paused_until = self.paused_until.max(Some(now + pause));
    }
}

impl Left {
    fn hear(&mut self, window: RateWindow, now: Instant) {
        if let (Some(left), Some(reset)) = (window.remaining, window.reset) {
            self.0 = Some(Window { left, limit: window.limit, until: now + reset });
        }
    }

    fn spend(&mut self, amount: u64) {
        if let Some(window) = &mut self.0 {
            window.left = window.left.saturating_sub(amount);
        }
    }

    /// Until when `amount` may not be spent. More than a full window holds is not held back for ever.
    fn closed(&self, amount: u64, now: Instant) -> Option<Instant> {
        let window = self.0.as_ref().filter(|window| window.until > now)?;
        let due = amount.min(window.limit.unwrap_or(u64::MAX));
        (window.left < due).then_some(window.until)
    }
}
