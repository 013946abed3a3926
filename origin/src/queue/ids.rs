//! Ids as they are remembered: keyed hashes of source and id (pure).

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::io::Write;

use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::store::event_queue_file::SECRET_BYTES;

/// Turns (source, id) into 128 bits, under a secret of the queue's file: nobody outside can aim at a collision, and by
/// accident one is expected after some 10^19 ids.
#[derive(Clone)]
pub struct IdHasher {
    secret: [u8; SECRET_BYTES],
}

impl IdHasher {
    pub fn new(secret: [u8; SECRET_BYTES]) -> IdHasher {
        IdHasher { secret }
    }

    pub fn hash(&self, source: &str, id: &str) -> u128 {
        let parts = [source.as_bytes(), &[0], id.as_bytes()];
        let mut short = [0; SHORT_BYTES];
        match short.get_mut(..source.len() + 1 + id.len()) {
            Some(text) => {
                let mut left = &mut *text;
                // There is room for all of it.
                parts.iter().for_each(|part| drop(left.write_all(part)));
                xxh3_128_with_secret(text, &self.secret)
            }
            None => xxh3_128_with_secret(&parts.concat(), &self.secret),
        }
    }
}

/// What is hashed without memory of its own: nearly all, as ids that ingest lets in have 256 bytes at most.
const SHORT_BYTES: usize = 320;

/// The hashes of the window: 20 to 39 bytes each, by how full their table is.
pub type IdSet = HashParts<u128>;

/// A set of hashes.
///
/// In many tables, as one that grows moves all it has: of a large one this would hold everybody up for the tenth of a
/// second.
pub struct HashParts<T> {
    parts: Vec<HashSet<T, BuildHasherDefault<Folded>>>,
    len: usize,
}

const PARTS: usize = 64;
/// A table that has room for so many times what it holds gives some back.
const SPARSE: usize = 8;

impl<T> Default for HashParts<T> {
    fn default() -> HashParts<T> {
        HashParts { parts: (0..PARTS).map(|_| HashSet::default()).collect(), len: 0 }
    }
}

impl<T: Copy + Eq + Hash> HashParts<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, hash: T) -> bool {
        self.parts.get(part_of(hash)).is_some_and(|part| part.contains(&hash))
    }

    pub fn extend(&mut self, hashes: impl IntoIterator<Item = T>) {
        for hash in hashes {
            self.insert(hash);
        }
    }

    /// Whether it is new.
    pub fn insert(&mut self, hash: T) -> bool {
        let is_new = self.parts.get_mut(part_of(hash)).is_some_and(|part| part.insert(hash));
        self.len += usize::from(is_new);
        is_new
    }

    pub fn remove(&mut self, hash: T) {
        let Some(part) = self.parts.get_mut(part_of(hash)) else { return };
        self.len -= usize::from(part.remove(&hash));
        if part.capacity() > SPARSE * part.len().max(64) {
            part.shrink_to(2 * part.len());
        }
    }
}

/// By bits in the middle: the tables go by those at both ends.
fn part_of(hash: impl Hash) -> usize {
    let mut folded = Folded::default();
    hash.hash(&mut folded);
    (folded.finish() >> 32) as usize % PARTS
}

/// The keys are hashes already: their lower half will do.
#[derive(Default)]
pub struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_gives_room_back() {
        let hash = |n: u64| xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes());
        let mut set = IdSet::default();
        set.extend((0..50_000).map(hash));
        set.extend((0..100_000).map(hash));
        assert_eq!(set.len(), 100_000);
        (0..99_990).for_each(|n| set.remove(hash(n)));
        set.remove(hash(7));
        assert!(set.len() == 10 && !set.is_empty());
        assert!((0..99_990).all(|n| !set.contains(hash(n))) && (99_990..100_000).all(|n| set.contains(hash(n))));
        let room: usize = set.parts.iter().map(HashSet::capacity).sum();
        assert!(room < 64 * 1024, "{room}");
    }

    #[test]
    fn source_and_id_do_not_run_into_each_other_and_the_secret_matters() {
        let secret = |factor: usize| IdHasher::new(std::array::from_fn(|at| (at * at * factor % 251) as u8));
        let (one, other) = (secret(13), secret(17));
        assert_eq!(one.hash("a", "bc"), one.hash("a", "bc"));
        assert_ne!(one.hash("a", "bc"), one.hash("ab", "c"));
        assert_ne!(one.hash("a", "bc"), other.hash("a", "bc"));
    }

    #[test]
    fn an_id_of_any_length_is_hashed_as_one_text() {
        let secret = std::array::from_fn(|at| (at * at % 251) as u8);
        for bytes in [0, 1, 240, SHORT_BYTES - 3, SHORT_BYTES - 2, SHORT_BYTES - 1, 4 * SHORT_BYTES] {
            let id = "x".repeat(bytes);
            let expected = xxh3_128_with_secret(format!("s\0{id}").as_bytes(), &secret);
            assert_eq!(IdHasher::new(secret).hash("s", &id), expected, "{bytes} bytes");
        }
    }
}
