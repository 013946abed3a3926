//! Takes out what is of no use any more, a little at a time, off the path of requests.

use std::sync::Arc;
use std::time::Duration;

use millpond_shared::clock;
use tokio::time::{MissedTickBehavior, interval};

use super::Store;

/// Where the next sweep goes on.
#[derive(Debug, Default)]
pub struct Place {
    shard: usize,
    slot: usize,
}

/// Seconds that an entry without use is still kept, so that the next request for it is told that it has expired or was
/// purged, and not that there never was one. Eviction does not wait for that.
const GRACE: u64 = 10;

/// Between two sweeps, and the slots that each of them looks at: a million slots in 25 seconds, none of them locked for
/// longer than a look-up takes.
const PAUSE: Duration = Duration::from_millis(100);
const SLOTS_MAX: usize = 4096;

/// Sweeps for as long as it is polled.
pub async fn keep_swept(store: Arc<Store>) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        store.sweep(clock::wall_secs(), SLOTS_MAX);
    }
}

impl Store {
    /// Looks at the next `slots_max` slots, and takes out the entries that were of no use any more ten seconds before
    /// `now` (seconds since the Unix epoch). How many those were.
    pub fn sweep(&self, now: u64, slots_max: usize) -> usize {
        self.tell_time(now);
        let useless_since = now.saturating_sub(GRACE);
        let mut place = self.sweeping.lock();
        let (mut looked_at, mut removed) = (0, 0);
        // At most once around.
        for _ in 0..=self.shards().len() {
            let Some(shard) = self.shards().get(place.shard) else {
                *place = Place::default();
                continue;
            };
            let (dead, length) = {
                let shard = shard.0.read();
                let slots = shard.slots().iter().skip(place.slot).take(slots_max - looked_at);
                let dead = slots.filter(|slot| slot.has_dead(useless_since)).map(|slot| slot.hash);
                (dead.collect::<Vec<u64>>(), shard.slots().len())
            };
            for hash in dead {
                let mut shard = shard.0.write();
                let found = shard.find_table_hash(hash, |slot| slot.has_dead(useless_since));
                let gone = found.map(|at| self.take_dead(&mut shard, at, now)).unwrap_or_default();
                drop(shard);
                removed += gone.len();
            }
            let left = length.saturating_sub(place.slot);
            if left > slots_max - looked_at {
                place.slot += slots_max - looked_at;
                break;
            }
            looked_at += left;
            *place = Place { shard: place.shard + 1, slot: 0 };
        }
        removed
    }
}
