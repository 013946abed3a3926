//! The streams of the shard queues: where each ends, what its consumers have committed, and how much room it has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use millpond_shared::clock;
use millpond_shared::shard_map::SHARDS_MAX;
use millpond_shared::version::{Position, QueueId, ShardId};
use parking_lot::Mutex;

use super::connection::{Connection, unreachable};
use super::heads::{self, HEADER, ShardHead};
use super::records::{Records, ShardRecord, shard_key};
use super::streams::{self, Plan};
use crate::queue::limits::CONSUMERS_MAX;
use crate::queue::shard_queues::{no_shard, too_many_consumers, valid_name};
use crate::queue::{QueueError, ShardQueueStatus};

pub struct ShardStreams {
    plan: Plan,
    connection: Connection,
    state: Records,
    event_queues: u16,
    open: tokio::sync::Mutex<BTreeMap<ShardId, Stream>>,
    sizes: Mutex<BTreeMap<ShardId, Size>>,
    /// By shard and event queue: everything before this sequence was purged.
    purged: Mutex<BTreeMap<(ShardId, QueueId), u64>>,
}

/// Where a stream ended when it was last looked at, and what was added since.
#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    asked: Instant,
}

/// A stream as it stands.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub last: Position,
    pub bytes: u64,
}

/// How long the size of a stream is believed; what this process adds meanwhile is counted.
const SIZE_TIME: Duration = Duration::from_millis(200);
/// What the server stores with a frame, about.
const FRAME_OVERHEAD: u64 = 256;
/// Attempts to change a record that others change too.
const ATTEMPTS: usize = 16;

impl ShardStreams {
    pub fn new(plan: Plan, connection: Connection, state: Records, event_queues: u16) -> ShardStreams {
        ShardStreams {
            plan,
            connection,
            state,
            event_queues,
            open: tokio::sync::Mutex::default(),
            sizes: Mutex::default(),
            purged: Mutex::default(),
        }
    }

    /// The stream of a shard, made when it is first needed.
    pub async fn stream(&self, shard: ShardId) -> Result<Stream, QueueError> {
        if shard >= SHARDS_MAX {
            return Err(no_shard(shard));
        }
        let mut open = self.open.lock().await;
        if let Some(stream) = open.get(&shard) {
            return Ok(stream.clone());
        }
        let made = streams::stream(&self.connection, self.plan.shard_config(shard)).await;
        let stream = made.map_err(|error| QueueError::Unreachable { problem: error.to_string() })?;
        open.insert(shard, stream.clone());
        Ok(stream)
    }

    pub async fn extent(&self, shard: ShardId) -> Result<Extent, QueueError> {
        let mut stream = self.stream(shard).await?;
        let state = &stream.info().await.map_err(unreachable)?.state;
        let extent = Extent { last: state.last_sequence, bytes: state.bytes };
        self.sizes.lock().insert(shard, Size { bytes: extent.bytes, asked: clock::monotonic() });
        Ok(extent)
    }

    /// Whether a frame of so many bytes may be added. An empty queue takes a frame of any size.
    pub async fn room(&self, shard: ShardId, more: u64) -> Result<(), QueueError> {
        let limit = self.plan.limits.shard_depth_max_bytes;
        let known = self.sizes.lock().get(&shard).copied().filter(|size| size.asked.elapsed() < SIZE_TIME);
        if known.is_some_and(|size| size.bytes + more <= limit) {
            return Ok(());
        }
        let extent = self.extent(shard).await?;
        if extent.bytes + more <= limit || extent.last <= self.record(shard).await?.trimmed {
            return Ok(());
        }
        Err(QueueError::ShardFull { shard })
    }

    /// A frame was added by this process.
    pub fn grew(&self, shard: ShardId, bytes: u64) {
        if let Some(size) = self.sizes.lock().get_mut(&shard) {
            size.bytes += bytes + FRAME_OVERHEAD;
        }
    }

