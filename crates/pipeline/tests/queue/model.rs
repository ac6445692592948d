//! Random work on each queue beside a plain model of it in memory, which is compared after every step. The model knows
//! nothing of turns between tenants: of each tenant's tasks it knows the order.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use embeddery_core::BoxFuture;
use embeddery_pipeline::{
    DEATHS_ALONE, DEATHS_IN_COMPANY, Flow, Handout, JobId, Lease, Outcome, Priority, Queue, Reason, Settled,
    Stage, Task, TaskId,
};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::bench::{Bench, LONG, Sqlite, Streams, Tamper as _, Worker, job, task};

#[derive(Clone, Debug)]
enum Step {
    Enqueue { job: usize, item: u32, priority: usize, deaths: u32 },
    Lease { stage: usize, most: usize, idle: bool, runs_out: bool },
    Settle { lease: usize, outcome: usize },
    Renew { lease: usize, runs_out: bool },
    Cancel { job: usize },
    Reprioritize { job: usize, priority: usize },
    Flow { stage: usize, flow: usize },
    Revive { stage: usize },
    Bury { stage: usize },
    Retire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_usize, 0..4_u32, 0..3_usize, 0..4_u32).prop_map(|(job, item, priority, deaths)| Step::Enqueue { job, item, priority, deaths }),
        10 => (0..3_usize, 1..5_usize, any::<bool>(), any::<bool>()).prop_map(|(stage, most, idle, runs_out)| Step::Lease { stage, most, idle, runs_out }),
        12 => (0..8_usize, 0..9_usize).prop_map(|(lease, outcome)| Step::Settle { lease, outcome }),
        2 => (0..8_usize, any::<bool>()).prop_map(|(lease, runs_out)| Step::Renew { lease, runs_out }),
        1 => (0..3_usize).prop_map(|job| Step::Cancel { job }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(job, priority)| Step::Reprioritize { job, priority }),
        2 => (0..3_usize, 0..4_usize).prop_map(|(stage, flow)| Step::Flow { stage, flow }),
        1 => (0..3_usize).prop_map(|stage| Step::Revive { stage }),
        1 => (0..3_usize).prop_map(|stage| Step::Bury { stage }),
        1 => Just(Step::Retire),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Waiting,
    Held,
    Delayed { due: bool },
    Leased { runs_out: bool, cancelled: bool },
}

struct Item {
    task: Task,
    arrival: u64,
    place: Place,
    token: String,
}

#[derive(Default)]
struct Model {
    items: BTreeMap<TaskId, Item>,
    dead: Vec<Task>,
    flow: HashMap<Stage, Flow>,
    arrivals: u64,
    /// All leases ever given, the newest last.
    leases: Vec<Lease>,
}

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

impl Model {
    fn add(&mut self, task: Task) {
        self.arrivals += 1;
        let held = self.flow.get(&task.stage) == Some(&Flow::Drain);
        let place = if held { Place::Held } else { Place::Waiting };
        self.items.insert(task.id, Item { task, arrival: self.arrivals, place, token: String::new() });
    }

    fn held(&mut self, lease: &Lease) -> Option<&mut Item> {
        let item = self.items.get_mut(&lease.task.id)?;
        (matches!(item.place, Place::Leased { .. }) && item.token == lease.token).then_some(item)
    }

    /// What a look at a stage brings back.
    fn bring_back(&mut self, stage: Stage) {
        let ids: Vec<TaskId> =
            self.items.values().filter(|item| item.task.stage == stage).map(|item| item.task.id).collect();
        for id in ids {
            let item = self.items.get_mut(&id).unwrap();
            match item.place {
                Place::Delayed { due: true } => item.place = Place::Waiting,
                Place::Leased { runs_out: true, cancelled: true } => drop(self.items.remove(&id)),
                Place::Leased { runs_out: true, .. } => self.die(id),
                _ => {}
            }
        }
    }

    fn die(&mut self, id: TaskId) {
        let item = self.items.get_mut(&id).unwrap();
        item.task.deaths += 1;
        item.place = Place::Waiting;
        if item.task.deaths >= DEATHS_IN_COMPANY + DEATHS_ALONE {
            let item = self.items.remove(&id).unwrap();
            self.dead.push(item.task);
        }
    }

