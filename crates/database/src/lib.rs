//! Connections to Redis and to SQLite files. PostgreSQL connections are in `store` and `pipeline`.
//!
//! - [`redis`] connects to a single server, a Cluster or the master that Sentinels name, with or without TLS. The
//!   queue, the rate limits and the persistent cache use it. No other crate opens a connection to Redis.
//! - [`sqlite`] opens a file, migrates it to the current schema, and commits the writes of many callers together. The
//!   ledger, the persistent cache, the jobs, the queue and the collections use it.
//!
//! This crate does not depend on the stored data.

pub mod redis;
pub mod sqlite;
