//! The queues under test, and helpers of the tests.

use std::{sync::Arc, time::Duration};

use embeddery_core::BoxFuture;
use embeddery_database::redis::{KeyPrefix, RedisAddress};
use embeddery_pipeline::{
    Consumer, JobId, Lease, LeaseBatch, LeaseRequest, Outcome, Priority, Queue, QueueOptions, Reason,
    RedisConfig, RedisQueue, SettleResult, SqliteQueue, Stage, Task, TaskId, WorkerStatus,
};
use embeddery_test_support::redis::Redis;
use uuid::Uuid;

/// A place where queues live that see the same tasks, as those of several processes do.
pub trait Bench: Send + Sync {
    /// A queue, as another process opens it.
    fn open(&self, options: QueueOptions) -> Arc<dyn Queue>;

    fn queue(&self) -> Arc<dyn Queue> {
        self.open(QueueOptions::default())
    }

    /// Changes the task's message as if a program of this version had written it.
    fn write_version(&self, task: TaskId, version: u32) -> BoxFuture<'_, ()>;

    /// Makes the task's message unreadable.
    fn corrupt(&self, task: TaskId) -> BoxFuture<'_, ()>;

    /// Makes the time expire in which the chosen worker may become idle.
    fn expire_drain(&self, stage: Stage) -> BoxFuture<'_, ()>;
}

pub struct Sqlite(tempfile::TempDir);

impl Sqlite {
    pub fn start() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Bench for Sqlite {
    fn open(&self, options: QueueOptions) -> Arc<dyn Queue> {
        Arc::new(SqliteQueue::open(&self.0.path().join("queue.db"), options).unwrap())
    }

    fn write_version(&self, task: TaskId, version: u32) -> BoxFuture<'_, ()> {
        // A parked task is due for workers that know its version.
        self.change(task, &format!("version = {version}, due_ms = iif(place = 5, {version}, due_ms)"))
    }

    fn corrupt(&self, task: TaskId) -> BoxFuture<'_, ()> {
        self.change(task, "rank = 77")
    }

    fn expire_drain(&self, stage: Stage) -> BoxFuture<'_, ()> {
        let update = "UPDATE stage SET clearing_until_ms = 1 WHERE stage = ? AND clearing IS NOT NULL";
        assert_eq!(self.file().execute(update, [stage as i64]).unwrap(), 1);
        Box::pin(async {})
    }
}

impl Sqlite {
    pub fn file(&self) -> rusqlite::Connection {
        let file = rusqlite::Connection::open(self.0.path().join("queue.db")).unwrap();
        file.busy_timeout(Duration::from_secs(10)).unwrap();
        file
    }

    pub fn change(&self, task: TaskId, set: &str) -> BoxFuture<'_, ()> {
        let file = self.file();
        let update = format!("UPDATE task SET {set} WHERE job = ? AND item = ?");
        assert_eq!(file.execute(&update, rusqlite::params![task.job.0.as_bytes(), task.item]).unwrap(), 1);
        Box::pin(async {})
    }
}

pub struct Streams {
    pub redis: Redis,
    pub prefix: String,
}

impl Streams {
    pub fn start() -> Self {
        Self::on(Redis::start().unwrap())
    }

    pub fn on(redis: Redis) -> Self {
        Self { redis, prefix: "{embeddings}".into() }
    }

    pub fn config(&self) -> RedisConfig {
        config(&self.redis.url(), &self.prefix)
    }
}

pub fn config(url: &str, prefix: &str) -> RedisConfig {
    RedisConfig {
        address: RedisAddress { prefix: KeyPrefix::new(prefix), ..RedisAddress::new(url.to_owned()) },
        require_durable: false,
        dead_letter_key: None,
        options: QueueOptions::default(),
    }
}

impl Bench for Streams {
    fn open(&self, options: QueueOptions) -> Arc<dyn Queue> {
        Arc::new(RedisQueue::connect(RedisConfig { options, ..self.config() }).unwrap())
    }

    fn write_version(&self, task: TaskId, version: u32) -> BoxFuture<'_, ()> {
        Box::pin(self.redis.write_version(&self.prefix, task, version))
    }

    fn corrupt(&self, task: TaskId) -> BoxFuture<'_, ()> {
        Box::pin(self.redis.corrupt(&self.prefix, task))
    }

    fn expire_drain(&self, stage: Stage) -> BoxFuture<'_, ()> {
        Box::pin(self.redis.expire_drain(&self.prefix, stage))
    }
}

