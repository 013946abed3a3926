//! The shard map, in a bucket, changed by compare-and-set; and what a move needs of the streams.
//!
//! A dispatcher that has not heard of a change goes on with the map it knows. Where it would file an event of a slot that
//! moves, it is fenced out: with the giving and with the taking shard, each event queue's subject gets an empty frame that
//! carries the new version (see `filer`). How far the event queue was filed with either of them by then is where the giving
//! shard ends: rounds that were filed in a part of their shards are completed by the old map, all that comes behind them
//! waits. Without the fence at the taking shard, its mark could pass events that are then filed with it, and lose them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use millpond_shared::clock;
use millpond_shared::shard_map::{Final, MapRefused, MapState, Move, Stage};
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use millpond_shared::wire::ShardFrame;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::connection::{self, Connection, Published, unreachable};
use super::heads::{self, FORMAT, ShardHead};
use super::records::{FiledRecord, MAP_KEY, Records, Revised, filed_key};
use super::shard_streams::ShardStreams;
use super::streams::Plan;
use crate::queue::limits::{GIVER_SILENCE, HANDOVER_BEHIND_MAX_BYTES};
use crate::queue::{HandedOver, MapChange, QueueError, Runtime};

/// The map of a pond.
pub struct Maps {
    pub plan: Plan,
    pub connection: Connection,
    pub state: Records,
    pub shards: Arc<ShardStreams>,
    pub runtime: Runtime,
    /// Sequence of what somebody else handed over last, and since when that is so.
    pub seen: Mutex<Option<(u64, Instant)>>,
}

/// How often it is looked whether the map has changed: while something moves, and else.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Attempts to change what others change too.
const ATTEMPTS: usize = 16;

impl Maps {
    /// See [`ShardMaps::map`](crate::queue::ShardMaps::map).
    pub async fn map(&self, after: u32, wait: Duration) -> Result<Option<MapState>, QueueError> {
        let began = clock::monotonic();
        loop {
            let found: Option<MapState> = self.read().await?.value;
            let pause =
                if found.as_ref().is_some_and(|state| state.moving.is_some()) { LOOK_EVERY.0 } else { LOOK_EVERY.1 };
            if found.as_ref().is_some_and(|state| state.version() > after) {
                return Ok(found);
            }
            let left = wait.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::select! {
                () = sleep(pause.min(left)) => {}
                () = self.runtime.ended() => return Err(QueueError::Closed),
            }
        }
    }

    /// See [`ShardMaps::change_map`](crate::queue::ShardMaps::change_map).
    pub async fn change(&self, change: MapChange) -> Result<MapState, QueueError> {
        for _ in 0..ATTEMPTS {
            let found = self.read().await?;
            let after = self.changed(found.value.as_ref(), &change).await?;
            if found.value.as_ref() == Some(&after) {
                return Ok(after);
            }
            if self.state.set(MAP_KEY, &after, found.revision).await?.is_some() {
                return Ok(after);
            }
        }
        Err(QueueError::Busy)
    }

    /// See [`ShardMaps::hand_over`](crate::queue::ShardMaps::hand_over).
    pub async fn hand_over(&self, handed: HandedOver) -> Result<Position, QueueError> {
        let HandedOver { epoch, after, bytes } = handed;
        let state = self.read().await?.value.ok_or_else(no_map)?;
        let shard = state.attempt(epoch)?.to;
        let (extent, trimmed) = (self.shards.extent(shard).await?, self.shards.record(shard).await?.trimmed);
        if extent.bytes > HANDOVER_BEHIND_MAX_BYTES && extent.last > trimmed {
            return Err(QueueError::ShardFull { shard });
        }
        if bytes.len() > self.connection.frame_max() {
            let problem = format!(
                "a document of {} bytes is larger than a message: raise max_payload of the NATS servers",
                bytes.len()
            );
            return Err(QueueError::Invalid { problem });
        }
        let subject = self.plan.handed_subject(shard);
        let fence = match after {
            Some(after) => after,
            None => self.behind_others(shard, &subject, epoch).await?,
        };
        let head = ShardHead { format: FORMAT, first: 0, last: 0, token: 0, map: epoch, events: 0, total: 0 };
        let length = bytes.len() as u64;
        match connection::publish(&self.connection, subject, fence, heads::encode(&head), bytes).await? {
            Published::At(position) => {
                self.shards.grew(shard, length);
                Ok(position)
            }
            Published::NoRoom => Err(QueueError::ShardFull { shard }),
            Published::Overtaken => Err(QueueError::Overtaken { shard }),
        }
    }

    /// Sequence of what was handed over to the shard last, unless another replica of the giving one is at it.
    async fn behind_others(&self, shard: ShardId, subject: &str, epoch: u32) -> Result<u64, QueueError> {
        let Some((sequence, head)) = self.shards.last_on(shard, subject).await? else { return Ok(0) };
        let is_same = self.seen.lock().is_some_and(|(seen, at)| seen == sequence && at.elapsed() >= GIVER_SILENCE);
        if head.map != epoch || is_same {
            return Ok(sequence);
        }
        let mut seen = self.seen.lock();
        if seen.is_none_or(|(seen, _)| seen != sequence) {
            *seen = Some((sequence, clock::monotonic()));
        }
        Err(QueueError::Overtaken { shard })
    }

