//! What the queue role counts.

use millpond_shared::version::{QueueId, ShardId};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// Metrics of the queue role.
#[derive(Clone)]
pub struct QueueMetrics {
    depth: IntGaugeVec,
    bytes: IntGaugeVec,
    oldest: IntGaugeVec,
    shard_depth: IntGaugeVec,
    shard_bytes: IntGaugeVec,
    ids_forgotten: IntCounterVec,
}

/// One event queue, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EventQueueStatus {
    pub queue: QueueId,
    /// The last offset that is on disk.
    pub last: u64,
    /// The last offset that was filed.
    pub filed: u64,
    /// Bytes of what was not filed.
    pub bytes: u64,
    /// Age of the oldest event that was not filed.
    pub oldest_age_ms: u64,
}

/// One shard queue, as it stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ShardQueueStatus {
    pub shard: ShardId,
    pub last: u64,
    pub trimmed: u64,
    pub bytes: u64,
    /// What each consumer has committed.
    pub consumers: Vec<(String, u64)>,
}

impl QueueMetrics {
    pub fn register(registry: &Registry) -> Result<QueueMetrics, prometheus::Error> {
        let gauge = |name: &str, help: &str, label: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let ids_forgotten = IntCounterVec::new(
            Opts::new("millpond_ids_forgotten_total", "Ids forgotten before their window ended, for want of room"),
            &["queue"],
        )?;
        registry.register(Box::new(ids_forgotten.clone()))?;
        Ok(QueueMetrics {
            depth: gauge("millpond_queue_depth", "Events of an event queue that were not filed yet", "queue")?,
            bytes: gauge("millpond_queue_bytes", "Bytes of the same", "queue")?,
            oldest: gauge("millpond_queue_oldest_age_seconds", "Age of the oldest of the same", "queue")?,
            shard_depth: gauge("millpond_shard_queue_depth", "Frames of a shard queue not trimmed yet", "shard")?,
            shard_bytes: gauge("millpond_shard_queue_bytes", "Bytes of the same", "shard")?,
            ids_forgotten,
        })
    }

    pub(super) fn ids_forgotten(&self, queue: QueueId, count: usize) {
        self.ids_forgotten.with_label_values(&[&queue.to_string()]).inc_by(count as u64);
    }

    pub(super) fn event_queue(&self, status: &EventQueueStatus) {
        let queue = status.queue.to_string();
        set(&self.depth, &queue, status.last.saturating_sub(status.filed));
        set(&self.bytes, &queue, status.bytes);
        set(&self.oldest, &queue, status.oldest_age_ms / 1000);
    }

    pub(super) fn shard_queue(&self, status: &ShardQueueStatus) {
        let shard = status.shard.to_string();
        set(&self.shard_depth, &shard, status.last.saturating_sub(status.trimmed));
        set(&self.shard_bytes, &shard, status.bytes);
    }
}

fn set(gauge: &IntGaugeVec, label: &str, value: u64) {
    gauge.with_label_values(&[label]).set(i64::try_from(value).unwrap_or(i64::MAX));
}
