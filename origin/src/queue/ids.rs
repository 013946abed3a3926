//! Ids as they are remembered: keyed hashes of source and id (pure).

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

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
        let mut text = Vec::with_capacity(source.len() + 1 + id.len());
        text.extend_from_slice(source.as_bytes());
        text.push(0);
        text.extend_from_slice(id.as_bytes());
        xxh3_128_with_secret(&text, &self.secret)
    }
}

/// The hashes of the window. Some 25 bytes each.
pub type IdSet = HashSet<u128, BuildHasherDefault<Folded>>;

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_and_id_do_not_run_into_each_other_and_the_secret_matters() {
        let secret = |factor: usize| IdHasher::new(std::array::from_fn(|at| (at * at * factor % 251) as u8));
        let (one, other) = (secret(13), secret(17));
        assert_eq!(one.hash("a", "bc"), one.hash("a", "bc"));
        assert_ne!(one.hash("a", "bc"), one.hash("ab", "c"));
        assert_ne!(one.hash("a", "bc"), other.hash("a", "bc"));
    }
}
