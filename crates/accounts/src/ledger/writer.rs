//! The one thread that writes. What waits is written in one transaction: under load a commit serves many
//! requests, and a request waits for one commit, not for its place in a queue of commits.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::operations;

/// Something to do, inside a transaction. What it returns tells its caller the outcome, after the commit.
type Task = Box<dyn FnOnce(&Connection) -> rusqlite::Result<Answer> + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// Most operations in one transaction.
const BATCH: usize = 512;
/// How often the past is dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// The way to the thread, which ends when this is dropped and everything sent is written.
pub(super) struct Writer {
    tasks: Option<Sender<Task>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, retention_days: u32) -> Result<Self, String> {
        let (tasks, waiting) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("usage".into())
            .spawn(move || write(connection, &waiting, retention_days))
            .map_err(|error| format!("no thread for the usage file: {error}"))?;
        Ok(Self { tasks: Some(tasks), thread: Some(thread) })
    }

    /// Does `work` and waits until it is on disk. An error is in the log already.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ()> {
        let (done, outcome) = oneshot::channel();
        self.send(Box::new(move |db| {
            let value = work(db)?;
            Ok(Box::new(move || drop(done.send(value))))
        }));
        outcome.await.map_err(drop)
    }

    /// Does `work` some time soon.
    pub(super) fn run_later(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static) {
        self.send(Box::new(move |db| work(db).map(|()| Box::new(|| ()) as Answer)));
    }

    fn send(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            let _ = tasks.send(task);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(mut connection: Connection, waiting: &Receiver<Task>, retention_days: u32) {
    let mut swept = None;
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![first];
        batch.extend(waiting.try_iter().take(BATCH - 1));
        let now = Timestamp::now();
        let due = swept.is_none_or(|last: Timestamp| now.duration_since(last).unsigned_abs() > SWEEP_EVERY);
        match commit(&mut connection, batch, due.then_some((now, retention_days))) {
            // Only now: who is told, is told of something that is on disk.
            Ok(answers) => answers.into_iter().for_each(|answer| answer()),
            Err(error) => {
                tracing::error!(%error, "usage could not be written; requests are answered without");
            }
        }
        if due {
            swept = Some(now);
        }
    }
}

fn commit(
    connection: &mut Connection,
    batch: Vec<Task>,
    sweep: Option<(Timestamp, u32)>,
) -> rusqlite::Result<Vec<Answer>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some((now, retention_days)) = sweep {
        operations::sweep(&transaction, now, retention_days)?;
    }
    let mut answers = Vec::with_capacity(batch.len());
    for task in batch {
        match task(&transaction) {
            Ok(answer) => answers.push(answer),
            // One that fails does not take the others down.
            Err(error) => tracing::error!(%error, "an entry of the usage file could not be written"),
        }
    }
    transaction.commit()?;
    Ok(answers)
}
