//! The one thread that writes. What waits while it commits goes into its next transaction, so that under load one
//! commit serves many, and each caller waits for a commit, not for its place in a queue of commits.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::JobError;

/// Something to do, inside a transaction, or to be told that there is none. What it returns tells its caller the
/// outcome, after the commit.
type Task = Box<dyn FnOnce(Result<&Connection, JobError>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), JobError>) + Send>;

/// What must be on the disk when its caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// Also after a power cut: a caller far away was promised something.
    Promised,
    /// After the end of the process; a power cut only makes a stage run again.
    Repeatable,
}

/// Most operations in one transaction: one that waits for the lock does not wait for more than these.
const BATCH: usize = 256;

/// The way to the file. The thread ends when this is dropped and everything sent is written.
pub(super) struct Writer {
    tasks: Option<Sender<(Lasting, Task)>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self, String> {
        let (tasks, sent) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("jobs".into())
            .spawn(move || write(connection, &sent))
            .map_err(|error| format!("no thread for the jobs' file: {error}"))?;
        Ok(Self { tasks: Some(tasks), thread: Some(thread) })
    }

    /// Does `work` and waits until it is written: all of it or nothing.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        lasting: Lasting,
        work: impl FnOnce(&Connection) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, JobError> {
        let (done, outcome) = oneshot::channel();
        let task: Task = Box::new(move |db| {
            let worked = db.and_then(|db| run_alone(db, work));
            // A failure of its own comes before the commit's, which is everybody's.
            Box::new(move |committed| drop(done.send(worked.and_then(|value| committed.map(|()| value)))))
        });
        let gone = || JobError::Unavailable("the jobs' file is closed; the server stops".into());
        self.tasks.as_ref().ok_or_else(gone)?.send((lasting, task)).map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

/// One task's changes, all or none, whatever becomes of the others in the transaction.
fn run_alone<T>(
    db: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, JobError>,
) -> Result<T, JobError> {
    db.prepare_cached("SAVEPOINT task")?.execute([])?;
    let worked = work(db);
    if worked.is_err() {
        db.prepare_cached("ROLLBACK TO task")?.execute([])?;
    }
    db.prepare_cached("RELEASE task")?.execute([])?;
    worked
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(mut connection: Connection, sent: &Receiver<(Lasting, Task)>) {
    let mut set = None;
    while let Ok(first) = sent.recv() {
        let mut batch = vec![first];
        batch.extend(sent.try_iter().take(BATCH - 1));
        let promised = batch.iter().any(|(lasting, _)| *lasting == Lasting::Promised);
        let mut answers = Vec::with_capacity(batch.len());
        let begun = set_lasting(&connection, promised, &mut set)
            .and_then(|()| Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?));
        let committed = match begun {
            Ok(transaction) => commit(transaction, batch, &mut answers),
            Err(error) => {
                answers.extend(batch.into_iter().map(|(_, task)| task(Err(error.clone()))));
                Err(error)
            }
        };
        if let Err(error) = &committed {
            tracing::error!(%error, "jobs could not be written");
        }
        // Only now: who is told, is told of something that is on disk.
        for answer in answers {
            answer(committed.clone());
        }
    }
}

fn set_lasting(connection: &Connection, promised: bool, set: &mut Option<bool>) -> Result<(), JobError> {
    if *set != Some(promised) {
        connection.pragma_update(None, "synchronous", if promised { "FULL" } else { "NORMAL" })?;
        *set = Some(promised);
    }
    Ok(())
}

fn commit(
    transaction: Transaction<'_>,
    batch: Vec<(Lasting, Task)>,
    answers: &mut Vec<Answer>,
) -> Result<(), JobError> {
    let mut lost = None;
    for (_, task) in batch {
        if let Some(error) = &lost {
            answers.push(task(Err(JobError::clone(error))));
            continue;
        }
        answers.push(task(Ok(&transaction)));
        // A full or broken disk may take the whole transaction back, and what came next would stand alone.
        if transaction.is_autocommit() {
            lost = Some(JobError::Full("the disk of the jobs is full or broken; nothing was written".into()));
        }
    }
    match lost {
        Some(error) => Err(error),
        None => Ok(transaction.commit()?),
    }
}
