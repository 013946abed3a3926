//! The shard map as it is kept where the queues are, and how slots move from one shard to another (pure).
//!
//! A move has three stages. **Copying**: the giving shard owns the slots, and hands its documents over to the queue of
//! the taking one, where nobody reads them. **Held**: no event of the slots is filed, so that the giving shard comes to
//! the end of them and hands over what has changed meanwhile. Then the taking shard owns them. A hold that takes too
//! long is let go, and a move can be stopped, at any time before its end: the giving shard never stopped owning.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Owner, SHARDS_MAX, ShardMap, Slot, Slots};
use crate::version::{Offset, Position, QueueId, ShardId};

/// The map, and what is moving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapState {
    pub map: ShardMap,
    /// What the map began as.
    pub first: FirstMap,
    pub moving: Option<Move>,
}

/// The map that a configuration asks for: even runs of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstMap {
    pub version: u32,
    pub shards: u16,
}

/// Slots on their way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub slots: Slots,
    pub from: ShardId,
    pub to: ShardId,
    /// Version of the map with which this attempt began: what is handed over carries it.
    pub epoch: u32,
    pub stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Copying,
    /// `None`: where the giving shard ends is not known yet.
    Held(Option<Final>),
}

/// Where the giving shard ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Final {
    /// By event queue: events up to here are still filed with the giving shard, those behind it wait. Queues that are not
    /// named have no event for it.
    pub offsets: Vec<(QueueId, Offset)>,
    /// Position in the giving shard's queue behind which nothing of the slots comes; `None` while events up to `offsets`
    /// are still being filed.
    pub position: Option<Position>,
}

/// Why a map is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapRefused {
    #[error(
        "the configuration has {asked} shards, but the shard map at the queues has {found} since some were added: set \
         shard_map.count to {found}"
    )]
    Fewer { asked: u16, found: u16 },
    #[error(
        "the configuration has shard_map.version {asked}, but the shard map at the queues began with version {found}: \
         give all roles the same [shard_map], or empty the queues' and the shards' directories"
    )]
    OtherVersion { asked: u32, found: u32 },
    #[error("slots {slots} are moving from shard {from} to shard {to}: wait for the end of that, or stop it")]
    Moving { slots: Slots, from: ShardId, to: ShardId },
    #[error(
        "there is no shard {shard}, only 0 to {last}: raise shard_map.count and start a shard server that serves it"
    )]
    NoShard { shard: ShardId, last: ShardId },
    #[error("no slot is named: name some of one shard, as in `0-127`")]
    NoSlots,
    #[error("slot {other} belongs to shard {owner}, slot {slot} to shard {from}: move slots of one shard at a time")]
    SeveralOwners { slot: u16, from: ShardId, other: u16, owner: ShardId },
    #[error("slots {slots} belong to shard {shard} already")]
    AtHome { slots: Slots, shard: ShardId },
    #[error("nothing is moving")]
    Nothing,
    #[error("the move that began with version {epoch} of the shard map is over, or was begun anew")]
    Over { epoch: u32 },
    #[error("the slots are not held, or events for the giving shard are still being filed")]
    NotFinal,
}

impl MapState {
    /// What a configuration begins with.
    pub fn first(first: FirstMap) -> MapState {
        MapState { map: ShardMap::even(first.version, first.shards), first, moving: None }
    }

    pub fn version(&self) -> u32 {
        self.map.version
    }

    /// The state for a configuration that asks for `first`: this one, or this one with more shards, which own nothing yet.
    pub fn with_shards(&self, first: FirstMap) -> Result<MapState, MapRefused> {
        if first.version != self.first.version {
            return Err(MapRefused::OtherVersion { asked: first.version, found: self.first.version });
        }
        let shards = first.shards.clamp(1, SHARDS_MAX);
        if shards < self.map.shards {
            return Err(MapRefused::Fewer { asked: shards, found: self.map.shards });
        }
        if shards == self.map.shards {
            return Ok(self.clone());
        }
        let mut next = self.next();
        next.map.shards = shards;
        Ok(next)
    }

