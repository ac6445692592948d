//! Who writes: the request's own thread when nobody else does at that moment, because a commit takes less time than
//! the way to another thread and back; else the one thread that writes what waits in one transaction, so that under
//! load a commit serves many requests, and a request waits for one commit, not for its place in a queue of commits.

use std::{
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
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

/// Every so many commits go to the thread whoever is free: it moves the log into the file and drops the past, both of
/// which may wait for the disk.
const SHARE_OF_THREAD: u64 = 256;

/// The way to the file. The thread ends when this is dropped and everything sent is written.
pub(super) struct Writer {
    own: Mutex<Own>,
    /// Tasks sent to the thread and not written yet; nobody overtakes them.
    waiting: Arc<AtomicUsize>,
    tasks: Option<Sender<Task>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The connection of whoever finds it free.
struct Own {
    connection: Connection,
    commits: u64,
}

impl Writer {
    /// `connection` is the thread's; `own` must neither wait for others nor move the log into the file.
    pub(super) fn start(
        connection: Connection,
        own: Connection,
        retention_days: u32,
    ) -> Result<Self, String> {
        let (tasks, sent) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let thread = thread::Builder::new()
            .name("usage".into())
            .spawn({
                let waiting = Arc::clone(&waiting);
                move || write(connection, (&sent, &waiting), retention_days)
            })
            .map_err(|error| format!("no thread for the usage file: {error}"))?;
        let own = Mutex::new(Own { connection: own, commits: 0 });
        Ok(Self { own, waiting, tasks: Some(tasks), thread: Some(thread) })
    }

    /// Does `work` and waits until it is on disk. An error is in the log already.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ()> {
        let (done, outcome) = oneshot::channel();
        let task: Task = Box::new(move |db| {
            let value = work(db)?;
            Ok(Box::new(move || drop(done.send(value))))
        });
        if let Some(task) = self.write_here(task) {
            self.send(task);
        }
        outcome.await.map_err(drop)
    }

    /// Writes at once, or hands the task back because somebody else is writing.
    fn write_here(&self, task: Task) -> Option<Task> {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return Some(task);
        }
        let mut own = match self.own.try_lock() {
            Ok(own) => own,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Some(task),
        };
        own.commits += 1;
        if own.commits.is_multiple_of(SHARE_OF_THREAD) {
            return Some(task);
        }
        // Fails at once when another connection writes, of this process or of another.
        let Ok(transaction) = own.connection.transaction_with_behavior(TransactionBehavior::Immediate) else {
            return Some(task);
        };
        let written = task(&transaction).and_then(|answer| transaction.commit().map(|()| answer));
        match written {
            Ok(answer) => answer(),
            Err(error) => tracing::error!(%error, "an entry of the usage file could not be written"),
        }
        None
    }

    /// Does `work` some time soon.
    pub(super) fn run_later(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static) {
        self.send(Box::new(move |db| work(db).map(|()| Box::new(|| ()) as Answer)));
    }

    fn send(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            self.waiting.fetch_add(1, Ordering::AcqRel);
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

fn write(mut connection: Connection, (sent, waiting): (&Receiver<Task>, &AtomicUsize), retention_days: u32) {
    let mut swept = None;
    while let Ok(first) = sent.recv() {
        let mut batch = vec![first];
        batch.extend(sent.try_iter().take(BATCH - 1));
        let count = batch.len();
        let now = Timestamp::now();
        let due = swept.is_none_or(|last: Timestamp| now.duration_since(last).unsigned_abs() > SWEEP_EVERY);
        let written = commit(&mut connection, batch, due.then_some((now, retention_days)));
        waiting.fetch_sub(count, Ordering::AcqRel);
        match written {
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
