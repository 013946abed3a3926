//! Entries by key, within a budget of bytes.
//!
//! The map is split into shards to spread its locks, the budget is not: whichever shard grows, entries anywhere make
//! room, so that one large object fits as long as the whole has room for it. Reading takes a shard's lock for reading,
//! and nothing else (`lru` takes one more); room is made before an entry is put in, so that the budget holds at every
//! moment. Locks are taken in one order: shard, then tag index or the list of `lru`.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond_shared::http1::Fields;
use parking_lot::{Mutex, RwLock};
use prometheus::Histogram;

use super::budget::Budget;
use super::charge::{Charge, Overhead};
use super::counts::{Cause, Removals};
use super::eviction::{Eviction, EvictionPolicy};
use super::padded::Padded;
use super::purges::PurgeLog;
use super::shard::Shard;
use super::slot::Slot;
use super::sweep::Place;
use super::tags::TagIndex;
use super::{Entry, Mark, Mode, PurgeSeq, counts};
use crate::key::{Key, KeyHash, KeyRef};
use crate::semantics::vary::Selection;

/// What the store may hold.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Bytes, bookkeeping and bodies on their way in included.
    pub budget_bytes: u64,
    /// Bytes of one entry; a larger one is not admitted.
    pub object_max_bytes: u64,
    /// Bytes of all bodies on their way in; what goes beyond it is passed on, and not stored.
    pub reserved_max_bytes: u64,
    /// Variants under one key; the oldest makes room for one more.
    pub variants_max: usize,
}

impl StoreLimits {
    /// An object may take a tenth of the budget, bodies on their way in a quarter, a key may have 32 variants.
    pub fn with_budget(budget_bytes: u64) -> StoreLimits {
        StoreLimits {
            budget_bytes,
            object_max_bytes: budget_bytes / 10,
            reserved_max_bytes: budget_bytes / 4,
            variants_max: 32,
        }
    }
}

/// How the store is built.
#[derive(Clone, Copy, Debug)]
pub struct StoreLayout {
    pub eviction: EvictionPolicy,
    /// Parts of the map, each with a lock of its own; rounded up to a power of two.
    pub shards: usize,
    pub overhead: Overhead,
    /// Where chance starts: with the same seed, one thread sees the same entries evicted.
    pub seed: u64,
}

impl Default for StoreLayout {
    fn default() -> StoreLayout {
        let seed = RandomState::new().hash_one(0);
        StoreLayout { eviction: EvictionPolicy::default(), shards: SHARDS, overhead: Overhead::default(), seed }
    }
}

const SHARDS: usize = 64;
const SHARDS_MAX: usize = 1 << 16;

#[derive(Debug)]
pub struct Store {
    limits: StoreLimits,
    overhead: Overhead,
    shards: Box<[Padded<RwLock<Shard>>]>,
    eviction: Eviction,
    pub(super) tags: TagIndex,
    pub(super) purges: PurgeLog,
    budget: Budget,
    reservations: Budget,
    /// Seconds since the Unix epoch, as told by those who admit and sweep.
    now: Padded<AtomicU64>,
    pub(super) removals: Removals,
    ages: Histogram,
    pub(super) sweeping: Mutex<Place>,
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Lookup {
    Found(Arc<Entry>),
    /// An incomplete entry; which parts it holds is for the caller to see.
    Part(Arc<Entry>),
    /// The key has entries, but none for these request fields.
    OtherVariant,
    Nothing,
}

impl Store {
    pub fn new(limits: StoreLimits) -> Store {
        Store::build(limits, StoreLayout::default())
    }

    pub fn build(limits: StoreLimits, layout: StoreLayout) -> Store {
        let shards = layout.shards.clamp(1, SHARDS_MAX).next_power_of_two();
        Store {
            limits,
            overhead: layout.overhead,
            shards: (0..shards).map(|_| Padded::default()).collect(),
            eviction: Eviction::new(layout.eviction, layout.seed),
            tags: TagIndex::new(),
            purges: PurgeLog::default(),
            budget: Budget::new(limits.budget_bytes),
            reservations: Budget::new(limits.reserved_max_bytes),
            now: Padded::default(),
            removals: Removals::default(),
            ages: counts::ages(),
            sweeping: Mutex::default(),
        }
    }

    pub fn limits(&self) -> &StoreLimits {
        &self.limits
    }

    /// Passes the newest variant that answers the request to `use_it`, and counts a use. `None`: there is none.
    ///
    /// `use_it` runs under the lock of the shard: it must be short, and must not call the store.
    pub fn read<R>(&self, key: KeyRef<'_>, request: &Fields, use_it: impl FnOnce(&Arc<Entry>) -> R) -> Option<R> {
        let shard = self.shard(key.hash).read();
        let slot = shard.find(key)?;
        let entry = slot.variant(request)?;
        self.eviction.used(slot, key.hash);
        Some(use_it(entry))
    }

