//! The one thread of a process that writes a file of this crate. What waits while it commits goes into its next
//! transaction, so that under load one commit serves many, and each caller waits for a commit, not for its place in a
//! queue of commits.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

/// What callers of a file are told when something fails.
pub(crate) trait Failure: From<rusqlite::Error> + Clone + Send + 'static {
    /// The file, for people.
    const FILE: &'static str;
    /// Nothing was written: a full or broken disk took the whole transaction back.
    fn lost(message: String) -> Self;
    /// The file is closed.
    fn closed(message: String) -> Self;
}

/// Something to do, or to be told why it cannot be done. What it returns tells its caller the outcome, after the commit.
type Step<E> = Box<dyn FnOnce(Result<&Connection, E>) -> Answer<E> + Send>;
type Answer<E> = Box<dyn FnOnce(Result<(), E>) + Send>;

/// What must be on the disk when its caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// Also after a power cut: a caller far away was promised something.
    Promised,
    /// After the end of the process; a power cut only makes something be done again.
    Repeatable,
    /// Nothing: it only reads.
    Nothing,
}

/// Most steps in one transaction: one that waits for the lock does not wait for more than these.
const BATCH: usize = 256;

/// The way to the file. The thread ends when this is dropped and everything sent is written.
pub(crate) struct Writer<E> {
    steps: Option<Sender<(Lasting, Step<E>)>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<E: Failure> Writer<E> {
    pub(crate) fn start(connection: Connection) -> Result<Self, String> {
        let (steps, sent) = mpsc::channel();
        let thread = thread::Builder::new().name(E::FILE.into()).spawn(move || work(connection, &sent));
        let thread = thread.map_err(|error| format!("no thread for the file of the {}: {error}", E::FILE))?;
        Ok(Self { steps: Some(steps), thread: Some(thread) })
    }

    /// Does `work` and waits until it is written: all of it or nothing, whatever becomes of the others in its
    /// transaction.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        lasting: Lasting,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (done, outcome) = oneshot::channel();
        let step: Step<E> = Box::new(move |file| {
            let worked = file.and_then(|file| match lasting {
                Lasting::Nothing => look(file, work),
                _ => run_alone(file, work),
            });
            // A failure of its own comes before the commit's, which is everybody's.
            Box::new(move |committed| drop(done.send(worked.and_then(|value| committed.map(|()| value)))))
        });
        let closed = || E::closed(format!("the file of the {} is closed; the server stops", E::FILE));
        self.steps.as_ref().ok_or_else(closed)?.send((lasting, step)).map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }
}

impl<E> Drop for Writer<E> {
    fn drop(&mut self) {
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All that is read is of one moment, whatever others write meanwhile.
fn look<T, E: Failure>(file: &Connection, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
    let moment = file.unchecked_transaction()?;
    let found = work(&moment)?;
    moment.commit()?;
    Ok(found)
}

fn run_alone<T, E: Failure>(
    file: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let does = |what: &str| file.prepare_cached(what)?.execute([]).map(drop);
    does("SAVEPOINT step")?;
    let worked = work(file);
    let undone = if worked.is_err() { does("ROLLBACK TO step") } else { Ok(()) };
    let ended = undone.and_then(|()| does("RELEASE step"));
    // Why it failed comes before what could not be undone any more: a full disk may have taken all back already.
    worked.and_then(|value| ended.map(|()| value).map_err(E::from))
}

fn work<E: Failure>(mut file: Connection, sent: &Receiver<(Lasting, Step<E>)>) {
    let mut synchronous = None;
    while let Ok(first) = sent.recv() {
        let (mut steps, mut promised) = (Vec::new(), false);
        for (lasting, step) in std::iter::once(first).chain(sent.try_iter().take(BATCH - 1)) {
            match lasting {
                Lasting::Nothing => step(Ok(&file))(Ok(())),
                _ => steps.push(step),
            }
            promised |= lasting == Lasting::Promised;
        }
        if steps.is_empty() {
            continue;
        }
        let mut answers = Vec::with_capacity(steps.len());
        let begun = set_synchronous(&file, promised, &mut synchronous)
            .and_then(|()| file.transaction_with_behavior(TransactionBehavior::Immediate));
        let committed = match begun {
            Ok(transaction) => commit(transaction, steps, &mut answers),
            Err(error) => {
                let error = E::from(error);
                answers.extend(steps.into_iter().map(|step| step(Err(error.clone()))));
                Err(error)
            }
        };
        // Only now: who is told, is told of something that is on disk.
        answers.into_iter().for_each(|answer| answer(committed.clone()));
    }
}

fn set_synchronous(file: &Connection, full: bool, now: &mut Option<bool>) -> rusqlite::Result<()> {
    if *now != Some(full) {
        file.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
        *now = Some(full);
    }
    Ok(())
}

fn commit<E: Failure>(
    transaction: Transaction<'_>,
    steps: Vec<Step<E>>,
    answers: &mut Vec<Answer<E>>,
) -> Result<(), E> {
    let mut lost: Option<E> = None;
    for step in steps {
        if let Some(error) = &lost {
            answers.push(step(Err(error.clone())));
            continue;
        }
        answers.push(step(Ok(&transaction)));
        // What came next would stand alone.
        if transaction.is_autocommit() {
            let message = format!("the disk of the {} is full or broken; nothing was written", E::FILE);
            tracing::error!("{message}");
            lost = Some(E::lost(message));
        }
    }
    match lost {
        Some(error) => Err(error),
        None => transaction.commit().map_err(|error| {
            tracing::error!(%error, "the file of the {} could not be written", E::FILE);
            error.into()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QueueError;

    #[tokio::test]
    async fn what_is_read_is_of_one_moment() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Connection::open(dir.path().join("file.db")).unwrap();
        let other = open();
        other
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE number (n); INSERT INTO number VALUES (1)",
            )
            .unwrap();
        let writer = Writer::<QueueError>::start(open()).unwrap();
        let read = move |file: &Connection| {
            let number = || file.query_row("SELECT n FROM number", [], |row| row.get::<_, i64>(0));
            let before = number()?;
            other.execute("UPDATE number SET n = n + 1", [])?;
            Ok((before, number()?))
        };
        assert_eq!(writer.run(Lasting::Nothing, read).await.unwrap(), (1, 1));
        let after =
            |file: &Connection| Ok(file.query_row("SELECT n FROM number", [], |row| row.get::<_, i64>(0))?);
        assert_eq!(writer.run(Lasting::Nothing, after).await.unwrap(), 2);
    }
}
