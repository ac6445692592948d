//! Files and their writer: what is opened, what is refused, and what several processes and callers do at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use embeddery_database::sqlite::{
    Durability, GroupCommitWriter, InlineCommits, Layout, Maintenance, OpenError, OpenOptions, Synchronous,
    WriterError, open, open_for_inline_commits, open_reader,
};
use rusqlite::Connection;

const OPTIONS: OpenOptions = OpenOptions {
    busy_timeout: Duration::from_secs(10),
    synchronous: Synchronous::Normal,
    layout: Layout::SmallRows,
    statement_cache: 16,
};

const MIGRATIONS: &[&str] = &["CREATE TABLE number (n INTEGER NOT NULL);", "INSERT INTO number VALUES (1);"];

fn numbers(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM number", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_new_file_is_private_and_has_the_current_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state").join("file.db");
    let connection = open(&path, MIGRATIONS, &OPTIONS).unwrap();
    assert_eq!(numbers(&connection), 1);
    for name in ["file.db", "file.db-wal", "file.db-shm"] {
        let mode = fs::metadata(path.with_file_name(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(journal, "wal");
    let large = OpenOptions { layout: Layout::LargeRows, synchronous: Synchronous::Full, ..OPTIONS };
    let connection = open(&dir.path().join("large.db"), MIGRATIONS, &large).unwrap();
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((pragma("page_size"), pragma("auto_vacuum"), pragma("synchronous")), (8192, 2, 2));
}

#[test]
fn an_older_file_is_migrated_and_a_newer_one_is_refused_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.db");
    drop(open(&path, &MIGRATIONS[..1], &OPTIONS).unwrap());
    assert_eq!(numbers(&open(&path, MIGRATIONS, &OPTIONS).unwrap()), 1, "the second script has run");
    assert_eq!(numbers(&open(&path, MIGRATIONS, &OPTIONS).unwrap()), 1, "it does not run twice");
    let refused = open(&path, &MIGRATIONS[..1], &OPTIONS).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 2, known: 1, .. }) && refused.is_newer());
    let text = refused.to_string();
    assert!(text.contains("file.db: is of schema 2, this version knows 1"), "{text}");
    assert_eq!(numbers(&open(&path, MIGRATIONS, &OPTIONS).unwrap()), 1);
}

#[test]
fn a_file_that_is_no_database_is_refused_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.db");
    let text = "this is no database, and long enough to be checked as one".repeat(40);
    fs::write(&path, &text).unwrap();
    assert!(open(&path, MIGRATIONS, &OPTIONS).unwrap_err().to_string().contains("move it away"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let blocked = path.join("below").join("file.db");
    assert!(open(&blocked, MIGRATIONS, &OPTIONS).unwrap_err().to_string().contains("cannot be written"));
}

#[test]
fn a_failed_migration_leaves_the_old_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.db");
    drop(open(&path, &MIGRATIONS[..1], &OPTIONS).unwrap());
    let broken = [MIGRATIONS[0], MIGRATIONS[1], "this is no SQL"];
    assert!(matches!(open(&path, &broken, &OPTIONS), Err(OpenError::Unusable { .. })));
    assert_eq!(numbers(&open(&path, &MIGRATIONS[..1], &OPTIONS).unwrap()), 0, "nothing was inserted");
}

#[test]
#[ignore = "the test below starts processes that run it in a directory of their own"]
fn a_process_that_opens_the_file() {
    if Path::new("processes").exists() {
        drop(open(Path::new("file.db"), MIGRATIONS, &OPTIONS).unwrap());
    }
}

#[test]
fn of_processes_that_start_at_once_one_migrates() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("processes"), "").unwrap();
        let mut processes: Vec<_> = (0..6)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--ignored", "--exact", "a_process_that_opens_the_file"])
                    .current_dir(dir.path())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        assert!(processes.iter_mut().all(|process| process.wait().unwrap().success()));
        let file = open(&dir.path().join("file.db"), MIGRATIONS, &OPTIONS).unwrap();
        assert_eq!(numbers(&file), 1, "each script has run once");
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

