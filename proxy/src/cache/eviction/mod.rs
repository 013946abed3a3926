//! Which slot goes when room is needed: `gdsf` weighs uses against bytes and samples; `lru` is exact. `evict` is how the
//! store carries it out.

mod evict;
mod gdsf;
mod lru;
mod pool;
pub mod random;

use schemars::JsonSchema;
use serde::Deserialize;

pub use gdsf::Gdsf;
pub use lru::Lru;

use super::charge;
use super::slot::Slot;
use crate::key::KeyHash;

/// How entries are chosen that must go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EvictionPolicy {
    /// By uses, size and age (Greedy-Dual-Size-Frequency): small and popular responses stay.
    #[default]
    Gdsf,
    /// The least recently used first.
    Lru,
}

impl EvictionPolicy {
    pub const ALL: [EvictionPolicy; 2] = [EvictionPolicy::Gdsf, EvictionPolicy::Lru];

    pub fn as_str(self) -> &'static str {
        match self {
            EvictionPolicy::Gdsf => "gdsf",
            EvictionPolicy::Lru => "lru",
        }
    }
}

/// The state of a policy.
#[derive(Debug)]
pub enum Eviction {
    Gdsf(Gdsf),
    Lru(Lru),
}

impl Eviction {
    pub fn new(policy: EvictionPolicy, seed: u64) -> Eviction {
        match policy {
            EvictionPolicy::Gdsf => Eviction::Gdsf(Gdsf::new(seed)),
            EvictionPolicy::Lru => Eviction::Lru(Lru::default()),
        }
    }

    /// Bytes it keeps for each slot, outside of it.
    pub fn node_bytes(&self) -> u64 {
        match self {
            Eviction::Gdsf(_) => 0,
            Eviction::Lru(_) => charge::LRU_NODE,
        }
    }

    /// A hit. The caller holds the shard's lock, for reading.
    pub fn used(&self, slot: &Slot, hash: KeyHash) {
        match self {
            Eviction::Gdsf(gdsf) => gdsf.used(slot),
            Eviction::Lru(lru) => lru.used(hash),
        }
    }

    /// A slot is new, or what it holds has changed: its variants take `bytes` now. The caller holds the shard's lock.
    pub fn changed(&self, slot: &mut Slot, hash: KeyHash, bytes: u64) {
        match self {
            Eviction::Gdsf(gdsf) => gdsf.changed(slot, bytes),
            Eviction::Lru(lru) => lru.entered(hash),
        }
    }

    /// A slot is gone. The caller holds the shard's lock, for writing.
    pub fn removed(&self, hash: KeyHash) {
        match self {
            // What its pool still holds of the slot is found to be gone when its turn comes.
            Eviction::Gdsf(_) => {}
            Eviction::Lru(lru) => lru.removed(hash),
        }
    }
}