    fn alone(&self, stage: Stage) -> Option<&Item> {
        let mut found: Vec<&Item> = self
            .items
            .values()
            .filter(|item| item.place == Place::Waiting && item.task.deaths >= DEATHS_IN_COMPANY)
            .filter(|item| stage == item.task.stage)
            .collect();
        found.sort_by_key(|item| item.arrival);
        found.first().copied()
    }

    /// Checks what a lease brought, and takes it in.
    fn lease(&mut self, (stage, most, idle, runs_out): (Stage, usize, bool, bool), handout: Handout) {
        let Handout { leases: got, clear } = handout;
        self.bring_back(stage);
        let ids: Vec<TaskId> = got.iter().map(|lease| lease.task.id).collect();
        if self.flow.get(&stage) == Some(&Flow::Pause) {
            assert_eq!((ids, clear), (Vec::new(), false));
            return;
        }
        if let Some(alone) = self.alone(stage).map(|item| item.task.id) {
            if idle {
                assert_eq!((&ids[..], got[0].alone), (&[alone][..], true));
                return self.take(got, runs_out);
            }
            assert_eq!((ids, clear), (Vec::new(), true), "it is to become idle, whichever of its loops asks");
            return;
        }
        assert!(!clear, "nothing must run alone");
        let mut lanes: HashMap<String, Vec<(std::cmp::Reverse<Priority>, u64, TaskId)>> = HashMap::new();
        for item in self.items.values() {
            let alone = item.task.deaths >= DEATHS_IN_COMPANY;
            if item.place == Place::Waiting && item.task.stage == stage && !alone {
                let lane = lanes.entry(item.task.tenant.to_string()).or_default();
                lane.push((std::cmp::Reverse(item.task.priority), item.arrival, item.task.id));
            }
        }
        let waiting: usize = lanes.values().map(Vec::len).sum();
        assert_eq!(got.len(), most.min(waiting), "as many as there are");
        for (tenant, mut lane) in lanes {
            lane.sort();
            let due: Vec<TaskId> = lane.into_iter().map(|(_, _, id)| id).collect();
            let came: Vec<TaskId> =
                got.iter().filter(|l| *l.task.tenant == *tenant).map(|lease| lease.task.id).collect();
            assert_eq!(came, due[..came.len()], "{tenant}: by priority and age");
        }
        assert!(got.iter().all(|lease| !lease.alone));
        self.take(got, runs_out);
    }

    fn take(&mut self, got: Vec<Lease>, runs_out: bool) {
        for lease in got {
            let item = self.items.get_mut(&lease.task.id).unwrap();
            assert_eq!(item.task, lease.task);
            item.place = Place::Leased { runs_out, cancelled: false };
            item.token.clone_from(&lease.token);
            self.leases.push(lease);
        }
    }

    fn settle(&mut self, lease: &Lease, outcome: &Outcome) -> Settled {
        let flow = self.flow.clone();
        let Some(item) = self.held(lease) else { return Settled::Lost };
        if matches!(item.place, Place::Leased { cancelled: true, .. }) {
            self.items.remove(&lease.task.id);
            return Settled::Cancelled;
        }
        match outcome {
            Outcome::Next { bytes } => match item.task.stage.next() {
                Some(stage) => {
                    item.task = Task { stage, bytes: *bytes, attempts: 0, deaths: 0, ..item.task.clone() };
                    let held = flow.get(&stage) == Some(&Flow::Drain);
                    item.place = if held { Place::Held } else { Place::Waiting };
                }
                None => drop(self.items.remove(&lease.task.id)),
            },
            Outcome::Finished => drop(self.items.remove(&lease.task.id)),
            Outcome::Later { after, charged } => {
                item.task.attempts += u32::from(*charged);
                item.place = Place::Delayed { due: after.is_zero() };
            }
            Outcome::HandBack => item.place = Place::Waiting,
            Outcome::Died { after } => {
                self.die(lease.task.id);
                if let Some(item) = self.items.get_mut(&lease.task.id) {
                    item.place = Place::Delayed { due: after.is_zero() };
                }
            }
            Outcome::Dead(_) => {
                let item = self.items.remove(&lease.task.id).unwrap();
                self.dead.push(item.task);
            }
        }
        Settled::Done
    }
}

