//! A source as it is served: what is declared, how fast it may send, what is counted of it.

use std::sync::Arc;

use millpond_shared::clock;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::bucket::Bucket;
use super::report::Report;
use super::source::Source;

/// Where the requests of one source come in.
pub struct Door {
    pub source: Arc<Source>,
    bucket: Option<Bucket>,
    counters: Counters,
}

/// `millpond_events_total{source, outcome}`, of one source.
struct Counters {
    accepted: IntCounter,
    duplicate: IntCounter,
    rejected: IntCounter,
    refused: IntCounter,
    lost: IntCounter,
}

/// Makes the doors of all sources, and their metric.
pub fn doors(sources: Vec<Source>, registry: &Registry) -> Result<Vec<Door>, prometheus::Error> {
    let events = IntCounterVec::new(
        Opts::new("millpond_events_total", "Events that producers sent, by what became of them"),
        &["source", "outcome"],
    )?;
    registry.register(Box::new(events.clone()))?;
    let door = |source: Source| {
        let counter = |outcome| events.with_label_values(&[source.name.as_str(), outcome]);
        let counters = Counters {
            accepted: counter("accepted"),
            duplicate: counter("duplicate"),
            rejected: counter("rejected"),
            refused: counter("refused"),
            lost: counter("lost"),
        };
        let bucket = source.rate.map(|rate| Bucket::new(rate, clock::coarse_ms()));
        Door { source: Arc::new(source), bucket, counters }
    };
    Ok(sources.into_iter().map(door).collect())
}

impl Door {
    /// Whether a request may come in now; else how long until one may.
    pub fn admit(&self) -> Result<(), std::time::Duration> {
        self.bucket.as_ref().map_or(Ok(()), |bucket| bucket.admit(clock::coarse_ms()))
    }

    /// Counts so many events against the rate of the source.
    pub fn charge(&self, events: usize) {
        if let Some(bucket) = &self.bucket {
            bucket.take(events, clock::coarse_ms());
        }
    }

    /// Counts what became of a batch.
    pub fn count(&self, report: &Report) {
        let refused = report.refused_count();
        self.counters.accepted.inc_by(report.accepted as u64);
        self.counters.duplicate.inc_by(report.duplicates as u64);
        self.counters.rejected.inc_by((report.rejected.len() - refused) as u64);
        self.counters.refused.inc_by(refused as u64);
    }

    /// Counts a batch that was answered for before it was stored.
    pub fn count_late(&self, report: &Report) {
        self.count(report);
        self.counters.lost.inc_by(report.refused_count() as u64);
    }

    #[cfg(test)]
    pub fn counted(&self, outcome: &str) -> u64 {
        let Counters { accepted, duplicate, rejected, refused, lost } = &self.counters;
        match outcome {
            "accepted" => accepted.get(),
            "duplicate" => duplicate.get(),
            "rejected" => rejected.get(),
            "refused" => refused.get(),
            _ => lost.get(),
        }
    }
}
