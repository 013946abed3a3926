//! What the queue role counts.

use std::collections::BTreeMap;

use millpond_shared::version::{QueueId, ShardId};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Status;

/// What the writers count.
#[derive(Clone)]
pub struct QueueMetrics {
    ids_forgotten: IntCounterVec,
}

/// Gauges that are set when somebody asks for them, from the queues as they then stand.
pub(super) struct Gauges {
    status: Box<dyn Fn() -> Option<Status> + Send + Sync>,
    depth: IntGaugeVec,
    bytes: IntGaugeVec,
    oldest: IntGaugeVec,
    shard_depth: IntGaugeVec,
    shard_bytes: IntGaugeVec,
    dead: IntGaugeVec,
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
    /// How long ago each of them said so last, in ms. One that lives says it with every flush, changed or not.
    pub heard_ms_ago: BTreeMap<String, u64>,
}

impl QueueMetrics {
    pub fn register(registry: &Registry) -> Result<QueueMetrics, prometheus::Error> {
        let ids_forgotten = IntCounterVec::new(
            Opts::new("millpond_ids_forgotten_total", "Ids forgotten before their window ended, for want of room"),
            &["queue"],
        )?;
        registry.register(Box::new(ids_forgotten.clone()))?;
        Ok(QueueMetrics { ids_forgotten })
    }

    pub(super) fn ids_forgotten(&self, queue: QueueId, count: usize) {
        self.ids_forgotten.with_label_values(&[&queue.to_string()]).inc_by(count as u64);
    }
}

impl Gauges {
    /// `status` gives nothing once the queues are gone.
    pub fn register(
        registry: &Registry,
        status: impl Fn() -> Option<Status> + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        let gauge = |name: &str, help: &str, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]);
        registry.register(Box::new(Gauges {
            status: Box::new(status),
            depth: gauge("millpond_queue_depth", "Events of an event queue that were not filed yet", "queue")?,
            bytes: gauge("millpond_queue_bytes", "Bytes of an event queue that were not filed yet", "queue")?,
            oldest: gauge("millpond_queue_oldest_age_seconds", "Age of the oldest event not filed yet", "queue")?,
            shard_depth: gauge("millpond_shard_queue_depth", "Frames of a shard queue not trimmed yet", "shard")?,
            shard_bytes: gauge("millpond_shard_queue_bytes", "Bytes of a shard queue not trimmed yet", "shard")?,
            dead: IntGaugeVec::new(Opts::new("millpond_dead_letters", "Events that were laid aside"), &[])?,
        }))
    }

    fn all(&self) -> [&IntGaugeVec; 6] {
        [&self.depth, &self.bytes, &self.oldest, &self.shard_depth, &self.shard_bytes, &self.dead]
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.all().iter().flat_map(|gauge| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(status) = (self.status)() else { return Vec::new() };
        for queue in &status.event_queues {
            let label = queue.queue.to_string();
            set(&self.depth, &label, queue.last.saturating_sub(queue.filed));
            set(&self.bytes, &label, queue.bytes);
            set(&self.oldest, &label, queue.oldest_age_ms / 1000);
        }
        for queue in &status.shard_queues {
            let label = queue.shard.to_string();
            set(&self.shard_depth, &label, queue.last.saturating_sub(queue.trimmed));
            set(&self.shard_bytes, &label, queue.bytes);
        }
        self.dead.with_label_values::<&str>(&[]).set(i64::try_from(status.dead).unwrap_or(i64::MAX));
        self.all().iter().flat_map(|gauge| gauge.collect()).collect()
    }
}

fn set(gauge: &IntGaugeVec, label: &str, value: u64) {
    gauge.with_label_values(&[label]).set(i64::try_from(value).unwrap_or(i64::MAX));
}
