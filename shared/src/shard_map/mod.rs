//! Who owns a key: key hash → slot → shard (pure).
//!
//! [`ShardMap`] is the versioned table; [`MapState`] is what is kept of it where the queues are, with the slots that are
//! moving right now. `slots` are sets of slots, as people write them.

mod slots;
mod state;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::version::{Position, ShardId};

pub use slots::{NoSlots, Slots};
pub use state::{Final, FirstMap, MapRefused, MapState, Move, Stage};

/// Number of hash ranges that keys fall into. On the wire and on disk: never changes.
pub const SLOTS: usize = 1024;

/// Largest number of shards a map can name: one slot each.
pub const SHARDS_MAX: u16 = SLOTS as u16;

/// What is hashed of most documents fits into so many bytes; for more a block is asked of the allocator.
const HASHED_BYTES: usize = 256;

/// One of the 1,024 hash ranges of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot of a document: XXH3-64 of `projection`, a zero byte and `key`, its lowest ten bits.
    pub fn of(projection: &str, key: &str) -> Slot {
        let mut text: SmallVec<[u8; HASHED_BYTES]> = SmallVec::with_capacity(projection.len() + 1 + key.len());
        text.extend_from_slice(projection.as_bytes());
        text.push(0);
        text.extend_from_slice(key.as_bytes());
        Slot((xxh3_64(&text) % SLOTS as u64) as u16)
    }

    /// The slot of the document with this tag, `projection/key`; `None` if it is no such tag.
    pub fn of_tag(tag: &str) -> Option<Slot> {
        tag.split_once('/').map(|(projection, key)| Slot::of(projection, key))
    }
}

/// Owner of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub shard: ShardId,
    /// Position in the shard's queue up to which it must have come to hold all documents of the slot; 0 where it always
    /// owned it.
    pub since: Position,
}

/// The versioned table that says which shard owns a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenMap", into = "WrittenMap")]
pub struct ShardMap {
    version: u32,
    shards: u16,
    /// One for each slot.
    owners: Vec<Owner>,
}

/// The table in runs of slots.
#[derive(Serialize, Deserialize)]
struct WrittenMap {
    version: u32,
    shards: u16,
    /// Number of slots, their shard, since when; in the order of slots.
    owners: Vec<(u16, ShardId, Position)>,
}

impl ShardMap {
    /// Equal, contiguous runs of slots over `shards` shards.
    ///
    /// `shards` is held between 1 and [`SHARDS_MAX`].
    pub fn even(version: u32, shards: u16) -> ShardMap {
        let shards = shards.clamp(1, SHARDS_MAX);
        let owner = |slot: usize| Owner { shard: (slot * usize::from(shards) / SLOTS) as ShardId, since: 0 };
        ShardMap { version, shards, owners: (0..SLOTS).map(owner).collect() }
    }

    /// Rises with every change of the table, and of what is moving.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Number of shards, those without any slot among them.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    pub fn owner(&self, slot: Slot) -> Owner {
        self.owners.get(usize::from(slot.0)).copied().unwrap_or(Owner { shard: 0, since: 0 })
    }

    /// Owner of the document (`projection`, `key`).
    pub fn owner_of(&self, projection: &str, key: &str) -> Owner {
        self.owner(Slot::of(projection, key))
    }

    /// The shards that have owned slots by this map and, by a later one, do not, or did not all the time.
    pub fn givers(&self, later: &ShardMap) -> BTreeSet<ShardId> {
        let both = self.owners.iter().zip(&later.owners);
        both.filter(|(before, after)| before != after).map(|(before, _)| before.shard).collect()
    }

    /// The shard of each slot, in the order of slots.
    pub fn owners(&self) -> impl Iterator<Item = ShardId> {
        self.owners.iter().map(|owner| owner.shard)
    }

    /// The slots that a shard owns.
    pub fn slots_of(&self, shard: ShardId) -> Slots {
        (0..).zip(&self.owners).filter(|(_, owner)| owner.shard == shard).map(|(slot, _)| Slot(slot)).collect()
    }
}

