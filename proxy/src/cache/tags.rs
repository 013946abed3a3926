//! From a tag to the keys of the responses that carry it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

use crate::key::KeyHash;

const STRIPES: usize = 16;

/// The index. Striped by tag; callers change it while they hold the lock of the key's shard, never the other way
/// round, so that it always tells the truth about the entries.
#[derive(Debug)]
pub struct TagIndex {
    hasher: RandomState,
    stripes: [Mutex<HashMap<Box<str>, HashSet<KeyHash>>>; STRIPES],
}

impl TagIndex {
    pub fn new() -> TagIndex {
        TagIndex { hasher: RandomState::new(), stripes: Default::default() }
    }

    pub fn add(&self, tag: &str, key: KeyHash) {
        if let Some(stripe) = self.stripe(tag) {
            stripe.lock().entry(tag.into()).or_default().insert(key);
        }
    }

    pub fn remove(&self, tag: &str, key: KeyHash) {
        let Some(stripe) = self.stripe(tag) else { return };
        let mut stripe = stripe.lock();
        if let Some(keys) = stripe.get_mut(tag) {
            keys.remove(&key);
            if keys.is_empty() {
                stripe.remove(tag);
            }
        }
    }

    pub fn keys(&self, tag: &str) -> Vec<KeyHash> {
        self.stripe(tag)
            .and_then(|stripe| stripe.lock().get(tag).map(|keys| keys.iter().copied().collect()))
            .unwrap_or_default()
    }

    fn stripe(&self, tag: &str) -> Option<&Mutex<HashMap<Box<str>, HashSet<KeyHash>>>> {
        self.stripes.get(self.hasher.hash_one(tag) as usize % STRIPES)
    }
}
