//! Random steps on each queue and on a model of it in memory, which are compared after every step. The model has the
//! order of each tenant's tasks, but not the turns between tenants.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use embeddery_core::BoxFuture;
use embeddery_pipeline::{
    JobId, Lease, LeaseBatch, MAX_ISOLATED_CRASHES, MAX_SHARED_CRASHES, Outcome, Priority, Queue, Reason,
    SettleResult, Stage, StageMode, Task, TaskId,
};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::harness::{Bench, LONG, Sqlite, Streams, Tamper as _, Worker, job, task};

#[derive(Clone, Debug)]
enum Step {
    Enqueue { job: usize, item: u32, priority: usize, deaths: u32 },
    Lease { stage: usize, max_tasks: usize, idle: bool, expires: bool },
    Settle { lease: usize, outcome: usize },
    Renew { lease: usize, expires: bool },
    Cancel { job: usize },
    Reprioritize { job: usize, priority: usize },
    SetMode { stage: usize, mode: usize },
    Requeue { stage: usize },
    Delete { stage: usize },
    Deregister,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_usize, 0..4_u32, 0..3_usize, 0..4_u32).prop_map(|(job, item, priority, deaths)| Step::Enqueue { job, item, priority, deaths }),
        10 => (0..3_usize, 1..5_usize, any::<bool>(), any::<bool>()).prop_map(|(stage, max_tasks, idle, expires)| Step::Lease { stage, max_tasks, idle, expires }),
        12 => (0..8_usize, 0..9_usize).prop_map(|(lease, outcome)| Step::Settle { lease, outcome }),
        2 => (0..8_usize, any::<bool>()).prop_map(|(lease, expires)| Step::Renew { lease, expires }),
        1 => (0..3_usize).prop_map(|job| Step::Cancel { job }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(job, priority)| Step::Reprioritize { job, priority }),
        2 => (0..3_usize, 0..4_usize).prop_map(|(stage, mode)| Step::SetMode { stage, mode }),
        1 => (0..3_usize).prop_map(|stage| Step::Requeue { stage }),
        1 => (0..3_usize).prop_map(|stage| Step::Delete { stage }),
        1 => Just(Step::Deregister),
    ]
}

/// A lease request.
#[derive(Clone, Copy)]
struct Request {
    stage: Stage,
    max_tasks: usize,
    idle: bool,
    expires: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    Held,
    Delayed { due: bool },
    Leased { expires: bool, cancelled: bool },
}

struct Item {
    task: Task,
    arrival: u64,
    state: State,
    token: String,
}

#[derive(Default)]
struct Model {
    items: BTreeMap<TaskId, Item>,
    dead: Vec<Task>,
    modes: HashMap<Stage, StageMode>,
    arrivals: u64,
    /// All leases that were ever granted, the newest last.
    leases: Vec<Lease>,
}

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

impl Model {
    fn add(&mut self, task: Task) {
        self.arrivals += 1;
        let held = self.modes.get(&task.stage) == Some(&StageMode::Drain);
        let state = if held { State::Held } else { State::Waiting };
        self.items.insert(task.id, Item { task, arrival: self.arrivals, state, token: String::new() });
    }

    fn held(&mut self, lease: &Lease) -> Option<&mut Item> {
        let item = self.items.get_mut(&lease.task.id)?;
        (matches!(item.state, State::Leased { .. }) && item.token == lease.token).then_some(item)
    }

    /// What a lease request does to expired leases and due tasks of a stage.
    fn requeue_expired(&mut self, stage: Stage) {
        let ids: Vec<TaskId> =
            self.items.values().filter(|item| item.task.stage == stage).map(|item| item.task.id).collect();
        for id in ids {
            let item = self.items.get_mut(&id).unwrap();
            match item.state {
                State::Delayed { due: true } => item.state = State::Waiting,
                State::Leased { expires: true, cancelled: true } => drop(self.items.remove(&id)),
                State::Leased { expires: true, .. } => self.crash(id),
                _ => {}
            }
        }
    }

    fn crash(&mut self, id: TaskId) {
        let item = self.items.get_mut(&id).unwrap();
        item.task.deaths += 1;
        item.state = State::Waiting;
        if item.task.deaths >= MAX_SHARED_CRASHES + MAX_ISOLATED_CRASHES {
            let item = self.items.remove(&id).unwrap();
            self.dead.push(item.task);
        }
    }

