//! One key of the map, with all its variants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use millpond_shared::http1::Fields;

use super::charge::{self, Charge, Overhead};
use super::entry::{Entry, is_replaced_by};
use crate::key::{KeyHash, KeyRef};

/// All that a look-up reads before the entry itself, on one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Slot {
    /// The half of the key's hash that the table is built over.
    pub hash: u64,
    /// Compared on every look-up: the hash can be forged.
    pub key: Box<str>,
    variants: Variants,
    pub standing: Standing,
    /// The last second in which every variant can still be of use.
    useful_until: AtomicU64,
}

/// How much a slot is worth keeping; written by every hit, under the shard's read lock.
#[derive(Debug)]
pub struct Standing {
    /// Bits of an `f64`; the slot of the lowest rank is evicted first.
    rank: AtomicU64,
    uses: AtomicU32,
    /// By how much one use raises the rank.
    pub worth: f32,
}

/// One variant is what nearly every key has.
#[derive(Debug)]
enum Variants {
    One(Arc<Entry>),
    /// The oldest first.
    Several(Box<[Arc<Entry>]>),
}

impl Slot {
    pub fn new(key: KeyRef<'_>) -> Slot {
        Slot {
            hash: table_hash(key.hash),
            key: key.text.into(),
            variants: Variants::Several(Box::default()),
            standing: Standing { rank: AtomicU64::new(0), uses: AtomicU32::new(1), worth: 0.0 },
            useful_until: AtomicU64::new(u64::MAX),
        }
    }

    pub fn is_for(&self, hash: KeyHash) -> bool {
        self.hash == table_hash(hash) && KeyHash::of(&self.key) == hash
    }

    /// The variants, the oldest first.
    pub fn variants(&self) -> &[Arc<Entry>] {
        match &self.variants {
            Variants::One(entry) => std::slice::from_ref(entry),
            Variants::Several(entries) => entries,
        }
    }

    /// The variant that answers the request. Of several, those that say what they vary on come first, and among them the
    /// one that was generated last (RFC 9111 §4, §4.1).
    pub fn variant(&self, request: &Fields) -> Option<&Arc<Entry>> {
        if let Variants::One(only) = &self.variants {
            return Some(only).filter(|entry| entry.answers(request));
        }
        let answering = self.variants().iter().filter(|entry| entry.answers(request));
        answering.max_by_key(|entry| (!entry.selection().is_none(), entry.generated()))
    }

    /// The newest incomplete variant for the request.
    pub fn part(&self, request: &Fields) -> Option<&Arc<Entry>> {
        self.variants().iter().rev().find(|entry| entry.answers_in_part(request))
    }

    /// Adds a variant in place of those of the same selection, which are handed back.
    pub fn put(&mut self, entry: &Arc<Entry>, now: u64) -> Vec<Arc<Entry>> {
        let replaced = self.take(now, |old| is_replaced_by(old, entry));
        let mut variants = self.variants().to_vec();
        variants.push(Arc::clone(entry));
        self.set(variants, now);
        replaced
    }

    /// Takes out the variants that `gone` names.
    pub fn take(&mut self, now: u64, mut gone: impl FnMut(&Arc<Entry>) -> bool) -> Vec<Arc<Entry>> {
        let (gone, left): (Vec<_>, Vec<_>) = self.variants().iter().cloned().partition(|entry| gone(entry));
        if !gone.is_empty() {
            self.set(left, now);
        }
        gone
    }

    fn set(&mut self, mut variants: Vec<Arc<Entry>>, now: u64) {
        self.variants = match variants.pop() {
            Some(only) if variants.is_empty() => Variants::One(only),
            last => Variants::Several(variants.into_iter().chain(last).collect()),
        };
        self.marked(now);
    }

    /// A variant was added, removed or marked, at `now`: until then at least it was of use.
    pub fn marked(&self, now: u64) {
        let until = self.variants().iter().map(|entry| entry.useful_until()).min();
        self.useful_until.store(until.unwrap_or(u64::MAX).max(now), Ordering::Relaxed);
    }

    /// Whether a variant is of no use any more at `now`, in seconds since the Unix epoch.
    pub fn has_dead(&self, now: u64) -> bool {
        self.useful_until.load(Ordering::Relaxed) < now
    }

    /// What the slot itself costs, without its variants. `node`: what the eviction policy keeps for it.
    pub fn own_charge(key: &str, node: u64, overhead: Overhead) -> Charge {
        match overhead {
            Overhead::Product => {
                Charge { index: charge::SLOT + charge::allocated(key.len()) + node, ..Charge::default() }
            }
            Overhead::None => Charge::default(),
        }
    }
}

impl Standing {
    pub fn rank(&self) -> f64 {
        f64::from_bits(self.rank.load(Ordering::Relaxed))
    }

    pub fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }

    pub fn set_rank(&self, rank: f64) {
        // Not written where nothing changes, so that cores share the line of a slot that all of them use.
        if self.rank.load(Ordering::Relaxed) != rank.to_bits() {
            self.rank.store(rank.to_bits(), Ordering::Relaxed);
        }
    }

    /// Counts a use. Of two at the same time one may be lost, which no policy notices; an exact count would cost every
    /// hit a locked instruction.
    pub fn count_use(&self) -> u32 {
        let uses = self.uses();
        if uses >= USES_MAX {
            return uses;
        }
        self.uses.store(uses + 1, Ordering::Relaxed);
        uses + 1
    }
}

/// Uses that are counted; from then on a hit writes nothing but a rank that has changed.
const USES_MAX: u32 = 1 << 16;

/// The half of a hash that the table of a shard is built over.
pub fn table_hash(hash: KeyHash) -> u64 {
    hash.0 as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_one_cache_line() {
        assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (64, 64));
    }
}
