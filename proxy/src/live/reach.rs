//! How far a process has come with a shard, as its change stream tells.

use std::sync::atomic::{AtomicU64, Ordering};

use millpond_shared::version::Position;

/// The position that one replica of a shard has applied; 0 while that is not known.
#[derive(Debug, Default)]
pub struct Reach(AtomicU64);

impl Reach {
    pub fn get(&self) -> Position {
        self.0.load(Ordering::Relaxed)
    }

    pub fn tell(&self, at: Position) {
        self.0.store(at, Ordering::Relaxed);
    }

    /// Its stream broke.
    pub fn lose(&self) {
        self.tell(0);
    }
}
