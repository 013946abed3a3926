//! Chance for sampling: fast, seeded, not secret.

use millpond_shared::splitmix::SplitMix64;

#[derive(Debug)]
pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    /// A number below `limit`; 0 for 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.0.draw()) * limit as u128) >> 64) as usize
    }
}
