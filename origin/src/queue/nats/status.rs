//! The queues on NATS as they stand.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use futures_util::future::try_join_all;
use millpond_shared::version::{Offset, QueueId};

use super::connection::unreachable;
use super::heads::{self, EventHead, HEADER};
use super::reader::Reader;
use super::records::{FiledRecord, filed_key};
use super::{EventQueue, Parts};
use crate::queue::{EventQueueStatus, QueueError, Status, Taken};

impl Parts {
    pub async fn read_status(&self) -> Result<Status, QueueError> {
        let events = self.queues.iter().zip(0..).map(|(of, queue)| self.event_queue_status(queue, of));
        let (event_queues, shard_queues) =
            tokio::try_join!(try_join_all(events), self.shards.status(self.runtime.now_ms()))?;
        let dead = self.dead.count().await?;
        Ok(Status { event_queues, shard_queues, dead })
    }

    /// Events behind `after` that are still there.
    pub async fn peek(&self, stream: &Stream, after: Offset, max_events: usize) -> Result<Option<Taken>, QueueError> {
        let mut stream = stream.clone();
        let state = stream.info().await.map_err(unreachable)?.state.clone();
        let Some((sequence, _)) = first_behind(&stream, after, (state.first_sequence, state.last_sequence)).await?
        else {
            return Ok(None);
        };
        let mut reader = Reader::new(stream, self.connection.message_max);
        let (mut first, mut last, mut frames) = (0, after, Vec::new());
        for stored in reader.read(sequence.saturating_sub(1), PEEK_BYTES, Duration::ZERO).await? {
            let head = decoded(stored.head.as_deref())?;
            if frames.is_empty() {
                first = head.first.max(after + 1);
            }
            if last.saturating_sub(first) + 1 >= max_events as u64 && !frames.is_empty() {
                break;
            }
            last = head.last;
            frames.push(stored.payload);
        }
        let last = last.min(first.saturating_add(max_events as u64).saturating_sub(1));
        Ok((!frames.is_empty() && last >= first).then_some(Taken { first, last, frames }))
    }

    async fn event_queue_status(&self, queue: QueueId, of: &EventQueue) -> Result<EventQueueStatus, QueueError> {
        let record = self.state.get::<FiledRecord>(&filed_key(queue)).await?.value.unwrap_or_default();
        of.filed.fetch_max(record.offset, Ordering::AcqRel);
        let filed = of.filed.load(Ordering::Acquire);
        let mut stream = of.events.clone();
        let state = stream.info().await.map_err(unreachable)?.state.clone();
        let last = match stream.get_last_raw_message_by_subject(&self.plan.events_subject(queue)).await {
            Ok(message) => decoded(message.headers.get(HEADER).map(|value| value.as_str()))?.last,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => filed,
            Err(error) => return Err(unreachable(error)),
        };
        if last <= filed {
            // The last frame that was filed stays.
            return Ok(EventQueueStatus { queue, last, filed, bytes: 0, oldest_age_ms: 0 });
        }
        let oldest = first_behind(&stream, filed, (state.first_sequence, state.last_sequence)).await?;
        let oldest_age_ms = oldest.map_or(0, |(_, received)| self.runtime.now_ms().saturating_sub(received));
        Ok(EventQueueStatus { queue, last, filed, bytes: state.bytes, oldest_age_ms })
    }
}

/// Events that are looked at for one peek, in bytes.
const PEEK_BYTES: usize = 4 << 20;

/// The first frame with an event behind `filed`: its sequence, and when that was taken, in ms. Found by halving, as offsets
/// rise with sequences.
async fn first_behind(
    stream: &Stream,
    filed: Offset,
    (first, last): (u64, u64),
) -> Result<Option<(u64, u64)>, QueueError> {
    // An empty stream says 0 of both ends, and there is no message 0.
    let (mut from, mut to, mut found) = (first.max(1), last, None);
    while from <= to {
        let middle = from.midpoint(to);
        let head = match stream.get_raw_message(middle).await {
            Ok(message) => decoded(message.headers.get(HEADER).map(|value| value.as_str()))?,
            // It was purged meanwhile, and so is filed.
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                from = middle + 1;
                continue;
            }
            Err(error) => return Err(unreachable(error)),
        };
        if head.last > filed {
            found = Some((middle, head.received));
            to = middle.saturating_sub(1);
        } else {
            from = middle + 1;
        }
    }
    Ok(found)
}

fn decoded(head: Option<&str>) -> Result<EventHead, QueueError> {
    heads::decode(head)
}