    /// Begins to move slots, all of one shard, to `to`.
    pub fn begin(&self, slots: Slots, to: ShardId) -> Result<MapState, MapRefused> {
        if let Some(Move { slots, from, to, .. }) = &self.moving {
            return Err(MapRefused::Moving { slots: slots.clone(), from: *from, to: *to });
        }
        if to >= self.map.shards {
            return Err(MapRefused::NoShard { shard: to, last: self.map.shards.saturating_sub(1) });
        }
        let first = slots.iter().next().ok_or(MapRefused::NoSlots)?;
        let from = self.map.owner(first).shard;
        if let Some(other) = slots.iter().find(|slot| self.map.owner(*slot).shard != from) {
            let owner = self.map.owner(other).shard;
            return Err(MapRefused::SeveralOwners { slot: first.0, from, other: other.0, owner });
        }
        if from == to {
            return Err(MapRefused::AtHome { slots, shard: from });
        }
        let mut next = self.next();
        next.moving = Some(Move { slots, from, to, epoch: next.map.version, stage: Stage::Copying });
        Ok(next)
    }

    /// Holds the events of the slots that move, or tells where the giving shard ends, as far as that is known.
    pub fn hold(&self, epoch: u32, known: Option<Final>) -> Result<MapState, MapRefused> {
        self.attempt(epoch)?;
        let mut next = self.next();
        if let Some(moving) = &mut next.moving {
            moving.stage = Stage::Held(known);
        }
        Ok(next)
    }

    /// Lets held events go to the giving shard again. What was handed over counts no more: the move begins anew.
    pub fn let_go(&self, version: u32) -> Result<MapState, MapRefused> {
        match &self.moving {
            Some(Move { stage: Stage::Held(_), .. }) if self.version() == version => {}
            _ => return Err(MapRefused::Over { epoch: version }),
        }
        let mut next = self.next();
        let epoch = next.map.version;
        if let Some(moving) = &mut next.moving {
            (moving.stage, moving.epoch) = (Stage::Copying, epoch);
        }
        Ok(next)
    }

    /// The taking shard owns the slots once it has come to `since` in its queue.
    pub fn complete(&self, epoch: u32, since: Position) -> Result<MapState, MapRefused> {
        let moving = self.attempt(epoch)?;
        if !matches!(&moving.stage, Stage::Held(Some(Final { position: Some(_), .. }))) {
            return Err(MapRefused::NotFinal);
        }
        let mut next = self.next();
        for Slot(slot) in moving.slots.iter() {
            if let Some(owner) = next.map.owners.get_mut(usize::from(slot)) {
                *owner = Owner { shard: moving.to, since };
            }
        }
        next.moving = None;
        Ok(next)
    }

    /// Gives the move up.
    pub fn stop(&self) -> Result<MapState, MapRefused> {
        if self.moving.is_none() {
            return Err(MapRefused::Nothing);
        }
        let mut next = self.next();
        next.moving = None;
        Ok(next)
    }

    /// The shard that an event of an event queue is filed with for a slot; `None`: it has to wait.
    pub fn filed_with(&self, slot: Slot, queue: QueueId, offset: Offset) -> Option<ShardId> {
        let owner = self.map.owner(slot).shard;
        match &self.moving {
            Some(Move { stage: Stage::Held(known), slots, .. }) if slots.contains(slot) => {
                let mut ends = known.iter().flat_map(|known| &known.offsets);
                ends.any(|(other, last)| *other == queue && offset <= *last).then_some(owner)
            }
            _ => Some(owner),
        }
    }

    /// The shards that an event for all of them is filed with: those that own slots, and the one that is to take some.
    pub fn all_shards(&self) -> BTreeSet<ShardId> {
        self.map.owners().chain(self.moving.as_ref().map(|moving| moving.to)).collect()
    }

    /// The move, if it is still the same attempt.
    pub fn attempt(&self, epoch: u32) -> Result<&Move, MapRefused> {
        self.moving.as_ref().filter(|moving| moving.epoch == epoch).ok_or(MapRefused::Over { epoch })
    }

