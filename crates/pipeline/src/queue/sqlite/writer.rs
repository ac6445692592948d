//! The one thread that has the file open. Steps that wait while a transaction commits are done in the next one
//! together: under load a commit serves many, and nobody waits for a lock inside the process.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::oneshot;

use crate::QueueError;

/// The file inside a transaction (or, for what only reads, outside), and the time.
pub(super) struct Db<'a> {
    pub(super) sql: &'a Connection,
    pub(super) now: i64,
}

/// Tells its caller the outcome when it is on disk, or why the commit failed.
type Answer = Box<dyn FnOnce(Result<(), QueueError>) + Send>;
/// Is given the file, or why there is none now.
type Step = Box<dyn FnOnce(Result<&Db<'_>, &QueueError>) -> Answer + Send>;

enum Message {
    Read(Step),
    Write(Step),
}

/// Most steps in one transaction.
const BATCH: usize = 256;

pub(super) struct Writer {
    messages: Option<Sender<Message>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self, QueueError> {
        let (messages, sent) = mpsc::channel();
        let thread = thread::Builder::new().name("queue".into()).spawn(move || run(connection, &sent));
        let thread =
            thread.map_err(|error| QueueError::Unavailable(format!("no thread for the queue: {error}")))?;
        Ok(Self { messages: Some(messages), thread: Some(thread) })
    }

    /// Does `work` in a transaction and waits until it is on disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.send(work, Message::Write).await
    }

    /// Does `work`, which only reads.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.send(work, Message::Read).await
    }

    async fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db<'_>) -> rusqlite::Result<T> + Send + 'static,
        kind: fn(Step) -> Message,
    ) -> Result<T, QueueError> {
        let (done, outcome) = oneshot::channel();
        let step: Step = Box::new(move |db| {
            let result = db.map_err(QueueError::clone).and_then(|db| in_savepoint(db, work));
            Box::new(move |committed| {
                let _ = done.send(result.and_then(|value| committed.map(|()| value)));
            })
        });
        if let Some(messages) = &self.messages {
            let _ = messages.send(kind(step));
        }
        outcome.await.unwrap_or_else(|_| Err(QueueError::Internal("the queue's thread has ended".into())))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A step that fails leaves no trace, and does not take its neighbours of the transaction down.
fn in_savepoint<T>(db: &Db<'_>, work: impl FnOnce(&Db<'_>) -> rusqlite::Result<T>) -> Result<T, QueueError> {
    let sql = db.sql;
    let outcome = sql.execute_batch("SAVEPOINT step").and_then(|()| work(db));
    let ended = match &outcome {
        Ok(_) => sql.execute_batch("RELEASE step"),
        Err(_) => sql.execute_batch("ROLLBACK TO step; RELEASE step"),
    };
    outcome.and_then(|value| ended.map(|()| value)).map_err(|error| named(&error))
}

fn run(mut connection: Connection, sent: &Receiver<Message>) {
    while let Ok(first) = sent.recv() {
        let mut steps = Vec::new();
        for message in std::iter::once(first).chain(sent.try_iter().take(BATCH - 1)) {
            match message {
                Message::Read(step) => step(Ok(&Db { sql: &connection, now: now_ms() }))(Ok(())),
                Message::Write(step) => steps.push(step),
            }
        }
        if !steps.is_empty() {
            commit(&mut connection, steps);
        }
    }
}

fn commit(connection: &mut Connection, steps: Vec<Step>) {
    let (answers, committed): (Vec<Answer>, _) =
        match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => {
                let db = Db { sql: &transaction, now: now_ms() };
                let mut lost = None;
                let mut answers = Vec::with_capacity(steps.len());
                for step in steps {
                    answers.push(step(lost.as_ref().map_or(Ok(&db), Err)));
                    // A full or broken disk may take the whole transaction back, and what came next would stand alone.
                    if lost.is_none() && transaction.is_autocommit() {
                        let message = "the disk of the queue is full or broken; nothing was written";
                        lost = Some(QueueError::Full(message.into()));
                    }
                }
                let ended = match lost {
                    Some(error) => Err(error),
                    None => transaction.commit().map_err(|error| named(&error)),
                };
                (answers, ended)
            }
            Err(error) => {
                let error = named(&error);
                (steps.into_iter().map(|step| step(Err(&error))).collect(), Err(error))
            }
        };
    // Only now: who is told, is told of something that is on disk.
    answers.into_iter().for_each(|answer| answer(committed.clone()));
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn named(error: &rusqlite::Error) -> QueueError {
    let text = format!("the queue's file: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => QueueError::Full(format!("{text}; free space on its disk")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            QueueError::Unavailable(format!("{text}: another process is writing"))
        }
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase,
        ) => QueueError::Unavailable(text),
        _ => QueueError::Internal(text),
    }
}
