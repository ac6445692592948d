//! The one thread that writes the jobs' file.

use crate::{JobError, writer::Failure};

pub(super) use crate::writer::Lasting;

pub(super) type Writer = crate::writer::Writer<JobError>;

impl Failure for JobError {
    const FILE: &'static str = "jobs";

    fn lost(message: String) -> Self {
        Self::Full(message)
    }

    fn closed(message: String) -> Self {
        Self::Unavailable(message)
    }
}
