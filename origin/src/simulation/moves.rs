//! Slots that move: who moves them, and what was seen of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_shared::shard_map::{MapState, Move, ShardMap, Slots, Stage};
use millpond_shared::version::{Position, ShardId};
use millpond_shared::wire::ShardMessage;
use parking_lot::Mutex;

use super::reading::documents;
use super::scheduler::Simulation;
use super::tally::Befell;
use super::wire::Wire;
use crate::queue::{HandedOver, MapChange, QueueError, ShardMaps};
use crate::timing::sleep;

/// How long an operator waits for a change of the map before it looks again.
const LOOK_WAIT: Duration = Duration::from_secs(1);

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Copying,
    Held,
    Done,
}

/// The versions of the shard map that anybody was told of.
#[derive(Default)]
pub struct Moves(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    maps: BTreeMap<u32, MapState>,
    /// The move that was done last.
    done: Option<Move>,
}

impl Moves {
    /// Somebody was told of a version of the map: whoever is told of it is told the same.
    pub fn mapped(&self, state: &MapState) {
        let mut seen = self.0.lock();
        let before = seen.maps.entry(state.version()).or_insert_with(|| state.clone());
        assert_eq!(before, state, "two shard maps of one version");
    }

    /// What became of a change that was asked for.
    pub fn changed(&self, change: &MapChange, changed: &Result<MapState, QueueError>) {
        let state = match changed {
            Ok(state) => state,
            Err(QueueError::ShardFull { .. }) => return Simulation::befell(Befell::TakerBehind),
            Err(_) => return,
        };
        self.mapped(state);
        match change {
            MapChange::First(_) | MapChange::Hold { .. } => {}
            MapChange::Begin { slots, to } => {
                Simulation::befell(Befell::MoveBegun);
                let done = self.0.lock().done.clone();
                if let Some(done) = done.filter(|done| done.slots == *slots) {
                    Simulation::befell(if done.from == *to { Befell::MovedBack } else { Befell::MovedOn });
                }
            }
            MapChange::LetGo { .. } => Simulation::befell(Befell::HoldLetGo),
            MapChange::Complete { epoch, .. } => {
                Simulation::befell(Befell::MoveDone);
                let mut seen = self.0.lock();
                let mut attempts = seen.maps.values().filter_map(|state| state.moving.clone());
                seen.done = attempts.rfind(|moving| moving.epoch == *epoch);
            }
            MapChange::Stop => Simulation::befell(Befell::MoveStopped),
        }
    }

    /// What became of documents that were handed over.
    pub fn handed_over(&self, handed: &HandedOver, done: &Result<Position, QueueError>) {
        match done {
            Ok(_) => {
                let message = ShardMessage::decode(&handed.bytes).expect("what is handed over can be read");
                let ShardMessage::Documents(handover) = message else { panic!("events were handed over") };
                let attempt = self.0.lock().maps.values().any(|state| {
                    let its = |moving: &Move| (moving.epoch, moving.from) == (handed.epoch, handover.from);
                    state.moving.as_ref().is_some_and(its)
                });
                assert!(attempt, "shard {} gave what it was not asked for in {}", handover.from, handed.epoch);
                if handed.after.is_some() && !handover.documents.is_empty() {
                    Simulation::befell(Befell::ChangedMeanwhile);
                }
            }
            Err(QueueError::Overtaken { .. }) => Simulation::befell(Befell::TwoGivers),
            Err(_) => {}
        }
    }

    /// The map of a version that somebody was told of.
    pub fn map(&self, version: u32) -> Option<MapState> {
        self.0.lock().maps.get(&version).cloned()
    }

    /// How far moves have come, by the newest map that anybody was told of.
    pub fn reached(&self) -> Option<(Reached, Move)> {
        match self.under_way() {
            Some(moving) if matches!(moving.stage, Stage::Held(_)) => Some((Reached::Held, moving)),
            Some(moving) => Some((Reached::Copying, moving)),
            None => Some((Reached::Done, self.0.lock().done.clone()?)),
        }
    }

    /// What moves, by the newest map that anybody was told of.
    pub fn under_way(&self) -> Option<Move> {
        self.0.lock().maps.values().next_back()?.moving.clone()
    }

    /// A replica of a shard is gone.
    pub fn lost_replica(&self, shard: ShardId) {
        let Some(moving) = self.under_way() else { return };
        let is_held = matches!(moving.stage, Stage::Held(_));
        if moving.from == shard {
            Simulation::befell(if is_held { Befell::GiverLostHolding } else { Befell::GiverLost });
        } else if moving.to == shard {
            Simulation::befell(if is_held { Befell::TakerLostHolding } else { Befell::TakerLost });
        }
    }

    /// The queues, or a dispatcher, are gone.
    pub fn lost(&self, befell: Befell) {
        if self.under_way().is_some() {
            Simulation::befell(befell);
        }
    }
}

/// An operator.
#[derive(Default)]
pub struct Operator {
    working: Mutex<bool>,
}

impl Operator {
    pub fn is_over(&self) -> bool {
        !*self.working.lock()
    }

    /// Moves slots so many times. Some moves are stopped; after others the same slots go on at once.
    pub async fn work(self: Arc<Operator>, moves: u64, wire: Arc<Wire>) {
        *self.working.lock() = true;
        let (mut begun, mut next) = (0, None);
        while begun < moves {
            let state = until_still(&wire).await;
            let slots = next.take().unwrap_or_else(|| some_slots(&state.map));
            let change = MapChange::Begin { to: another_shard(&state.map, &slots), slots: slots.clone() };
            Simulation::tell(format_args!("{change:?}"));
            if wire.change_map(change).await.is_err() {
                // Nobody has served that shard yet, or nobody knows whether it has begun.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            begun += 1;
            if Simulation::one_in(6) {
                sleep(Duration::from_millis(Simulation::below(300))).await;
                let _ = wire.change_map(MapChange::Stop).await;
            }
            if Simulation::one_in(3) {
                until_still(&wire).await;
                sleep(Duration::from_millis(Simulation::below(600))).await;
            } else {
                next = Some(slots);
            }
        }
        until_still(&wire).await;
        *self.working.lock() = false;
    }
}

/// The map, once nothing moves.
async fn until_still(wire: &Wire) -> MapState {
    let mut version = 0;
    loop {
        match wire.map(version, LOOK_WAIT).await {
            Ok(Some(state)) if state.moving.is_none() => return state,
            Ok(Some(state)) => version = state.version(),
            Ok(None) | Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Slots that documents have: some of one shard's, or all of them.
fn some_slots(map: &ShardMap) -> Slots {
    let documents = documents();
    let first = documents[Simulation::below(documents.len() as u64) as usize].slot;
    let from = map.owner(first).shard;
    let one_in = 1 + Simulation::below(3);
    let others = documents.iter().map(|document| document.slot).filter(|slot| map.owner(*slot).shard == from);
    [first].into_iter().chain(others.filter(|_| Simulation::one_in(one_in))).collect()
}

/// A shard that does not own these slots.
fn another_shard(map: &ShardMap, slots: &Slots) -> ShardId {
    let from = slots.iter().next().map_or(0, |slot| map.owner(slot).shard);
    (from + 1 + Simulation::below(u64::from(map.shards()) - 1) as ShardId) % map.shards()
}
