//! Loads documents, and writes the results of stages, those of many documents in one statement. A result is written
//! once: a second writer gets the document's state.

use std::collections::{BTreeSet, HashMap, HashSet};

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{PostgresJobs, Scope, maintenance::settle, read, to_item};
use crate::{
    ChunkSpan, DocumentOutcome, JobError, JobId, JobOp, JobProgress, Loaded, RetryNote, TaskId, Vectors,
    WriteResult,
    jobs::codec::{self, EndColumns, stage_number, state_number},
};

impl JobProgress for PostgresJobs {
    fn load(&self, tasks: Vec<TaskId>) -> JobOp<'_, Vec<Loaded>> {
        Box::pin(read::load(self, tasks))
    }

    fn put_chunks(&self, results: Vec<(TaskId, Vec<ChunkSpan>)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(put_chunks(self, results))
    }

    fn put_vectors(&self, results: Vec<(TaskId, Vectors)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(put_vectors(self, results))
    }

    fn finish(&self, outcomes: Vec<(TaskId, DocumentOutcome)>) -> JobOp<'_, Vec<WriteResult>> {
        Box::pin(finish(self, outcomes))
    }

    fn record_retry(&self, notes: Vec<RetryNote>) -> JobOp<'_, ()> {
        Box::pin(record_retry(self, notes))
    }
}

/// Documents as two columns: their jobs, and their positions in them.
pub(super) struct Columns {
    pub(super) jobs: Vec<Uuid>,
    pub(super) items: Vec<i32>,
}

impl Columns {
    pub(super) fn from_tasks(tasks: impl Iterator<Item = TaskId>) -> Result<Self, JobError> {
        let (mut jobs, mut items) = (Vec::new(), Vec::new());
        for task in tasks {
            jobs.push(task.job.0);
            items.push(to_item(task.item)?);
        }
        Ok(Self { jobs, items })
    }
}

/// A job's first result changes its status to running. Rows are locked in the order of their ids, so that two
/// statements that change the same jobs do not deadlock.
const STARTED: &str = "
    started AS (
        UPDATE embeddery.jobs SET status = 1, started_at = embeddery.now_ms()
        WHERE status = 0 AND id IN (
            SELECT id FROM embeddery.jobs WHERE status = 0 AND id IN (SELECT job FROM moved) ORDER BY id FOR UPDATE))";

async fn put_chunks(
    store: &PostgresJobs,
    results: Vec<(TaskId, Vec<ChunkSpan>)>,
) -> Result<Vec<WriteResult>, JobError> {
    let counts: Vec<i64> = results.iter().map(|(_, chunks)| chunks.len() as i64).collect();
    let spans: Vec<String> = results.iter().map(|(_, chunks)| codec::spans(chunks)).collect();
    let statement = format!(
        "WITH sent AS (
             SELECT * FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[]) AS sent (job, item, count, spans)),
         moved AS (
             UPDATE embeddery.job_documents AS document
             SET state = 1, chunks = count, again_at = NULL, touched_at = embeddery.now_ms()
             FROM sent JOIN embeddery.jobs ON jobs.id = sent.job AND status >= 0
             WHERE document.job = sent.job AND document.item = sent.item AND state = 0
             RETURNING document.job, document.item, spans),
         {STARTED},
         kept AS (
             UPDATE embeddery.job_contents AS content SET spans = moved.spans FROM moved
             WHERE content.job = moved.job AND content.item = moved.item)
         SELECT job, item FROM moved"
    );
    let tasks: Vec<TaskId> = results.iter().map(|(task, _)| *task).collect();
    write(store, &tasks, &statement, &[&counts, &spans]).await
}

async fn put_vectors(
    store: &PostgresJobs,
    results: Vec<(TaskId, Vectors)>,
) -> Result<Vec<WriteResult>, JobError> {
    let heads: Vec<String> = results.iter().map(|(_, vectors)| codec::vectors_head(vectors)).collect();
    let data: Vec<Vec<u8>> = results.iter().map(|(_, vectors)| codec::vectors_data(vectors)).collect();
    let statement = "WITH sent AS (
             SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::bytea[]) AS sent (job, item, head, data)),
         moved AS (
             UPDATE embeddery.job_documents AS document
             SET state = 2, again_at = NULL, touched_at = embeddery.now_ms()
             FROM sent JOIN embeddery.jobs ON jobs.id = sent.job AND status >= 0
             WHERE document.job = sent.job AND document.item = sent.item AND state = 1
             RETURNING document.job, document.item, head, data),
         kept AS (
             UPDATE embeddery.job_contents AS content SET vectors_head = head, vectors = data FROM moved
             WHERE content.job = moved.job AND content.item = moved.item)
         SELECT job, item FROM moved";
    let tasks: Vec<TaskId> = results.iter().map(|(task, _)| *task).collect();
    write(store, &tasks, statement, &[&heads, &data]).await
}

