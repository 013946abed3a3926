//! Entries by key, within a budget of bytes.
//!
//! The map is split into shards to spread its locks, the budget is not: whichever shard grows, the least recently
//! used entries anywhere make room, so that one large object fits as long as the whole has room for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lru::LruCache;
use millpond_shared::http1::Fields;
use millpond_shared::version::Version;
use parking_lot::Mutex;

use super::purges::PurgeLog;
use super::tags::TagIndex;
use super::{Entry, Mark, Purge, PurgeSeq};
use crate::key::{Key, KeyHash, KeyRef};

const SHARDS: usize = 64;
/// Shards whose oldest entries are compared before one is evicted.
const EVICTION_SAMPLES: usize = 5;

/// What the store may hold.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Bytes, bookkeeping included; beyond it the least recently used entries are evicted.
    pub budget_bytes: u64,
    /// Bytes of one entry; a larger one is not admitted.
    pub object_max_bytes: u64,
    /// Variants under one key; the oldest makes room for one more.
    pub variants_max: usize,
}

impl StoreLimits {
    /// An object may take a tenth of the budget, a key may have 32 variants.
    pub fn with_budget(budget_bytes: u64) -> StoreLimits {
        StoreLimits { budget_bytes, object_max_bytes: budget_bytes / 10, variants_max: 32 }
    }
}

#[derive(Debug)]
pub struct Store {
    limits: StoreLimits,
    shards: Vec<Mutex<LruCache<KeyHash, Slot>>>,
    tags: TagIndex,
    purges: PurgeLog,
    bytes: AtomicU64,
    objects: AtomicU64,
    evicted: AtomicU64,
    clock: AtomicU64,
    next_victim: AtomicUsize,
}

/// All variants of one key.
#[derive(Debug)]
struct Slot {
    key: Key,
    variants: Vec<Arc<Entry>>,
    used: u64,
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Lookup {
    Found(Arc<Entry>),
    /// The key has entries, but none for these request fields.
    OtherVariant,
    Nothing,
}

/// How to purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Mark stale: validated before the next use, served if the origin fails within its window.
    Stale,
    Delete,
}

/// What a purge found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub objects: u64,
    pub bytes: u64,
}

impl Store {
    pub fn new(limits: StoreLimits) -> Store {
        Store {
            limits,
            shards: (0..SHARDS).map(|_| Mutex::new(LruCache::unbounded())).collect(),
            tags: TagIndex::new(),
            purges: PurgeLog::default(),
            bytes: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            next_victim: AtomicUsize::new(0),
        }
    }

    pub fn limits(&self) -> &StoreLimits {
        &self.limits
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    /// Entries that the budget has pushed out so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    pub fn lookup(&self, key: &Key, request: &Fields) -> Lookup {
        let hash = key.hash();
        let mut shard = self.shard(hash).lock();
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        let Some(slot) = shard.get_mut(&hash).filter(|slot| slot.key == *key) else { return Lookup::Nothing };
        slot.used = used;
        match slot.variants.iter().rev().find(|entry| entry.selection.matches(request)) {
            Some(entry) => Lookup::Found(Arc::clone(entry)),
            None => Lookup::OtherVariant,
        }
    }

    /// Hands the entry for this request to `use_it`, which must be short and must not call the store; `None`: there is
    /// none. Counts as a use.
    pub fn read<R>(&self, key: KeyRef<'_>, request: &Fields, use_it: impl FnOnce(&Arc<Entry>) -> R) -> Option<R> {
        let mut shard = self.shard(key.hash).lock();
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        let slot = shard.get_mut(&key.hash).filter(|slot| slot.key.as_str() == key.text)?;
        slot.used = used;
        slot.variants.iter().rev().find(|entry| entry.selection.matches(request)).map(use_it)
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
        let hash = key.hash();
        if weight(key, &entry) > self.limits.object_max_bytes {
            return false;
        }
        {
            let mut shard = self.shard(hash).lock();
            let used = self.clock.fetch_add(1, Ordering::Relaxed);
            let mut slot = shard.pop(&hash).filter(|slot| slot.key == *key).unwrap_or_else(|| Slot {
                key: key.clone(),
                variants: Vec::new(),
                used,
            });
            slot.used = used;
            let replaced = |old: &Arc<Entry>| old.selection == entry.selection;
            let mut forgotten: Vec<Arc<Entry>> = slot.variants.extract_if(.., |old| replaced(old)).collect();
            while slot.variants.len() >= self.limits.variants_max.max(1) {
                forgotten.push(slot.variants.remove(0));
            }
            self.count_in(key, &entry);
            slot.variants.push(Arc::clone(&entry));
            entry.tags.iter().for_each(|tag| self.tags.add(tag, hash));
            forgotten.iter().for_each(|old| self.forget(&slot, hash, old));
            shard.push(hash, slot);
            // Under the lock: whoever purges or announces a change either finds the entry, or is found here.
            if overtaken() {
                entry.set_mark(Mark::Changed);
            }
            match self.purges.asked_since(began, hash, &entry.tags) {
                None => {}
                Some(Mode::Stale) => entry.set_mark(Mark::Purged),
                Some(Mode::Delete) => {
                    self.delete(&mut shard, hash, |own| Arc::ptr_eq(own, &entry));
                }
            }
        }
        self.make_room();
        true
    }

    pub fn purge_key(&self, key: &Key, mode: Mode) -> Purged {
        self.purges.add(Purge::Key(key.hash()), mode);
        self.purge_slot(key.hash(), mode, |_| true)
    }

