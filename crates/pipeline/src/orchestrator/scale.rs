//! The number of workers that a pool should have, as a pure function of its load.

use std::time::Duration;

/// The rules by which pools grow and shrink.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// A pool grows when the load of its stage is above this value.
    pub up: f64,
    /// A pool shrinks when the load of its stage is below this value.
    pub down: f64,
    /// How often pools are scaled.
    pub interval: Duration,
    /// Maximum workers of all pools of this process.
    pub max_workers: usize,
    /// No pool grows while the process uses more memory than this, in bytes.
    pub max_memory: Option<u64>,
    /// The memory that the process uses, in bytes; `None` where the platform does not report it.
    pub memory: fn() -> Option<u64>,
}

/// Waiting documents per worker of a stage at a load of 1.
pub(super) const DOCUMENTS_AT_FULL_LOAD: f64 = 100.0;

/// The state of a pool and its stage.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScalingInput {
    /// Waiting documents of the stage.
    pub waiting: u64,
    /// Workers of the stage in all processes.
    pub total_workers: usize,
    /// Workers of this pool.
    pub pool_workers: usize,
    /// Minimum workers of this pool. Its maximum is twice as many.
    pub min_workers: usize,
    /// Workers that this process may add.
    pub spare_workers: usize,
    /// Whether the stage is paused.
    pub is_paused: bool,
}

impl Scaling {
    pub(super) fn desired_size(&self, now: &ScalingInput) -> usize {
        let load = now.waiting as f64 / (now.total_workers.max(1) as f64 * DOCUMENTS_AT_FULL_LOAD);
        if load > self.up {
            let short_of_memory =
                self.max_memory.zip((self.memory)()).is_some_and(|(max, memory)| memory > max);
            if short_of_memory || now.is_paused {
                return now.pool_workers;
            }
            // As many as bring the load to the threshold. Other orchestrators see the same load and may add workers too.
            let needed = (now.waiting as f64 / (DOCUMENTS_AT_FULL_LOAD * self.up)).ceil() as usize;
            let missing = needed.saturating_sub(now.total_workers).max(1).min(now.spare_workers);
            return (now.pool_workers + missing).min(2 * now.min_workers).max(now.pool_workers);
        }
        if load < self.down {
            now.pool_workers.saturating_sub(1).max(now.min_workers.min(now.pool_workers))
        } else {
            now.pool_workers
        }
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
            interval: Duration::from_secs(60),
            max_workers: 20,
            max_memory: None,
            memory: || Some(10),
        }
    }

    const NOW: ScalingInput = ScalingInput {
        waiting: 0,
        total_workers: 2,
        pool_workers: 2,
        min_workers: 2,
        spare_workers: 18,
        is_paused: false,
    };

    #[test]
    fn pools_grow_with_waiting_work_and_shrink_one_by_one() {
        let desired = |now: ScalingInput| scaling().desired_size(&now);
        assert_eq!(desired(ScalingInput { waiting: 100, ..NOW }), 2, "half of the load of two workers");
        assert_eq!(desired(ScalingInput { waiting: 161, ..NOW }), 3);
        assert_eq!(desired(ScalingInput { waiting: 10_000, ..NOW }), 4, "at most twice the pool's size");
        assert_eq!(
            desired(ScalingInput { waiting: 10_000, total_workers: 200, ..NOW }),
            2,
            "other processes have enough workers"
        );
        assert_eq!(desired(ScalingInput { waiting: 10_000, spare_workers: 1, ..NOW }), 3);
        assert_eq!(
            desired(ScalingInput { waiting: 10_000, is_paused: true, ..NOW }),
            2,
            "a paused stage needs no workers"
        );
        assert_eq!(desired(ScalingInput { pool_workers: 4, total_workers: 4, ..NOW }), 3);
        assert_eq!(desired(NOW), 2);
        let full = Scaling { max_memory: Some(9), ..scaling() };
        assert_eq!(full.desired_size(&ScalingInput { waiting: 10_000, ..NOW }), 2);
    }

    proptest! {
        #[test]
        fn a_pool_stays_within_its_bounds(
            waiting in 0u64..1_000_000, others in 0usize..50, min in 1usize..20, above in 0usize..20, spare in 0usize..20
        ) {
            let size = min + above.min(min);
            let now = ScalingInput {
                waiting,
                total_workers: size + others,
                pool_workers: size,
                min_workers: min,
                spare_workers: spare,
                is_paused: false,
            };
            let desired = scaling().desired_size(&now);
            prop_assert!((min..=2 * min).contains(&desired) && desired <= size + spare && desired + 1 >= size);
        }
    }
}
