//! What was seen from outside while a history ran, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millpond_shared::event::{Event, View};
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::{Offset, Position, QueueId, ShardId, Version};
use millpond_shared::wire::ShardFrame;
use parking_lot::Mutex;

use super::pond::projections;
use super::scheduler::Simulation;
use super::tally::Befell;
use crate::projection::is_hop;
use crate::queue::{Lease, Pulled};
use crate::render::Rendered;

/// Everything that was told to somebody.
#[derive(Default)]
pub struct Ledger {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    tokens: BTreeMap<QueueId, u64>,
    stored: BTreeMap<(QueueId, Offset), String>,
    frames: BTreeMap<(ShardId, Position), Bytes>,
    bodies: BTreeMap<(String, Version), Bytes>,
    consumers: BTreeSet<(ShardId, String)>,
}

impl Ledger {
    /// Somebody was given a claim: nobody had one under this token.
    pub fn leased(&self, lease: Lease) {
        let before = self.seen.lock().tokens.insert(lease.queue, lease.token).unwrap_or(0);
        assert!(lease.token > before, "two claims under one token: {lease:?} after {before}");
    }

    pub fn newest_token(&self, queue: QueueId) -> u64 {
        self.seen.lock().tokens.get(&queue).copied().unwrap_or(0)
    }

    /// A producer was told where its event is.
    pub fn stored(&self, queue: QueueId, offset: Offset, id: &str) {
        let mut seen = self.seen.lock();
        let twice = seen.stored.values().any(|other| other == id);
        assert!(!twice, "event {id} was stored twice, at last at {queue}:{offset}");
        let before = seen.stored.insert((queue, offset), id.to_owned());
        assert_eq!(before, None, "offset {queue}:{offset} was given twice");
    }

    /// A shard pulled: what stands at a position never changes.
    pub fn pulled(&self, shard: ShardId, pulled: &Pulled) {
        let mut seen = self.seen.lock();
        for (position, frame) in &pulled.frames {
            let before = seen.frames.entry((shard, *position)).or_insert_with(|| frame.clone());
            assert_eq!(before, frame, "position {position} of shard {shard} holds another frame than before");
        }
    }

    /// A consumer was told that the queue knows it, in time: from then on nothing is trimmed that it has not committed.
    pub fn registered(&self, shard: ShardId, consumer: &str) {
        self.seen.lock().consumers.insert((shard, consumer.to_owned()));
    }

    pub fn is_registered(&self, shard: ShardId, consumer: &str) -> bool {
        self.seen.lock().consumers.contains(&(shard, consumer.to_owned()))
    }

    /// A consumer has lost its disk.
    pub fn forget_consumer(&self, shard: ShardId, consumer: &str) {
        self.seen.lock().consumers.remove(&(shard, consumer.to_owned()));
    }

    /// A reader was given a document: whoever gives this version gives these bytes.
    pub fn read(&self, tag: &str, rendered: &Rendered) {
        let mut seen = self.seen.lock();
        let before = seen.bodies.entry((tag.to_owned(), rendered.version)).or_insert_with(|| rendered.body.clone());
        assert_eq!(*before, rendered.body, "{tag} at {} has other bytes than before", rendered.version);
    }

    /// Of all events that were sent, and acknowledged: each was filed once for every document that it concerns, in the
    /// order of its queue and of its user, by one holder after the other. What documents tell each other may come
    /// twice. `lasts`: where the shard queues end.
    pub fn assert_filed_once(&self, events: &[Event<'static>], map: &ShardMap, lasts: &[Position]) {
        let seen = self.seen.lock();
        let (mut filed, mut hops) = (BTreeMap::new(), BTreeSet::new());
        for (shard, last) in (0..).zip(lasts) {
            let mut rounds: BTreeMap<QueueId, (Offset, u64)> = BTreeMap::new();
            let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
            for position in 1..=*last {
                let bytes = seen.frames.get(&(shard, position));
                let bytes = bytes.unwrap_or_else(|| panic!("nobody pulled position {position} of shard {shard}"));
                let frame = ShardFrame::decode(bytes).expect("a frame");
                if frame.epoch == HALF_ROUND {
                    continue;
                }
                let (end, token) = rounds.entry(frame.queue).or_default();
                let (first, place) = (frame.first, format!("position {position} of shard {shard}"));
                assert!(first > *end, "{place}: a round of {} from {first} on, after {end}", frame.queue);
                assert!(frame.epoch >= *token, "{place}: token {} after {token}", frame.epoch);
                (*end, *token) = (frame.last, frame.epoch);
                let mut before = first - 1;
                for event in &frame.events {
                    assert!(event.offset > before && event.offset <= frame.last, "{place}: offset {}", event.offset);
                    before = event.offset;
                    if is_hop(&event.event) {
                        // Each decision of a home feed has a number; the news of feeds have none.
                        let is_decision = event.event.kind == "edits";
                        if is_decision && !hops.insert((shard, event.event.data.to_string(), event.routes.clone())) {
                            Simulation::befell(Befell::HopTwice);
                        }
                        continue;
                    }
                    let (user, sequence) = told_by(&event.event);
                    let last = sequences.entry(user).or_default();
                    assert!(sequence > *last, "{place}: event {sequence} of its user after {last}");
                    *last = sequence;
                    for (projection, key) in &event.routes {
                        let name = frame.projections[usize::from(*projection)].to_string();
                        *filed.entry((event.event.id.to_string(), name, key.to_string())).or_insert(0) += 1;
                    }
                }
            }
        }
        let expected = events.iter().flat_map(|event| {
            let view = View::new(event).ok();
            let routes = projections().iter().filter_map(move |projection| {
                Some((event.id.to_string(), projection.name.clone(), projection.route(view.as_ref()?)?))
            });
            routes.collect::<Vec<_>>()
        });
        let expected: BTreeSet<_> = expected.collect();
        let twice: Vec<_> = filed.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "filed twice: {twice:?}");
        let lost: Vec<_> = expected.iter().filter(|route| !filed.contains_key(*route)).collect();
        assert!(lost.is_empty(), "acknowledged and never filed: {lost:?}");
        assert_eq!(filed.len(), expected.len(), "something was filed that was never sent");
        assert!(map.shards() as usize == lasts.len());
    }
}

/// Token of the frames of rounds that were filed in part, as an engine without transactions leaves them.
pub const HALF_ROUND: u64 = 0;

/// Whose event it is, and which one of that user.
fn told_by(event: &Event<'_>) -> (String, u64) {
    let data: serde_json::Value = serde_json::from_str(&event.data).expect("what is filed can be read");
    (data["user"].as_str().expect("a user").to_owned(), data["seq"].as_u64().expect("a number"))
}
