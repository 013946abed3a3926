//! Time as queues, dispatchers and shards know it: the moment, and waiting.
//!
//! They ask for it here and nowhere else, so that a simulation can give them a time of its own.

use std::pin::pin;
use std::time::{Duration, Instant};

use millpond_shared::clock;

#[cfg(test)]
use crate::simulation::Simulation;

/// This moment, by a clock that is never set.
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = Simulation::now() {
        return now;
    }
    clock::monotonic()
}

/// Resolves after `duration`.
pub async fn sleep(duration: Duration) {
    #[cfg(test)]
    if let Some(sleep) = Simulation::sleep(duration) {
        return sleep.await;
    }
    tokio::time::sleep(duration).await;
}

/// The time was over before the work was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOver;

/// Drives `work` for `limit` at most; then it is dropped.
pub async fn timeout<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, TimeOver> {
    let work = pin!(work);
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = sleep(limit) => Err(TimeOver),
    }
}
