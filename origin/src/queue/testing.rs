//! What tests of queues need: queues on forgetful disks or on a NATS server of their own, under a clock that is set by
//! hand.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_shared::event::Event;
use millpond_shared::shard_map::MapState;
use millpond_shared::splitmix::SplitMix64;
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use millpond_shared::wire::EventFrame;
use prometheus::Registry;

use super::embedded::OpenError;
use super::nats::testing::NatsServer;
use super::nats::{Clock, NatsQueues};
use super::{Files, HandedOver, Limits, MapChange, Options, QueueError, Queues, Round, RoundFrame, ShardMaps, Taken};
use crate::store::Place;
use crate::store::forgetful::Forgetful;

/// The disks and the clock of a queue role, which outlive its crashes.
pub struct Machine {
    pub events: Vec<Forgetful>,
    pub shards: Forgetful,
    pub clock: Arc<AtomicU64>,
    pub limits: Limits,
    /// Started when it is first needed.
    pub nats: Option<Arc<NatsServer>>,
}

/// The time a machine starts at, in ms.
pub const START_MS: u64 = 1_000_000;

impl Machine {
    pub fn new(event_queues: usize) -> Machine {
        Machine {
            events: (0..event_queues).map(|_| Forgetful::new()).collect(),
            shards: Forgetful::new(),
            clock: Arc::new(AtomicU64::new(START_MS)),
            limits: Limits { tidy_every: std::time::Duration::from_millis(5), ..Limits::default() },
            nats: None,
        }
    }

    /// The queues on NATS, as another process would open them.
    pub async fn open_on_nats(&mut self) -> Arc<NatsQueues> {
        let server = self.nats.get_or_insert_with(|| Arc::new(NatsServer::start(&[])));
        let settings = server.settings(self.events.len() as u16);
        let clock = Clock::Given(self.clock());
        let queues = NatsQueues::open(&settings, self.options(), clock, &Registry::new()).await;
        Arc::new(queues.unwrap())
    }

    fn clock(&self) -> Arc<dyn Fn() -> u64 + Send + Sync> {
        let clock = self.clock.clone();
        Arc::new(move || clock.load(Ordering::SeqCst))
    }

    fn options(&self) -> Options {
        Options { limits: self.limits, clock: self.clock() }
    }

    pub fn open(&self) -> Arc<Queues> {
        self.try_open().unwrap()
    }

    pub fn try_open(&self) -> Result<Arc<Queues>, OpenError> {
        let place = |disk: &Forgetful| Place::Backend(Box::new(disk.clone()));
        let files = Files { events: self.events.iter().map(place).collect(), shards: place(&self.shards) };
        Queues::open(files, self.options(), &Registry::new()).map(Arc::new)
    }

    /// The same machine after its power was cut at this moment. All disks lose it at the same time, nearly: the shard
    /// queues' first, so that they never know of events that the event queues have lost.
    pub fn crash(&self) -> Machine {
        let shards = self.shards.crash();
        Machine {
            events: self.events.iter().map(Forgetful::crash).collect(),
            shards,
            clock: Arc::new(AtomicU64::new(self.clock.load(Ordering::SeqCst))),
            limits: self.limits,
            nats: self.nats.clone(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub fn pass_ms(&self, milliseconds: u64) {
        self.clock.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

/// An event of source `s` whose data is `{"n":N}`.
pub fn event(id: impl Into<String>, n: u64) -> Event<'static> {
    Event {
        id: id.into().into(),
        source: "s".into(),
        kind: "k".into(),
        subject: None,
        time: n as i64,
        received: START_MS,
        data: format!("{{\"n\":{n}}}").into(),
    }
}

/// A round of these events, by the first shard map.
pub fn round_of(events: RangeInclusive<Offset>, frames: Vec<RoundFrame>) -> Round {
    Round { first: *events.start(), last: *events.end(), map_version: 1, frames }
}

/// A frame that holds nothing but a text, whatever number of events it says it has.
pub fn round_frame(shard: ShardId, events: u64, text: &str) -> RoundFrame {
    RoundFrame { shard, events, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

/// Offsets and ids of a run of frames.
pub fn ids(frames: &[Bytes]) -> Vec<(Offset, String)> {
    let decoded = frames.iter().map(|bytes| EventFrame::decode(bytes).unwrap());
    decoded
        .flat_map(|frame| {
            let offsets = frame.first..;
            let ids = frame.events.into_iter().map(|event| event.id.into_owned());
            offsets.zip(ids.collect::<Vec<_>>())
        })
        .collect()
}

/// Offsets and ids of what was taken, and nothing before or behind it.
pub fn taken_ids(taken: &Taken) -> Vec<(Offset, String)> {
    ids(&taken.frames).into_iter().filter(|(offset, _)| (taken.first..=taken.last).contains(offset)).collect()
}

/// Numbers that can be told again. Prints its seed; `SEED=N` in the environment brings it back.
pub struct Random(SplitMix64);

impl Random {
    pub fn new(default_seed: u64) -> Random {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default_seed);
        println!("SEED={seed}");
        Random::seeded(seed)
    }

    /// By this seed, whatever the environment says.
    pub fn seeded(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.draw() % bound
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// Checks that a frame is of this queue.
pub fn is_of(queue: QueueId, frame: &Bytes) -> bool {
    EventFrame::decode(frame).is_ok_and(|frame| frame.queue == queue)
}

/// Where the shard map is always the same.
pub struct OneMap(pub MapState);

#[async_trait]
impl ShardMaps for OneMap {
    async fn map(&self, after: u32, _: Duration) -> Result<Option<MapState>, QueueError> {
        Ok((self.0.version() > after).then(|| self.0.clone()))
    }

    async fn change_map(&self, _: MapChange) -> Result<MapState, QueueError> {
        Err(QueueError::Closed)
    }

    async fn hand_over(&self, _: HandedOver) -> Result<Position, QueueError> {
        Err(QueueError::Closed)
    }
}

/// Where nobody can say anything of a shard map.
pub struct NoMaps;

#[async_trait]
impl ShardMaps for NoMaps {
    async fn map(&self, _: u32, _: Duration) -> Result<Option<MapState>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn change_map(&self, _: MapChange) -> Result<MapState, QueueError> {
        Err(QueueError::Closed)
    }

    async fn hand_over(&self, _: HandedOver) -> Result<Position, QueueError> {
        Err(QueueError::Closed)
    }
}
