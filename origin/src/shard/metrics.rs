//! Numbers that a shard tells about itself.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use millpond_shared::version::ShardId;

use super::prepare::Unapplied;

/// The metrics of all shards of a process.
#[derive(Clone)]
pub struct ShardMetrics {
    lag: IntGaugeVec,
    uncommitted: IntGaugeVec,
    outbox: IntGaugeVec,
    position: IntGaugeVec,
    committed: IntGaugeVec,
    documents: IntGaugeVec,
    bytes: IntGaugeVec,
    dropped: IntCounterVec,
    read: IntCounterVec,
    applied: IntCounterVec,
    unapplied: IntCounterVec,
    dead_dropped: IntCounterVec,
    told: IntCounterVec,
    merged: IntCounterVec,
    flush_seconds: HistogramVec,
    apply_seconds: HistogramVec,
    hold_seconds: HistogramVec,
    renders: IntCounterVec,
}

/// The metrics of one shard.
pub struct OneShard {
    pub lag: IntGauge,
    pub uncommitted: IntGauge,
    pub outbox: IntGauge,
    pub position: IntGauge,
    pub committed: IntGauge,
    pub documents: IntGauge,
    pub bytes: IntGauge,
    pub dropped: IntCounter,
    pub read: IntCounter,
    pub applied: IntCounter,
    unapplied: [IntCounter; Unapplied::ALL.len()],
    pub dead_dropped: IntCounter,
    pub told: IntCounter,
    pub merged: IntCounter,
    pub flush_seconds: Histogram,
    pub apply_seconds: Histogram,
    pub hold_seconds: Histogram,
    pub rendered: IntCounter,
    pub memoised: IntCounter,
}

/// Upper bounds of durations, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl ShardMetrics {
    pub fn register(registry: &Registry) -> Result<ShardMetrics, prometheus::Error> {
        let gauge = |name: &str, help: &str| add(registry, IntGaugeVec::new(Opts::new(name, help), &["shard"])?);
        let counter =
            |name: &str, help: &str, labels: &[&str]| add(registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let seconds = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            add(registry, HistogramVec::new(options, &["shard"])?)
        };
        Ok(ShardMetrics {
            lag: gauge("millpond_shard_lag_events", "Events in the shard queue that are not applied yet.")?,
            uncommitted: gauge("millpond_shard_uncommitted_events", "Events that are applied and not on disk yet.")?,
            outbox: gauge("millpond_shard_outbox_documents", "Documents that are to be sent to another database.")?,
            position: gauge("millpond_shard_version", "Position in the shard queue that is applied.")?,
            committed: gauge("millpond_shard_committed", "Position in the shard queue that is on disk.")?,
            documents: gauge("millpond_shard_documents", "Documents in memory.")?,
            bytes: gauge("millpond_shard_memory_bytes", "What the documents in memory take of it.")?,
            dropped: counter(
                "millpond_shard_dropped_documents_total",
                "Documents dropped from memory to make room; the file holds them.",
                &["shard"],
            )?,
            read: counter(
                "millpond_shard_read_documents_total",
                "Documents read from the file because they were not in memory.",
                &["shard"],
            )?,
            applied: counter(
                "millpond_shard_applied_events_total",
                "Events applied; one filed for two documents counts twice.",
                &["shard"],
            )?,
            unapplied: counter(
                "millpond_shard_unapplied_events_total",
                "Events left out, by reason: repeated, unordered, damaged, undeclared.",
                &["shard", "reason"],
            )?,
            dead_dropped: counter(
                "millpond_shard_dead_letters_dropped_total",
                "Events that could not be applied and found no room among the dead letters.",
                &["shard"],
            )?,
            told: counter(
                "millpond_shard_told_events_total",
                "Events by which documents told documents of other keys.",
                &["shard"],
            )?,
            merged: counter(
                "millpond_shard_merged_documents_total",
                "Home feeds read that were merged with excerpts of great feeds.",
                &["shard"],
            )?,
            flush_seconds: seconds("millpond_shard_flush_seconds", "How long a commit took, in seconds.")?,
            apply_seconds: seconds(
                "millpond_shard_apply_seconds",
                "How long a pulled batch took until it was applied and announced, in seconds.",
            )?,
            hold_seconds: seconds(
                "millpond_shard_hold_seconds",
                "How long pulling was held back because too much was not committed or memory was full, in seconds.",
            )?,
            renders: counter("millpond_render_total", "Documents read: rendered, or memoised.", &["result"])?,
        })
    }

    pub(super) fn of(&self, shard: ShardId) -> OneShard {
        let shard = shard.to_string();
        OneShard {
            lag: self.lag.with_label_values(&[&shard]),
            uncommitted: self.uncommitted.with_label_values(&[&shard]),
            outbox: self.outbox.with_label_values(&[&shard]),
            position: self.position.with_label_values(&[&shard]),
            committed: self.committed.with_label_values(&[&shard]),
            documents: self.documents.with_label_values(&[&shard]),
            bytes: self.bytes.with_label_values(&[&shard]),
            dropped: self.dropped.with_label_values(&[&shard]),
            read: self.read.with_label_values(&[&shard]),
            applied: self.applied.with_label_values(&[&shard]),
            unapplied: Unapplied::ALL.map(|why| self.unapplied.with_label_values(&[shard.as_str(), why.as_str()])),
            dead_dropped: self.dead_dropped.with_label_values(&[&shard]),
            told: self.told.with_label_values(&[&shard]),
            merged: self.merged.with_label_values(&[&shard]),
            flush_seconds: self.flush_seconds.with_label_values(&[&shard]),
            apply_seconds: self.apply_seconds.with_label_values(&[&shard]),
            hold_seconds: self.hold_seconds.with_label_values(&[&shard]),
            rendered: self.renders.with_label_values(&["rendered"]),
            memoised: self.renders.with_label_values(&["memoised"]),
        }
    }
}

impl OneShard {
    pub(super) fn unapplied(&self, why: Unapplied) -> &IntCounter {
        let [repeated, unordered, damaged, undeclared] = &self.unapplied;
        match why {
            Unapplied::Repeated => repeated,
            Unapplied::Unordered => unordered,
            Unapplied::Damaged => damaged,
            Unapplied::Undeclared => undeclared,
        }
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
