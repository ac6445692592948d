//! The queue of several hosts: Redis Streams. A stage is a stream with a consumer group; an entry is a leased task, and
//! the entry's id is the fencing token. Waiting tasks are in sorted sets, one per tenant, so that a lease is fair at the
//! moment it is granted. Every change is one script; all keys are in one slot.

mod codec;
mod encryption;
mod queue;
mod scripts;

use embeddery_core::to_ms;
use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use embeddery_database::redis::{
    CommandError, ConnectionOptions, DurabilityCheck, KeyPrefix, RedisAddress, SharedConnection,
};
use redis::{FromRedisValue, RedisResult, Script, Value, streams::StreamReadReply};
use secrecy::SecretString;
use tokio::task::AbortHandle;

use super::notifier::StageNotifier;
use crate::{Consumer, QueueError, QueueOptions, Reason, Stage};
use encryption::PayloadCipher;
use scripts::Scripts;

/// Where the queue is, and its options.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// The server and the prefix of all keys.
    pub address: RedisAddress,
    /// Refuse a Redis that could lose acknowledged work.
    pub require_durable: bool,
    /// The passphrase that encrypts unreadable messages among the dead letters.
    pub dead_letter_key: Option<SecretString>,
    /// The options of every queue.
    pub options: QueueOptions,
}

impl RedisConfig {
    /// Checks the address.
    ///
    /// # Errors
    /// If it is invalid. The message continues a sentence that begins with the setting's name.
    pub fn check(&self) -> Result<(), String> {
        self.address.topology().map(drop)
    }
}

/// The queue of several hosts.
pub struct RedisQueue {
    inner: Arc<Inner>,
    options: QueueOptions,
    cipher: PayloadCipher,
    listener: OnceLock<AbortHandle>,
}

struct Inner {
    connection: SharedConnection,
    /// For heartbeats only: they must not wait behind large commands.
    heartbeat_connection: SharedConnection,
    scripts: Scripts,
    prefix: KeyPrefix,
    bell: StageNotifier,
    /// When the next delayed task is due or the next lease expires, per stage, as of the last lease request.
    due: Mutex<[Option<tokio::time::Instant>; 3]>,
}

/// Maximum time to connect, and to a response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a heartbeat, which is repeated soon.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a read of the listener blocks.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The delay before a listener that lost its connection reconnects.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);

impl RedisQueue {
    /// A queue at this address. It connects at the first use.
    ///
    /// # Errors
    /// If the configuration is invalid.
    pub fn connect(config: RedisConfig) -> Result<Self, String> {
        let durability =
            if config.require_durable { DurabilityCheck::Require } else { DurabilityCheck::Warn };
        let connection = |timeout| {
            let options =
                ConnectionOptions { connect_timeout: timeout, response_timeout: timeout, durability };
            Ok::<_, String>(SharedConnection::new(config.address.topology()?, options))
        };
        let inner = Inner {
            connection: connection(TIMEOUT)?,
            heartbeat_connection: connection(HEARTBEAT_TIMEOUT)?,
            scripts: Scripts::new(),
            prefix: config.address.prefix,
            bell: StageNotifier::default(),
            due: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            options: config.options,
            cipher: PayloadCipher::new(config.dead_letter_key.as_ref())?,
            listener: OnceLock::new(),
        })
    }

    /// Moves a task that cannot be read to the dead letters.
    async fn dead_letter_unreadable(
        &self,
        stage: Stage,
        consumer: &Consumer,
        task: codec::UnreadableTask,
    ) -> Result<(), QueueError> {
        let reason = Reason {
            code: "unreadable".into(),
            message: format!("{}; it was put aside as found", task.problem),
        };
        tracing::error!(
            stage = stage.as_str(),
            id = task.id,
            problem = task.problem,
            "a message of the queue cannot be read"
        );
        let raw = self.cipher.encrypt(task.raw);
        let limits = self.dead_letter_limits();
        let _: i64 = self
            .inner
            .run(&self.inner.scripts.dead_letter_unreadable, |call| {
                call.arg(stage.as_str()).arg(&consumer.0).arg(&task.token).arg(&task.id);
                call.arg(&*reason.code).arg(&reason.message).arg(&raw).arg(limits.0).arg(limits.1);
            })
            .await?;
        Ok(())
    }

    /// How many dead letters are kept, and for how many milliseconds.
    fn dead_letter_limits(&self) -> (u32, u64) {
        (self.options.dead_letters, to_ms(self.options.dead_letter_age))
    }

    /// Starts the listener for work of other processes, once.
    fn start_listener(&self) {
        self.listener.get_or_init(|| tokio::spawn(listen(Arc::clone(&self.inner))).abort_handle());
    }
}

