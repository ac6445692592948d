//! The breaker's rules: closed, open, half open, and what moves it from one to the other. Time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open.
    pub open: Duration,
    /// Calls that may be under way while it is half open.
    pub half_open_probes: u32,
    /// Successful trial calls that close it.
    pub successes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, open: Duration::from_secs(60), half_open_probes: 3, successes: 2 }
    }
}

/// What a breaker does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It lets every call pass.
    Closed,
    /// It refuses every call.
    Open,
    /// It lets a few calls pass, to see.
    HalfOpen,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    /// It says nothing of the upstream's health: a caller's mistake, a 429, a caller who hung up.
    Neither,
}

/// The state, and a number that grows with every change of it: a call that began in an earlier state must not
/// move a later one.
#[derive(Debug, Default)]
pub(super) struct Machine {
    state: State,
    period: u64,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { running: u32, successes: u32 },
}

/// A call that was let pass, and when.
#[derive(Debug)]
pub(super) struct Permit(u64);

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Machine {
    /// What time alone changes.
    pub(super) fn advance(&mut self, now: Instant) {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.become_state(State::HalfOpen { running: 0, successes: 0 });
        }
    }

    /// Lets a call pass, or not.
    pub(super) fn admit(&mut self, config: &BreakerConfig) -> Option<Permit> {
        match &mut self.state {
            State::Closed { .. } => {}
            State::Open { .. } => return None,
            State::HalfOpen { running, .. } if *running >= config.half_open_probes => return None,
            State::HalfOpen { running, .. } => *running += 1,
        }
        Some(Permit(self.period))
    }

    /// A call ended. Whether that opened the breaker.
    pub(super) fn ended(&mut self, call: &Permit, outcome: Outcome, config: &BreakerConfig) -> bool {
        if call.0 != self.period {
            return false;
        }
        match self.state {
            State::Closed { failures } => self.closed(failures, outcome, config),
            State::HalfOpen { running, successes } => self.half_open((running, successes), outcome, config),
            State::Open { .. } => false,
        }
    }

    /// Closes it, whatever it has seen.
    pub(super) fn reset(&mut self) {
        self.become_state(State::default());
    }

    fn closed(&mut self, failures: u32, outcome: Outcome, config: &BreakerConfig) -> bool {
        match outcome {
            Outcome::Neither => return false,
            Outcome::Success => self.state = State::Closed { failures: 0 },
            Outcome::Failure if failures + 1 < config.failures => {
                self.state = State::Closed { failures: failures + 1 };
            }
            Outcome::Failure => {
                self.open(config);
                return true;
            }
        }
        false
    }

    fn half_open(
        &mut self,
        (running, successes): (u32, u32),
        outcome: Outcome,
        config: &BreakerConfig,
    ) -> bool {
        let running = running.saturating_sub(1);
        match outcome {
            Outcome::Neither => self.state = State::HalfOpen { running, successes },
            Outcome::Success if successes + 1 < config.successes => {
                self.state = State::HalfOpen { running, successes: successes + 1 };
            }
            Outcome::Success => self.become_state(State::default()),
            Outcome::Failure => {
                self.open(config);
                return true;
            }
        }
        false
    }

    fn open(&mut self, config: &BreakerConfig) {
        self.become_state(State::Open { until: Instant::now() + config.open });
    }

    fn become_state(&mut self, state: State) {
        self.state = state;
        self.period += 1;
    }

    pub(super) fn name(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How long it stays open.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        }
    }

    /// Failures in a row, successful trial calls, trial calls under way.
    pub(super) fn counts(&self, config: &BreakerConfig) -> (u32, u32, u32) {
        match self.state {
            State::Closed { failures } => (failures, 0, 0),
            State::Open { .. } => (config.failures, 0, 0),
            State::HalfOpen { running, successes } => (config.failures, successes, running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(machine: &mut Machine, outcome: Outcome) -> bool {
        let config = BreakerConfig::default();
        let ticket = machine.admit(&config).expect("the call is let pass");
        machine.ended(&ticket, outcome, &config)
    }

    fn opened() -> Machine {
        let mut machine = Machine::default();
        assert_eq!(
            [(); 5].map(|()| call(&mut machine, Outcome::Failure)),
            [false, false, false, false, true]
        );
        machine
    }

    async fn half_opened() -> Machine {
        let mut machine = opened();
        tokio::time::advance(Duration::from_secs(60)).await;
        machine.advance(Instant::now());
        assert_eq!(machine.name(), BreakerState::HalfOpen);
        machine
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_between_failures_starts_the_count_anew_and_neither_does_not() {
        let mut machine = Machine::default();
        for outcome in
            [Outcome::Failure, Outcome::Failure, Outcome::Failure, Outcome::Failure, Outcome::Success]
        {
            assert!(!call(&mut machine, outcome));
        }
        for _ in 0..4 {
            assert!(!call(&mut machine, Outcome::Failure));
            assert!(!call(&mut machine, Outcome::Neither));
        }
        assert!(call(&mut machine, Outcome::Failure));
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_for_a_minute_and_advances_by_itself() {
        let mut machine = opened();
        tokio::time::advance(Duration::from_millis(59_999)).await;
        machine.advance(Instant::now());
        assert_eq!(
            (machine.name(), machine.open_for(Instant::now())),
            (BreakerState::Open, Some(Duration::from_millis(1)))
        );
        assert!(machine.admit(&BreakerConfig::default()).is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        machine.advance(Instant::now());
        assert_eq!(machine.name(), BreakerState::HalfOpen);
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_lets_three_try_and_two_successes_close() {
        let config = BreakerConfig::default();
        let mut machine = half_opened().await;
        let tickets = [(); 3].map(|()| machine.admit(&config).unwrap());
        assert!(machine.admit(&config).is_none(), "a fourth waits");
        assert!(!machine.ended(&tickets[0], Outcome::Neither, &config));
        assert!(machine.admit(&config).is_some(), "a call that said nothing frees its place");
        machine.ended(&tickets[1], Outcome::Success, &config);
        assert_eq!(machine.name(), BreakerState::HalfOpen);
        machine.ended(&tickets[2], Outcome::Success, &config);
        assert_eq!(machine.name(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_trial_opens_it_again_for_the_whole_time() {
        let mut machine = half_opened().await;
        assert!(call(&mut machine, Outcome::Failure));
        assert_eq!(machine.open_for(Instant::now()), Some(Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_an_earlier_period_moves_nothing() {
        let config = BreakerConfig::default();
        let mut machine = Machine::default();
        let early = machine.admit(&config).unwrap();
        for _ in 0..5 {
            call(&mut machine, Outcome::Failure);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        machine.advance(Instant::now());
        let trial = machine.admit(&config).unwrap();
        machine.ended(&early, Outcome::Failure, &config);
        assert_eq!((machine.name(), machine.counts(&config).2), (BreakerState::HalfOpen, 1));
        machine.reset();
        machine.ended(&trial, Outcome::Failure, &config);
        assert_eq!(machine.counts(&config), (0, 0, 0), "a reset forgets the calls under way");
    }
}
