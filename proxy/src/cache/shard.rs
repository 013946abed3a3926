//! A part of the map, behind one lock: the table finds the number of a slot, the slots stand in a row so that one can
//! be picked at random.

use hashbrown::HashTable;

use super::charge::Charge;
use super::slot::{Slot, table_hash};
use crate::key::{KeyHash, KeyRef};

#[derive(Debug, Default)]
pub struct Shard {
    table: HashTable<u32>,
    slots: Vec<Slot>,
    /// What everything in it costs.
    pub charged: Charge,
    /// Variants of all slots.
    pub objects: u64,
}

impl Shard {
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub fn slot_mut(&mut self, at: usize) -> Option<&mut Slot> {
        self.slots.get_mut(at)
    }

    pub fn find(&self, key: KeyRef<'_>) -> Option<&Slot> {
        let slots = &self.slots;
        let is_it = |at: &u32| slots.get(*at as usize).is_some_and(|slot| *slot.key == *key.text);
        self.table.find(table_hash(key.hash), is_it).and_then(|at| slots.get(*at as usize))
    }

    /// The slot of the key with this hash.
    pub fn find_hash(&self, hash: KeyHash) -> Option<usize> {
        self.find_table_hash(table_hash(hash), |slot| slot.is_for(hash))
    }

    /// A slot with this table hash that is the one meant.
    pub fn find_table_hash(&self, hash: u64, is_meant: impl Fn(&Slot) -> bool) -> Option<usize> {
        let is_it = |at: &u32| self.slots.get(*at as usize).is_some_and(|slot| slot.hash == hash && is_meant(slot));
        self.table.find(hash, is_it).map(|at| *at as usize)
    }

    /// Adds a slot whose key has none; its place.
    pub fn insert(&mut self, slot: Slot) -> usize {
        let at = self.slots.len();
        let hash = slot.hash;
        if at == self.slots.capacity() {
            // By an eighth: doubling would leave half of a large index unused.
            self.slots.reserve_exact((at / 8).max(4));
        }
        self.slots.push(slot);
        let slots = &self.slots;
        self.table.insert_unique(hash, at as u32, |at| hash_at(slots, *at));
        at
    }

    /// Takes a slot out; the last one takes its place.
    pub fn remove(&mut self, at: usize) -> Option<Slot> {
        let last = self.slots.len().checked_sub(1)?;
        let hash = self.slots.get(at)?.hash;
        self.table.find_entry(hash, |found| *found as usize == at).ok()?.remove();
        let removed = self.slots.swap_remove(at);
        if let Some(moved) = self.slots.get(at)
            && let Some(found) = self.table.find_mut(moved.hash, |found| *found as usize == last)
        {
            *found = at as u32;
        }
        self.shrink();
        Some(removed)
    }

    /// Takes everything out.
    pub fn take_all(&mut self) -> Vec<Slot> {
        std::mem::take(self).slots
    }

    /// Gives memory back after many were removed: what the index takes is charged by the slots there are.
    fn shrink(&mut self) {
        let (length, capacity) = (self.slots.len(), self.slots.capacity());
        if capacity > 64 && length < capacity / 4 * 3 {
            self.slots.shrink_to(length + length / 16);
            let slots = &self.slots;
            self.table.shrink_to(length, |at| hash_at(slots, *at));
        }
    }
}

fn hash_at(slots: &[Slot], at: u32) -> u64 {
    slots.get(at as usize).map_or(0, |slot| slot.hash)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn slots_are_found_wherever_they_have_moved_to() {
        let mut shard = Shard::default();
        let mut present = BTreeSet::new();
        for step in 0..20_000_u64 {
            let number = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
            let text = format!("key {number}");
            let key = KeyRef::new(&text);
            // Grows for a while, then shrinks.
            let adds = if step < 10_000 { step % 4 != 0 } else { step % 8 == 0 };
            match shard.find_hash(key.hash) {
                Some(at) if !adds => {
                    assert_eq!(shard.remove(at).map(|slot| slot.key), Some(text.as_str().into()));
                    present.remove(&number);
                }
                None if adds => {
                    shard.insert(Slot::new(key));
                    present.insert(number);
                }
                _ => {}
            }
            assert_eq!(shard.find(key).is_some(), present.contains(&number), "{text}");
        }
        assert_eq!(shard.slots().len(), present.len());
        for number in &present {
            assert!(shard.find(KeyRef::new(&format!("key {number}"))).is_some());
        }
        let (slots, used) = (shard.slots.capacity(), shard.slots.len());
        assert!(slots * 3 / 4 <= used.max(64) + 4, "{slots} places for {used} slots");
        assert_eq!(shard.take_all().len(), present.len());
        assert!(shard.slots().is_empty());
    }
}
