//! Files: the only place that opens redb.
//!
//! `open` creates or opens a file and checks its format; the others hold the tables of one kind of file each. Of a shard's,
//! `shard_opening` is what is checked when it is opened, `outbox` what is still to be sent to another database, and
//! `shard_copy` how it gets to another process. `forgetful` (tests) is a disk that loses what was not synced.

pub mod dead_letters;
pub mod event_queue_file;
#[cfg(test)]
pub mod forgetful;
pub mod open;
pub mod outbox;
pub mod shard_copy;
pub mod shard_file;
mod shard_opening;
pub mod shard_queue_file;

pub use open::{Place, STORE_FORMAT, begin, open, rename_synced};

/// What went wrong with a redb file.
///
/// After a failed commit the outcome is unknown: whoever gets this from a write must stop, reopen the file and trust
/// the position found there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{file}: can't be opened: {problem}; {fix}")]
    Open { file: String, problem: String, fix: &'static str },
    #[error("{file}: has format `{found}`, this program knows {STORE_FORMAT}: run the version that wrote it")]
    Format { file: String, found: String },
    #[error("{file}: holds a `{found}`, not a `{kind}`: give every role its own `dir`")]
    Kind { file: String, found: String, kind: String },
    #[error("{file}: {problem}")]
    Damaged { file: String, problem: String },
    #[error("the store failed: {0}")]
    Failed(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        StoreError::Failed(error.into())
    }
}
