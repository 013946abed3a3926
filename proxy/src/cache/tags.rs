//! From a tag to the keys of the responses that carry it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::key::KeyHash;

const STRIPES: usize = 16;

/// The index. Striped by tag; callers change it while they hold the lock of the key's shard, never the other way
/// round, so that it always tells the truth about the entries.
///
/// Tags themselves are not kept, only their hashes under a secret of this process. So [`TagIndex::keys`] may name a key
/// too many, and whoever asks compares the tags of what it finds.
#[derive(Debug)]
pub struct TagIndex {
    hasher: RandomState,
    stripes: [Mutex<HashTable<Tagged>>; STRIPES],
}

/// The hash of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagHash(u64);

#[derive(Debug)]
struct Tagged {
    tag: TagHash,
    keys: Keys,
}

/// The tag of a document is that of one key, or of a few.
#[derive(Debug)]
enum Keys {
    One([u64; 2]),
    #[allow(clippy::box_collection, reason = "most tags have one key, and must not take the room of a set")]
    Several(Box<HashSet<KeyHash>>),
}

impl TagIndex {
    pub fn new() -> TagIndex {
        TagIndex { hasher: RandomState::new(), stripes: Default::default() }
    }

    pub fn hash(&self, tag: &str) -> TagHash {
        TagHash(self.hasher.hash_one(tag))
    }

    pub fn add(&self, tag: TagHash, key: KeyHash) {
        let Some(stripe) = self.stripe(tag) else { return };
        let mut stripe = stripe.lock();
        match stripe.find_mut(tag.0, |tagged| tagged.tag == tag) {
            Some(tagged) => tagged.keys.insert(key),
            None => {
                stripe.insert_unique(tag.0, Tagged { tag, keys: Keys::One(halves(key)) }, |tagged| tagged.tag.0);
            }
        }
    }

    pub fn remove(&self, tag: TagHash, key: KeyHash) {
        let Some(stripe) = self.stripe(tag) else { return };
        let mut stripe = stripe.lock();
        if let Ok(mut tagged) = stripe.find_entry(tag.0, |tagged| tagged.tag == tag)
            && tagged.get_mut().keys.remove(key)
        {
            tagged.remove();
            if stripe.len() < stripe.capacity() / 4 {
                stripe.shrink_to_fit(|tagged| tagged.tag.0);
            }
        }
    }

    /// The keys of all responses with this tag, and perhaps a few others.
    pub fn keys(&self, tag: TagHash) -> Vec<KeyHash> {
        let Some(stripe) = self.stripe(tag) else { return Vec::new() };
        stripe.lock().find(tag.0, |tagged| tagged.tag == tag).map_or_else(Vec::new, |tagged| match &tagged.keys {
            Keys::One(key) => vec![joined(*key)],
            Keys::Several(keys) => keys.iter().copied().collect(),
        })
    }

    fn stripe(&self, tag: TagHash) -> Option<&Mutex<HashTable<Tagged>>> {
        // Bits that the table uses neither for the place nor for its seven-bit tag.
        self.stripes.get((tag.0 >> 40) as usize % STRIPES)
    }
}

impl Keys {
    fn insert(&mut self, key: KeyHash) {
        match self {
            Keys::One(only) if joined(*only) == key => {}
            Keys::One(only) => *self = Keys::Several(Box::new(HashSet::from([joined(*only), key]))),
            Keys::Several(keys) => {
                keys.insert(key);
            }
        }
    }

    /// Whether none is left.
    fn remove(&mut self, key: KeyHash) -> bool {
        match self {
            Keys::One(only) => joined(*only) == key,
            Keys::Several(keys) => {
                keys.remove(&key);
                if keys.len() < keys.capacity() / 4 {
                    keys.shrink_to_fit();
                }
                keys.is_empty()
            }
        }
    }
}

/// In two halves, for eight bytes less of alignment.
fn halves(key: KeyHash) -> [u64; 2] {
    [(key.0 >> 64) as u64, key.0 as u64]
}

fn joined([high, low]: [u64; 2]) -> KeyHash {
    KeyHash(u128::from(high) << 64 | u128::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_and_go() {
        let index = TagIndex::new();
        let (news, sports) = (index.hash("news"), index.hash("sports"));
        let keys = [KeyHash(1 << 100), KeyHash(2), KeyHash(u128::MAX)];
        for key in keys {
            index.add(news, key);
            index.add(news, key);
        }
        index.add(sports, keys[0]);
        let mut found = index.keys(news);
        found.sort();
        assert_eq!(found, [KeyHash(2), KeyHash(1 << 100), KeyHash(u128::MAX)]);
        index.remove(news, keys[0]);
        index.remove(news, keys[1]);
        assert_eq!((index.keys(news), index.keys(sports)), (vec![keys[2]], vec![keys[0]]));
        index.remove(sports, keys[1]);
        index.remove(sports, keys[0]);
        index.remove(news, keys[2]);
        assert!(index.keys(news).is_empty() && index.keys(sports).is_empty());
        assert!(index.stripes.iter().all(|stripe| stripe.lock().is_empty()));
    }
}