async fn finish(
    store: &PostgresJobs,
    outcomes: Vec<(TaskId, DocumentOutcome)>,
) -> Result<Vec<WriteResult>, JobError> {
    let rows: Vec<EndColumns<'_>> =
        outcomes.iter().map(|(_, outcome)| EndColumns::from_outcome(outcome)).collect();
    let states: Vec<i16> = rows.iter().map(|row| state_number(row.state) as i16).collect();
    let chunks: Vec<Option<i64>> = rows.iter().map(|row| row.chunks.map(|chunks| chunks as i64)).collect();
    let stages: Vec<Option<i16>> =
        rows.iter().map(|row| row.failed.map(|(stage, _)| stage_number(stage) as i16)).collect();
    let since: Vec<Option<i64>> = rows
        .iter()
        .map(|row| row.failed.map(|(_, since)| i64::try_from(since).unwrap_or(i64::MAX)))
        .collect();
    let codes: Vec<Option<&str>> = rows.iter().map(|row| row.reason.map(|reason| &*reason.code)).collect();
    let messages: Vec<Option<&str>> =
        rows.iter().map(|row| row.reason.map(|reason| reason.message.as_str())).collect();
    let statement = format!(
        "WITH sent AS (
             SELECT * FROM unnest($1::uuid[], $2::int[], $3::smallint[], $4::bigint[], $5::smallint[], $6::bigint[],
                                  $7::text[], $8::text[])
                  AS sent (job, item, ended, count, stage, entered, why, words)),
         moved AS (
             UPDATE embeddery.job_documents AS document SET
                 state = ended, chunks = coalesce(count, chunks), failed_at = stage, code = why, message = words,
                 since = coalesce(entered, since), attempts = attempts + (stage IS NOT NULL)::int,
                 again_at = NULL, touched_at = embeddery.now_ms()
             FROM sent JOIN embeddery.jobs ON jobs.id = sent.job AND status >= 0
             WHERE document.job = sent.job AND document.item = sent.item AND state < 3
                   AND since <= coalesce(entered, since)
             RETURNING document.job, document.item, stage),
         {STARTED},
         dropped AS (
             DELETE FROM embeddery.job_contents AS content USING moved
             WHERE content.job = moved.job AND content.item = moved.item AND stage IS NULL)
         SELECT job, item FROM moved"
    );
    let tasks: Vec<TaskId> = outcomes.iter().map(|(task, _)| *task).collect();
    let columns: [&(dyn ToSql + Sync); 6] = [&states, &chunks, &stages, &since, &codes, &messages];
    let results = write(store, &tasks, &statement, &columns).await?;
    // The job ends in a transaction after the commit: of two workers that finish the last two documents, the later one
    // sees both. If this process crashes here, the next read of the job or `purge_expired` ends it.
    let written = tasks.iter().zip(&results).filter(|(_, result)| **result == WriteResult::Written);
    let jobs: BTreeSet<JobId> = written.map(|(task, _)| task.job).collect();
    if !jobs.is_empty() {
        let mut client = store.client().await?;
        for job in jobs {
            settle(store, &mut client, job).await?;
        }
    }
    Ok(results)
}

async fn record_retry(store: &PostgresJobs, notes: Vec<RetryNote>) -> Result<(), JobError> {
    let Columns { jobs, items } = Columns::from_tasks(notes.iter().map(|note| note.task))?;
    let codes: Vec<&str> = notes.iter().map(|note| &*note.reason.code).collect();
    let messages: Vec<&str> = notes.iter().map(|note| note.reason.message.as_str()).collect();
    let charged: Vec<i32> = notes.iter().map(|note| i32::from(note.charged)).collect();
    let again: Vec<i64> = notes.iter().map(|note| note.retry_at_ms as i64).collect();
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let write = tx
        .prepare_cached(
            "UPDATE embeddery.job_documents AS document
             SET code = why, message = words, attempts = attempts + charged, again_at = at,
                 touched_at = embeddery.now_ms()
             FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::int[], $6::bigint[])
                  AS sent (job, item, why, words, charged, at)
             WHERE document.job = sent.job AND document.item = sent.item AND state < 3",
        )
        .await?;
    tx.execute(&write, &[&jobs, &items, &codes, &messages, &charged, &again]).await?;
    Ok(tx.commit().await?)
}

/// Writes results with a statement that returns the documents that it has written. The statement's first two parameters
/// are the documents, and `columns` are the others.
async fn write(
    store: &PostgresJobs,
    tasks: &[TaskId],
    statement: &str,
    columns: &[&(dyn ToSql + Sync)],
) -> Result<Vec<WriteResult>, JobError> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let sent = Columns::from_tasks(tasks.iter().copied())?;
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, Scope::All).await?;
    let write = tx.prepare_cached(statement).await?;
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&sent.jobs, &sent.items];
    parameters.extend(columns);
    let written: HashSet<TaskId> = tx.query(&write, &parameters).await?.iter().map(task).collect();
    let states = match written.len() == tasks.len() {
        true => HashMap::new(),
        false => states(&tx, &sent).await?,
    };
    tx.commit().await?;
    let result = |task: &TaskId| match (written.contains(task), states.get(task)) {
        (true, _) => Ok(WriteResult::Written),
        (false, Some(state)) => Ok(WriteResult::Already(codec::state(*state)?)),
        (false, None) => Ok(WriteResult::JobDeleted),
    };
    tasks.iter().map(result).collect()
}

/// The states of documents, if their jobs have started.
async fn states(tx: &Transaction<'_>, sent: &Columns) -> Result<HashMap<TaskId, i64>, JobError> {
    let select = tx
        .prepare_cached(
            "SELECT job, item, state FROM unnest($1::uuid[], $2::int[]) AS wanted (job, item)
             JOIN embeddery.job_documents USING (job, item) JOIN embeddery.jobs ON jobs.id = job
             WHERE status >= 0",
        )
        .await?;
    let rows = tx.query(&select, &[&sent.jobs, &sent.items]).await?;
    Ok(rows.iter().map(|row| (task(row), row.get::<_, i16>(2).into())).collect())
}

/// The document in the first two columns of a row.
pub(super) fn task(row: &tokio_postgres::Row) -> TaskId {
    TaskId { job: JobId(row.get(0)), item: row.get::<_, i32>(1).unsigned_abs() }
}
