//! Least recently used first, exactly: one list over all shards behind one mutex, which every hit takes.

use lru::LruCache;
use parking_lot::Mutex;

use crate::key::KeyHash;

/// The order of use. Locked after a shard, never the other way round.
#[derive(Debug)]
pub struct Lru {
    order: Mutex<LruCache<KeyHash, ()>>,
}

impl Default for Lru {
    fn default() -> Lru {
        Lru { order: Mutex::new(LruCache::unbounded()) }
    }
}

impl Lru {
    pub fn used(&self, hash: KeyHash) {
        self.order.lock().promote(&hash);
    }

    pub fn entered(&self, hash: KeyHash) {
        self.order.lock().put(hash, ());
    }

    pub fn removed(&self, hash: KeyHash) {
        self.order.lock().pop(&hash);
    }

    /// Takes the least recently used off the list.
    pub fn oldest(&self) -> Option<KeyHash> {
        self.order.lock().pop_lru().map(|(hash, ())| hash)
    }
}
