//! How far the shard's queue goes, asked for on behalf of readers who want all of it: proxies that have just started, and
//! know of no position that others were given before.
//!
//! Everything that any replica ever gave to anybody was in the queue then. So a replica that has applied all that the
//! queue holds, asked after the reader came, gives nothing older (a read index: Ongaro, "Consensus: Bridging Theory and
//! Practice", 2014, §6.4). One that is cut off from its queue finds out here that it can't know.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_shared::version::Position;

use super::Shard;
use crate::timing::{self, timeout};

/// How long a reader who wants all that the queue holds is kept waiting, for the queue's answer and for what is to be
/// applied then.
const NEWEST_WAIT: Duration = Duration::from_millis(150);

/// What the queue was asked, and what it answered last.
#[derive(Default)]
pub struct Newest {
    /// Readers that have come so far.
    readers: AtomicU64,
    /// Held while the queue is asked, so that one answer is for all who came before the question.
    answer: tokio::sync::Mutex<Answer>,
}

#[derive(Clone, Copy, Default)]
struct Answer {
    /// How many readers had come when the queue was asked.
    readers: u64,
    position: Position,
}

impl Shard {
    /// Where the queue ended at some moment after this was called; waits for that to be applied, but not while the shard
    /// has yet to catch up with what its queue held at its start. `None`: the queue did not answer in time.
    pub async fn newest(&self) -> Option<Position> {
        let began = timing::now();
        let newest = timeout(NEWEST_WAIT, self.ask_newest()).await.ok()??;
        let mut applied = self.applied.subscribe();
        if self.caught_up() == Some(true) {
            let left = NEWEST_WAIT.saturating_sub(timing::now().saturating_duration_since(began));
            // Whether it was is told by what is read then.
            let _ = timeout(left, applied.wait_for(|applied| *applied >= newest)).await;
        }
        Some(newest)
    }

    async fn ask_newest(&self) -> Option<Position> {
        let reader = self.newest.readers.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answer = self.newest.answer.lock().await;
        if answer.readers < reader {
            let readers = self.newest.readers.load(Ordering::Acquire);
            match self.queues.newest(self.id).await {
                Ok(position) => *answer = Answer { readers, position },
                Err(error) => {
                    tracing::debug!(shard = self.id, %error, "where the shard queue ends can't be asked");
                    return None;
                }
            }
        }
        Some(answer.position)
    }
}
