//! Greedy-Dual-Size-Frequency (Cherkasova, 1998), sampled.
//!
//! A slot's rank is `floor + uses / bytes^0.85`; the floor rises to the rank of each slot that is evicted, so that what is
//! not used any more is overtaken. A hit recomputes the rank: it moves no list and takes no lock beyond the shard's for
//! reading. Instead of a queue of all slots there are samples, and a pool of the lowest ranks seen.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::pool::{Candidate, Pool};
use super::random::Random;
use crate::cache::padded::Padded;
use crate::cache::shard::Shard;
use crate::cache::slot::Slot;

/// Slots looked at before each eviction, and the shards they are spread over.
const SAMPLES: usize = 16;
const SAMPLED_SHARDS: usize = 4;
/// How much size counts. With 1, a cache of given bytes answers the most requests, at the price of the bytes that it
/// answers; 0.85 gives up about one in a hundred of what is won over `lru` for most of that price (benches/traces).
const SIZE_EXPONENT: f64 = 0.85;
/// Threads that can evict at the same time.
const SAMPLERS: usize = 8;

#[derive(Debug)]
pub struct Gdsf {
    /// Bits of an `f64`, never negative. Every hit reads it; evictions write it.
    floor: Padded<AtomicU64>,
    samplers: Vec<Padded<Mutex<Sampler>>>,
}

/// One thread's way to the next victim.
#[derive(Debug)]
pub struct Sampler {
    random: Random,
    pool: Pool,
}

impl Gdsf {
    pub fn new(seed: u64) -> Gdsf {
        let sampler = |number: usize| {
            let random = Random::new(seed.wrapping_add(number as u64));
            Padded(Mutex::new(Sampler { random, pool: Pool::new() }))
        };
        Gdsf { floor: Padded::default(), samplers: (0..SAMPLERS).map(sampler).collect() }
    }

    fn floor(&self) -> f64 {
        f64::from_bits(self.floor.0.load(Ordering::Relaxed))
    }

    /// A slot of this rank was evicted.
    pub fn raise_floor(&self, rank: f64) {
        if rank > self.floor() {
            // Bits of floats that are not negative order as their values do.
            self.floor.0.fetch_max(rank.to_bits(), Ordering::Relaxed);
        }
    }

    fn rank(&self, uses: u32, worth: f32) -> f64 {
        self.floor() + f64::from(uses) * f64::from(worth)
    }

    pub fn used(&self, slot: &Slot) {
        let standing = &slot.standing;
        standing.set_rank(self.rank(standing.count_use(), standing.worth));
    }

    pub fn changed(&self, slot: &mut Slot, bytes: u64) {
        let standing = &mut slot.standing;
        standing.worth = (bytes.max(1) as f64).powf(-SIZE_EXPONENT) as f32;
        standing.set_rank(self.rank(standing.uses(), standing.worth));
    }

    /// The first sampler that no other thread uses: one thread always gets the same one.
    pub fn sampler(&self) -> Option<MutexGuard<'_, Sampler>> {
        let free = self.samplers.iter().find_map(|sampler| sampler.0.try_lock());
        free.or_else(|| self.samplers.first().map(|sampler| sampler.0.lock()))
    }
}

impl Sampler {
    /// Looks at some slots, and takes the lowest candidate of all that were ever seen out of the pool.
    pub fn lowest(&mut self, shards: &[Padded<RwLock<Shard>>], now: u64) -> Option<Candidate> {
        for _ in 0..SAMPLED_SHARDS {
            let start = self.random.below(shards.len());
            // The next one that has slots and that nobody writes to.
            let found = (start..shards.len()).chain(0..start).find_map(|number| {
                let shard = shards.get(number)?.0.try_read()?;
                (!shard.slots().is_empty()).then_some((number, shard))
            });
            let Some((number, shard)) = found else { break };
            for _ in 0..SAMPLES / SAMPLED_SHARDS {
                if let Some(slot) = shard.slots().get(self.random.below(shard.slots().len())) {
                    self.pool.offer(Candidate { shard: number, hash: slot.hash, rank: rank_of(slot, now) });
                }
            }
        }
        self.pool.take_lowest()
    }

    /// The next one in the pool, without looking at more slots.
    pub fn next_lowest(&mut self) -> Option<Candidate> {
        self.pool.take_lowest()
    }

    pub fn offer(&mut self, candidate: Candidate) {
        self.pool.offer(candidate);
    }
}

/// The rank by which a slot is to be evicted: below all others if it holds what is of no use any more.
pub fn rank_of(slot: &Slot, now: u64) -> f64 {
    if slot.has_dead(now) { f64::NEG_INFINITY } else { slot.standing.rank() }
}
