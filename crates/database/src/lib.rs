//! Connections to the two databases that several parts of the service share.
//!
//! - [`redis`] connects to a single server, a Cluster or the master that Sentinels name, with or without TLS. The
//!   queue, the rate limits and the persistent cache use it. No other crate opens a connection to Redis.
//! - [`sqlite`] opens a file, migrates it to the current schema, and commits the writes of many callers together. The
//!   ledger, the persistent cache, the jobs, the queue and the collections use it.
//!
//! Nothing here knows what is stored.

pub mod redis;
pub mod sqlite;