/// Changes to the queue of a server that only tests make.
pub trait Tamper {
    async fn write_version(&self, prefix: &str, task: TaskId, version: u32);
    async fn corrupt(&self, prefix: &str, task: TaskId);
    async fn expire_drain(&self, prefix: &str, stage: Stage);
}

impl Tamper for Redis {
    async fn write_version(&self, prefix: &str, task: TaskId, version: u32) {
        let (record, item) = (format!("{prefix}:job:{}", task.job), task.item.to_string());
        let text: String = self.ask(&["HGET", &record, &item]).await;
        let mut message: serde_json::Value = serde_json::from_str(&text).unwrap();
        message["v"] = version.into();
        self.ask::<i64>(&["HSET", &record, &item, &message.to_string()]).await;
        let aside = format!("{prefix}:{}:newer", message["s"].as_str().unwrap());
        let name = format!("{}:{item}", task.job);
        self.ask::<i64>(&["ZADD", &aside, "XX", &version.to_string(), &name]).await;
    }

    async fn corrupt(&self, prefix: &str, task: TaskId) {
        let record = format!("{prefix}:job:{}", task.job);
        self.ask::<i64>(&["HSET", &record, &task.item.to_string(), "no message"]).await;
    }

    async fn expire_drain(&self, prefix: &str, stage: Stage) {
        let key = format!("{prefix}:{}:clearing", stage.as_str());
        let kept: String = self.ask(&["GET", &key]).await;
        let holder = kept.split_once(' ').unwrap().1;
        self.ask::<String>(&["SET", &key, &format!("1 {holder}")]).await;
    }
}

pub const LONG: Duration = Duration::from_secs(600);
/// Expires at once.
pub const SHORT: Duration = Duration::from_millis(1);

pub fn job() -> JobId {
    JobId(Uuid::now_v7())
}

pub fn task(job: JobId, item: u32, tenant: &str) -> Task {
    Task {
        id: TaskId { job, item },
        tenant: tenant.into(),
        stage: Stage::Chunking,
        priority: Priority::Normal,
        bytes: 100,
        attempts: 0,
        deaths: 0,
        enqueued_at_ms: now_ms(),
        traceparent: None,
    }
}

pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

pub fn tasks(job: JobId, tenant: &str, count: u32) -> Vec<Task> {
    (0..count).map(|item| task(job, item, tenant)).collect()
}

/// A worker, with the duration of its leases.
pub struct Worker {
    pub queue: Arc<dyn Queue>,
    pub consumer: Consumer,
    pub duration: Duration,
    pub idle: bool,
}

impl Worker {
    pub fn new(queue: &Arc<dyn Queue>, name: &str) -> Self {
        Self { queue: Arc::clone(queue), consumer: Consumer(name.into()), duration: LONG, idle: true }
    }

    pub fn busy(self) -> Self {
        Self { idle: false, ..self }
    }

    pub fn holding(self, duration: Duration) -> Self {
        Self { duration, ..self }
    }

    pub async fn take(&self, stage: Stage, max_tasks: usize) -> Vec<Lease> {
        self.request(stage, max_tasks).await.leases
    }

    pub async fn request(&self, stage: Stage, max_tasks: usize) -> LeaseBatch {
        let request = LeaseRequest {
            stage,
            consumer: &self.consumer,
            max_tasks,
            duration: self.duration,
            idle: self.idle,
        };
        self.queue.lease(request).await.unwrap()
    }

    /// Waits for a task and leases it.
    pub async fn next(&self, stage: Stage) -> Lease {
        for _ in 0..2000 {
            if let Some(lease) = self.take(stage, 1).await.pop() {
                return lease;
            }
            self.queue.wait(stage, Duration::from_millis(10)).await;
        }
        panic!("no task came");
    }

    pub async fn settle(&self, lease: &Lease, outcome: Outcome) -> SettleResult {
        self.queue.settle(&[(lease.clone(), outcome)]).await.unwrap()[0]
    }
}

pub fn next() -> Outcome {
    Outcome::Next { bytes: 50 }
}

/// The status of a worker of this name.
pub fn status(name: &str) -> WorkerStatus {
    WorkerStatus {
        consumer: Consumer(name.into()),
        stages: vec![Stage::Chunking, Stage::Storage],
        slots: 4,
        busy: 1,
        done: 10,
        failed: 2,
        started_at_ms: 1_764_000_000_123,
        version: "0.1.0".into(),
    }
}

pub fn reason() -> Reason {
    Reason { code: "broken".into(), message: "it is 'broken': \u{e4}\u{1f600}".into() }
}