impl Drop for RedisQueue {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.abort();
        }
    }
}

impl Inner {
    /// Runs a script that may run twice: it is repeated once if the connection breaks meanwhile.
    async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        args: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, QueueError> {
        self.run_with_retry(&self.connection, script, args).await
    }

    /// The same on the connection of the heartbeat.
    async fn run_heartbeat<T: FromRedisValue>(
        &self,
        script: &Script,
        args: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, QueueError> {
        self.run_with_retry(&self.heartbeat_connection, script, args).await
    }

    async fn run_with_retry<T: FromRedisValue>(
        &self,
        connection: &SharedConnection,
        script: &Script,
        args: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, QueueError> {
        let mut response = self.invoke(connection, script, &args).await?;
        if response.as_ref().is_err_and(redis::RedisError::is_connection_dropped) {
            response = self.invoke(connection, script, &args).await?;
        }
        response.map_err(|error| connection.describe(&error).into())
    }

    /// Runs a script that must not run twice.
    async fn run_once<T: FromRedisValue>(
        &self,
        script: &Script,
        args: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, QueueError> {
        let response = self.invoke(&self.connection, script, &args).await?;
        response.map_err(|error| self.connection.describe(&error).into())
    }

    async fn invoke<T: FromRedisValue>(
        &self,
        connection: &SharedConnection,
        script: &Script,
        args: &impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<RedisResult<T>, QueueError> {
        let mut call = script.key(self.prefix.as_str());
        args(&mut call);
        Ok(connection.invoke(&call).await?)
    }

    /// Runs a command.
    async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, QueueError> {
        Ok(self.connection.query(command).await?)
    }

    fn key(&self, parts: &[&str]) -> String {
        self.prefix.key(parts)
    }

    /// Stores when a worker should request leases again, in milliseconds from now.
    fn set_due(&self, stage: Stage, wait_ms: i64) {
        let due =
            u64::try_from(wait_ms).ok().map(|ms| tokio::time::Instant::now() + Duration::from_millis(ms));
        self.due.lock().unwrap_or_else(PoisonError::into_inner)[stage_index(stage)] = due;
    }

    fn until_due(&self, stage: Stage) -> Option<Duration> {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner)[stage_index(stage)];
        due.map(|due| due.saturating_duration_since(tokio::time::Instant::now()))
    }
}

const fn stage_index(stage: Stage) -> usize {
    match stage {
        Stage::Chunking => 0,
        Stage::Embedding => 1,
        Stage::Storage => 2,
    }
}

/// Wakes waiting workers when another process has enqueued work. A blocking read occupies its connection, so the listener
/// has a dedicated one.
async fn listen(inner: Arc<Inner>) {
    let keys: Vec<String> = Stage::ALL.iter().map(|stage| inner.key(&[stage.as_str(), "wake"])).collect();
    let mut last = vec!["0-0".to_owned(); keys.len()];
    loop {
        if let Ok(mut connection) = inner.connection.dedicated(BLOCK_TIMEOUT * 2).await {
            // Work may have been enqueued while there was no connection.
            Stage::ALL.into_iter().for_each(|stage| inner.bell.notify(stage));
            loop {
                let mut read = redis::cmd("XREAD");
                read.arg("BLOCK").arg(to_ms(BLOCK_TIMEOUT)).arg("STREAMS").arg(&keys).arg(&last);
                let response: RedisResult<Value> = read.query_async(&mut connection).await;
                let Ok(response) =
                    response.and_then(|value| Ok(Option::<StreamReadReply>::from_redis_value(value)?))
                else {
                    break;
                };
                for stream in response.into_iter().flat_map(|reply| reply.keys) {
                    let Some(index) = keys.iter().position(|key| *key == stream.key) else { continue };
                    if let Some(entry) = stream.ids.last() {
                        last[index].clone_from(&entry.id);
                    }
                    inner.bell.notify(Stage::ALL[index]);
                }
            }
        }
        // A server that lost its data starts its ids again.
        last.fill("0-0".to_owned());
        tokio::time::sleep(RECONNECT_DELAY).await;
    }
}

impl From<CommandError> for QueueError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Unavailable(message) => Self::Unavailable(message),
            CommandError::Full(message) => Self::Full(message),
            CommandError::Rejected(message) => Self::Internal(message),
        }
    }
}