impl WriterError for Failure {
    const FILE: &'static str = "tests";

    fn rolled_back(message: String) -> Self {
        Self(message)
    }

    fn closed(message: String) -> Self {
        Self(message)
    }
}

fn insert(connection: &Connection) -> Result<(), Failure> {
    connection.execute("INSERT INTO number VALUES (2)", [])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_operation_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.db");
    let file = open(&path, MIGRATIONS, &OPTIONS).unwrap();
    let writer = Arc::new(GroupCommitWriter::<Failure>::start(file).unwrap());
    let mut tasks = Vec::new();
    for number in 0..200 {
        let writer = Arc::clone(&writer);
        tasks.push(tokio::spawn(async move {
            let durability = if number % 3 == 0 { Durability::Durable } else { Durability::Relaxed };
            let work = move |file: &Connection| {
                insert(file)?;
                if number % 5 == 0 { Err(Failure("refused".into())) } else { Ok(number) }
            };
            writer.run(durability, work).await
        }));
    }
    for (number, task) in tasks.into_iter().enumerate() {
        let expected = if number % 5 == 0 { Err(Failure("refused".into())) } else { Ok(number) };
        assert_eq!(task.await.unwrap(), expected);
    }
    assert_eq!(numbers(&open_reader(&path, &OPTIONS).unwrap()), 1 + 160);
}

#[tokio::test]
async fn all_that_is_read_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.db");
    let other = open(&path, MIGRATIONS, &OPTIONS).unwrap();
    let writer = GroupCommitWriter::<Failure>::start(open(&path, MIGRATIONS, &OPTIONS).unwrap()).unwrap();
    let read = move |file: &Connection| {
        let before = numbers(file);
        other.execute("INSERT INTO number VALUES (3)", [])?;
        Ok((before, numbers(file)))
    };
    assert_eq!(writer.run(Durability::ReadOnly, read).await.unwrap(), (1, 1));
    assert_eq!(writer.run(Durability::ReadOnly, |file| Ok(numbers(file))).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inline_commits_and_the_thread_lose_nothing_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.db");
    let file = open(&path, MIGRATIONS, &OPTIONS).unwrap();
    let inline = InlineCommits { connection: open_for_inline_commits(&path, &OPTIONS).unwrap() };
    let runs = Arc::new(AtomicUsize::new(0));
    let run = Box::new({
        let runs = Arc::clone(&runs);
        move |_: &Connection| {
            runs.fetch_add(1, Relaxed);
            Ok(())
        }
    });
    let maintenance = Maintenance { interval: Duration::from_secs(3600), run };
    let writer =
        Arc::new(GroupCommitWriter::<Failure>::start_with(file, Some(inline), Some(maintenance)).unwrap());
    let here = std::thread::current().id();
    let name = move |_: &Connection| Ok(std::thread::current().id() == here);
    assert!(writer.run(Durability::Relaxed, name).await.unwrap(), "the free file is written here");
    assert!(!writer.run(Durability::Durable, name).await.unwrap(), "the thread writes what must be durable");
    let refused = writer.run(Durability::Relaxed, |file| {
        insert(file)?;
        Err::<(), _>(Failure("refused".into()))
    });
    assert_eq!(refused.await, Err(Failure("refused".into())), "and is rolled back");
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let writer = Arc::clone(&writer);
        tasks.push(tokio::spawn(async move {
            for _ in 0..200 {
                writer.run(Durability::Relaxed, insert).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    writer.run_later(Durability::Relaxed, insert);
    drop(Arc::into_inner(writer));
    assert_eq!(numbers(&open_reader(&path, &OPTIONS).unwrap()), 1 + 800 + 1);
    assert_eq!(runs.load(Relaxed), 1, "maintenance runs once in its interval");
}
