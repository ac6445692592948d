//! SQLite files: how one is opened and migrated, connections that only read, and a writer that commits the writes of
//! many callers together. Several processes may use a file at the same time.

mod group_commit;
mod open;
mod readers;

pub use group_commit::{
    Durability, GroupCommitWriter, InlineCommits, Maintenance, MaintenanceWork, WriterError,
};
pub use open::{
    Layout, Migration, OpenError, OpenOptions, Synchronous, open, open_for_inline_commits, open_reader,
};
pub use readers::ReaderPool;
