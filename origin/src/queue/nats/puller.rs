//! Pulls frames of shard queues. A place where a consumer stands is kept until it asks for what follows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_shared::version::{Position, QueueId, ShardId};
use parking_lot::Mutex;

use super::heads::{self, ShardHead, source_of};
use super::reader::{Reader, Stored};
use super::shard_streams::ShardStreams;
use crate::queue::{Pulled, QueueError, Runtime};

pub struct Puller {
    streams: Arc<ShardStreams>,
    runtime: Runtime,
    message_max: usize,
    /// Places of consumers that are not being served right now, newest first.
    places: Mutex<BTreeMap<ShardId, VecDeque<Place>>>,
}

/// Where a consumer stands.
struct Place {
    reader: Reader,
    /// Position of what was given last.
    after: Position,
    /// What was read and not given yet, oldest first.
    read: VecDeque<Frame>,
    /// Messages behind those, when the last of them was read.
    pending: u64,
    /// Of event queues: events in their frames up to the last that was read.
    totals: BTreeMap<QueueId, u64>,
}

struct Frame {
    position: Position,
    events: u64,
    bytes: Bytes,
}

/// Places kept for one shard: its consumers in this process, and those that ask it over HTTP.
const PLACES_MAX: usize = 4;

impl Puller {
    pub fn new(streams: Arc<ShardStreams>, runtime: Runtime, message_max: usize) -> Puller {
        Puller { streams, runtime, message_max, places: Mutex::default() }
    }

    /// See [`ShardQueues::pull`](crate::queue::ShardQueues::pull).
    pub async fn pull(
        &self,
        shard: ShardId,
        after: Position,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Pulled, QueueError> {
        let mut place = match self.kept(shard, after) {
            Some(place) => place,
            None => self.place(shard, after).await?,
        };
        if place.read.is_empty() {
            if self.runtime.is_ending() && !wait.is_zero() {
                return Err(QueueError::Closed);
            }
            let read = tokio::select! {
                read = place.reader.read(after, max_bytes, wait) => read?,
                () = self.runtime.ended(), if !wait.is_zero() => return Err(QueueError::Closed),
            };
            if !place.add(read)? {
                let trimmed = self.streams.record(shard).await?.trimmed;
                return Err(gap(shard, after, trimmed));
            }
        }
        let pulled = self.give(shard, &mut place, max_bytes).await?;
        self.keep(shard, place);
        Ok(pulled)
    }

    /// Looks whether what follows `after` is all there.
    async fn place(&self, shard: ShardId, after: Position) -> Result<Place, QueueError> {
        let last = self.streams.extent(shard).await?.last;
        if after > last {
            return Err(QueueError::Ahead { shard, after, last });
        }
        let trimmed = self.streams.record(shard).await?.trimmed;
        if after < trimmed {
            return Err(QueueError::Trimmed { shard, after, trimmed });
        }
        let reader = Reader::new(self.streams.stream(shard).await?, self.message_max);
        Ok(Place { reader, after, read: VecDeque::new(), pending: 0, totals: BTreeMap::new() })
    }

    fn kept(&self, shard: ShardId, after: Position) -> Option<Place> {
        let mut places = self.places.lock();
        let of_shard = places.get_mut(&shard)?;
        let index = of_shard.iter().position(|place| place.after == after)?;
        of_shard.remove(index)
    }

    fn keep(&self, shard: ShardId, place: Place) {
        let mut places = self.places.lock();
        let of_shard = places.entry(shard).or_default();
        of_shard.push_front(place);
        of_shard.truncate(PLACES_MAX);
    }

    async fn give(&self, shard: ShardId, place: &mut Place, max_bytes: usize) -> Result<Pulled, QueueError> {
        let mut frames: Vec<(Position, Bytes)> = Vec::new();
        let (mut bytes, mut events) = (0, 0);
        let fits = |frame: &mut Frame| frames_fit(bytes, frame.bytes.len(), max_bytes);
        let mut next = place.read.pop_front_if(fits);
        while let Some(frame) = next {
            bytes += frame.bytes.len();
            events += frame.events;
            place.after = frame.position;
            frames.push((frame.position, frame.bytes));
            next = place.read.pop_front_if(|frame| frames_fit(bytes, frame.bytes.len(), max_bytes));
        }
        let Some((given, _)) = frames.last() else {
            return Ok(Pulled { last: place.after, ..Pulled::default() });
        };
        let read_to = place.read.back().map_or(*given, |frame| frame.position);
        let buffered: u64 = place.read.iter().map(|frame| frame.events).sum();
        let behind = match place.pending {
            0 => 0,
            _ => self.streams.events_behind(shard, read_to, &place.totals).await?,
        };
        Ok(Pulled { frames, last: read_to + place.pending, events_after: events + buffered + behind })
    }
}

impl Place {
    /// Takes over what was read; false if it does not follow without a gap.
    fn add(&mut self, read: Vec<Stored>) -> Result<bool, QueueError> {
        for (expected, stored) in (self.after + 1..).zip(read) {
            if stored.sequence != expected {
                return Ok(false);
            }
            let head: ShardHead = heads::decode(stored.head.as_deref())?;
            if let Some(queue) = source_of(&stored.subject) {
                self.totals.insert(queue, head.total);
            }
            self.pending = stored.pending;
            self.read.push_back(Frame { position: expected, events: head.events, bytes: stored.payload });
        }
        Ok(true)
    }
}

/// One frame at least.
fn frames_fit(bytes: usize, more: usize, max_bytes: usize) -> bool {
    bytes == 0 || bytes + more <= max_bytes
}

fn gap(shard: ShardId, after: Position, trimmed: Position) -> QueueError {
    if after < trimmed {
        return QueueError::Trimmed { shard, after, trimmed };
    }
    let problem = format!(
        "shard queue {shard} has a gap behind {after}: somebody deleted messages of its stream; delete the shard's file \
         and replay"
    );
    QueueError::Failed { problem }
}
