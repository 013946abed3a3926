//! Documents in other databases, where reports and billing are made: [`postgres`].
//!
//! A shard keeps a list of what it has yet to send in its own file (`store::outbox`) and sends it behind its commits
//! (`shard::outbox`). Whatever is repeated changes nothing: a row is only replaced by a later version.

pub mod postgres;

use async_trait::async_trait;
use millpond_shared::version::Version;
use prometheus::{IntCounterVec, Opts, Registry};

/// One document, as another database gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRow {
    pub projection: String,
    /// In plain text; percent-encoded where it holds a character that databases can't store.
    pub key: String,
    pub version: Version,
    /// The document as JSON.
    pub document: String,
}

/// Why rows were not written. They are tried again, all of them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DatabaseError(pub String);

/// Another database.
#[async_trait]
pub trait Database: Send + Sync {
    /// Writes each row whose version is later than what is there. A row that the database can't hold is left out, and
    /// told in the log and the metrics. When this returns, the others are durable there.
    async fn put(&self, rows: &[DatabaseRow]) -> Result<(), DatabaseError>;
}

/// What is counted, by database.
#[derive(Clone)]
pub struct DatabaseMetrics {
    rows: IntCounterVec,
    failures: IntCounterVec,
}

impl DatabaseMetrics {
    pub fn register(registry: &Registry) -> Result<DatabaseMetrics, prometheus::Error> {
        let rows = IntCounterVec::new(
            Opts::new(
                "millpond_database_rows_total",
                "Documents sent, by outcome: written, older (a later one was there), refused.",
            ),
            &["database", "outcome"],
        )?;
        let failures = IntCounterVec::new(
            Opts::new("millpond_database_failures_total", "Sendings that failed and are tried again."),
            &["database"],
        )?;
        registry.register(Box::new(rows.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        Ok(DatabaseMetrics { rows, failures })
    }
}
