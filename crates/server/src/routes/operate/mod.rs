//! What operators see of the pipeline and do to it, at the paths of the replaced service.

pub(super) mod dlq;
pub(super) mod stage;
pub(super) mod summary;
