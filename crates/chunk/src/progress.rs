//! The steps of a split, and the question whether to go on. Every loop over a text reports its steps, so a split ends
//! soon after the caller does not need it any more, and a test can count the steps.

use std::cell::Cell;

use crate::ChunkError;

/// Steps between two calls of the caller's function. A step takes less than a microsecond, except for a token count.
pub const STEPS_PER_CHECK: usize = 1024;

/// Counts steps and asks the caller whether to stop.
pub(crate) struct Progress<'a> {
    stop: &'a dyn Fn() -> bool,
    steps: Cell<usize>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(stop: &'a dyn Fn() -> bool) -> Self {
        Self { stop, steps: Cell::new(0) }
    }

    /// Reports one step.
    ///
    /// # Errors
    /// The caller wants the split to stop.
    pub(crate) fn step(&self) -> Result<(), ChunkError> {
        self.steps(1)
    }

    /// Reports work of several steps.
    ///
    /// # Errors
    /// The caller wants the split to stop.
    pub(crate) fn steps(&self, steps: usize) -> Result<(), ChunkError> {
        let steps = self.steps.get() + steps;
        if steps < STEPS_PER_CHECK {
            self.steps.set(steps);
            return Ok(());
        }
        self.steps.set(0);
        self.check()
    }

    /// Asks the caller now.
    ///
    /// # Errors
    /// The caller wants the split to stop.
    pub(crate) fn check(&self) -> Result<(), ChunkError> {
        if (self.stop)() { Err(ChunkError::Stopped) } else { Ok(()) }
    }
}
