//! The thread that renews leases and reports the worker's status. It has a runtime of its own, so that computation, a
//! blocked thread or a flood of tasks in the main runtime cannot delay it.

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

/// Renews leases and reports the worker's status.
pub(super) struct Heartbeat {
    inner: Arc<Inner>,
    deadline: Duration,
    stop: CancellationToken,
}

struct Inner {
    queue: Arc<dyn WorkerQueue>,
    consumer: Consumer,
    stages: Vec<Stage>,
    slots: u32,
    lease: Duration,
    started_at_ms: u64,
    tracked: Mutex<HashMap<LeaseKey, TrackedLease>>,
    busy: AtomicU32,
    done: AtomicU64,
    failed: AtomicU64,
}

/// The tokens of a queue are unique within a stage only.
type LeaseKey = (Stage, String);

struct TrackedLease {
    lease: Lease,
    /// The lease is not renewed after this moment, so that a worker that hangs does not keep a document.
    until: Instant,
    /// Set when the lease is lost.
    abandoned: Arc<AtomicBool>,
}

impl Heartbeat {
    /// Starts the thread.
    pub(super) fn start(
        queue: Arc<dyn WorkerQueue>,
        config: &WorkerConfig,
        consumer: Consumer,
    ) -> std::io::Result<Self> {
        let slots_per_loop: usize = config.stages.iter().filter_map(|stage| config.slots.get(stage)).sum();
        let inner = Arc::new(Inner {
            queue,
            consumer,
            stages: config.stages.clone(),
            slots: u32::try_from(slots_per_loop * config.concurrency).unwrap_or(u32::MAX),
            lease: config.lease,
            started_at_ms: now_ms(),
            tracked: Mutex::default(),
            busy: AtomicU32::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, beating) = (CancellationToken::new(), Arc::clone(&inner));
        let stopped = stop.clone();
        std::thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || runtime.block_on(stopped.run_until_cancelled(beating.run())))?;
        Ok(Self { inner, deadline: config.deadline, stop })
    }

    /// Renews these leases until the result is dropped, or the deadline passes.
    pub(super) fn track(&self, leases: &[Lease]) -> TrackedLeases<'_> {
        let until = Instant::now() + self.deadline;
        let mut tracked = self.inner.tracked();
        let track = leases.iter().map(|lease| {
            let abandoned = Arc::new(AtomicBool::new(false));
            let entry = TrackedLease { lease: lease.clone(), until, abandoned: Arc::clone(&abandoned) };
            tracked.insert(lease_key(lease), entry);
            (lease_key(lease), abandoned)
        });
        let leases: Vec<_> = track.collect();
        self.inner.busy.fetch_add(u32::try_from(leases.len()).unwrap_or(0), Relaxed);
        TrackedLeases { inner: &self.inner, leases }
    }

    /// Counts a document that has ended.
    pub(super) fn count(&self, succeeded: bool) {
        if succeeded { &self.inner.done } else { &self.inner.failed }.fetch_add(1, Relaxed);
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

fn lease_key(lease: &Lease) -> LeaseKey {
    (lease.task.stage, lease.token.clone())
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Leases that are renewed.
pub(super) struct TrackedLeases<'a> {
    inner: &'a Inner,
    leases: Vec<(LeaseKey, Arc<AtomicBool>)>,
}

impl TrackedLeases<'_> {
    /// For each lease, in order, the flag that is set when it is lost.
    pub(super) fn abandoned(&self) -> impl Iterator<Item = Arc<AtomicBool>> {
        self.leases.iter().map(|(_, abandoned)| Arc::clone(abandoned))
    }
}

impl Drop for TrackedLeases<'_> {
    fn drop(&mut self) {
        let mut tracked = self.inner.tracked();
        for (key, _) in &self.leases {
            tracked.remove(key);
        }
        self.inner.busy.fetch_sub(u32::try_from(self.leases.len()).unwrap_or(0), Relaxed);
    }
}

impl Inner {
    /// Reports and renews six times per lease: a few attempts may fail before a lease is lost. The report comes first,
    /// so that a worker that has ended is silent when its leases expire.
    async fn run(&self) {
        loop {
            let now = Instant::now();
            // A worker that holds a document beyond the deadline hangs. It does not report, like one that has ended.
            if self.tracked().values().all(|tracked| tracked.until > now) {
                let status = self.status();
                if let Err(error) = self.queue.heartbeat(&status, self.lease).await {
                    tracing::debug!(%error, "the status of the worker could not be reported");
                }
            }
            self.renew(now).await;
            tokio::time::sleep(self.lease / 6).await;
        }
    }

    async fn renew(&self, now: Instant) {
        let leases: Vec<Lease> = self
            .tracked()
            .values()
            .filter(|tracked| tracked.until > now)
            .map(|tracked| tracked.lease.clone())
            .collect();
        if leases.is_empty() {
            return;
        }
        match self.queue.renew(&leases, self.lease).await {
            Ok(renewed) => {
                let tracked = self.tracked();
                for (lease, _) in leases.iter().zip(renewed).filter(|(_, renewed)| !renewed) {
                    if let Some(tracked) = tracked.get(&lease_key(lease)) {
                        tracked.abandoned.store(true, Relaxed);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, leases = leases.len(), "leases were not renewed"),
        }
    }

    fn status(&self) -> WorkerStatus {
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

    fn tracked(&self) -> MutexGuard<'_, HashMap<LeaseKey, TrackedLease>> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
