//! Who owns a key: key hash → slot → shard (pure).

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::version::ShardId;

/// Number of hash ranges that keys fall into. On the wire and on disk: never changes.
pub const SLOTS: usize = 1024;

/// Largest number of shards a map can name: one slot each.
pub const SHARDS_MAX: u16 = SLOTS as u16;

/// One of the 1,024 hash ranges of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot of a document: XXH3-64 of `projection`, a zero byte and `key`, its lowest ten bits.
    pub fn of(projection: &str, key: &str) -> Slot {
        let mut text = Vec::with_capacity(projection.len() + 1 + key.len());
        text.extend_from_slice(projection.as_bytes());
        text.push(0);
        text.extend_from_slice(key.as_bytes());
        Slot((xxh3_64(&text) % SLOTS as u64) as u16)
    }
}

/// Owner of a slot, and the epoch since which it owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub shard: ShardId,
    pub epoch: u32,
}

/// The versioned table that says which shard owns a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    /// Rises with every change of the table.
    pub version: u32,
    shards: u16,
    owners: Vec<Owner>,
}

impl ShardMap {
    /// Equal, contiguous runs of slots over `shards` shards, all in epoch `version`.
    ///
    /// `shards` is held between 1 and [`SHARDS_MAX`].
    pub fn even(version: u32, shards: u16) -> ShardMap {
        let shards = shards.clamp(1, SHARDS_MAX);
        let owner = |slot: usize| Owner { shard: (slot * usize::from(shards) / SLOTS) as ShardId, epoch: version };
        ShardMap { version, shards, owners: (0..SLOTS).map(owner).collect() }
    }

    pub fn shards(&self) -> u16 {
        self.shards
    }

    pub fn owner(&self, slot: Slot) -> Owner {
        let first = Owner { shard: 0, epoch: self.version };
        self.owners.get(usize::from(slot.0)).copied().unwrap_or(first)
    }

    /// Owner of the document (`projection`, `key`).
    pub fn owner_of(&self, projection: &str, key: &str) -> Owner {
        self.owner(Slot::of(projection, key))
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
    }
}
