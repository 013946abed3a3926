//! Keys whose last response could not be stored: nobody is made to wait for the next one.

use lru::LruCache;
use parking_lot::Mutex;

use crate::key::KeyHash;

/// Keys remembered; beyond it the one least recently touched is forgotten, and is collapsed once more.
const REMEMBERED_MAX: usize = 65_536;
/// How long a key is remembered, in milliseconds: then one request shows whether it has become storable.
const REMEMBERED_MS: u64 = 10_000;

pub struct Remembered {
    until: Mutex<LruCache<KeyHash, u64>>,
}

impl Default for Remembered {
    fn default() -> Remembered {
        let capacity = std::num::NonZeroUsize::new(REMEMBERED_MAX).unwrap_or(std::num::NonZeroUsize::MIN);
        // Unbounded, so that no memory is taken before it is needed; the bound is kept in `add`.
        let mut until = LruCache::unbounded();
        until.resize(capacity);
        Remembered { until: Mutex::new(until) }
    }
}

impl Remembered {
    pub fn add(&self, key: KeyHash, now_ms: u64) {
        self.until.lock().put(key, now_ms + REMEMBERED_MS);
    }

    pub fn remove(&self, key: KeyHash) {
        let mut until = self.until.lock();
        if !until.is_empty() {
            until.pop(&key);
        }
    }

    pub fn holds(&self, key: KeyHash, now_ms: u64) -> bool {
        let mut until = self.until.lock();
        if until.is_empty() {
            return false;
        }
        until.get(&key).is_some_and(|until| *until > now_ms)
    }
}
