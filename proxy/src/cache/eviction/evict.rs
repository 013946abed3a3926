//! Makes room.

use std::sync::Arc;

use super::gdsf::rank_of;
use super::pool::Candidate;
use super::{Eviction, Gdsf, Lru};
use crate::cache::Store;
use crate::cache::counts::Cause;
use crate::cache::entry::Entry;
use crate::cache::slot::Slot;

/// What became of a candidate.
enum Turn {
    /// There is more room now.
    Evicted,
    /// It was used since it was seen, and has this rank now.
    Rose(f64),
    Gone,
}

impl Store {
    /// Takes `bytes` from the budget; entries are evicted until they are free. `false`: there is nothing left to evict.
    ///
    /// No shard may be locked by the caller.
    pub(in crate::cache) fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.limits().budget_bytes {
            return false;
        }
        while !self.budget().take(bytes) {
            let evicted = match self.eviction() {
                Eviction::Gdsf(gdsf) => self.evict_lowest(gdsf),
                Eviction::Lru(lru) => self.evict_oldest(lru),
            };
            if !evicted {
                return self.budget().take(bytes);
            }
        }
        true
    }

    fn evict_lowest(&self, gdsf: &Gdsf) -> bool {
        let Some(mut sampler) = gdsf.sampler() else { return false };
        let mut next = sampler.lowest(self.shards(), self.now());
        while let Some(candidate) = next {
            match self.try_evict(gdsf, candidate) {
                Turn::Evicted => return true,
                Turn::Rose(rank) => sampler.offer(Candidate { rank, ..candidate }),
                Turn::Gone => {}
            }
            next = sampler.next_lowest();
        }
        // Every candidate was gone, or nothing could be sampled because writers held the shards.
        self.objects() > 0
    }

    fn try_evict(&self, gdsf: &Gdsf, candidate: Candidate) -> Turn {
        let Some(shard) = self.shards().get(candidate.shard) else { return Turn::Gone };
        let mut shard = shard.0.write();
        let Some(at) = shard.find_table_hash(candidate.hash, |_| true) else { return Turn::Gone };
        let Some(slot) = shard.slots().get(at) else { return Turn::Gone };
        let (now, rank) = (self.now(), slot.standing.rank());
        let turn = rank_of(slot, now);
        if turn > candidate.rank {
            return Turn::Rose(turn);
        }
        if turn == f64::NEG_INFINITY {
            let dead = self.take_dead(&mut shard, at, now);
            drop(shard);
            return if dead.is_empty() { Turn::Gone } else { Turn::Evicted };
        }
        gdsf.raise_floor(rank);
        let removed = self.remove_slot(&mut shard, at, Cause::Budget);
        drop(shard);
        self.note_ages(&removed);
        Turn::Evicted
    }

    fn evict_oldest(&self, lru: &Lru) -> bool {
        let Some(hash) = lru.oldest() else { return false };
        let mut shard = self.shard(hash).write();
        let removed = shard.find_hash(hash).and_then(|at| self.remove_slot(&mut shard, at, Cause::Budget));
        drop(shard);
        self.note_ages(&removed);
        true
    }

    /// How old what was pushed out had become.
    fn note_ages(&self, removed: &Option<Slot>) {
        for entry in removed.iter().flat_map(Slot::variants) {
            self.note_age(entry);
        }
    }

    fn note_age(&self, entry: &Arc<Entry>) {
        self.ages().observe(entry.stored_for(self.now()) as f64);
    }
}
