//! Write-behind: changed documents, position and marks, a slice at a time, while applying goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_shared::clock::Stopwatch;
use millpond_shared::version::Position;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Shard, ShardError};
use crate::store::shard_file::Write;

/// How long the queue is given to take note of a committed position.
const TELL_WAIT: Duration = Duration::from_secs(5);

impl Shard {
    /// Commits in turn until pulling is `over`, then what is left.
    ///
    /// An error means that nobody knows what is on disk: the shard must stop, reopen its file and trust what it finds.
    pub(super) async fn flush_loop(self: &Arc<Self>, mut over: watch::Receiver<bool>) -> Result<(), ShardError> {
        // The apply loop tells it what is on disk now.
        let mut told = *self.committed.borrow();
        loop {
            let last = tokio::select! {
                _ = over.wait_for(|over| *over) => true,
                _ = self.flush_wanted.notified() => false,
                _ = sleep(self.settings.flush_every) => false,
            };
            self.flush(&mut told).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Writes all that is applied by now, in slices: each is done with before the next is taken, so that positions go to
    /// disk in their order, and none is so large that it holds up what comes after it.
    async fn flush(self: &Arc<Self>, told: &mut Position) -> Result<(), ShardError> {
        let all = self.state.read().applied();
        loop {
            let write = {
                let _told = self.telling.lock().await;
                if self.untold.load(Ordering::Acquire) {
                    return Ok(());
                }
                let mut state = self.state.write();
                if state.reached() < all { state.slice(self.settings.flush_slice) } else { None }
            };
            if let Some(write) = write {
                self.bury().await;
                let shard = self.clone();
                tokio::task::spawn_blocking(move || shard.commit(write)).await??;
                self.tell(told).await;
            } else {
                // What the queue could not be told before.
                self.tell(told).await;
                return Ok(());
            }
        }
    }

    /// Writes a slice.
    pub(super) fn commit(&self, write: Write) -> Result<(), ShardError> {
        let (position, started) = (write.committed, Stopwatch::start());
        self.file.commit(write).map_err(|problem| ShardError::Commit { shard: self.id, problem })?;
        self.metrics.flush_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.committed.set(i64::try_from(position).unwrap_or(i64::MAX));
        let uncommitted = {
            let mut state = self.state.write();
            state.committed();
            state.uncommitted_events()
        };
        self.metrics.uncommitted.set(i64::try_from(uncommitted).unwrap_or(i64::MAX));
        self.committed.send_replace(position);
        Ok(())
    }

    /// Tells the queue what is on disk, so that it can be trimmed; again at the next turn if the queue can't be reached.
    async fn tell(&self, told: &mut Position) {
        let position = *self.committed.borrow();
        if *told == position {
            return;
        }
        let telling = self.queues.committed(self.id, &self.settings.consumer, position);
        match timeout(TELL_WAIT, telling).await {
            Ok(Ok(())) => *told = position,
            Ok(Err(error)) => tracing::warn!(shard = self.id, %error, "the queue did not take the committed position"),
            Err(_) => tracing::warn!(shard = self.id, "the queue took too long to take the committed position"),
        }
    }
}
