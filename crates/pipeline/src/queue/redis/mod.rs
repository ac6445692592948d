//! The queue of many machines: Redis Streams. A stage is a stream with a group of workers; an entry is a task that
//! somebody has leased, and the entry's id is the fence. What waits is in sorted sets, a lane for each tenant, so that
//! whoever asks gets what is fair at that moment. Every move is one script; all keys are on one slot.

mod health;
mod link;
mod queue;
mod scripts;
mod seal;
mod target;
mod words;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use redis::{FromRedisValue, RedisResult, Script, Value, streams::StreamReadReply};
use secrecy::SecretString;
use tokio::task::AbortHandle;

use super::notifier::StageNotifier;
use crate::{Consumer, QueueError, QueueOptions, Reason, Stage};
use link::Link;
use scripts::Scripts;
use seal::Seal;
use target::Target;

/// Where the queue is, and what holds there.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://…`; may hold a password.
    pub url: SecretString,
    /// Certificates in PEM that are trusted besides the system's.
    pub ca: Option<Vec<u8>>,
    /// Before every key; put into braces when it has none, so that a Cluster keeps all keys together.
    pub prefix: String,
    /// Refuse a Redis that could lose acknowledged work.
    pub require_durable: bool,
    /// Encrypts what could not be read.
    pub dead_letter_key: Option<SecretString>,
    /// What holds for every queue.
    pub options: QueueOptions,
}

impl RedisConfig {
    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// With the sentence that follows the setting's name.
    pub fn check(&self) -> Result<(), String> {
        Target::read(&self.url, self.ca.as_deref()).map(drop)
    }
}

/// The queue of many machines.
pub struct RedisQueue {
    inner: Arc<Inner>,
    options: QueueOptions,
    seal: Seal,
    listening: OnceLock<AbortHandle>,
}

struct Inner {
    link: Link,
    /// Of the heartbeat alone: it never waits behind what is large.
    pulse: Link,
    scripts: Scripts,
    prefix: String,
    bell: StageNotifier,
    /// When the next delayed task or lease is due, in milliseconds from the last look; by stage.
    due: Mutex<[Option<tokio::time::Instant>; 3]>,
}

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for a heartbeat, which is tried again soon.
const BEAT_PATIENCE: Duration = Duration::from_secs(3);

/// How long the listener's read blocks.
const LISTEN: Duration = Duration::from_secs(5);

/// The pause before a listener that lost its connection connects again.
const AGAIN: Duration = Duration::from_millis(500);

impl RedisQueue {
    /// A queue at that address. Redis is asked at the first use, not here.
    ///
    /// # Errors
    /// When the configuration cannot be used, with what is wrong with it.
    pub fn connect(config: RedisConfig) -> Result<Self, String> {
        let link = |patience| {
            let target = Target::read(&config.url, config.ca.as_deref())?;
            Ok::<_, String>(Link::new(target, patience, config.require_durable))
        };
        let prefix =
            if config.prefix.contains('{') { config.prefix } else { format!("{{{}}}", config.prefix) };
        let inner = Inner {
            link: link(PATIENCE)?,
            pulse: link(BEAT_PATIENCE)?,
            scripts: Scripts::new(),
            prefix,
            bell: StageNotifier::default(),
            due: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            options: config.options,
            seal: Seal::new(config.dead_letter_key.as_ref())?,
            listening: OnceLock::new(),
        })
    }

    /// Puts aside what could not be read.
    async fn condemn(
        &self,
        stage: Stage,
        consumer: &Consumer,
        bad: words::Condemned,
    ) -> Result<(), QueueError> {
        let reason = Reason {
            code: "unreadable".into(),
            message: format!("{}; it was put aside as found", bad.problem),
        };
        tracing::error!(
            stage = stage.as_str(),
            id = bad.id,
            problem = bad.problem,
            "a message of the queue cannot be read"
        );
        let raw = self.seal.close(bad.raw);
        let limits = self.limits();
        let _: i64 = self
            .inner
            .call(&self.inner.scripts.condemn, |call| {
                call.arg(stage.as_str()).arg(&consumer.0).arg(&bad.token).arg(&bad.id);
                call.arg(&*reason.code).arg(&reason.message).arg(&raw).arg(limits.0).arg(limits.1);
            })
            .await?;
        Ok(())
    }

    /// How many dead letters are kept, and how long.
    fn limits(&self) -> (u32, u64) {
        (self.options.dead_letters, millis(self.options.dead_letter_age))
    }

    /// Starts to listen for work of other processes, once.
    fn listen(&self) {
        self.listening.get_or_init(|| tokio::spawn(listen(Arc::clone(&self.inner))).abort_handle());
    }
}

