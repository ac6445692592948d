//! What operators request and get, in the words of the replaced service.

pub(crate) mod dead_letters;
pub(crate) mod jobs;
pub(crate) mod stages;
pub(crate) mod summary;