    pub fn lookup(&self, key: &Key, request: &Fields) -> Lookup {
        let key = key.borrowed();
        let shard = self.shard(key.hash).read();
        let Some(slot) = shard.find(key) else { return Lookup::Nothing };
        let found = slot.variant(request).map(|entry| Lookup::Found(Arc::clone(entry)));
        let found = found.or_else(|| Some(Lookup::Part(Arc::clone(slot.part(request)?))));
        let Some(found) = found else { return Lookup::OtherVariant };
        self.eviction.used(slot, key.hash);
        found
    }

    /// The entry for exactly this selection, complete or not; not counted as a use.
    pub fn of_selection(&self, key: &Key, selection: &Selection) -> Option<Arc<Entry>> {
        let key = key.borrowed();
        let shard = self.shard(key.hash).read();
        shard.find(key)?.variants().iter().find(|entry| entry.selection() == selection).cloned()
    }

    /// Sequence number of the last purge: what a fetch notes when it begins.
    pub fn purge_seq(&self) -> PurgeSeq {
        self.purges.now()
    }

    /// Takes the entry in, in place of those of the same variant. `false`: too large, not taken.
    ///
    /// `began`: the purge sequence when the fetch of this entry began. `overtaken` is asked before anybody can find the
    /// entry: whether its document has changed meanwhile.
    pub fn admit(&self, key: &Key, entry: Arc<Entry>, began: PurgeSeq, overtaken: impl FnOnce() -> bool) -> bool {
        self.admit_at(key.borrowed(), entry, began, overtaken)
    }

    pub(super) fn admit_at(
        &self,
        key: KeyRef<'_>,
        entry: Arc<Entry>,
        began: PurgeSeq,
        overtaken: impl FnOnce() -> bool,
    ) -> bool {
        let own = Slot::own_charge(key.text, self.eviction.node_bytes(), self.overhead);
        let room = (own + self.charge(&entry)).total();
        self.tell_time(entry.times.received);
        if room > self.limits.object_max_bytes || !self.make_room(room) {
            return false;
        }
        let now = self.now();
        // What leaves is freed after the lock is.
        let (mut gone, mut other) = (Vec::new(), None);
        let mut shard = self.shard(key.hash).write();
        let at = match shard.find_hash(key.hash) {
            Some(at) if shard.slots().get(at).is_some_and(|slot| *slot.key == *key.text) => {
                self.budget.give_back(own.total());
                at
            }
            known => {
                // Another key of the same hash: there is one slot for each hash, so that purges miss nothing.
                other = known.and_then(|at| self.take_slot(&mut shard, at));
                shard.charged += own;
                shard.insert(Slot::new(key))
            }
        };
        if let Some(slot) = shard.slot_mut(at) {
            gone.extend(slot.put(&entry, now));
            let oldest = slot.variants().len().saturating_sub(self.limits.variants_max.max(1));
            if oldest > 0 {
                self.removals.count(Cause::Variants, oldest);
                let mut number = 0;
                gone.extend(slot.take(now, |_| {
                    number += 1;
                    number <= oldest
                }));
            }
        }
        shard.charged += self.charge(&entry);
        shard.objects += 1;
        entry.tags().iter().for_each(|tag| self.tags.add(self.tags.hash(tag), key.hash));
        self.forget(&mut shard, at, key.hash, &gone);
        self.settle(&mut shard, at, key.hash);
        // Under the lock: whoever purges or announces a change either finds the entry, or is found here.
        if overtaken() {
            entry.set_mark(Mark::Changed);
        }
        match self.purges.asked_since(began, key.hash, entry.tags()) {
            Some(Mode::Delete) => gone.extend(self.take(&mut shard, at, key.hash, |own| Arc::ptr_eq(own, &entry))),
            Some(Mode::Stale) => entry.set_mark(Mark::Purged),
            None => {}
        }
        if entry.mark() != Mark::None
            && let Some(slot) = shard.slots().get(at)
        {
            slot.marked(now);
        }
        drop(shard);
        drop((gone, other));
        true
    }