    fn first_exclusive(&self, stage: Stage) -> Option<&Item> {
        let mut found: Vec<&Item> = self
            .items
            .values()
            .filter(|item| item.state == State::Waiting && item.task.deaths >= MAX_SHARED_CRASHES)
            .filter(|item| stage == item.task.stage)
            .collect();
        found.sort_by_key(|item| item.arrival);
        found.first().copied()
    }

    /// Checks the response to a lease request, and applies it.
    fn lease(&mut self, request: Request, batch: LeaseBatch) {
        let Request { stage, max_tasks, idle, expires } = request;
        let LeaseBatch { leases: got, drain_for_exclusive } = batch;
        self.requeue_expired(stage);
        let ids: Vec<TaskId> = got.iter().map(|lease| lease.task.id).collect();
        if self.modes.get(&stage) == Some(&StageMode::Pause) {
            assert_eq!((ids, drain_for_exclusive), (Vec::new(), false));
            return;
        }
        if let Some(alone) = self.first_exclusive(stage).map(|item| item.task.id) {
            if idle {
                assert_eq!((&ids[..], got[0].exclusive), (&[alone][..], true));
                return self.grant(got, expires);
            }
            assert_eq!((ids, drain_for_exclusive), (Vec::new(), true), "the worker is to become idle");
            return;
        }
        assert!(!drain_for_exclusive, "no task must run alone");
        let mut queues: HashMap<String, Vec<(std::cmp::Reverse<Priority>, u64, TaskId)>> = HashMap::new();
        for item in self.items.values() {
            let alone = item.task.deaths >= MAX_SHARED_CRASHES;
            if item.state == State::Waiting && item.task.stage == stage && !alone {
                let queue = queues.entry(item.task.tenant.to_string()).or_default();
                queue.push((std::cmp::Reverse(item.task.priority), item.arrival, item.task.id));
            }
        }
        let waiting: usize = queues.values().map(Vec::len).sum();
        assert_eq!(got.len(), max_tasks.min(waiting), "as many tasks as there are");
        for (tenant, mut queue) in queues {
            queue.sort();
            let due: Vec<TaskId> = queue.into_iter().map(|(_, _, id)| id).collect();
            let came: Vec<TaskId> =
                got.iter().filter(|l| *l.task.tenant == *tenant).map(|lease| lease.task.id).collect();
            assert_eq!(came, due[..came.len()], "{tenant}: by priority and age");
        }
        assert!(got.iter().all(|lease| !lease.exclusive));
        self.grant(got, expires);
    }

    fn grant(&mut self, got: Vec<Lease>, expires: bool) {
        for lease in got {
            let item = self.items.get_mut(&lease.task.id).unwrap();
            assert_eq!(item.task, lease.task);
            item.state = State::Leased { expires, cancelled: false };
            item.token.clone_from(&lease.token);
            self.leases.push(lease);
        }
    }

    fn settle(&mut self, lease: &Lease, outcome: &Outcome) -> SettleResult {
        let modes = self.modes.clone();
        let Some(item) = self.held(lease) else { return SettleResult::Lost };
        if matches!(item.state, State::Leased { cancelled: true, .. }) {
            self.items.remove(&lease.task.id);
            return SettleResult::Cancelled;
        }
        match outcome {
            Outcome::Next { bytes } => match item.task.stage.next() {
                Some(stage) => {
                    item.task = Task { stage, bytes: *bytes, attempts: 0, deaths: 0, ..item.task.clone() };
                    let held = modes.get(&stage) == Some(&StageMode::Drain);
                    item.state = if held { State::Held } else { State::Waiting };
                }
                None => drop(self.items.remove(&lease.task.id)),
            },
            Outcome::Finished => drop(self.items.remove(&lease.task.id)),
            Outcome::RetryAfter { after, charged } => {
                item.task.attempts += u32::from(*charged);
                item.state = State::Delayed { due: after.is_zero() };
            }
            Outcome::Release => item.state = State::Waiting,
            Outcome::Crashed { after } => {
                self.crash(lease.task.id);
                if let Some(item) = self.items.get_mut(&lease.task.id) {
                    item.state = State::Delayed { due: after.is_zero() };
                }
            }
            Outcome::DeadLetter(_) => {
                let item = self.items.remove(&lease.task.id).unwrap();
                self.dead.push(item.task);
            }
        }
        SettleResult::Done
    }
}