    fn next(&self) -> MapState {
        let mut next = self.clone();
        next.map.version = self.map.version.saturating_add(1);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: FirstMap = FirstMap { version: 1, shards: 4 };

    fn slots(text: &str) -> Slots {
        text.parse().expect("slots")
    }

    fn ends(offset: Offset, position: Option<Position>) -> Option<Final> {
        Some(Final { offsets: vec![(0, offset)], position })
    }

    #[test]
    fn slots_move_when_all_of_it_was_handed_over() {
        let copying = MapState::first(FIRST).begin(slots("0-9"), 2).expect("begun");
        assert_eq!((copying.version(), copying.map.owner(Slot(3)).shard), (2, 0));
        assert_eq!(copying.filed_with(Slot(3), 0, 7), Some(0), "events go on");
        assert_eq!(copying.complete(2, 5), Err(MapRefused::NotFinal));

        let held = copying.hold(2, None).expect("held");
        assert_eq!(held.filed_with(Slot(3), 0, 7), None);
        assert_eq!(held.filed_with(Slot(10), 0, 7), Some(0), "the others go on");
        let held = held.hold(2, ends(7, None)).expect("held");
        assert_eq!((held.filed_with(Slot(3), 0, 7), held.filed_with(Slot(3), 0, 8)), (Some(0), None));
        assert_eq!(held.filed_with(Slot(3), 1, 1), None);
        assert_eq!(held.complete(2, 5), Err(MapRefused::NotFinal));

        let done = held.hold(2, ends(7, Some(40))).and_then(|held| held.complete(2, 5)).expect("done");
        assert_eq!(done.map.owner(Slot(9)), Owner { shard: 2, since: 5 });
        assert_eq!(done.map.owner(Slot(10)), Owner { shard: 0, since: 0 });
        assert_eq!((done.version(), &done.moving), (6, &None));
        assert_eq!(done.filed_with(Slot(3), 0, 8), Some(2));
        assert_eq!(done.complete(2, 5), Err(MapRefused::Over { epoch: 2 }));
        let text = serde_json::to_string(&done).expect("text");
        assert_eq!(serde_json::from_str::<MapState>(&text).expect("a state"), done);
    }

    #[test]
    fn a_hold_that_is_let_go_begins_the_move_anew() {
        let held = MapState::first(FIRST).begin(slots("0"), 1).and_then(|state| state.hold(2, None)).expect("held");
        assert_eq!(held.let_go(2), Err(MapRefused::Over { epoch: 2 }), "it was another version that took too long");
        let again = held.let_go(3).expect("let go");
        assert_eq!(again.filed_with(Slot(0), 0, 1), Some(0));
        assert_eq!(again.hold(2, None), Err(MapRefused::Over { epoch: 2 }), "what was handed over is no longer enough");
        assert!(again.hold(4, None).is_ok());
        assert_eq!(again.let_go(4), Err(MapRefused::Over { epoch: 4 }), "nothing is held");
        let stopped = again.stop().expect("stopped");
        assert_eq!((&stopped.moving, stopped.version()), (&None, 5));
        assert_eq!(stopped.stop(), Err(MapRefused::Nothing));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let state = MapState::first(FIRST);
        let words = |slots: &str, to| state.begin(slots.parse().expect("slots"), to).expect_err("refused").to_string();
        assert!(words("0", 4).contains("no shard 4"));
        assert!(words("0,256", 3).contains("one shard at a time"));
        assert!(words("0-9", 0).contains("already"));
        assert_eq!(state.begin(Slots::default(), 1), Err(MapRefused::NoSlots));
        let moving = state.begin(slots("0"), 1).expect("begun");
        assert!(matches!(moving.begin(slots("1"), 1), Err(MapRefused::Moving { .. })));
    }

    #[test]
    fn a_configuration_can_add_shards_and_nothing_else() {
        let state = MapState::first(FIRST);
        assert_eq!(state.with_shards(FIRST), Ok(state.clone()));
        let more = state.with_shards(FirstMap { shards: 5, ..FIRST }).expect("more");
        assert_eq!((more.version(), more.map.shards(), more.map.slots_of(4).len()), (2, 5, 0));
        assert_eq!(more.with_shards(FIRST), Err(MapRefused::Fewer { asked: 4, found: 5 }));
        assert!(state.with_shards(FirstMap { version: 2, ..FIRST }).is_err());
    }
}