fn outcome(number: usize) -> Outcome {
    match number {
        0 => Outcome::Finished,
        1 => Outcome::HandBack,
        2 => Outcome::Later { after: Duration::ZERO, charged: true },
        3 => Outcome::Later { after: LONG, charged: false },
        8 => Outcome::Died { after: Duration::ZERO },
        4 => Outcome::Dead(Reason { code: "broken".into(), message: "it was".into() }),
        number => Outcome::Next { bytes: number as u64 },
    }
}

async fn apply(step: Step, queue: &std::sync::Arc<dyn Queue>, (model, jobs): (&mut Model, &[JobId])) {
    let worker = Worker::new(queue, "w");
    let length = |runs_out: bool| if runs_out { Duration::ZERO } else { LONG };
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
        Step::Lease { stage, most, idle, runs_out } => {
            let stage = Stage::ALL[stage];
            let worker = Worker { idle, length: length(runs_out), ..worker };
            let got = worker.ask(stage, most).await;
            model.lease((stage, most, idle, runs_out), got);
        }
        Step::Settle { lease, outcome: number } => {
            let Some(lease) = model.leases.iter().rev().nth(lease).cloned() else { return };
            let outcome = outcome(number);
            assert_eq!(worker.settle(&lease, outcome.clone()).await, model.settle(&lease, &outcome));
        }
        Step::Renew { lease, runs_out } => {
            let Some(lease) = model.leases.iter().rev().nth(lease).cloned() else { return };
            let wanted = model.held(&lease).is_some_and(|item| match &mut item.place {
                Place::Leased { cancelled: false, runs_out: out } => {
                    *out = runs_out;
                    true
                }
                _ => false,
            });
            assert_eq!(queue.renew(&[lease], length(runs_out)).await.unwrap(), [wanted]);
        }
        Step::Cancel { job } => {
            let before = model.items.len();
            for item in model.items.values_mut().filter(|item| item.task.id.job == jobs[job]) {
                if let Place::Leased { cancelled, .. } = &mut item.place {
                    *cancelled = true;
                }
            }
            model.items.retain(|id, item| id.job != jobs[job] || matches!(item.place, Place::Leased { .. }));
            assert_eq!(queue.cancel(jobs[job]).await.unwrap(), (before - model.items.len()) as u64);
        }
        Step::Reprioritize { job, priority } => {
            let mut moved = 0;
            for item in model.items.values_mut().filter(|item| item.task.id.job == jobs[job]) {
                if item.task.priority != PRIORITIES[priority] {
                    item.task.priority = PRIORITIES[priority];
                    moved += u64::from(!matches!(item.place, Place::Leased { .. }));
                }
            }
            assert_eq!(queue.reprioritize(jobs[job], PRIORITIES[priority]).await.unwrap(), moved);
        }
        Step::Flow { stage, flow } => {
            let (stage, flow) = (Stage::ALL[stage], [Flow::Run, Flow::Run, Flow::Pause, Flow::Drain][flow]);
            queue.set_flow(stage, flow).await.unwrap();
            model.flow.insert(stage, flow);
            if flow != Flow::Drain {
                for item in model.items.values_mut() {
                    if item.task.stage == stage && item.place == Place::Held {
                        item.place = Place::Waiting;
                    }
                }
            }
        }
        Step::Revive { stage } | Step::Bury { stage } => {
            let again = matches!(step, Step::Revive { .. });
            let stage = Stage::ALL[stage];
            let letters = queue.dead_letters(stage, None, 100).await.unwrap();
            let Some(letter) = letters.first() else { return };
            let id = letter.task.as_ref().unwrap().id;
            let place = model.dead.iter().position(|dead| dead.id == id).unwrap();
            let dead = model.dead.remove(place);
            assert_eq!(letter.task.as_ref(), Some(&dead));
            if again {
                assert!(queue.revive(stage, &letter.id).await.unwrap());
                model.add(Task { attempts: 0, deaths: 0, ..dead });
            } else {
                assert!(queue.bury(stage, &letter.id).await.unwrap());
            }
        }
        Step::Retire => {
            queue.retire(&worker.consumer).await.unwrap();
            model.items.retain(|_, item| !matches!(item.place, Place::Leased { cancelled: true, .. }));
            for item in model.items.values_mut() {
                if matches!(item.place, Place::Leased { .. }) {
                    item.place = Place::Waiting;
                }
            }
        }
    }
}

