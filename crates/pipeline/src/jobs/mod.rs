//! The job store: jobs, their documents, and the results of each stage. One installation has one: SQLite in the state
//! directory, shared by the processes of one host, or PostgreSQL for several hosts.
//!
//! A document's row holds its state. A stage writes its result here first, then settles its lease. A crash between the
//! two repeats the stage, which finds the result and only settles. A job's counts are those of its documents' rows.

mod codec;
mod document;
mod error;
mod job;
mod metrics;
mod postgres;
mod results;
mod sqlite;
mod traits;

pub use document::{
    DocumentRow, DocumentState, Edit, Loaded, LoadedDocument, NewDocument, RetryNote, Unfinished,
};
pub use error::JobError;
pub use job::{Chunking, Job, JobSpec, NewJob, OpenResult, Page, Status};
pub use metrics::JobMetrics;
pub use postgres::PostgresJobs;
pub use results::{ChunkSpan, DocumentOutcome, Vectors, WriteResult};
pub use sqlite::{SqliteJobs, SqliteJobsConfig};
pub use traits::{JobAdmin, JobIntake, JobMaintenance, JobOp, JobProgress, JobReader, JobStore};
