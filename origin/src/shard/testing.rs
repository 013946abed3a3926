//! A queue in memory, a disk that can be cut off, and frames, for tests of shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millpond_shared::event::{Event, View};
use millpond_shared::projection::Projection;
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use millpond_shared::wire::{FiledEvent, Handover, ShardFrame, ShardMessage};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::watch;

use super::{Opening, Shard, ShardError, ShardMetrics, ShardSettings};
use crate::queue::{DeadLetter, DeadLetters, Pulled, QueueError, ShardQueues};
use crate::store::Place;
use crate::store::forgetful::Forgetful;

/// A shard queue that keeps everything, and what was asked of it.
pub(crate) struct TestQueue {
    frames: watch::Sender<Vec<Bytes>>,
    pub(crate) calls: Mutex<Vec<Call>>,
    /// Answers of the next pulls, before frames are given out.
    pub(crate) errors: Mutex<Vec<QueueError>>,
    pub(crate) committed: watch::Sender<Option<Position>>,
    pub(crate) dead: Mutex<Vec<DeadLetter>>,
    /// Whether those who ask where it ends get no answer.
    pub(crate) is_cut_off: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Pull { after: Position },
    Committed { consumer: String, position: Position },
    Other(&'static str),
}

impl TestQueue {
    pub(crate) fn new() -> Arc<TestQueue> {
        Arc::new(TestQueue {
            frames: watch::Sender::default(),
            calls: Mutex::default(),
            errors: Mutex::default(),
            committed: watch::Sender::default(),
            dead: Mutex::default(),
            is_cut_off: AtomicBool::default(),
        })
    }

    /// Appends a frame; its position.
    pub(crate) fn push(&self, frame: &ShardFrame<'_>) -> Position {
        self.frames.send_modify(|frames| frames.push(frame.encode().into()));
        self.last()
    }

    /// Appends documents of another shard; their position.
    pub(crate) fn hand_over(&self, handover: &Handover<'_>) -> Position {
        self.frames.send_modify(|frames| frames.push(handover.encode().into()));
        self.last()
    }

    pub(crate) fn last(&self) -> Position {
        self.frames.borrow().len() as Position
    }

    /// Up to `most` frames after `after`.
    pub(crate) fn frames(&self, after: Position, most: usize) -> Vec<(Position, Bytes)> {
        let frames = self.frames.borrow();
        (after + 1..).zip(frames.iter().skip(after as usize).cloned()).take(most).collect()
    }

    /// The same, as a pull tells it.
    pub(crate) fn pulled(&self, after: Position, most: usize) -> Pulled {
        let behind = self.frames(after, usize::MAX);
        let events = |(_, frame): &(Position, Bytes)| match ShardMessage::decode(frame).expect("a frame") {
            ShardMessage::Events(frame) => frame.events.len() as u64,
            ShardMessage::Documents(_) => 0,
        };
        let (last, events_after) = (after + behind.len() as Position, behind.iter().map(events).sum());
        Pulled { frames: behind.into_iter().take(most).collect(), last, events_after }
    }
}

#[async_trait]
impl DeadLetters for TestQueue {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError> {
        self.calls.lock().push(Call::Other("bury"));
        self.dead.lock().extend(letters);
        Ok(0)
    }
}

#[async_trait]
impl ShardQueues for TestQueue {
    async fn pull(&self, _: ShardId, after: Position, bytes: usize, wait: Duration) -> Result<Pulled, QueueError> {
        self.calls.lock().push(Call::Pull { after });
        let error = self.errors.lock().pop();
        if let Some(error) = error {
            return Err(error);
        }
        let mut frames = self.frames.subscribe();
        let _ = tokio::time::timeout(wait, frames.wait_for(|frames| frames.len() as Position > after)).await;
        let mut pulled = self.pulled(after, usize::MAX);
        let mut total = 0;
        pulled.frames.retain(|(_, frame)| {
            let is_first = total == 0;
            total += frame.len();
            is_first || total <= bytes
        });
        Ok(pulled)
    }

    async fn newest(&self, _: ShardId) -> Result<Position, QueueError> {
        self.calls.lock().push(Call::Other("newest"));
        tokio::task::yield_now().await;
        if self.is_cut_off.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(self.last())
    }

    async fn committed(&self, _: ShardId, consumer: &str, position: Position) -> Result<(), QueueError> {
        self.calls.lock().push(Call::Committed { consumer: consumer.to_owned(), position });
        self.committed.send_replace(Some(position));
        Ok(())
    }
}

/// What a shard is opened on, again and again.
pub(crate) struct Site {
    pub(crate) shard: ShardId,
    pub(crate) map: Arc<ShardMap>,
    pub(crate) projections: Arc<Vec<Projection>>,
    pub(crate) queue: Arc<TestQueue>,
    pub(crate) disk: Forgetful,
    pub(crate) settings: ShardSettings,
}

impl Site {
    pub(crate) fn new(projections: Vec<Projection>) -> Site {
        Site {
            shard: 0,
            map: Arc::new(ShardMap::even(1, 1)),
            projections: Arc::new(projections),
            queue: TestQueue::new(),
            disk: Forgetful::new(),
            settings: ShardSettings::default(),
        }
    }

    pub(crate) fn open(&self) -> Arc<Shard> {
        self.open_on(Place::Backend(Box::new(self.disk.clone()))).expect("opened")
    }

    pub(crate) fn open_on(&self, place: Place) -> Result<Arc<Shard>, ShardError> {
        Shard::open(self.opening(place), &ShardMetrics::register(&Registry::new()).expect("metrics"))
    }

    pub(crate) fn opening(&self, place: Place) -> Opening {
        Opening {
            shard: self.shard,
            map_version: 1,
            projections: self.projections.clone(),
            place,
            queues: self.queue.clone(),
            events: None,
            settings: self.settings.clone(),
            attached: Vec::new(),
        }
    }

    /// The frame that a dispatcher makes for this shard of a round of consecutive events from `first` on.
    pub(crate) fn frame(&self, queue: QueueId, first: Offset, events: &[Event<'static>]) -> ShardFrame<'static> {
        let filed = (first..).zip(events).filter_map(|(offset, event)| {
            let view = View::new(event).ok()?;
            let routes = (0u16..).zip(self.projections.iter()).filter_map(|(index, projection)| {
                let key = projection.route(&view)?;
                let here = self.map.owner_of(&projection.name, &key).shard == self.shard;
                here.then(|| (index, key.into()))
            });
            let routes: Vec<_> = routes.collect();
            (!routes.is_empty()).then(|| FiledEvent { offset, routes, event: event.clone() })
        });
        ShardFrame {
            queue,
            first,
            last: first + events.len() as Offset - 1,
            epoch: 1,
            map_version: self.map.version(),
            projections: self.projections.iter().map(|projection| projection.name.clone().into()).collect(),
            events: filed.collect(),
        }
    }

    /// Files one event in a frame of its own; the frame's position.
    pub(crate) fn push(&self, event: Event<'static>) -> Position {
        let offset = self.queue.last() + 1;
        self.queue.push(&self.frame(0, offset, &[event]))
    }
}
