//! Group commit: one thread of a process writes a file. The writes that arrive during a commit go into the next
//! transaction. Under load one commit serves many callers, and a caller waits for one commit and not for a queue of
//! them.
//!
//! With [`InlineCommits`] a caller that finds the file free commits on its own thread, which takes less time than the way
//! to the writer's thread and back.

use std::{
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

/// The error that callers of a writer get.
pub trait WriterError: From<rusqlite::Error> + Clone + Send + 'static {
    /// What the file holds, for messages: `jobs`.
    const FILE: &'static str;
    /// Nothing of a transaction was written, because the disk is full or broken.
    fn rolled_back(message: String) -> Self;
    /// The writer has stopped.
    fn closed(message: String) -> Self;
}

/// What must be on the disk when the caller gets its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The write outlives a power cut.
    Durable,
    /// The write outlives the process. A power cut may lose it.
    Relaxed,
    /// Nothing: the operation only reads.
    ReadOnly,
}

/// Commits on the threads of the callers, all of them [`Durability::Relaxed`].
pub struct InlineCommits {
    /// A connection of [`super::open_for_inline_commits`].
    pub connection: Connection,
}

/// Periodic work, such as deleting what has expired. It runs at the start of a transaction of the writer's thread.
pub struct Maintenance {
    /// The minimum time between two runs.
    pub interval: Duration,
    /// The work. Its error is logged.
    pub run: MaintenanceWork,
}

/// The work of a [`Maintenance`].
pub type MaintenanceWork = Box<dyn Fn(&Connection) -> rusqlite::Result<()> + Send>;

/// Maximum operations in one transaction. It bounds how long another process waits for the lock.
const MAX_BATCH: usize = 256;

/// One of this many inline commits is sent to the thread, although the file is free. The thread checkpoints and runs the
/// maintenance, both of which may wait for the disk.
const CHECKPOINT_EVERY_COMMITS: u64 = 256;

