//! Events that this shard could not apply, on their way to the dead letters.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Shard;
use super::pull::can_pass;
use crate::queue::DeadLetter;
use crate::timing::{TimeOver, sleep, timeout};

/// Letters that wait to be laid aside.
#[derive(Default)]
pub(super) struct Pending {
    letters: Mutex<Vec<DeadLetter>>,
}

/// Letters that wait at most, while the queue can't be reached; further ones are dropped, and counted.
const PENDING_MAX: usize = 1_000;
/// How long the queue is given to take letters, and the pause before it is asked again. Applying goes on meanwhile, until
/// too much is not on disk.
const BURY_WAIT: Duration = Duration::from_secs(5);
const BURY_PAUSE: Duration = Duration::from_millis(500);

impl Pending {
    /// Adds letters; how many there was no room for.
    pub fn add(&self, letters: Vec<DeadLetter>) -> usize {
        if letters.is_empty() {
            return 0;
        }
        let mut pending = self.letters.lock();
        let room = PENDING_MAX.saturating_sub(pending.len());
        let dropped = letters.len().saturating_sub(room);
        pending.extend(letters.into_iter().take(room));
        dropped
    }
}

impl Shard {
    /// Lays aside what could not be applied, as often as it takes; false if the queue does not take it and the shard is to
    /// stop.
    ///
    /// Called before the position behind it is committed, so that a crash repeats both.
    pub(super) async fn laid_aside(&self, over: &mut watch::Receiver<bool>) -> bool {
        while !self.bury().await {
            let stopping = tokio::select! {
                biased;
                _ = over.wait_for(|over| *over) => true,
                () = sleep(BURY_PAUSE) => false,
            };
            if stopping {
                return self.bury().await;
            }
        }
        true
    }

    /// Tries once; whether nothing waits any more.
    async fn bury(&self) -> bool {
        let letters = std::mem::take(&mut *self.dead.letters.lock());
        if letters.is_empty() {
            return true;
        }
        let kept = letters.clone();
        match timeout(BURY_WAIT, self.queues.bury(letters)).await {
            Ok(Ok(refused)) => {
                self.metrics.dead_dropped.inc_by(refused as u64);
                return true;
            }
            Ok(Err(error)) if can_pass(&error) => {
                tracing::warn!(shard = self.id, %error, "events that can't be applied could not be laid aside yet");
            }
            Ok(Err(error)) => {
                tracing::error!(shard = self.id, %error, "events that can't be applied could not be laid aside");
                self.metrics.dead_dropped.inc_by(kept.len() as u64);
                return true;
            }
            Err(TimeOver) => {
                tracing::warn!(shard = self.id, "the queue took too long to lay events aside that can't be applied");
            }
        }
        self.metrics.dead_dropped.inc_by(self.dead.add(kept) as u64);
        false
    }
}
