//! Chance that can be told again: a test prints its seed, and `SEED=…` brings the same numbers back.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// From `SEED`, or from anywhere; prints which.
    pub fn told(test: &str) -> Random {
        let given = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a whole number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(test) >> 32);
        println!("{test}: SEED={seed}");
        Random::from(seed)
    }

    pub fn from(seed: u64) -> Random {
        Random { state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for index in (1..list.len()).rev() {
            list.swap(index, self.below(index + 1));
        }
    }
}
