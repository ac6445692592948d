//! What tests of several crates share. Dev only: no product crate depends on it outside its tests.

pub mod hub;
pub mod redis;
pub mod tiny;
pub mod vendors;
