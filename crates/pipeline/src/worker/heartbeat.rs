//! The thread that keeps leases alive and tells that this worker is. It has a runtime of its own, so that nothing
//! which computes, blocks or floods the other one keeps it from its beat.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::WorkerConfig;
use crate::{Consumer, Lease, Stage, WorkerQueue, WorkerStatus, clock::now_ms};

/// Renews leases and reports.
pub(super) struct Heartbeat {
    shared: Arc<Shared>,
    deadline: Duration,
    stop: CancellationToken,
}

struct Shared {
    queue: Arc<dyn WorkerQueue>,
    consumer: Consumer,
    stages: Vec<Stage>,
    slots: u32,
    lease: Duration,
    started_at_ms: u64,
    /// A queue's tokens are its own only within a stage.
    held: Mutex<HashMap<Name, TrackedLease>>,
    busy: AtomicU32,
    done: AtomicU64,
    failed: AtomicU64,
}

type Name = (Stage, String);

/// A lease under way.
struct TrackedLease {
    lease: Lease,
    /// It is renewed no more after this: who hangs does not keep a document for ever.
    until: Instant,
    /// Told to whoever works on it when the lease is not ours any more.
    dropped: Arc<AtomicBool>,
}

impl Heartbeat {
    /// Starts the thread.
    pub(super) fn start(
        queue: Arc<dyn WorkerQueue>,
        config: &WorkerConfig,
        consumer: Consumer,
    ) -> std::io::Result<Self> {
        let per_loop: usize = config.stages.iter().filter_map(|stage| config.slots.get(stage)).sum();
        let shared = Arc::new(Shared {
            queue,
            consumer,
            stages: config.stages.clone(),
            slots: u32::try_from(per_loop * config.concurrency).unwrap_or(u32::MAX),
            lease: config.lease,
            started_at_ms: now_ms(),
            held: Mutex::default(),
            busy: AtomicU32::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, beating) = (CancellationToken::new(), Arc::clone(&shared));
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("pulse".into())
            .spawn(move || runtime.block_on(stopped.run_until_cancelled(beating.beat())))?;
        Ok(Self { shared, deadline: config.deadline, stop })
    }

    /// Keeps these leases alive until the answer is dropped.
    pub(super) fn track(&self, leases: &[Lease]) -> TrackedLeases<'_> {
        let until = Instant::now() + self.deadline;
        let mut held = self.shared.held();
        let dropped = leases.iter().map(|lease| {
            let dropped = Arc::new(AtomicBool::new(false));
            held.insert(
                name(lease),
                TrackedLease { lease: lease.clone(), until, dropped: Arc::clone(&dropped) },
            );
            (name(lease), dropped)
        });
        let leases: Vec<_> = dropped.collect();
        self.shared.busy.fetch_add(u32::try_from(leases.len()).unwrap_or(0), Relaxed);
        TrackedLeases { shared: &self.shared, leases }
    }

    /// One more document has come to an end here, well or not.
    pub(super) fn counted(&self, well: bool) {
        if well { &self.shared.done } else { &self.shared.failed }.fetch_add(1, Relaxed);
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

fn name(lease: &Lease) -> Name {
    (lease.task.stage, lease.token.clone())
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Leases that are kept alive.
pub(super) struct TrackedLeases<'a> {
    shared: &'a Shared,
    leases: Vec<(Name, Arc<AtomicBool>)>,
}

impl TrackedLeases<'_> {
    /// For each lease, whether it is still wanted; in order.
    pub(super) fn dropped(&self) -> impl Iterator<Item = Arc<AtomicBool>> {
        self.leases.iter().map(|(_, dropped)| Arc::clone(dropped))
    }
}

impl Drop for TrackedLeases<'_> {
    fn drop(&mut self) {
        let mut held = self.shared.held();
        for (name, _) in &self.leases {
            held.remove(name);
        }
        self.shared.busy.fetch_sub(u32::try_from(self.leases.len()).unwrap_or(0), Relaxed);
    }
}

impl Shared {
    /// A beat is a sixth of a lease: a few may fail before a lease is lost. It reports before it renews, so that of a
    /// worker that has ended nothing is heard any more when its leases run out.
    async fn beat(&self) {
        loop {
            let now = Instant::now();
            // Whoever holds documents beyond all time hangs: he is no more heard of than the dead.
            if self.held().values().all(|held| held.until > now) {
                let report = self.report();
                if let Err(error) = self.queue.heartbeat(&report, self.lease).await {
                    tracing::debug!(%error, "the queue did not hear of this worker");
                }
            }
            self.renew(now).await;
            tokio::time::sleep(self.lease / 6).await;
        }
    }

    async fn renew(&self, now: Instant) {
        let leases: Vec<Lease> =
            self.held().values().filter(|held| held.until > now).map(|held| held.lease.clone()).collect();
        if leases.is_empty() {
            return;
        }
        match self.queue.renew(&leases, self.lease).await {
            Ok(still) => {
                let held = self.held();
                for (lease, _) in leases.iter().zip(still).filter(|(_, still)| !still) {
                    if let Some(held) = held.get(&name(lease)) {
                        held.dropped.store(true, Relaxed);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, leases = leases.len(), "leases were not renewed"),
        }
    }

    fn report(&self) -> WorkerStatus {
        WorkerStatus {
            consumer: self.consumer.clone(),
            stages: self.stages.clone(),
            slots: self.slots,
            busy: self.busy.load(Relaxed),
            done: self.done.load(Relaxed),
            failed: self.failed.load(Relaxed),
            started_at_ms: self.started_at_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Name, TrackedLease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
