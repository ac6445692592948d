//! Results of stages. Each is written once: who comes second is told where the document stands.

use deadpool_postgres::Transaction;

use super::{For, PostgresJobs, change::settle, place};
use crate::{
    ChunkSpan, DocumentState, End, JobError, Put, Reason, TaskId, Vectors,
    jobs::code::{self, stage_number, state_number},
};

/// What keeps a row of a job that nobody can see from being changed.
const STARTED: &str = "EXISTS (SELECT 1 FROM embeddery.jobs WHERE id = $1 AND status >= 0)";

pub(super) async fn put_chunks(
    store: &PostgresJobs,
    task: TaskId,
    chunks: Vec<ChunkSpan>,
) -> Result<Put, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    let (item, count) = (place(task.item)?, chunks.len() as i64);
    let write = tx
        .prepare_cached(&format!(
            "WITH moved AS (
                 UPDATE embeddery.job_documents SET state = 1, chunks = $3, touched_at = embeddery.now_ms()
                 WHERE job = $1 AND item = $2 AND state = 0 AND {STARTED} RETURNING 1),
             started AS (
                 UPDATE embeddery.jobs SET status = 1, started_at = embeddery.now_ms()
                 WHERE id = $1 AND status = 0 AND EXISTS (SELECT 1 FROM moved))
             UPDATE embeddery.job_contents SET spans = $4
             WHERE job = $1 AND item = $2 AND EXISTS (SELECT 1 FROM moved)"
        ))
        .await?;
    let written = tx.execute(&write, &[&task.job.0, &item, &count, &code::spans(&chunks)]).await?;
    done(tx, task, written).await
}

pub(super) async fn put_vectors(
    store: &PostgresJobs,
    task: TaskId,
    vectors: Vectors,
) -> Result<Put, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    let item = place(task.item)?;
    let write = tx
        .prepare_cached(&format!(
            "WITH moved AS (
                 UPDATE embeddery.job_documents SET state = 2, touched_at = embeddery.now_ms()
                 WHERE job = $1 AND item = $2 AND state = 1 AND {STARTED} RETURNING 1)
             UPDATE embeddery.job_contents SET vectors_head = $3, vectors = $4
             WHERE job = $1 AND item = $2 AND EXISTS (SELECT 1 FROM moved)"
        ))
        .await?;
    let (head, data) = (code::vectors_head(&vectors), code::vectors_data(&vectors));
    let written = tx.execute(&write, &[&task.job.0, &item, &head, &data]).await?;
    done(tx, task, written).await
}

pub(super) async fn finish(store: &PostgresJobs, task: TaskId, end: End) -> Result<Put, JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    let item = place(task.item)?;
    let (state, chunks, failure) = match &end {
        End::Stored { chunks, .. } => (DocumentState::Stored, Some(*chunks as i64), None),
        End::Failed { stage, reason } => (DocumentState::Failed, None, Some((*stage, reason))),
        End::Skipped => (DocumentState::Skipped, None, None),
    };
    let state = state_number(state) as i16;
    let stage = failure.map(|(stage, _)| stage_number(stage) as i16);
    let (code, message) =
        (failure.map(|(_, reason)| &*reason.code), failure.map(|(_, reason)| &reason.message));
    let write = tx
        .prepare_cached(&format!(
            "UPDATE embeddery.job_documents SET state = $3, chunks = coalesce($4, chunks), failed_at = $5, code = $6,
                 message = $7, attempts = attempts + ($5::smallint IS NOT NULL)::int, touched_at = embeddery.now_ms()
             WHERE job = $1 AND item = $2 AND state < 3 AND {STARTED}"
        ))
        .await?;
    let written = tx.execute(&write, &[&task.job.0, &item, &state, &chunks, &stage, &code, &message]).await?;
    if written == 1 {
        let begin = tx
            .prepare_cached(
                "UPDATE embeddery.jobs SET status = 1, started_at = embeddery.now_ms() WHERE id = $1 AND status = 0",
            )
            .await?;
        tx.execute(&begin, &[&task.job.0]).await?;
        if failure.is_none() {
            let drop =
                tx.prepare_cached("DELETE FROM embeddery.job_contents WHERE job = $1 AND item = $2").await?;
            tx.execute(&drop, &[&task.job.0, &item]).await?;
        }
    }
    let put = done(tx, task, written).await?;
    if put == Put::Written {
        // After the commit: of two that finish the last two documents, the later one sees both. Should this process
        // die here, whoever looks at the job or sweeps ends it.
        settle(store, &mut client, task.job).await?;
    }
    Ok(put)
}

pub(super) async fn note_attempt(
    store: &PostgresJobs,
    task: TaskId,
    reason: &Reason,
) -> Result<(), JobError> {
    let mut client = store.client().await?;
    let tx = store.begin(&mut client, For::All).await?;
    let note = tx
        .prepare_cached(
            "UPDATE embeddery.job_documents
             SET code = $3, message = $4, attempts = attempts + 1, touched_at = embeddery.now_ms()
             WHERE job = $1 AND item = $2 AND state < 3",
        )
        .await?;
    tx.execute(&note, &[&task.job.0, &place(task.item)?, &&*reason.code, &reason.message]).await?;
    Ok(tx.commit().await?)
}

/// What became of a result.
async fn done(tx: Transaction<'_>, task: TaskId, written: u64) -> Result<Put, JobError> {
    if written == 1 {
        tx.commit().await?;
        return Ok(Put::Written);
    }
    let look = tx
        .prepare_cached(&format!(
            "SELECT state FROM embeddery.job_documents WHERE job = $1 AND item = $2 AND {STARTED}"
        ))
        .await?;
    match tx.query_opt(&look, &[&task.job.0, &place(task.item)?]).await? {
        Some(row) => Ok(Put::Already(code::state(row.get::<_, i16>(0).into())?)),
        None => Ok(Put::Gone),
    }
}