async fn compare(queue: &dyn Queue, model: &Model, jobs: &[JobId]) {
    let depth = queue.depth().await.unwrap();
    for stage in Stage::ALL {
        let of = |wanted: fn(&Place) -> bool| {
            model.items.values().filter(move |item| item.task.stage == stage && wanted(&item.place))
        };
        let found = depth[&stage];
        assert_eq!(found.waiting, of(|place| *place == Place::Waiting).count() as u64, "{stage:?} waiting");
        let bytes: u64 = of(|place| *place == Place::Waiting).map(|item| item.task.bytes).sum();
        assert_eq!(found.bytes, bytes, "{stage:?} bytes");
        assert_eq!(found.held, of(|place| *place == Place::Held).count() as u64, "{stage:?} held");
        assert_eq!(found.delayed, of(|place| matches!(place, Place::Delayed { .. })).count() as u64);
        assert_eq!(found.leased, of(|place| matches!(place, Place::Leased { .. })).count() as u64);
        assert_eq!(found.dead, model.dead.iter().filter(|task| task.stage == stage).count() as u64);
    }
    for tenant in ["ann", "bob"] {
        let pressure = queue.pressure(tenant).await.unwrap();
        let of: Vec<&Item> = model.items.values().filter(|item| &*item.task.tenant == tenant).collect();
        assert_eq!(pressure.tenant.items, of.len() as u64);
        assert_eq!(pressure.tenant.bytes, of.iter().map(|item| item.task.bytes).sum::<u64>());
        assert_eq!(pressure.all.items, model.items.len() as u64);
        assert_eq!(pressure.all.bytes, model.items.values().map(|item| item.task.bytes).sum::<u64>());
    }
    let ids: Vec<TaskId> =
        jobs.iter().flat_map(|job| (0..4).map(|item| TaskId { job: *job, item })).collect();
    let held: Vec<bool> = ids
        .iter()
        .map(|id| model.items.contains_key(id) || model.dead.iter().any(|task| task.id == *id))
        .collect();
    assert_eq!(queue.holds(&ids).await.unwrap(), held);
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
                    apply(step, &queue, (&mut model, &jobs)).await;
                    compare(&*queue, &model, &jobs).await;
                }
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_file_does_what_the_model_does() {
    check(60, || Box::new(Sqlite::start()));
}

#[test]
fn redis_does_what_the_model_does() {
    let server = std::sync::Arc::new(Streams::start());
    let mut count = 0;
    check(60, move || {
        count += 1;
        let prefix = format!("{{case{count}}}");
        Box::new(Prefixed { url: server.redis.url(), prefix, server: std::sync::Arc::clone(&server) })
    });
}

/// A queue of its own on a server that all cases share.
struct Prefixed {
    url: String,
    prefix: String,
    server: std::sync::Arc<Streams>,
}

impl Bench for Prefixed {
    fn open(&self, options: embeddery_pipeline::QueueOptions) -> std::sync::Arc<dyn Queue> {
        let config = crate::bench::config(&self.url, &self.prefix);
        let config = embeddery_pipeline::RedisConfig { options, ..config };
        std::sync::Arc::new(embeddery_pipeline::RedisQueue::connect(config).unwrap())
    }

    fn write_version(&self, task: TaskId, version: u32) -> BoxFuture<'_, ()> {
        Box::pin(self.server.redis.write_version(&self.prefix, task, version))
    }

    fn spoil(&self, task: TaskId) -> BoxFuture<'_, ()> {
        Box::pin(self.server.redis.spoil(&self.prefix, task))
    }

    fn age_clearing(&self, stage: Stage) -> BoxFuture<'_, ()> {
        Box::pin(self.server.redis.age_clearing(&self.prefix, stage))
    }
}
