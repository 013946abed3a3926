//! The narrow doors of the queues. Behind each: the embedded queues, called directly, and a client of their wire.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_shared::event::Event;
use millpond_shared::shard_map::{FirstMap, MapRefused, MapState, Slots};
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use serde::{Deserialize, Serialize};

use super::{DeadKey, DeadLetter, DeadLetters, Status};

/// What ingest needs: to append.
#[async_trait]
pub trait EventQueues: Send + Sync {
    /// Number of event queues; they are numbered from 0.
    async fn count(&self) -> Result<u16, QueueError>;

    /// Whether any queue may have room, as far as is known without asking anybody: so that a producer is refused before
    /// it has sent a body in vain.
    fn have_room(&self) -> bool {
        true
    }

    /// Appends events of one source, in their order, and returns when all of them are on disk; one fate each.
    ///
    /// Ids seen within `window` are recognised; `None` if the ids are known to be new.
    async fn append(
        &self,
        queue: QueueId,
        window: Option<Duration>,
        events: Vec<Event<'static>>,
    ) -> Result<Vec<Fate>, QueueError>;
}

/// What became of an event that was to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is on disk.
    Stored { offset: Offset },
    /// An event with its source and id is on disk already, or is stored earlier in the same call.
    Duplicate,
    /// The queue is full: it was not stored.
    Full,
    /// It takes more bytes than one message of the queue's engine may have: it was not stored, and never can be.
    TooLarge,
}

/// What a dispatcher needs: a lease, events, and a way to file them.
#[async_trait]
pub trait DispatchQueues: DeadLetters {
    /// Number of event queues; they are numbered from 0.
    async fn count(&self) -> Result<u16, QueueError>;

    /// Most bytes that one frame of a round may have; a larger one is refused.
    fn frame_max_bytes(&self) -> usize {
        usize::MAX
    }

    /// Claims `queue` for `ttl`, counted from when this call began at the latest. [`QueueError::Held`] while another
    /// claim runs, whoever holds it.
    async fn acquire(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError>;

    /// Prolongs the claim to `ttl` from now. [`QueueError::Fenced`] if it has run out or was passed on.
    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<(), QueueError>;

    /// Gives the claim up, so that nobody has to wait for its end.
    async fn release(&self, lease: Lease) -> Result<(), QueueError>;

    /// The oldest events that were not filed yet, at most `max_events`; `None` if there is none within `wait`.
    ///
    /// Taking changes nothing: what was taken and not pushed is taken again.
    async fn take(&self, lease: Lease, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError>;

    /// Files a round: all its frames and the cursor in one transaction. Refused as a whole if the lease has run out
    /// or was passed on ([`QueueError::Fenced`]), if the round does not start right behind the cursor, or if the shard
    /// map has changed since it was routed ([`QueueError::MapChanged`]).
    async fn push(&self, lease: Lease, round: Round) -> Result<(), QueueError>;
}

/// An exclusive, time-limited claim on an event queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    pub queue: QueueId,
    /// Fencing token: rises with every claim of this queue.
    pub token: u64,
}

/// A run of events that are to be filed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub first: Offset,
    pub last: Offset,
    /// `EventFrame`s that together hold `first..=last`; the outer two may hold more.
    pub frames: Vec<Bytes>,
}

/// One round of a dispatcher: what the events `first..=last` of an event queue became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub first: Offset,
    pub last: Offset,
    /// Version of the shard map that it was routed by.
    pub map_version: u32,
    /// One for every shard concerned.
    pub frames: Vec<RoundFrame>,
}

/// The part of a round that concerns one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundFrame {
    pub shard: ShardId,
    /// How many events the frame has: the queue counts them and never reads it.
    pub events: u64,
    /// An encoded `ShardFrame`.
    pub bytes: Bytes,
}

/// What a shard needs: to pull, and to say what it has committed.
#[async_trait]
pub trait ShardQueues: DeadLetters {
    /// Frames after `after`, oldest first, at least one if there is any, at most about `max_bytes`; waits up to `wait`
    /// for the first.
    async fn pull(
        &self,
        shard: ShardId,
        after: Position,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Pulled, QueueError>;

    /// Where the queue ends now: whatever any consumer was ever given is at or below it.
    async fn newest(&self, shard: ShardId) -> Result<Position, QueueError>;

    /// `consumer` has committed everything up to `position`; what every consumer has passed may be trimmed.
    async fn committed(&self, shard: ShardId, consumer: &str, position: Position) -> Result<(), QueueError>;
}

/// The shard map, which is kept where the queues are, and what moves slots from one shard to another.
#[async_trait]
pub trait ShardMaps: Send + Sync {
    /// The map, once its version is above `after`; `None` if it is not within `wait`, or there is none yet.
    async fn map(&self, after: u32, wait: Duration) -> Result<Option<MapState>, QueueError>;

    /// Changes the map; the one that holds then. [`QueueError::Map`] if that can't be.
    async fn change_map(&self, change: MapChange) -> Result<MapState, QueueError>;