fn outcome(number: usize) -> Outcome {
    match number {
        0 => Outcome::Finished,
        1 => Outcome::Release,
        2 => Outcome::RetryAfter { after: Duration::ZERO, charged: true },
        3 => Outcome::RetryAfter { after: LONG, charged: false },
        8 => Outcome::Crashed { after: Duration::ZERO },
        4 => Outcome::DeadLetter(Reason { code: "broken".into(), message: "it was".into() }),
        number => Outcome::Next { bytes: number as u64 },
    }
}

async fn apply(step: Step, queue: &Arc<dyn Queue>, model: &mut Model, jobs: &[JobId]) {
    let worker = Worker::new(queue, "w");
    let duration = |expires: bool| if expires { Duration::ZERO } else { LONG };
    match step {
        Step::Enqueue { job, item, priority, deaths } => {
            let sent = Task {
                priority: PRIORITIES[priority],
                bytes: u64::from(item) * 10,
                deaths,
                ..task(jobs[job], item, ["ann", "bob"][job % 2])
            };
            let new = !model.items.contains_key(&sent.id);
            assert_eq!(queue.enqueue(std::slice::from_ref(&sent)).await.unwrap(), [new]);
            if new {
                model.dead.retain(|dead| dead.id != sent.id);
                model.add(sent);
            }
        }
        Step::Lease { stage, max_tasks, idle, expires } => {
            let stage = Stage::ALL[stage];
            let worker = Worker { idle, duration: duration(expires), ..worker };
            let batch = worker.request(stage, max_tasks).await;
            model.lease(Request { stage, max_tasks, idle, expires }, batch);
        }
        Step::Settle { lease, outcome: number } => {
            let Some(lease) = model.leases.iter().rev().nth(lease).cloned() else { return };
            let outcome = outcome(number);
            assert_eq!(worker.settle(&lease, outcome.clone()).await, model.settle(&lease, &outcome));
        }
        Step::Renew { lease, expires } => {
            let Some(lease) = model.leases.iter().rev().nth(lease).cloned() else { return };
            let held = model.held(&lease).is_some_and(|item| match &mut item.state {
                State::Leased { cancelled: false, expires: out } => {
                    *out = expires;
                    true
                }
                _ => false,
            });
            assert_eq!(queue.renew(&[lease], duration(expires)).await.unwrap(), [held]);
        }
        Step::Cancel { job } => {
            let before = model.items.len();
            for item in model.items.values_mut().filter(|item| item.task.id.job == jobs[job]) {
                if let State::Leased { cancelled, .. } = &mut item.state {
                    *cancelled = true;
                }
            }
            model.items.retain(|id, item| id.job != jobs[job] || matches!(item.state, State::Leased { .. }));
            assert_eq!(queue.cancel(jobs[job]).await.unwrap(), (before - model.items.len()) as u64);
        }
        Step::Reprioritize { job, priority } => {
            let mut moved = 0;
            for item in model.items.values_mut().filter(|item| item.task.id.job == jobs[job]) {
                if item.task.priority != PRIORITIES[priority] {
                    item.task.priority = PRIORITIES[priority];
                    moved += u64::from(!matches!(item.state, State::Leased { .. }));
                }
            }
            assert_eq!(queue.reprioritize(jobs[job], PRIORITIES[priority]).await.unwrap(), moved);
        }
        Step::SetMode { stage, mode } => {
            let stage = Stage::ALL[stage];
            let mode = [StageMode::Run, StageMode::Run, StageMode::Pause, StageMode::Drain][mode];
            queue.set_stage_mode(stage, mode).await.unwrap();
            model.modes.insert(stage, mode);
            if mode != StageMode::Drain {
                for item in model.items.values_mut() {
                    if item.task.stage == stage && item.state == State::Held {
                        item.state = State::Waiting;
                    }
                }
            }
        }
        Step::Requeue { stage } | Step::Delete { stage } => {
            let requeued = matches!(step, Step::Requeue { .. });
            let stage = Stage::ALL[stage];
            let letters = queue.dead_letters(stage, None, 100).await.unwrap();
            let Some(letter) = letters.first() else { return };
            let id = letter.task.as_ref().unwrap().id;
            let index = model.dead.iter().position(|dead| dead.id == id).unwrap();
            let dead = model.dead.remove(index);
            assert_eq!(letter.task.as_ref(), Some(&dead));
            if requeued {
                let task = Task { attempts: 0, deaths: 0, ..dead };
                assert_eq!(queue.enqueue(std::slice::from_ref(&task)).await.unwrap(), [true]);
                model.add(task);
            } else {
                assert!(queue.delete_dead_letter(stage, &letter.id).await.unwrap());
            }
        }
        Step::Deregister => {
            queue.deregister(&worker.consumer).await.unwrap();
            model.items.retain(|_, item| !matches!(item.state, State::Leased { cancelled: true, .. }));
            for item in model.items.values_mut() {
                if matches!(item.state, State::Leased { .. }) {
                    item.state = State::Waiting;
                }
            }
        }
    }
}