    pub fn purge_tag(&self, tag: &str, mode: Mode) -> Purged {
        self.purges.add(Purge::Tag(tag.into()), mode);
        let keys = self.tags.keys(tag);
        sum(keys
            .into_iter()
            .map(|hash| self.purge_slot(hash, mode, |entry| entry.tags.iter().any(|own| **own == *tag))))
    }

    pub fn purge_all(&self, mode: Mode) -> Purged {
        self.purges.add(Purge::All, mode);
        sum((0..SHARDS).map(|index| {
            let hashes: Vec<KeyHash> = self
                .shards
                .get(index)
                .map(|shard| shard.lock().iter().map(|(hash, _)| *hash).collect())
                .unwrap_or_default();
            sum(hashes.into_iter().map(|hash| self.purge_slot(hash, mode, |_| true)))
        }))
    }

    /// The document with this tag is at `version`: marks its older copies.
    pub fn document_changed(&self, tag: &str, version: Version) {
        for hash in self.tags.keys(tag) {
            let shard = self.shard(hash).lock();
            for entry in shard.peek(&hash).iter().flat_map(|slot| &slot.variants) {
                if entry.stamp.as_ref().is_some_and(|stamp| *stamp.tag == *tag && stamp.version < version) {
                    entry.set_mark(Mark::Changed);
                }
            }
        }
    }

    fn purge_slot(&self, hash: KeyHash, mode: Mode, concerned: impl Fn(&Entry) -> bool) -> Purged {
        let mut shard = self.shard(hash).lock();
        if mode == Mode::Delete {
            return self.delete(&mut shard, hash, |entry| concerned(entry));
        }
        let Some(slot) = shard.peek(&hash) else { return Purged::default() };
        sum(slot.variants.iter().filter(|entry| concerned(entry)).map(|entry| {
            entry.set_mark(Mark::Purged);
            Purged { objects: 1, bytes: weight(&slot.key, entry) }
        }))
    }

    fn delete(
        &self,
        shard: &mut LruCache<KeyHash, Slot>,
        hash: KeyHash,
        concerned: impl Fn(&Arc<Entry>) -> bool,
    ) -> Purged {
        let Some(slot) = shard.peek_mut(&hash) else { return Purged::default() };
        let gone: Vec<Arc<Entry>> = slot.variants.extract_if(.., |entry| concerned(entry)).collect();
        gone.iter().for_each(|entry| self.forget(slot, hash, entry));
        let purged = sum(gone.iter().map(|entry| Purged { objects: 1, bytes: weight(&slot.key, entry) }));
        if slot.variants.is_empty() {
            shard.pop(&hash);
        }
        purged
    }

    /// What the purges after `since` up to `until` ask for this key and these tags.
    pub fn purged_between(&self, since: PurgeSeq, until: PurgeSeq, key: &Key, tags: &[Box<str>]) -> Option<Mode> {
        self.purges.asked_between(since, until, key.hash(), tags)
    }

    fn make_room(&self) {
        while self.bytes() > self.limits.budget_bytes {
            let start = self.next_victim.fetch_add(1, Ordering::Relaxed);
            // Of some shards, the one whose least recently used slot was used longest ago. When all of those are
            // empty, all shards are looked at, so that this ends.
            let oldest = |count: usize| {
                (start..start + count)
                    .map(|index| index % SHARDS)
                    .filter_map(|index| {
                        let used = self.shards.get(index)?.lock().peek_lru().map(|(_, slot)| slot.used)?;
                        Some((used, index))
                    })
                    .min()
            };
            let Some((_, index)) = oldest(EVICTION_SAMPLES).or_else(|| oldest(SHARDS)) else { return };
            let Some(shard) = self.shards.get(index) else { return };
            let mut shard = shard.lock();
            if let Some((hash, slot)) = shard.pop_lru() {
                let mut slot = slot;
                let gone = std::mem::take(&mut slot.variants);
                self.evicted.fetch_add(gone.len() as u64, Ordering::Relaxed);
                gone.iter().for_each(|entry| self.forget(&slot, hash, entry));
            }
        }
    }

    fn count_in(&self, key: &Key, entry: &Entry) {
        self.bytes.fetch_add(weight(key, entry), Ordering::Relaxed);
        self.objects.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes an entry that has left its slot out of the counts and the index; a tag that another variant carries
    /// stays. The caller holds the lock of its shard.
    fn forget(&self, slot: &Slot, hash: KeyHash, entry: &Entry) {
        self.bytes.fetch_sub(weight(&slot.key, entry), Ordering::Relaxed);
        self.objects.fetch_sub(1, Ordering::Relaxed);
        for tag in &entry.tags {
            if !slot.variants.iter().any(|other| other.tags.contains(tag)) {
                self.tags.remove(tag, hash);
            }
        }
    }

    fn shard(&self, hash: KeyHash) -> &Mutex<LruCache<KeyHash, Slot>> {
        // The modulus keeps the index in range.
        #[allow(clippy::indexing_slicing)]
        &self.shards[hash.0 as usize % SHARDS]
    }
}

fn weight(key: &Key, entry: &Entry) -> u64 {
    (key.as_str().len() + entry.weight()) as u64
}

fn sum(parts: impl Iterator<Item = Purged>) -> Purged {
    parts.fold(Purged::default(), |all, part| Purged {
        objects: all.objects + part.objects,
        bytes: all.bytes + part.bytes,
    })
}
