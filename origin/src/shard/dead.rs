//! Events that this shard could not apply, on their way to the dead letters.

use std::time::Duration;

use parking_lot::Mutex;

use super::Shard;
use crate::queue::DeadLetter;
use crate::timing::timeout;

/// Letters that wait to be laid aside.
#[derive(Default)]
pub(super) struct Pending {
    letters: Mutex<Vec<DeadLetter>>,
}

/// Letters that wait at most, while the queue can't be reached; further ones are dropped, and counted.
const PENDING_MAX: usize = 1_000;
/// How long the queue is given to take letters. Nothing else of the shard waits for it.
const BURY_WAIT: Duration = Duration::from_secs(5);

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
    /// Lays aside what could not be applied. Called before the position behind it is committed, so that a crash repeats
    /// both; if the queue can't take it now, it is tried again with the next commit.
    pub(super) async fn bury(&self) {
        let letters = std::mem::take(&mut *self.dead.letters.lock());
        if letters.is_empty() {
            return;
        }
        let kept = letters.clone();
        match timeout(BURY_WAIT, self.queues.bury(letters)).await {
            Ok(Ok(refused)) => self.metrics.dead_dropped.inc_by(refused as u64),
            Ok(Err(error)) => {
                tracing::warn!(shard = self.id, %error, "events that can't be applied could not be laid aside yet");
                self.metrics.dead_dropped.inc_by(self.dead.add(kept) as u64);
            }
            Err(_) => self.metrics.dead_dropped.inc_by(self.dead.add(kept) as u64),
        }
    }
}
