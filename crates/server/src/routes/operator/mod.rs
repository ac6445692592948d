//! What operators see and change of the pipeline, at the paths of the replaced service.

pub(super) mod dead_letters;
pub(super) mod jobs;
pub(super) mod stages;
pub(super) mod summary;
