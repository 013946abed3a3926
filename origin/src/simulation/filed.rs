//! What shard queues hold in the end: each event once for every document, in order, with the shard that owned it.

use std::collections::{BTreeMap, BTreeSet};

use millpond_shared::event::{Event, View};
use millpond_shared::shard_map::Slot;
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use millpond_shared::wire::{FiledEvent, ShardFrame, ShardMessage};

use super::ledger::Ledger;
use super::pond::projections;
use super::scheduler::Simulation;
use super::tally::Befell;
use crate::projection::{is_hop, is_part};

/// Token of the frames of rounds that were filed in part, as an engine without transactions leaves them.
pub const HALF_ROUND: u64 = 0;

/// (id, projection, key) of an event and a document that it concerns.
type Route = (String, String, String);
/// Where a run of frames is: version of the shard map, shard, position. In this order for each document.
type Place = (u32, ShardId, Position);

/// What a document tells others, and the documents that it is filed for: index of the projection's name, key.
type Hop = (String, Vec<(u16, String)>);

/// What was filed, and where.
#[derive(Default)]
pub struct Filed {
    places: BTreeMap<Route, Vec<Place>>,
    /// Numbers of the events of each document, by where they are.
    orders: BTreeMap<(String, String), BTreeMap<Place, Vec<u64>>>,
    /// What documents told each other, each with its shard.
    hops: BTreeSet<(ShardId, Hop)>,
}

impl Filed {
    /// Reads all that was pulled, up to where the shard queues end, and sees to it that rounds were filed in their order,
    /// by one holder after the other, each by the map of its time.
    pub fn read(ledger: &Ledger, lasts: &[Position]) -> Filed {
        let mut filed = Filed::default();
        for (shard, last) in (0..).zip(lasts) {
            let mut rounds: BTreeMap<QueueId, (Offset, u64)> = BTreeMap::new();
            let mut map_version = 0;
            for position in 1..=*last {
                let bytes = ledger.frame(shard, position);
                let ShardMessage::Events(frame) = ShardMessage::decode(&bytes).expect("a frame") else { continue };
                if frame.epoch == HALF_ROUND {
                    continue;
                }
                let (end, token) = rounds.entry(frame.queue).or_default();
                let (first, place) = (frame.first, format!("position {position} of shard {shard}"));
                assert!(first > *end, "{place}: a round of {} from {first} on, after {end}", frame.queue);
                assert!(frame.epoch >= *token, "{place}: token {} after {token}", frame.epoch);
                let version = frame.map_version;
                assert!(version >= map_version, "{place}: map {version} after {map_version}");
                (*end, *token, map_version) = (frame.last, frame.epoch, version);
                filed.frame(ledger, &frame, (version, shard, position));
            }
        }
        filed
    }

    fn frame(&mut self, ledger: &Ledger, frame: &ShardFrame<'_>, (version, shard, position): Place) {
        let place = format!("position {position} of shard {shard}");
        let map = ledger.moves.map(version).unwrap_or_else(|| panic!("{place}: nobody was told of map {version}"));
        let mut before = frame.first - 1;
        for event in &frame.events {
            assert!(event.offset > before && event.offset <= frame.last, "{place}: offset {}", event.offset);
            before = event.offset;
            let routes: Vec<(&str, &str)> = event
                .routes
                .iter()
                .map(|(projection, key)| (frame.projections[usize::from(*projection)].as_ref(), key.as_ref()))
                .collect();
            for (projection, key) in routes.iter().filter(|(_, key)| !is_part(key)) {
                let owner = map.filed_with(Slot::of(projection, key), frame.queue, event.offset);
                assert_eq!(owner, Some(shard), "{place}: {projection}/{key} by map {version}");
            }
            if is_hop(&event.event) {
                self.hop(event, shard);
                continue;
            }
            let sequence = sequence(&event.event);
            for (projection, key) in routes {
                let document = (projection.to_owned(), key.to_owned());
                let route = (event.event.id.to_string(), document.0.clone(), document.1.clone());
                self.places.entry(route).or_default().push((version, shard, position));
                let order = self.orders.entry(document).or_default();
                order.entry((version, shard, position)).or_default().push(sequence);
            }
        }
    }

    /// What documents tell each other may come twice.
    fn hop(&mut self, event: &FiledEvent<'_>, shard: ShardId) {
        // Each decision of a home feed has a number; the news of feeds have none.
        let is_decision = event.event.kind == "edits";
        let routes = event.routes.iter().map(|(projection, key)| (*projection, key.to_string())).collect();
        if is_decision && !self.hops.insert((shard, (event.event.data.to_string(), routes))) {
            Simulation::befell(Befell::HopTwice);
        }
    }

    /// Of all events that were sent, and acknowledged: each was filed once for every document that it concerns, and those
    /// of a document in the order in which they were sent, wherever its slot was.
    pub fn assert_once(&self, events: &[Event<'static>]) {
        let expected = events.iter().flat_map(|event| {
            let view = View::new(event).ok();
            let routes = projections().iter().filter_map(move |projection| {
                Some((event.id.to_string(), projection.name.clone(), projection.route(view.as_ref()?)?))
            });
            routes.collect::<Vec<_>>()
        });
        let expected: BTreeSet<Route> = expected.collect();
        let twice: Vec<_> = self.places.iter().filter(|(_, places)| places.len() != 1).collect();
        assert!(twice.is_empty(), "filed twice: {twice:?}");
        let lost: Vec<_> = expected.iter().filter(|route| !self.places.contains_key(*route)).collect();
        assert!(lost.is_empty(), "acknowledged and never filed: {lost:?}");
        assert_eq!(self.places.len(), expected.len(), "something was filed that was never sent");
        for (document, order) in &self.orders {
            let numbers: Vec<u64> = order.values().flatten().copied().collect();
            assert!(numbers.is_sorted(), "{document:?}: filed in the order {order:?}");
        }
    }

    /// The shard that an event was filed with for a document.
    pub fn shard_of(&self, id: &str, projection: &str, key: &str) -> Option<ShardId> {
        let places = self.places.get(&(id.to_owned(), projection.to_owned(), key.to_owned()))?;
        places.first().map(|(_, shard, _)| *shard)
    }
}

/// Which event it is of all that were sent.
fn sequence(event: &Event<'_>) -> u64 {
    let data: serde_json::Value = serde_json::from_str(&event.data).expect("what is filed can be read");
    data["seq"].as_u64().expect("a number")
}