impl From<ShardMap> for WrittenMap {
    fn from(map: ShardMap) -> WrittenMap {
        let mut owners: Vec<(u16, ShardId, Position)> = Vec::new();
        for Owner { shard, since } in map.owners {
            match owners.last_mut() {
                Some((count, same, at)) if (*same, *at) == (shard, since) => *count += 1,
                _ => owners.push((1, shard, since)),
            }
        }
        WrittenMap { version: map.version, shards: map.shards, owners }
    }
}

/// What is written is no table of all slots.
#[derive(Debug, thiserror::Error)]
pub enum NoMap {
    #[error("it has owners for {0} slots, not for {SLOTS}")]
    Slots(usize),
    #[error("it has slots of shard {0}, beyond its number of shards")]
    Shard(ShardId),
}

impl TryFrom<WrittenMap> for ShardMap {
    type Error = NoMap;

    fn try_from(written: WrittenMap) -> Result<ShardMap, NoMap> {
        let WrittenMap { version, shards, owners } = written;
        let slots = owners.iter().map(|(count, ..)| usize::from(*count)).sum();
        if slots != SLOTS {
            return Err(NoMap::Slots(slots));
        }
        if let Some((_, shard, _)) = owners.iter().find(|(_, shard, _)| *shard >= shards) {
            return Err(NoMap::Shard(*shard));
        }
        let run = |(count, shard, since)| std::iter::repeat_n(Owner { shard, since }, usize::from(count));
        Ok(ShardMap { version, shards, owners: owners.into_iter().flat_map(run).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_owns_its_even_share() {
        for shards in [1u16, 2, 3, 4, 7, 1024] {
            let map = ShardMap::even(1, shards);
            let mut owned = vec![0usize; usize::from(shards)];
            for slot in 0..SLOTS {
                owned[usize::from(map.owner(Slot(slot as u16)).shard)] += 1;
            }
            let least = SLOTS / usize::from(shards);
            assert!(owned.iter().all(|&n| n == least || n == least + 1), "{shards}: {owned:?}");
        }
    }

    #[test]
    fn slots_are_fixed_for_ever() {
        // On disk and on the wire: a changed hash would orphan every stored document.
        assert_eq!(Slot::of("user-edits", "alice"), Slot(323));
        assert_ne!(Slot::of("ab", "c"), Slot::of("a", "bc"));
        for length in [HASHED_BYTES - 3, HASHED_BYTES - 2, HASHED_BYTES - 1, 4 * HASHED_BYTES] {
            let key = "k".repeat(length);
            let hash = xxh3_64(["p", "\0", key.as_str()].concat().as_bytes());
            assert_eq!(u64::from(Slot::of("p", &key).0), hash % SLOTS as u64, "{length}");
        }
    }

    #[test]
    fn tables_and_back() {
        let map = ShardMap::even(3, 4);
        let text = serde_json::to_string(&map).expect("text");
        assert_eq!(text, r#"{"version":3,"shards":4,"owners":[[256,0,0],[256,1,0],[256,2,0],[256,3,0]]}"#);
        assert_eq!(serde_json::from_str::<ShardMap>(&text).expect("a map"), map);
        for wrong in [r#"[[1023,0,0]]"#, r#"[[1023,0,0],[1,4,0]]"#, "[]"] {
            let text = format!(r#"{{"version":3,"shards":4,"owners":{wrong}}}"#);
            assert!(serde_json::from_str::<ShardMap>(&text).is_err(), "{wrong}");
        }
        assert_eq!(map.slots_of(3).to_string(), "768-1023");
    }

    #[test]
    fn a_tag_has_the_slot_of_its_document() {
        assert_eq!(Slot::of_tag("user-edits/a/b"), Some(Slot::of("user-edits", "a/b")));
        assert_eq!(Slot::of_tag("news"), None);
    }
}