impl Drop for RedisQueue {
    fn drop(&mut self) {
        if let Some(listener) = self.listening.get() {
            listener.abort();
        }
    }
}

impl Inner {
    /// Runs a script. A step that may be repeated is, once, when the connection broke under it.
    async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        args: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, QueueError> {
        self.repeated(&self.link, script, args).await
    }

    /// The same on the heartbeat's connection.
    async fn beat<T: FromRedisValue>(
        &self,
        script: &Script,
        args: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, QueueError> {
        self.repeated(&self.pulse, script, args).await
    }

    async fn repeated<T: FromRedisValue>(
        &self,
        link: &Link,
        script: &Script,
        args: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, QueueError> {
        let mut answer = self.invoke(link, script, &args).await?;
        if answer.as_ref().is_err_and(redis::RedisError::is_connection_dropped) {
            answer = self.invoke(link, script, &args).await?;
        }
        answer.map_err(|error| link.named(&error))
    }

    /// Runs a script that must not be repeated blindly.
    async fn once<T: FromRedisValue>(
        &self,
        script: &Script,
        args: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, QueueError> {
        self.invoke(&self.link, script, &args).await?.map_err(|error| self.link.named(&error))
    }

    async fn invoke<T: FromRedisValue>(
        &self,
        link: &Link,
        script: &Script,
        args: &impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<RedisResult<T>, QueueError> {
        let (mut connection, number) = link.get().await?;
        let mut call = script.key(&self.prefix);
        args(&mut call);
        let answer = call.invoke_async(&mut connection).await;
        if let Err(error) = &answer {
            link.failed(error, number).await;
        }
        Ok(answer)
    }

    /// Runs a command that only reads.
    async fn command<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, QueueError> {
        let (mut connection, number) = self.link.get().await?;
        let answer = command.query_async(&mut connection).await;
        if let Err(error) = &answer {
            self.link.failed(error, number).await;
        }
        answer.map_err(|error| self.link.named(&error))
    }

    fn key(&self, parts: &[&str]) -> String {
        format!("{}:{}", self.prefix, parts.join(":"))
    }

    /// Notes when to look again, in milliseconds from now.
    fn note_due(&self, stage: Stage, wait: i64) {
        let due =
            u64::try_from(wait).ok().map(|wait| tokio::time::Instant::now() + Duration::from_millis(wait));
        self.due.lock().unwrap_or_else(PoisonError::into_inner)[place(stage)] = due;
    }

    fn until_due(&self, stage: Stage) -> Option<Duration> {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner)[place(stage)];
        due.map(|due| due.saturating_duration_since(tokio::time::Instant::now()))
    }
}

const fn place(stage: Stage) -> usize {
    match stage {
        Stage::Chunking => 0,
        Stage::Embedding => 1,
        Stage::Storage => 2,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(1 << 52)
}

/// Rings for what others ring in Redis. A blocked read stops its connection, so it has one of its own.
async fn listen(inner: Arc<Inner>) {
    let keys: Vec<String> = Stage::ALL.iter().map(|stage| inner.key(&[stage.as_str(), "wake"])).collect();
    let mut last = vec!["0-0".to_owned(); keys.len()];
    loop {
        if let Ok(mut connection) = inner.link.own(LISTEN * 2).await {
            // Whatever happened while nobody listened.
            Stage::ALL.into_iter().for_each(|stage| inner.bell.notify(stage));
            loop {
                let mut read = redis::cmd("XREAD");
                read.arg("BLOCK").arg(millis(LISTEN)).arg("STREAMS").arg(&keys).arg(&last);
                let answer: RedisResult<Value> = read.query_async(&mut connection).await;
                let Ok(answer) =
                    answer.and_then(|value| Ok(Option::<StreamReadReply>::from_redis_value(value)?))
                else {
                    break;
                };
                for stream in answer.into_iter().flat_map(|reply| reply.keys) {
                    let Some(index) = keys.iter().position(|key| *key == stream.key) else { continue };
                    if let Some(entry) = stream.ids.last() {
                        last[index].clone_from(&entry.id);
                    }
                    inner.bell.notify(Stage::ALL[index]);
                }
            }
        }
        // A server that lost its data begins its ids anew.
        last.fill("0-0".to_owned());
        tokio::time::sleep(AGAIN).await;
    }
}