    async fn read(&self) -> Result<Revised<MapState>, QueueError> {
        self.state.get(MAP_KEY).await
    }

    async fn changed(&self, before: Option<&MapState>, change: &MapChange) -> Result<MapState, QueueError> {
        let Some(state) = before else {
            return if let MapChange::First(first) = change { Ok(MapState::first(*first)) } else { Err(no_map()) };
        };
        Ok(match change {
            MapChange::First(first) => state.with_shards(*first)?,
            MapChange::Begin { slots, to } => {
                let begun = state.begin(slots.clone(), *to)?;
                self.committed(*to).await?.ok_or(QueueError::nobody_serves(*to))?;
                begun
            }
            MapChange::Hold { epoch, taken } => self.held(state, *epoch, *taken).await?,
            MapChange::LetGo { version } => state.let_go(*version)?,
            MapChange::Complete { epoch, since } => {
                let to = state.attempt(*epoch)?.to;
                let last = self.shards.last_on(to, &self.plan.handed_subject(to)).await?;
                if last.is_none_or(|(sequence, _)| sequence != *since) {
                    return Err(MapRefused::Over { epoch: *epoch }.into());
                }
                state.complete(*epoch, *since)?
            }
            MapChange::Stop => state.stop()?,
        })
    }

    /// One step: events are held; dispatchers that don't know of it are fenced out; what they had begun is filed.
    async fn held(&self, state: &MapState, epoch: u32, taken: Position) -> Result<MapState, QueueError> {
        let moving = state.attempt(epoch)?;
        match &moving.stage {
            Stage::Copying if self.committed(moving.to).await?.is_none_or(|committed| committed < taken) => {
                Err(QueueError::ShardFull { shard: moving.to })
            }
            Stage::Copying => Ok(state.hold(epoch, None)?),
            Stage::Held(None) => {
                let offsets = self.fence(moving, state.version()).await?;
                Ok(state.hold(epoch, Some(Final { offsets, position: None }))?)
            }
            Stage::Held(Some(Final { offsets, position: None })) => {
                for (queue, offset) in offsets {
                    let filed = self.state.get::<FiledRecord>(&filed_key(*queue)).await?.value.unwrap_or_default();
                    if filed.offset < *offset {
                        return Ok(state.clone());
                    }
                }
                // Who does not know how far it is filed would file these events again, with the taking shard by then.
                let passing =
                    offsets.iter().map(|(queue, offset)| self.fence_one(moving.to, *queue, state.version(), *offset));
                try_join_all(passing).await?;
                let position = Some(self.shards.extent(moving.from).await?.last);
                Ok(state.hold(epoch, Some(Final { offsets: offsets.clone(), position }))?)
            }
            Stage::Held(Some(_)) => Ok(state.clone()),
        }
    }

    /// What any consumer of a shard queue has committed; `None` if it has none.
    async fn committed(&self, shard: ShardId) -> Result<Option<Position>, QueueError> {
        Ok(self.shards.record(shard).await?.consumers.into_values().max())
    }

    /// Fences out who routes by an older map; how far each event queue is filed with either shard.
    async fn fence(&self, moving: &Move, version: u32) -> Result<Vec<(QueueId, Offset)>, QueueError> {
        // A process that has more event queues makes their streams first, and then asks for the map.
        let prefix = self.plan.events_prefix();
        let names: Vec<String> = self.connection.jetstream.stream_names().try_collect().await.map_err(unreachable)?;
        let queues = names.iter().filter_map(|name| name.strip_prefix(&prefix)?.parse::<QueueId>().ok());
        let fencing = queues.map(|queue| async move {
            let ends = [moving.from, moving.to].map(|shard| self.fence_one(shard, queue, version, 0));
            let last = try_join_all(ends).await?.into_iter().max().unwrap_or(0);
            Ok::<_, QueueError>((queue, last))
        });
        Ok(try_join_all(fencing).await?.into_iter().filter(|(_, last)| *last > 0).collect())
    }

    /// The last offset that was filed before the fence, or `least`: nothing up to there is filed with the shard any more.
    async fn fence_one(&self, shard: ShardId, queue: QueueId, map: u32, least: Offset) -> Result<Offset, QueueError> {
        let subject = self.plan.shard_subject(shard, queue);
        for _ in 0..ATTEMPTS {
            let found = self.shards.last_of(shard, queue).await?;
            let (sequence, last, token, total) = match &found {
                Some((_, head)) if head.map >= map && head.last >= least => return Ok(head.last),
                Some((sequence, head)) => (*sequence, head.last, head.token, head.total),
                None => (0, 0, 0, 0),
            };
            let last = last.max(least);
            let first = last + 1;
            let frame = ShardFrame {
                queue,
                first,
                last,
                epoch: token,
                map_version: map,
                projections: Vec::new(),
                events: Vec::new(),
            };
            let head = ShardHead { format: FORMAT, first, last, token, map, events: 0, total };
            let bytes = Bytes::from(frame.encode());
            match connection::publish(&self.connection, subject.clone(), sequence, heads::encode(&head), bytes).await? {
                Published::At(_) => return Ok(last),
                Published::Overtaken => {}
                Published::NoRoom => return Err(QueueError::ShardFull { shard }),
            }
        }
        Err(QueueError::Busy)
    }
}

fn no_map() -> QueueError {
    QueueError::Map { problem: "there is none yet: start a dispatcher or a shard server first".to_owned() }
}