    /// The last frame of an event queue in a shard queue: its sequence and head.
    pub async fn last_of(&self, shard: ShardId, queue: QueueId) -> Result<Option<(u64, ShardHead)>, QueueError> {
        let stream = self.stream(shard).await?;
        match stream.get_last_raw_message_by_subject(&self.plan.shard_subject(shard, queue)).await {
            Ok(message) => {
                let head = message.headers.get(HEADER).map(|value| value.as_str());
                Ok(Some((message.sequence, heads::decode(head)?)))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }

    /// Events behind a position. `totals`: of event queues, how many events were in their frames up to there.
    pub async fn events_behind(
        &self,
        shard: ShardId,
        after: Position,
        totals: &BTreeMap<QueueId, u64>,
    ) -> Result<u64, QueueError> {
        let counting = (0..self.event_queues).map(|queue| async move {
            match self.last_of(shard, queue).await? {
                Some((sequence, last)) if sequence > after => {
                    let before = match totals.get(&queue) {
                        Some(total) => *total,
                        None => self.total_before(shard, queue, after).await?,
                    };
                    Ok(last.total.saturating_sub(before))
                }
                _ => Ok(0),
            }
        });
        Ok(try_join_all(counting).await?.into_iter().sum())
    }

    /// Events of an event queue in its frames up to `after`.
    async fn total_before(&self, shard: ShardId, queue: QueueId, after: Position) -> Result<u64, QueueError> {
        let stream = self.stream(shard).await?;
        let subject = self.plan.shard_subject(shard, queue);
        match stream.get_first_raw_message_by_subject(subject, after + 1).await {
            Ok(message) => {
                let head: ShardHead = heads::decode(message.headers.get(HEADER).map(|value| value.as_str()))?;
                Ok(head.total.saturating_sub(head.events))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(unreachable(error)),
        }
    }

    pub async fn record(&self, shard: ShardId) -> Result<ShardRecord, QueueError> {
        Ok(self.state.get(&shard_key(shard)).await?.value.unwrap_or_default())
    }

    /// See [`ShardQueues::committed`](crate::queue::ShardQueues::committed).
    pub async fn committed(
        &self,
        shard: ShardId,
        consumer: &str,
        position: Position,
        now_ms: u64,
    ) -> Result<(), QueueError> {
        valid_name(consumer)?;
        let last = self.extent(shard).await?.last;
        if position > last {
            return Err(QueueError::Ahead { shard, after: position, last });
        }
        let change = |record: &mut ShardRecord| {
            if !record.consumers.contains_key(consumer) && record.consumers.len() >= CONSUMERS_MAX {
                return Err(too_many_consumers(shard));
            }
            record.consumers.insert(consumer.to_owned(), position);
            record.heard_ms.insert(consumer.to_owned(), now_ms);
            Ok(())
        };
        self.change(shard, change).await
    }

    pub async fn remove_consumer(&self, shard: ShardId, consumer: &str) -> Result<bool, QueueError> {
        if shard >= SHARDS_MAX || !self.record(shard).await?.consumers.contains_key(consumer) {
            return Ok(false);
        }
        let mut was_there = false;
        let change = |record: &mut ShardRecord| {
            was_there = record.consumers.remove(consumer).is_some();
            record.heard_ms.remove(consumer);
            Ok(())
        };
        self.change(shard, change).await?;
        Ok(was_there)
    }

    /// Changes the record, and purges what all consumers have passed.
    async fn change(
        &self,
        shard: ShardId,
        mut change: impl FnMut(&mut ShardRecord) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        for _ in 0..ATTEMPTS {
            let found = self.state.get::<ShardRecord>(&shard_key(shard)).await?;
            let mut record = found.value.unwrap_or_default();
            change(&mut record)?;
            let passed = record.consumers.values().min().copied().unwrap_or_default();
            record.trimmed = record.trimmed.max(passed);
            // What is purged is written down first: a consumer that comes later must be told.
            if self.state.set(&shard_key(shard), &record, found.revision).await?.is_some() {
                return self.purge(shard, record.trimmed).await;
            }
        }
        Err(QueueError::Busy)
    }

    /// Purges every frame up to `trimmed` but the last of each event queue.
    async fn purge(&self, shard: ShardId, trimmed: Position) -> Result<(), QueueError> {
        let stream = self.stream(shard).await?;
        let purging = (0..self.event_queues).map(|queue| {
            let stream = stream.clone();
            async move {
                let Some((last, _)) = self.last_of(shard, queue).await? else { return Ok(()) };
                let before = last.min(trimmed + 1);
                if self.purged.lock().get(&(shard, queue)).is_some_and(|purged| *purged >= before) {
                    return Ok(());
                }
                let subject = self.plan.shard_subject(shard, queue);
                stream.purge().sequence(before).filter(subject).await.map_err(unreachable)?;
                self.purged.lock().insert((shard, queue), before);
                Ok(())
            }
        });
        try_join_all(purging).await.map(drop)
    }

    /// All shard queues that there are, as they stand.
    pub async fn status(&self, now_ms: u64) -> Result<Vec<ShardQueueStatus>, QueueError> {
        let prefix = self.plan.shard_prefix();
        let names: Vec<String> = self.connection.jetstream.stream_names().try_collect().await.map_err(unreachable)?;
        let mut shards: Vec<ShardId> =
            names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect();
        shards.sort_unstable();
        let asking = shards.into_iter().map(|shard| async move {
            let (extent, record) = (self.extent(shard).await?, self.record(shard).await?);
            let (last, trimmed) = (extent.last, record.trimmed.min(extent.last));
            // The last frame of each event queue stays.
            let bytes = if last > trimmed { extent.bytes } else { 0 };
            let heard = record.heard_ms.into_iter();
            let heard_ms_ago = heard.map(|(name, heard_ms)| (name, now_ms.saturating_sub(heard_ms))).collect();
            let consumers = record.consumers.into_iter().collect();
            Ok(ShardQueueStatus { shard, last, trimmed, bytes, consumers, heard_ms_ago })
        });
        try_join_all(asking).await
    }
}
