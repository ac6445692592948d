//! How many workers a pool should have: a pure function of what is seen.

use std::time::Duration;

/// When pools grow and shrink.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// A pool grows when its stage's load is above this.
    pub up: f64,
    /// It shrinks when the load is below this.
    pub down: f64,
    /// How often that is looked at.
    pub every: Duration,
    /// Workers of all pools of this process.
    pub max_workers: usize,
    /// No pool grows while the process has more memory than this.
    pub max_memory: Option<u64>,
    /// Memory of the process; `None` where nobody can tell.
    pub memory: fn() -> Option<u64>,
}

/// Documents that wait for one worker when its stage's load is 1.
pub(super) const FULL: f64 = 100.0;

/// What is seen of a pool and its stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScalingInput {
    /// Documents that wait.
    pub waiting: u64,
    /// Workers of the stage in all processes.
    pub everywhere: usize,
    /// Those of this pool.
    pub here: usize,
    /// The fewest this pool may have; it may have twice as many.
    pub least: usize,
    /// How many more this process may have.
    pub room: usize,
    /// Whether the stage hands out work.
    pub flows: bool,
}

impl Scaling {
    pub(super) fn desired_size(&self, now: &ScalingInput) -> usize {
        let load = now.waiting as f64 / (now.everywhere.max(1) as f64 * FULL);
        if load > self.up {
            let crowded = self.max_memory.zip((self.memory)()).is_some_and(|(most, memory)| memory > most);
            if crowded || !now.flows {
                return now.here;
            }
            // As many as bring the load to the threshold; others that see the same may add theirs.
            let needed = (now.waiting as f64 / (FULL * self.up)).ceil() as usize;
            let missing = needed.saturating_sub(now.everywhere).max(1).min(now.room);
            return (now.here + missing).min(2 * now.least).max(now.here);
        }
        if load < self.down { now.here.saturating_sub(1).max(now.least.min(now.here)) } else { now.here }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scaling() -> Scaling {
        Scaling {
            up: 0.8,
            down: 0.2,
            every: Duration::from_secs(60),
            max_workers: 20,
            max_memory: None,
            memory: || Some(10),
        }
    }

    const NOW: ScalingInput =
        ScalingInput { waiting: 0, everywhere: 2, here: 2, least: 2, room: 18, flows: true };

    #[test]
    fn pools_grow_with_waiting_work_and_shrink_one_by_one() {
        let wanted = |now: ScalingInput| scaling().desired_size(&now);
        assert_eq!(wanted(ScalingInput { waiting: 100, ..NOW }), 2, "half of what two can bear");
        assert_eq!(wanted(ScalingInput { waiting: 161, ..NOW }), 3);
        assert_eq!(wanted(ScalingInput { waiting: 10_000, ..NOW }), 4, "at most twice the pool's size");
        assert_eq!(wanted(ScalingInput { waiting: 10_000, everywhere: 200, ..NOW }), 2, "others do it");
        assert_eq!(wanted(ScalingInput { waiting: 10_000, room: 1, ..NOW }), 3);
        assert_eq!(
            wanted(ScalingInput { waiting: 10_000, flows: false, ..NOW }),
            2,
            "a paused stage needs nobody"
        );
        assert_eq!(wanted(ScalingInput { here: 4, everywhere: 4, ..NOW }), 3);
        assert_eq!(wanted(NOW), 2);
        let full = Scaling { max_memory: Some(9), ..scaling() };
        assert_eq!(full.desired_size(&ScalingInput { waiting: 10_000, ..NOW }), 2);
    }

    proptest! {
        #[test]
        fn a_pool_stays_within_its_bounds(
            waiting in 0u64..1_000_000, others in 0usize..50, least in 1usize..20, above in 0usize..20, room in 0usize..20
        ) {
            let here = least + above.min(least);
            let now = ScalingInput { waiting, everywhere: here + others, here, least, room, flows: true };
            let wanted = scaling().desired_size(&now);
            prop_assert!((least..=2 * least).contains(&wanted) && wanted <= here + room && wanted + 1 >= here);
        }
    }
}