    /// Takes the variants that `is_gone` names out of a slot, and the slot with the last of them.
    pub(super) fn take(
        &self,
        shard: &mut Shard,
        at: usize,
        hash: KeyHash,
        is_gone: impl FnMut(&Arc<Entry>) -> bool,
    ) -> Vec<Arc<Entry>> {
        let now = self.now();
        let Some(slot) = shard.slot_mut(at) else { return Vec::new() };
        let gone = slot.take(now, is_gone);
        let is_empty = slot.variants().is_empty();
        self.forget(shard, at, hash, &gone);
        if is_empty {
            self.take_slot(shard, at);
        } else if !gone.is_empty() {
            self.settle(shard, at, hash);
        }
        gone
    }

    /// Takes out the variants of a slot that are of no use any more.
    pub(super) fn take_dead(&self, shard: &mut Shard, at: usize, now: u64) -> Vec<Arc<Entry>> {
        let Some(hash) = shard.slots().get(at).map(|slot| KeyHash::of(&slot.key)) else { return Vec::new() };
        let dead = self.take(shard, at, hash, |entry| entry.useful_until() < now);
        self.removals.count(Cause::Expired, dead.len());
        dead
    }

    /// Takes out a slot with all its variants.
    pub(super) fn remove_slot(&self, shard: &mut Shard, at: usize, cause: Cause) -> Option<Slot> {
        let removed = self.take_slot(shard, at)?;
        self.removals.count(cause, removed.variants().len());
        Some(removed)
    }

    fn take_slot(&self, shard: &mut Shard, at: usize) -> Option<Slot> {
        let slot = shard.remove(at)?;
        let hash = KeyHash::of(&slot.key);
        self.eviction.removed(hash);
        let charge = self.charge_of(&slot);
        shard.charged -= charge;
        shard.objects -= slot.variants().len() as u64;
        self.budget.give_back(charge.total());
        self.untag(&slot, hash);
        Some(slot)
    }

    /// Takes a slot that is out of the map off the tag index.
    pub(super) fn untag(&self, slot: &Slot, hash: KeyHash) {
        for tag in slot.variants().iter().flat_map(|entry| entry.tags()) {
            self.tags.remove(self.tags.hash(tag), hash);
        }
    }

    /// Takes entries that have left their slot out of the counts and the index; a tag that another variant carries
    /// stays.
    fn forget(&self, shard: &mut Shard, at: usize, hash: KeyHash, gone: &[Arc<Entry>]) {
        for entry in gone {
            let charge = self.charge(entry);
            shard.charged -= charge;
            shard.objects -= 1;
            self.budget.give_back(charge.total());
            for tag in entry.tags() {
                let tag = self.tags.hash(tag);
                let left = shard.slots().get(at).map(Slot::variants).unwrap_or_default();
                if !left.iter().flat_map(|entry| entry.tags()).any(|other| self.tags.hash(other) == tag) {
                    self.tags.remove(tag, hash);
                }
            }
        }
    }

    /// The variants of a slot are others than before: it has another rank.
    pub(super) fn settle(&self, shard: &mut Shard, at: usize, hash: KeyHash) {
        if let Some(slot) = shard.slot_mut(at) {
            let bytes = self.charge_of(slot).total();
            self.eviction.changed(slot, hash, bytes);
        }
    }

    pub(super) fn charge(&self, entry: &Entry) -> Charge {
        match self.overhead {
            Overhead::Product => entry.charge(),
            Overhead::None => Charge { body: entry.body.len() as u64, ..Charge::default() },
        }
    }

    pub(super) fn charge_of(&self, slot: &Slot) -> Charge {
        let own = Slot::own_charge(&slot.key, self.eviction.node_bytes(), self.overhead);
        own + slot.variants().iter().map(|entry| self.charge(entry)).sum()
    }

    pub(super) fn overhead(&self) -> Overhead {
        self.overhead
    }

    pub(super) fn shards(&self) -> &[Padded<RwLock<Shard>>] {
        &self.shards
    }

    pub(super) fn shard(&self, hash: KeyHash) -> &RwLock<Shard> {
        // Bits that the table of the shard does not use; their number is a power of two, which keeps it in range.
        #[allow(clippy::indexing_slicing)]
        &self.shards[(hash.0 >> 64) as usize & (self.shards.len() - 1)].0
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn reservations(&self) -> &Budget {
        &self.reservations
    }

    pub(super) fn eviction(&self) -> &Eviction {
        &self.eviction
    }

    pub(super) fn ages(&self) -> &Histogram {
        &self.ages
    }

    /// Seconds since the Unix epoch, as far as the store was told.
    pub(super) fn now(&self) -> u64 {
        self.now.0.load(Ordering::Relaxed)
    }

    /// It is `now` at least, in seconds since the Unix epoch.
    pub fn tell_time(&self, now: u64) {
        if self.now() < now {
            self.now.0.fetch_max(now, Ordering::Relaxed);
        }
    }
}
