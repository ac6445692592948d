//! A connection that many callers share. It is opened when it is first needed, dropped when it breaks, and opened
//! again by the next caller.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, ScriptInvocation, ServerErrorKind};

use super::{
    CommandError, health,
    topology::{Connection, Topology},
};

/// How a shared connection is opened and used.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionOptions {
    /// Maximum time to connect.
    pub connect_timeout: Duration,
    /// Maximum time between a command and its response.
    pub response_timeout: Duration,
    /// The reaction to a server that may lose acknowledged writes.
    pub durability: DurabilityCheck,
}

/// The reaction to a server that may lose acknowledged writes; see [`health::durability_findings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurabilityCheck {
    /// The server is not checked, because its data may be lost.
    Skip,
    /// Each finding is logged once.
    Warn,
    /// The connection is rejected if there is a finding.
    Require,
}

/// A connection that many callers share. Clones share it, too.
#[derive(Clone)]
pub struct SharedConnection(Arc<Inner>);

struct Inner {
    topology: Topology,
    options: ConnectionOptions,
    warned: AtomicBool,
    current: Mutex<Current>,
    /// The time and the error of the last attempt to connect, if it failed. Locked during an attempt.
    failed: tokio::sync::Mutex<Option<(Instant, CommandError)>>,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Counts connections, so that the failure of an old one does not close a new one.
    generation: u64,
}

/// After a failed attempt no other one is made for this long. Callers that arrive in the meantime get the same error
/// and do not wait one after another.
const COOLDOWN: Duration = Duration::from_millis(300);

impl SharedConnection {
    /// A connection to be opened at the first use.
    pub fn new(topology: Topology, options: ConnectionOptions) -> Self {
        Self(Arc::new(Inner {
            topology,
            options,
            warned: AtomicBool::new(false),
            current: Mutex::default(),
            failed: tokio::sync::Mutex::default(),
        }))
    }

    /// The connection, opened if necessary, and its generation. If the caller stops waiting, the attempt continues,
    /// and a later caller finds its result.
    ///
    /// # Errors
    /// If there is no connection, or the last attempt failed a moment ago.
    pub async fn get(&self) -> Result<(Connection, u64), CommandError> {
        if let Some(open) = self.0.open_connection() {
            return Ok(open);
        }
        let inner = Arc::clone(&self.0);
        let attempt = tokio::spawn(async move { inner.get_or_connect().await });
        attempt.await.unwrap_or_else(|error| Err(CommandError::Unavailable(error.to_string())))
    }

    /// Opens a connection for one caller, for commands that block.
    ///
    /// # Errors
    /// If the server is unreachable.
    pub async fn dedicated(&self, response_timeout: Duration) -> Result<Connection, CommandError> {
        self.0.dedicated(response_timeout).await
    }

    /// Runs a script. `add_arguments` adds its arguments.
    ///
    /// # Errors
    /// The outer error says that there was no connection, the inner one is the command's; [`Self::describe`] turns it
    /// into a [`CommandError`].
    pub async fn invoke<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<RedisResult<T>, CommandError> {
        let (mut connection, generation) = self.get().await?;
        let response = invocation.invoke_async(&mut connection).await;
        if let Err(error) = &response {
            self.report_failure(error, generation);
        }
        Ok(response)
    }

    /// Runs a command.
    ///
    /// # Errors
    /// If there is no connection or the command fails.
    pub async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, CommandError> {
        let (mut connection, generation) = self.get().await?;
        let response = command.query_async(&mut connection).await;
        self.checked(response, generation)
    }

    /// Runs the commands of a pipeline, all keys of which are in one slot.
    ///
    /// # Errors
    /// If there is no connection or a command fails.
    pub async fn query_pipeline<T: FromRedisValue>(
        &self,
        pipeline: &redis::Pipeline,
    ) -> Result<T, CommandError> {
        let (mut connection, generation) = self.get().await?;
        let response = pipeline.query_async(&mut connection).await;
        self.checked(response, generation)
    }

    /// The findings about the server's durability, each with the setting that corrects it; see [`health::durability_findings`].
    ///
    /// # Errors
    /// If the server is unreachable.
    pub async fn health(&self) -> Result<Vec<String>, CommandError> {
        let (mut connection, generation) = self.get().await?;
        let found = health::durability_findings(&mut connection).await;
        self.checked(found, generation)
    }

    /// The error of a command, with the server's address.
    pub fn describe(&self, error: &RedisError) -> CommandError {
        CommandError::from_redis(error, &self.0.topology.address())
    }

    fn checked<T>(&self, response: RedisResult<T>, generation: u64) -> Result<T, CommandError> {
        match response {
            Ok(value) => Ok(value),
            Err(error) => {
                self.report_failure(&error, generation);
                Err(self.describe(&error))
            }
        }
    }

    /// Drops the connection of this generation if it is unusable after the error. The next caller opens another one.
    fn report_failure(&self, error: &RedisError, generation: u64) {
        let moved = matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::Moved
            )
        );
        if moved || error.is_unrecoverable_error() || error.is_connection_dropped() || error.is_timeout() {
            let mut current = self.0.current();
            if current.generation == generation {
                current.connection = None;
            }
        }
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_connection(&self) -> Option<(Connection, u64)> {
        let current = self.current();
        Some((current.connection.clone()?, current.generation))
    }

    async fn get_or_connect(&self) -> Result<(Connection, u64), CommandError> {
        let mut failed = self.failed.lock().await;
        // Another caller may have connected in the meantime.
        if let Some(open) = self.open_connection() {
            return Ok(open);
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| at.elapsed() < COOLDOWN) {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                *failed = None;
                let mut current = self.current();
                current.generation += 1;
                current.connection = Some(connection.clone());
                Ok((connection, current.generation))
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, CommandError> {
        let mut connection = self.dedicated(self.options.response_timeout).await?;
        self.check_durability(&mut connection).await?;
        Ok(connection)
    }

    async fn dedicated(&self, response_timeout: Duration) -> Result<Connection, CommandError> {
        let timeout = self.options.connect_timeout;
        let address = self.topology.address();
        match tokio::time::timeout(timeout, self.topology.connect(response_timeout)).await {
            Ok(connected) => connected.map_err(|error| CommandError::from_redis(&error, &address)),
            Err(_) => Err(CommandError::Unavailable(format!(
                "Redis at {address} did not respond within {timeout:?}"
            ))),
        }
    }

    async fn check_durability(&self, connection: &mut Connection) -> Result<(), CommandError> {
        let durability = self.options.durability;
        let warned = self.warned.load(Ordering::Relaxed);
        if durability == DurabilityCheck::Skip || (durability == DurabilityCheck::Warn && warned) {
            return Ok(());
        }
        let address = self.topology.address();
        let found = health::durability_findings(connection).await;
        let found = found.map_err(|error| CommandError::from_redis(&error, &address))?;
        if durability == DurabilityCheck::Require && !found.is_empty() {
            return Err(CommandError::Unavailable(format!(
                "{address} is refused, because queue.require_durable is set: {}",
                found.join("; ")
            )));
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            for finding in found {
                tracing::warn!(redis = address, "{finding}");
            }
        }
        Ok(())
    }
}
