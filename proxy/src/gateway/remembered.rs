//! Keys whose last response could not be stored: nobody is made to wait for the next one.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use crate::key::KeyHash;

/// Keys remembered; beyond it the one least recently touched is forgotten, and is collapsed once more.
const REMEMBERED_MAX: usize = 65_536;
/// Parts of the table, each with a lock of its own: every miss asks, on every worker.
const PARTS: usize = 16;
/// How long a key is remembered, in milliseconds: then one request shows whether it has become storable.
const REMEMBERED_MS: u64 = 10_000;

pub struct Remembered {
    /// Each: until when.
    parts: [Mutex<LruCache<KeyHash, u64>>; PARTS],
    /// Keys in all parts: where nothing is remembered, nothing is looked up.
    count: AtomicUsize,
}

impl Default for Remembered {
    fn default() -> Remembered {
        let capacity = NonZeroUsize::new(REMEMBERED_MAX / PARTS).unwrap_or(NonZeroUsize::MIN);
        let part = || {
            // Unbounded, so that no memory is taken before it is needed; `resize` sets the bound.
            let mut until = LruCache::unbounded();
            until.resize(capacity);
            Mutex::new(until)
        };
        Remembered { parts: std::array::from_fn(|_| part()), count: AtomicUsize::new(0) }
    }
}

impl Remembered {
    pub fn add(&self, key: KeyHash, now_ms: u64) {
        // `None` or the key that made room: then the number of keys is the same.
        let pushed = self.part(key).map(|part| part.lock().push(key, now_ms + REMEMBERED_MS));
        if matches!(pushed, Some(None)) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn remove(&self, key: KeyHash) {
        if self.count.load(Ordering::Relaxed) > 0 && self.part(key).is_some_and(|part| part.lock().pop(&key).is_some())
        {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn holds(&self, key: KeyHash, now_ms: u64) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && self.part(key).is_some_and(|part| part.lock().get(&key).is_some_and(|until| *until > now_ms))
    }

    fn part(&self, key: KeyHash) -> Option<&Mutex<LruCache<KeyHash, u64>>> {
        self.parts.get((key.0 % PARTS as u128) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_a_while_and_apart_from_others() {
        let remembered = Remembered::default();
        assert!(!remembered.holds(KeyHash(1), 0));
        remembered.add(KeyHash(1), 1000);
        remembered.add(KeyHash(1), 2000);
        remembered.add(KeyHash(1 + PARTS as u128), 2000);
        assert!(remembered.holds(KeyHash(1), 2000 + REMEMBERED_MS - 1));
        assert!(!remembered.holds(KeyHash(1), 2000 + REMEMBERED_MS));
        assert!(!remembered.holds(KeyHash(2), 2000));
        remembered.remove(KeyHash(1));
        assert!(!remembered.holds(KeyHash(1), 2000));
        assert!(remembered.holds(KeyHash(1 + PARTS as u128), 2000), "the other one of the same part");
    }

    #[test]
    fn the_least_recently_touched_makes_room() {
        let remembered = Remembered::default();
        let key = |number: usize| KeyHash((number * PARTS) as u128);
        (0..=REMEMBERED_MAX / PARTS).for_each(|number| remembered.add(key(number), 0));
        assert!(!remembered.holds(key(0), 0) && remembered.holds(key(1), 0));
        assert_eq!(remembered.count.load(Ordering::Relaxed), REMEMBERED_MAX / PARTS);
    }
}
