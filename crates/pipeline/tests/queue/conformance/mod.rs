//! The behaviour of every queue, by topic.

pub mod crashes;
pub mod dead_letters;
pub mod fairness;
pub mod leases;
pub mod stages;
pub mod tasks;
