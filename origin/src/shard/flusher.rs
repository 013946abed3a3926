//! Write-behind: changed documents, position and marks, a slice at a time, while applying goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millpond_shared::clock::Stopwatch;
use millpond_shared::version::Position;
use tokio::sync::watch;

use super::{Shard, ShardError, ShardSettings};
use crate::blocking::apart;
use crate::store::shard_file::Write;
use crate::timing::{now, sleep, timeout};

/// How long the queue is given to take note of a committed position.
const TELL_WAIT: Duration = Duration::from_secs(5);
/// How long a shard that catches up, and comes on, leaves what changed in memory: a full queue waits for it, and one that
/// hears nothing takes a consumer for dead.
const CATCH_UP_FLUSH: Duration = Duration::from_secs(5);

impl Shard {
    /// Commits in turn until pulling is `over`, then what is left.
    ///
    /// An error means that nobody knows what is on disk: the shard must stop, reopen its file and trust what it finds.
    pub(super) async fn flush_loop(self: &Arc<Self>, mut over: watch::Receiver<bool>) -> Result<(), ShardError> {
        let (mut flushed, mut seen) = (now(), *self.applied.borrow());
        loop {
            let last = tokio::select! {
                biased;
                _ = over.wait_for(|over| *over) => true,
                _ = self.flush_wanted.notified() => false,
                _ = sleep(self.settings.flush_every) => {
                    let applied = *self.applied.borrow();
                    let goes_on = std::mem::replace(&mut seen, applied) != applied;
                    let waited = now().saturating_duration_since(flushed);
                    if self.caught_up() == Some(false) && goes_on && waited < CATCH_UP_FLUSH {
                        continue;
                    }
                    false
                }
            };
            let all_written = self.flush(&mut over).await?;
            flushed = now();
            if last || !all_written {
                return Ok(());
            }
        }
    }

    /// Whether as much has changed as is written before it is time.
    ///
    /// A shard that catches up after its start waits longer: what it would write changes again at once, and the queue
    /// holds it still.
    pub(super) fn is_flush_due(&self, dirty_bytes: u64, events: u64, uncommitted: u64) -> bool {
        let ShardSettings { flush_bytes, flush_events, memory, uncommitted_events, .. } = &self.settings;
        if self.caught_up() == Some(false) {
            dirty_bytes > memory / 2 || uncommitted > uncommitted_events / 4 * 3
        } else {
            dirty_bytes > *flush_bytes || events >= *flush_events
        }
    }

    /// Whether as much is applied as the queue held when it was first reached; `None`: it was not reached yet.
    pub(super) fn caught_up(&self) -> Option<bool> {
        self.held_at_start.borrow().map(|held| *self.applied.borrow() >= held)
    }

    /// Writes all that is applied by now, in slices: each is done with before the next is taken, so that positions go to
    /// disk in their order, and none is so large that it holds up what comes after it. False if the shard is to stop, and
    /// what could not be applied can't be laid aside, or others could not be told: the next start replays it.
    async fn flush(self: &Arc<Self>, over: &mut watch::Receiver<bool>) -> Result<bool, ShardError> {
        let (all, mut told) = (self.state.read().applied(), None);
        loop {
            let write = {
                let _told = self.telling.lock().await;
                if self.untold.load(Ordering::Acquire) {
                    return Ok(false);
                }
                let mut state = self.state.write();
                if state.reached() < all { state.slice(self.settings.flush_slice) } else { None }
            };
            if let Some(write) = write {
                if !self.laid_aside(over).await {
                    return Ok(false);
                }
                let shard = self.clone();
                apart(move || shard.commit(write)).await??;
                self.tell(&mut told).await;
            } else {
                // Again even if it was told before: a queue that has died since may have forgotten it, and if it is full
                // nothing will ever come that could be committed and told.
                self.tell(&mut told).await;
                return Ok(true);
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

    /// Tells the queue what is on disk, so that it can be trimmed, unless this flush has `told` it.
    async fn tell(&self, told: &mut Option<Position>) {
        let position = *self.committed.borrow();
        if *told == Some(position) {
            return;
        }
        let telling = self.queues.committed(self.id, &self.settings.consumer, position);
        match timeout(TELL_WAIT, telling).await {
            Ok(Ok(())) => *told = Some(position),
            Ok(Err(error)) => tracing::warn!(shard = self.id, %error, "the queue did not take the committed position"),
            Err(_) => tracing::warn!(shard = self.id, "the queue took too long to take the committed position"),
        }
    }
}
