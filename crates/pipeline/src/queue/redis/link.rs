//! The connection that all steps share: made when it is needed, left when it breaks, made again.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::Mutex;

use super::{
    health,
    target::{Conn, Target},
};
use crate::QueueError;

pub(super) struct Link {
    target: Target,
    patience: Duration,
    /// Whether a Redis that could lose work is refused.
    durable: bool,
    warned: AtomicBool,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    connection: Option<Conn>,
    /// Counts connections, so that the failure of an old one does not end a new one.
    number: u64,
    /// The last try, when it failed.
    failed: Option<(Instant, QueueError)>,
}

/// So long after a try that failed nobody tries again: callers that come meanwhile must not wait one after another.
const PAUSE: Duration = Duration::from_millis(300);

impl Link {
    pub(super) fn new(target: Target, patience: Duration, durable: bool) -> Self {
        Self { target, patience, durable, warned: AtomicBool::new(false), slot: Mutex::default() }
    }

    /// The connection and its number.
    pub(super) async fn get(&self) -> Result<(Conn, u64), QueueError> {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((connection.clone(), slot.number));
        }
        if let Some((_, error)) = slot.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE) {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                slot.failed = None;
                slot.number += 1;
                slot.connection = Some(connection.clone());
                Ok((connection, slot.number))
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Conn, QueueError> {
        let mut connection = self.own(self.patience).await?;
        self.inspect(&mut connection).await?;
        Ok(connection)
    }

    /// A connection of one's own, for what blocks.
    pub(super) async fn own(&self, patience: Duration) -> Result<Conn, QueueError> {
        match tokio::time::timeout(self.patience, self.target.connect(patience)).await {
            Ok(connected) => connected.map_err(|error| self.named(&error)),
            Err(_) => {
                Err(QueueError::Unavailable(format!("Redis at {} does not answer", self.target.name())))
            }
        }
    }

    /// After an error; the next call connects anew when the connection cannot be used any more.
    pub(super) async fn failed(&self, error: &RedisError, number: u64) {
        let moved = matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::Moved
            )
        );
        if moved || error.is_unrecoverable_error() || error.is_connection_dropped() || error.is_timeout() {
            let mut slot = self.slot.lock().await;
            if slot.number == number {
                slot.connection = None;
            }
        }
    }

    /// Says once, or refuses, what could lose work.
    async fn inspect(&self, connection: &mut Conn) -> Result<(), QueueError> {
        if !self.durable && self.warned.load(Ordering::Relaxed) {
            return Ok(());
        }
        let found = health::findings(connection).await.map_err(|error| self.named(&error))?;
        if self.durable && !found.is_empty() {
            return Err(QueueError::Unavailable(format!(
                "{} is refused, because queue.require_durable is set: {}",
                self.target.name(),
                found.join("; ")
            )));
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            for finding in found {
                tracing::warn!(redis = self.target.name(), "{finding}");
            }
        }
        Ok(())
    }

    pub(super) fn named(&self, error: &RedisError) -> QueueError {
        let text = format!("Redis at {}: {error}", self.target.name());
        match (error.code(), error.kind()) {
            (Some("OOM"), _) => QueueError::Full(format!("{text}; give it more memory (maxmemory)")),
            (Some("MISCONF"), _) => QueueError::Full(format!("{text}; free space on its disk")),
            (_, ErrorKind::Server(ServerErrorKind::ResponseError)) if error.code() != Some("NOAUTH") => {
                QueueError::Internal(text)
            }
            (_, ErrorKind::UnexpectedReturnType | ErrorKind::Parse) => QueueError::Internal(text),
            _ => QueueError::Unavailable(text),
        }
    }
}
