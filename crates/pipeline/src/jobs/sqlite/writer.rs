//! The one thread that writes the jobs' file.

use embeddery_database::sqlite::{GroupCommitWriter, WriterError};

use crate::JobError;

pub(super) use embeddery_database::sqlite::Durability;

pub(super) type Writer = GroupCommitWriter<JobError>;

impl WriterError for JobError {
    const FILE: &'static str = "jobs";

    fn rolled_back(message: String) -> Self {
        Self::Full(message)
    }

    fn closed(message: String) -> Self {
        Self::Unavailable(message)
    }
}
