//! Filing one frame in the queue of a shard.
//!
//! What a shard has of an event queue is one subject, and each of its frames says up to which offset it goes: the mark.
//! A frame is published only if the last one is the one whose mark is known (the fence). Whoever files, files what is
//! above the mark, so that no subject has a gap or anything twice, however many believe that they hold the lease; a
//! round that was filed in a part of its shards, when its dispatcher died, is completed by the next one.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use millpond_shared::version::{Offset, QueueId, ShardId};
use millpond_shared::wire::ShardFrame;

use super::connection::{self, Connection, Published};
use super::heads::{self, FORMAT, ShardHead};
use super::leases::fenced;
use super::records::Records;
use super::shard_streams::ShardStreams;
use super::streams::Plan;
use crate::queue::ids::IdHasher;
use crate::queue::{Lease, QueueError, RoundFrame, Runtime};

/// Attempts to file a frame that ended without an answer, or with another's frame in between.
const ATTEMPTS: usize = 4;

/// An event queue, and what is needed to work on it, under whichever lease.
pub struct Shared {
    pub queue: QueueId,
    pub plan: Plan,
    pub connection: Connection,
    pub stream: Stream,
    pub state: Records,
    pub shards: Arc<ShardStreams>,
    pub hasher: IdHasher,
    pub runtime: Runtime,
    /// The last offset that this process knows to be filed.
    pub filed: Arc<AtomicU64>,
}

/// The last frame of a subject; all 0 where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    sequence: u64,
    last: Offset,
    token: u64,
    map: u32,
    total: u64,
}

impl Shared {
    /// Files one frame of a round, or what of it is above the mark of its shard; the new mark.
    pub(super) async fn file(
        &self,
        lease: Lease,
        map: u32,
        (first, last): (Offset, Offset),
        frame: RoundFrame,
        known: Option<Mark>,
    ) -> Result<Mark, QueueError> {
        let RoundFrame { shard, events, bytes } = frame;
        let subject = self.plan.shard_subject(shard, self.queue);
        let mut known = known;
        let mut failed = QueueError::Busy;
        for _ in 0..ATTEMPTS {
            let mark = match known.take() {
                Some(mark) => mark,
                None => self.mark(shard).await?,
            };
            if mark.token > lease.token {
                return Err(fenced(lease));
            }
            if mark.map > map {
                return Err(QueueError::MapChanged { version: mark.map });
            }
            let (events, bytes) = match above(mark.last, first, last, &bytes)? {
                Above::All => (events, bytes.clone()),
                Above::Some { events, bytes } => (events, bytes),
                Above::Nothing => return Ok(mark),
            };
            let total = mark.total + events;
            let head = ShardHead { format: FORMAT, first, last, token: lease.token, map, events, total };
            let length = bytes.len() as u64;
            match connection::publish(&self.connection, subject.clone(), mark.sequence, heads::encode(&head), bytes)
                .await
            {
                Ok(Published::At(sequence)) => {
                    self.shards.grew(shard, length);
                    return Ok(Mark { sequence, last, token: lease.token, map, total });
                }
                Ok(Published::NoRoom) => return Err(QueueError::ShardFull { shard }),
                Ok(Published::Overtaken) => {}
                // It may be stored all the same: the mark tells.
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn mark(&self, shard: ShardId) -> Result<Mark, QueueError> {
        let found = self.shards.last_of(shard, self.queue).await?;
        Ok(found.map_or_else(Mark::default, |(sequence, head)| Mark {
            sequence,
            last: head.last,
            token: head.token,
            map: head.map,
            total: head.total,
        }))
    }
}

/// What of a round's frame is above a mark.
#[derive(Debug, PartialEq, Eq)]
enum Above {
    All,
    Some { events: u64, bytes: Bytes },
    Nothing,
}

fn above(mark: Offset, first: Offset, last: Offset, bytes: &Bytes) -> Result<Above, QueueError> {
    if mark >= last {
        return Ok(Above::Nothing);
    }
    if mark < first {
        return Ok(Above::All);
    }
    let invalid = |problem: String| QueueError::Invalid { problem };
    let mut frame = ShardFrame::decode(bytes).map_err(|error| invalid(error.to_string()))?;
    frame.events.retain(|filed| filed.offset > mark);
    frame.first = mark + 1;
    if frame.events.is_empty() {
        return Ok(Above::Nothing);
    }
    Ok(Above::Some { events: frame.events.len() as u64, bytes: frame.encode().into() })
}