async fn compare(queue: &dyn Queue, model: &Model, jobs: &[JobId]) {
    let depth = queue.depth().await.unwrap();
    for stage in Stage::ALL {
        let of = |is: fn(&State) -> bool| {
            model.items.values().filter(move |item| item.task.stage == stage && is(&item.state))
        };
        let found = depth[&stage];
        assert_eq!(found.waiting, of(|state| *state == State::Waiting).count() as u64, "{stage:?} waiting");
        let bytes: u64 = of(|state| *state == State::Waiting).map(|item| item.task.bytes).sum();
        assert_eq!(found.bytes, bytes, "{stage:?} bytes");
        assert_eq!(found.held, of(|state| *state == State::Held).count() as u64, "{stage:?} held");
        assert_eq!(found.delayed, of(|state| matches!(state, State::Delayed { .. })).count() as u64);
        assert_eq!(found.leased, of(|state| matches!(state, State::Leased { .. })).count() as u64);
        assert_eq!(found.dead, model.dead.iter().filter(|task| task.stage == stage).count() as u64);
    }
    for tenant in ["ann", "bob"] {
        let backlog = queue.backlog(tenant).await.unwrap();
        let of: Vec<&Item> = model.items.values().filter(|item| &*item.task.tenant == tenant).collect();
        assert_eq!(backlog.tenant.items, of.len() as u64);
        assert_eq!(backlog.tenant.bytes, of.iter().map(|item| item.task.bytes).sum::<u64>());
        assert_eq!(backlog.all.items, model.items.len() as u64);
        assert_eq!(backlog.all.bytes, model.items.values().map(|item| item.task.bytes).sum::<u64>());
    }
    let ids: Vec<TaskId> =
        jobs.iter().flat_map(|job| (0..4).map(|item| TaskId { job: *job, item })).collect();
    let held: Vec<bool> = ids
        .iter()
        .map(|id| model.items.contains_key(id) || model.dead.iter().any(|task| task.id == *id))
        .collect();
    assert_eq!(queue.contains(&ids).await.unwrap(), held);
}

fn check(cases: u32, mut bench: impl FnMut() -> Box<dyn Bench>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let steps = proptest::collection::vec(step(), 1..80);
    let bench = std::cell::RefCell::new(&mut bench);
    TestRunner::new(config)
        .run(&steps, |steps| {
            let bench = (bench.borrow_mut())();
            let jobs = [job(), job(), job()];
            let mut model = Model::default();
            runtime.block_on(async {
                let queue = bench.queue();
                for step in steps {
                    apply(step, &queue, &mut model, &jobs).await;
                    compare(&*queue, &model, &jobs).await;
                }
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_sqlite_queue_equals_the_model() {
    check(60, || Box::new(Sqlite::start()));
}

#[test]
fn the_redis_queue_equals_the_model() {
    let server = Arc::new(Streams::start());
    let mut count = 0;
    check(60, move || {
        count += 1;
        let prefix = format!("{{case{count}}}");
        Box::new(Prefixed { url: server.redis.url(), prefix, server: Arc::clone(&server) })
    });
}

/// A queue with a prefix of its own, on a server that all cases share.
struct Prefixed {
    url: String,
    prefix: String,
    server: Arc<Streams>,
}

impl Bench for Prefixed {
    fn open(&self, options: embeddery_pipeline::QueueOptions) -> Arc<dyn Queue> {
        let config = crate::harness::config(&self.url, &self.prefix);
        let config = embeddery_pipeline::RedisConfig { options, ..config };
        Arc::new(embeddery_pipeline::RedisQueue::connect(config).unwrap())
    }

    fn write_version(&self, task: TaskId, version: u32) -> BoxFuture<'_, ()> {
        Box::pin(self.server.redis.write_version(&self.prefix, task, version))
    }

    fn corrupt(&self, task: TaskId) -> BoxFuture<'_, ()> {
        Box::pin(self.server.redis.corrupt(&self.prefix, task))
    }

    fn expire_drain(&self, stage: Stage) -> BoxFuture<'_, ()> {
        Box::pin(self.server.redis.expire_drain(&self.prefix, stage))
    }
}
