//! The home feeds that follow a feed (pure).
//!
//! In buckets by hash, so that a copy shares nearly all of them with what it was copied from: telling a million of
//! something goes on while some of them leave.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

/// Key of a home feed → number of the decision by which it follows.
type Bucket = BTreeMap<Box<str>, u64>;

/// Number of buckets, if there is anybody.
const BUCKETS: usize = 256;
/// What a follower takes in memory beside its key, in bytes: its part of a tree node, and a block.
const FOLLOWER_BYTES: usize = 48;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followers {
    buckets: Arc<Vec<Arc<Bucket>>>,
    count: usize,
    weight: usize,
}

impl Followers {
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Those behind `place`, bucket by bucket, and in a bucket by key: at most `most`, and about `bytes_max` bytes; where to
    /// go on. `place`: number of the bucket, and the last key that was seen of it.
    pub fn page(&self, place: &Cursor, most: usize, bytes_max: usize) -> (Vec<Box<str>>, Option<Cursor>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let (mut keys, mut bytes): (Vec<Box<str>>, usize) = (Vec::new(), 0);
        for (number, bucket) in self.buckets.iter().enumerate().skip(place.bucket) {
            let seen = place.key.as_deref().filter(|_| number == place.bucket);
            let behind = seen.map_or(Unbounded, Excluded);
            for key in bucket.range::<str, _>((behind, Unbounded)).map(|(key, _)| key) {
                if keys.len() >= most || bytes >= bytes_max {
                    let last = keys.last().filter(|last| bucket.contains_key(last.as_ref())).cloned();
                    return (keys, Some(Cursor { bucket: number, key: last }));
                }
                bytes += key.len();
                keys.push(key.clone());
            }
        }
        (keys, None)
    }

    /// By which of its decisions a home feed follows, if it does.
    pub fn decision(&self, home: &str) -> Option<u64> {
        self.buckets.get(number_of(home))?.get(home).copied()
    }

    /// Takes a follower in; whether that changed anything.
    pub fn insert(&mut self, home: &str, decision: u64) -> bool {
        if self.decision(home) == Some(decision) {
            return false;
        }
        let Some(bucket) = self.bucket(home) else { return false };
        if bucket.insert(home.into(), decision).is_none() {
            self.count += 1;
            self.weight += FOLLOWER_BYTES + home.len();
        }
        true
    }

    /// Lets a follower go; whether it was one.
    pub fn remove(&mut self, home: &str) -> bool {
        if self.decision(home).is_none() || self.bucket(home).and_then(|bucket| bucket.remove(home)).is_none() {
            return false;
        }
        self.count -= 1;
        self.weight -= FOLLOWER_BYTES + home.len();
        if self.count == 0 {
            *self = Followers::default();
        }
        true
    }

    /// All of them, in the order of their keys.
    pub fn sorted(&self) -> Vec<(&str, u64)> {
        let all = self.buckets.iter().flat_map(|bucket| bucket.iter());
        let mut all: Vec<_> = all.map(|(home, decision)| (home.as_ref(), *decision)).collect();
        all.sort_unstable();
        all
    }

    fn bucket(&mut self, home: &str) -> Option<&mut Bucket> {
        let buckets = Arc::make_mut(&mut self.buckets);
        if buckets.is_empty() {
            buckets.resize_with(BUCKETS, Arc::default);
        }
        buckets.get_mut(number_of(home)).map(Arc::make_mut)
    }
}

/// How far an audience was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    bucket: usize,
    key: Option<Box<str>>,
}

fn number_of(home: &str) -> usize {
    (xxh3_64(home.as_bytes()) % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn pages_show_each_follower_once(
            acts in prop::collection::vec((0u16..700, any::<bool>()), 0..900),
            most in 1usize..50,
        ) {
            let (mut followers, mut model) = (Followers::default(), BTreeSet::new());
            for (home, comes) in acts {
                let home = home.to_string();
                if comes {
                    prop_assert_eq!(followers.insert(&home, 1), model.insert(home));
                } else {
                    prop_assert_eq!(followers.remove(&home), model.remove(&home));
                }
            }
            let mut seen = Vec::new();
            let mut cursor = Some(Cursor::default());
            while let Some(place) = cursor {
                let (keys, next) = followers.page(&place, most, 40);
                prop_assert!(keys.len() <= most);
                seen.extend(keys.iter().map(|key| key.to_string()));
                cursor = next;
            }
            prop_assert_eq!((seen.len(), followers.count()), (model.len(), model.len()));
            prop_assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), model);
            let weight: usize = followers.sorted().iter().map(|(home, _)| FOLLOWER_BYTES + home.len()).sum();
            prop_assert_eq!(followers.weight(), weight);
        }
    }
}