    /// Appends documents of the slots that move to the queue of the shard that takes them; their position there.
    ///
    /// Refused if the attempt is over ([`QueueError::Map`]), if somebody else has handed something over since
    /// ([`QueueError::Overtaken`]), or while the taking shard is too far behind ([`QueueError::ShardFull`]).
    async fn hand_over(&self, handed: HandedOver) -> Result<Position, QueueError>;
}

/// What a shard map can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum MapChange {
    /// What a configuration asks for: becomes the map where there is none, and can add shards to it.
    First(FirstMap),
    /// Begins to move slots.
    Begin { slots: Slots, to: ShardId },
    /// Holds events of the slots that move. To be repeated until it is known where the giving shard ends. Refused
    /// ([`QueueError::ShardFull`]) before the taking shard has committed its queue up to `taken`.
    Hold { epoch: u32, taken: Position },
    /// Lets them go again.
    LetGo { version: u32 },
    /// The last that was handed over is at `since`: the slots belong to the taking shard.
    Complete { epoch: u32, since: Position },
    /// Gives the move up.
    Stop,
}

/// What a shard hands over at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// The attempt.
    pub epoch: u32,
    /// Where the same giver handed over before; `None`: this is its first.
    pub after: Option<Position>,
    /// An encoded `Handover`.
    pub bytes: Bytes,
}

/// The whole queue role, whichever engine does its work: all doors, and what its operator needs.
#[async_trait]
pub trait QueueRole: EventQueues + DispatchQueues + ShardQueues + ShardMaps {
    /// Like [`DispatchQueues::acquire`], for a holder in another process: its claim outlives this one.
    async fn acquire_from_elsewhere(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError>;

    /// Forgets a consumer that is gone for good, so that its frames may be trimmed; whether there was one.
    async fn remove_consumer(&self, shard: ShardId, consumer: &str) -> Result<bool, QueueError>;

    /// The queues as they stand.
    async fn status(&self) -> Result<Status, QueueError>;

    /// Events behind `after`, at most `max_events`, without claiming their queue; `None` if there is none.
    async fn peek(&self, queue: QueueId, after: Offset, max_events: usize) -> Result<Option<Taken>, QueueError>;

    /// The first dead letters, at most `most`.
    async fn dead(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError>;

    /// One of them.
    async fn dead_letter(&self, key: DeadKey) -> Result<Option<DeadLetter>, QueueError>;

    /// Removes one; whether it was there.
    async fn unbury(&self, key: DeadKey) -> Result<bool, QueueError>;

    /// Resolves when the role has failed: it must then end and be started again.
    async fn failed(&self) -> QueueError;

    /// Ends all takes and pulls that wait, and those to come, so that the server of the role can drain. What is
    /// already there can still be appended, pushed and committed.
    fn end_waits(&self);

    /// Answers what is waiting, writes down what is left, and closes.
    async fn close(&self);
}

/// Frames of a shard queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    pub frames: Vec<(Position, Bytes)>,
    /// Newest position in the queue, whether or not it is among the frames.
    pub last: Position,
    /// Events after the position that was asked for: those of the frames, and those of the queue behind them.
    pub events_after: u64,
}

/// Why a queue did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum QueueError {
    #[error("there is no {what} {number}, only 0 to {last}: the roles disagree about how many there are")]
    NoQueue { what: String, number: u16, last: u16 },
    #[error(
        "shard queue {shard} was trimmed up to {trimmed}, so what follows {after} is gone: \
         start this consumer from a copy of a shard file that has committed {trimmed} or more"
    )]
    Trimmed { shard: ShardId, after: Position, trimmed: Position },
    #[error(
        "shard queue {shard} ends at {last}, before {after}: it lost data or is another queue's file; \
         restore the queue's file, or delete the shard's file and replay"
    )]
    Ahead { shard: ShardId, after: Position, last: Position },
    #[error("event queue {queue} is held by another dispatcher for {for_ms} ms yet")]
    Held { queue: QueueId, for_ms: u64 },
    #[error("the lease of event queue {queue} with token {token} has run out or was passed on")]
    Fenced { queue: QueueId, token: u64 },
    #[error("a round of event queue {queue} starts at {first}, but the next event to be filed is {expected}")]
    NotNext { queue: QueueId, first: Offset, expected: Offset },
    #[error("shard queue {shard} is full: its shard does not commit, or a consumer that is gone was never removed")]
    ShardFull { shard: ShardId },
    #[error("the shard map has version {version} by now: route the round anew")]
    MapChanged { version: u32 },
    #[error("the shard map stays as it is: {problem}")]
    Map { problem: String },
    #[error("somebody else hands documents over to shard {shard} as well")]
    Overtaken { shard: ShardId },
    #[error("the request is no valid one: {problem}")]
    Invalid { problem: String },
    #[error("the queue role can't be reached: {problem}")]
    Unreachable { problem: String },
    #[error("the queue has failed and must be reopened: {problem}")]
    Failed { problem: String },
    #[error("the queue has more calls waiting than it takes: ask again later")]
    Busy,
    #[error("the queue is closed")]
    Closed,
}

impl From<MapRefused> for QueueError {
    fn from(refused: MapRefused) -> QueueError {
        QueueError::Map { problem: refused.to_string() }
    }
}

impl QueueError {
    /// Nothing can move to a shard whose queue was never pulled.
    pub(super) fn nobody_serves(shard: ShardId) -> QueueError {
        QueueError::Map { problem: format!("no shard server serves shard {shard} yet: start one") }
    }
}