/// An operation that was sent: it runs with access to the file, and returns how to send its result.
type Operation<E> = Box<dyn FnOnce(Access<'_, E>) -> Finished<E> + Send>;
type Reply<E> = Box<dyn FnOnce(Result<(), E>) + Send>;

/// How an operation reaches the file.
enum Access<'a, E> {
    /// A transaction with operations of other callers.
    Shared(&'a Connection),
    /// A transaction of its own, or none.
    Exclusive(&'a Connection),
    /// There is no transaction, for this reason.
    Failed(E),
}

struct Finished<E> {
    succeeded: bool,
    /// Sends the result, when the outcome of the commit is known.
    reply: Reply<E>,
}

/// The writer of a file. Its thread ends when the writer is dropped and everything sent is written.
pub struct GroupCommitWriter<E> {
    operations: Option<Sender<(Durability, Operation<E>)>>,
    /// Operations that were sent and are not written yet. An inline commit must not overtake them.
    pending: Arc<AtomicUsize>,
    inline: Option<Mutex<InlineConnection>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The connection of the caller that finds it free.
struct InlineConnection {
    connection: Connection,
    commits: u64,
}

impl<E: WriterError> GroupCommitWriter<E> {
    /// Starts the thread, which owns the connection.
    ///
    /// # Errors
    /// If there is no thread.
    pub fn start(connection: Connection) -> Result<Self, String> {
        Self::start_with(connection, None, None)
    }

    /// The same, with inline commits and maintenance.
    ///
    /// # Errors
    /// If there is no thread.
    pub fn start_with(
        connection: Connection,
        inline: Option<InlineCommits>,
        maintenance: Option<Maintenance>,
    ) -> Result<Self, String> {
        let (operations, sent) = mpsc::channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let writer = WriterThread { file: connection, sent, pending: Arc::clone(&pending), maintenance };
        let thread = thread::Builder::new().name(E::FILE.into()).spawn(move || writer.run());
        let thread = thread.map_err(|error| format!("no thread for the file of the {}: {error}", E::FILE))?;
        let inline = inline
            .map(|InlineCommits { connection }| Mutex::new(InlineConnection { connection, commits: 0 }));
        Ok(Self { operations: Some(operations), pending, inline, thread: Some(thread) })
    }

    /// Runs `work` and waits until it is committed: all of it or nothing, whatever happens to the other operations in its
    /// transaction.
    ///
    /// # Errors
    /// The error of `work`, or that of the commit.
    pub async fn run<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (done, result) = oneshot::channel();
        let operation = operation(durability, work, move |result| drop(done.send(result)));
        if let Some(operation) = self.try_inline_commit(durability, operation) {
            self.send(durability, operation)?;
        }
        result.await.map_err(|_| closed::<E>())?
    }

    /// Runs `work` some time soon, on the writer's thread. An error is logged.
    pub fn run_later(
        &self,
        durability: Durability,
        work: impl FnOnce(&Connection) -> Result<(), E> + Send + 'static,
    ) where
        E: std::fmt::Display,
    {
        let operation = operation(durability, work, |result: Result<(), E>| {
            if let Err(error) = result {
                tracing::error!(%error, file = E::FILE, "a write in the background failed");
            }
        });
        // The writer has stopped: so has the process.
        let _ = self.send(durability, operation);
    }

    fn send(&self, durability: Durability, operation: Operation<E>) -> Result<(), E> {
        let operations = self.operations.as_ref().ok_or_else(closed::<E>)?;
        self.pending.fetch_add(1, Ordering::AcqRel);
        operations.send((durability, operation)).map_err(|_| closed())
    }

    /// Commits on this thread if the file is free, or returns the operation.
    fn try_inline_commit(&self, durability: Durability, operation: Operation<E>) -> Option<Operation<E>> {
        let Some(inline) = self.inline.as_ref().filter(|_| durability == Durability::Relaxed) else {
            return Some(operation);
        };
        if self.pending.load(Ordering::Acquire) > 0 {
            return Some(operation);
        }
        let mut inline = match inline.try_lock() {
            Ok(inline) => inline,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Some(operation),
        };
        inline.commits += 1;
        if inline.commits.is_multiple_of(CHECKPOINT_EVERY_COMMITS) {
            return Some(operation);
        }
        // Fails at once if another connection writes, of this process or of another one.
        let begun = inline.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let Ok(transaction) = begun else { return Some(operation) };
        let finished = operation(Access::Exclusive(&transaction));
        let committed = if finished.succeeded { transaction.commit() } else { transaction.rollback() };
        (finished.reply)(committed.map_err(E::from));
        None
    }
}

impl<E> Drop for GroupCommitWriter<E> {
    fn drop(&mut self) {
        self.operations = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn closed<E: WriterError>() -> E {
    E::closed(format!("the file of the {} is closed; the server stops", E::FILE))
}

fn operation<T: Send + 'static, E: WriterError>(
    durability: Durability,
    work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    reply: impl FnOnce(Result<T, E>) + Send + 'static,
) -> Operation<E> {
    Box::new(move |access| {
        let result = match access {
            Access::Failed(error) => Err(error),
            Access::Shared(file) => in_savepoint(file, work),
            Access::Exclusive(file) if durability == Durability::ReadOnly => read_snapshot(file, work),
            Access::Exclusive(file) => work(file),
        };
        // An operation's own error takes precedence over the commit's, which all operations get.
        Finished {
            succeeded: result.is_ok(),
            reply: Box::new(move |committed| reply(result.and_then(|value| committed.map(|()| value)))),
        }
    })
}

/// Runs `work` in a transaction of its own: all that it reads is of the same moment, whatever others write.
fn read_snapshot<T, E: WriterError>(
    file: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let transaction = file.unchecked_transaction()?;
    let found = work(&transaction)?;
    transaction.commit()?;
    Ok(found)
}

/// Runs `work`; what it wrote is undone if it fails, without the writes of the operations before it.
fn in_savepoint<T, E: From<rusqlite::Error>>(
    file: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let execute = |statement: &str| file.prepare_cached(statement)?.execute([]).map(drop);
    execute("SAVEPOINT step")?;
    let result = work(file);
    let undone = if result.is_err() { execute("ROLLBACK TO step") } else { Ok(()) };
    let released = undone.and_then(|()| execute("RELEASE step"));
    // The operation's error takes precedence: a full disk may have rolled back everything already.
    result.and_then(|value| released.map(|()| value).map_err(E::from))
}

/// What the writer's thread owns.
struct WriterThread<E> {
    file: Connection,
    sent: Receiver<(Durability, Operation<E>)>,
    pending: Arc<AtomicUsize>,
    maintenance: Option<Maintenance>,
}

impl<E: WriterError> WriterThread<E> {
    fn run(mut self) {
        let (mut synchronous, mut maintained) = (None, None);
        while let Ok(first) = self.sent.recv() {
            let (mut operations, mut durable, mut count) = (Vec::new(), false, 0);
            for (durability, operation) in
                std::iter::once(first).chain(self.sent.try_iter().take(MAX_BATCH - 1))
            {
                count += 1;
                match durability {
                    Durability::ReadOnly => (operation(Access::Exclusive(&self.file)).reply)(Ok(())),
                    _ => operations.push(operation),
                }
                durable |= durability == Durability::Durable;
            }
            let mut replies = Vec::with_capacity(operations.len());
            let mut committed = Ok(());
            if !operations.is_empty() {
                let due = self.maintenance.as_ref().filter(|maintenance| {
                    maintained.is_none_or(|last: Instant| last.elapsed() > maintenance.interval)
                });
                maintained = due.map(|_| Instant::now()).or(maintained);
                let begun = set_synchronous(&self.file, durable, &mut synchronous)
                    .and_then(|()| self.file.transaction_with_behavior(TransactionBehavior::Immediate));
                committed = match begun {
                    Ok(transaction) => commit(transaction, due, operations, &mut replies),
                    Err(error) => {
                        let error = E::from(error);
                        let failed = |operation: Operation<E>| operation(Access::Failed(error.clone())).reply;
                        replies.extend(operations.into_iter().map(failed));
                        Err(error)
                    }
                };
            }
            self.pending.fetch_sub(count, Ordering::AcqRel);
            // A caller gets its result after the commit: it learns only of what is in the file.
            replies.into_iter().for_each(|reply| reply(committed.clone()));
        }
    }
}

fn set_synchronous(file: &Connection, full: bool, current: &mut Option<bool>) -> rusqlite::Result<()> {
    if *current != Some(full) {
        file.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
        *current = Some(full);
    }
    Ok(())
}

fn commit<E: WriterError>(
    transaction: Transaction<'_>,
    maintenance: Option<&Maintenance>,
    operations: Vec<Operation<E>>,
    replies: &mut Vec<Reply<E>>,
) -> Result<(), E> {
    if let Some(maintenance) = maintenance
        && let Err(error) = in_savepoint(&transaction, |file| (maintenance.run)(file))
    {
        tracing::error!(%error, file = E::FILE, "maintenance failed");
    }
    let mut failed = rolled_back(&transaction);
    for operation in operations {
        let access = match &failed {
            Some(error) => Access::Failed(E::clone(error)),
            None => Access::Shared(&transaction),
        };
        replies.push(operation(access).reply);
        // What comes after a rollback would be committed on its own.
        failed = failed.or_else(|| rolled_back(&transaction));
    }
    match failed {
        Some(error) => Err(error),
        None => transaction.commit().map_err(|error| {
            tracing::error!(%error, file = E::FILE, "a transaction could not be committed");
            error.into()
        }),
    }
}

/// The error of a transaction that SQLite has rolled back by itself.
fn rolled_back<E: WriterError>(transaction: &Transaction<'_>) -> Option<E> {
    transaction.is_autocommit().then(|| {
        let message = format!("the disk of the {} is full or broken; nothing was written", E::FILE);
        tracing::error!("{message}");
        E::rolled_back(message)
    })
}
