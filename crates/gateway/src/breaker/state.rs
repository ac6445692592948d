//! The state machine of a circuit breaker: closed, open, half open. It reads no clock: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Consecutive failures that open the breaker.
    pub failures: u32,
    /// Time for which the breaker stays open.
    pub open: Duration,
    /// Maximum probes in progress while the breaker is half open.
    pub half_open_probes: u32,
    /// Successful probes that close the breaker.
    pub successes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, open: Duration::from_secs(60), half_open_probes: 3, successes: 2 }
    }
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// All calls are admitted.
    Closed,
    /// All calls are rejected.
    Open,
    /// A few calls are admitted as probes.
    HalfOpen,
}

impl BreakerState {
    /// The order of states from good to bad.
    pub(super) const fn severity(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Success,
    Failure,
    /// No evidence about the upstream's health: a caller's error, a 429, or a caller that disconnected.
    Neutral,
}

/// The state of the breaker. `epoch` counts the changes of state: a call that started in an earlier epoch must not
/// change the current state.
#[derive(Debug, Default)]
pub(super) struct Machine {
    state: State,
    epoch: u64,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probes: u32, successes: u32 },
}

/// The permit of an admitted call, with the epoch of its start.
#[derive(Debug)]
pub(super) struct Permit(u64);

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Machine {
    /// Makes an open breaker half open when its time is over.
    pub(super) fn advance(&mut self, now: Instant) {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.set_state(State::HalfOpen { probes: 0, successes: 0 });
        }
    }

    /// Admits a call, or returns `None`.
    pub(super) fn admit(&mut self, config: &BreakerConfig) -> Option<Permit> {
        match &mut self.state {
            State::Closed { .. } => {}
            State::Open { .. } => return None,
            State::HalfOpen { probes, .. } if *probes >= config.half_open_probes => return None,
            State::HalfOpen { probes, .. } => *probes += 1,
        }
        Some(Permit(self.epoch))
    }

    /// Records the outcome of a call and returns whether it opened the breaker.
    pub(super) fn end_call(&mut self, call: &Permit, outcome: CallOutcome, config: &BreakerConfig) -> bool {
        if call.0 != self.epoch {
            return false;
        }
        match self.state {
            State::Closed { failures } => match outcome {
                CallOutcome::Neutral => {}
                CallOutcome::Success => self.state = State::Closed { failures: 0 },
                CallOutcome::Failure if failures + 1 < config.failures => {
                    self.state = State::Closed { failures: failures + 1 };
                }
                CallOutcome::Failure => {
                    self.open(config);
                    return true;
                }
            },
            State::HalfOpen { probes, successes } => {
                let probes = probes.saturating_sub(1);
                match outcome {
                    CallOutcome::Neutral => self.state = State::HalfOpen { probes, successes },
                    CallOutcome::Success if successes + 1 < config.successes => {
                        self.state = State::HalfOpen { probes, successes: successes + 1 };
                    }
                    CallOutcome::Success => self.set_state(State::default()),
                    CallOutcome::Failure => {
                        self.open(config);
                        return true;
                    }
                }
            }
            State::Open { .. } => {}
        }
        false
    }

    /// Closes the breaker and resets its counts.
    pub(super) fn reset(&mut self) {
        self.set_state(State::default());
    }

    fn open(&mut self, config: &BreakerConfig) {
        self.set_state(State::Open { until: Instant::now() + config.open });
    }

    fn set_state(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Time until the breaker becomes half open; `None` unless it is open.
    pub(super) fn remaining_open(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        }
    }

    /// The counts that reports show.
    pub(super) fn counts(&self, config: &BreakerConfig) -> Counts {
        let opened = Counts { failures: config.failures, ..Counts::default() };
        match self.state {
            State::Closed { failures } => Counts { failures, ..Counts::default() },
            State::Open { .. } => opened,
            State::HalfOpen { probes, successes } => Counts { probes, successes, ..opened },
        }
    }
}

/// The counts of a breaker in its current state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Consecutive failures, or the number that opened the breaker.
    pub(super) failures: u32,
    /// Successful probes.
    pub(super) successes: u32,
    /// Probes in progress.
    pub(super) probes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(machine: &mut Machine, outcome: CallOutcome) -> bool {
        let config = BreakerConfig::default();
        let permit = machine.admit(&config).expect("the call is admitted");
        machine.end_call(&permit, outcome, &config)
    }

    fn opened() -> Machine {
        let mut machine = Machine::default();
        assert_eq!(
            [(); 5].map(|()| call(&mut machine, CallOutcome::Failure)),
            [false, false, false, false, true]
        );
        machine
    }

    async fn half_opened() -> Machine {
        let mut machine = opened();
        tokio::time::advance(Duration::from_secs(60)).await;
        machine.advance(Instant::now());
        assert_eq!(machine.state(), BreakerState::HalfOpen);
        machine
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_resets_the_failure_count_and_a_neutral_outcome_does_not() {
        let mut machine = Machine::default();
        for outcome in [
            CallOutcome::Failure,
            CallOutcome::Failure,
            CallOutcome::Failure,
            CallOutcome::Failure,
            CallOutcome::Success,
        ] {
            assert!(!call(&mut machine, outcome));
        }
        for _ in 0..4 {
            assert!(!call(&mut machine, CallOutcome::Failure));
            assert!(!call(&mut machine, CallOutcome::Neutral));
        }
        assert!(call(&mut machine, CallOutcome::Failure));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_open_for_a_minute_and_then_half_open_without_a_call() {
        let mut machine = opened();
        tokio::time::advance(Duration::from_millis(59_999)).await;
        machine.advance(Instant::now());
        assert_eq!(
            (machine.state(), machine.remaining_open(Instant::now())),
            (BreakerState::Open, Some(Duration::from_millis(1)))
        );
        assert!(machine.admit(&BreakerConfig::default()).is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        machine.advance(Instant::now());
        assert_eq!(machine.state(), BreakerState::HalfOpen);
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_admits_three_probes_and_two_successes_close_it() {
        let config = BreakerConfig::default();
        let mut machine = half_opened().await;
        let permits = [(); 3].map(|()| machine.admit(&config).unwrap());
        assert!(machine.admit(&config).is_none(), "a fourth probe is rejected");
        assert!(!machine.end_call(&permits[0], CallOutcome::Neutral, &config));
        assert!(machine.admit(&config).is_some(), "a neutral outcome returns its permit");
        machine.end_call(&permits[1], CallOutcome::Success, &config);
        assert_eq!(machine.state(), BreakerState::HalfOpen);
        machine.end_call(&permits[2], CallOutcome::Success, &config);
        assert_eq!(machine.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again_for_the_full_time() {
        let mut machine = half_opened().await;
        assert!(call(&mut machine, CallOutcome::Failure));
        assert_eq!(machine.remaining_open(Instant::now()), Some(Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_an_earlier_epoch_changes_nothing() {
        let config = BreakerConfig::default();
        let mut machine = Machine::default();
        let early = machine.admit(&config).unwrap();
        for _ in 0..5 {
            call(&mut machine, CallOutcome::Failure);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        machine.advance(Instant::now());
        let probe = machine.admit(&config).unwrap();
        machine.end_call(&early, CallOutcome::Failure, &config);
        assert_eq!((machine.state(), machine.counts(&config).probes), (BreakerState::HalfOpen, 1));
        machine.reset();
        machine.end_call(&probe, CallOutcome::Failure, &config);
        assert_eq!(machine.counts(&config), Counts::default(), "a reset ignores the calls in progress");
    }
}
