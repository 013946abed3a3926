//! The apply loop: pull, apply, announce.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_shared::clock::Stopwatch;
use millpond_shared::version::Position;
use tokio::sync::watch;

use super::ahead::Ahead;
use super::prepare::{FrameError, Prepared, Preparer, Ready, TakenIn};
use super::state::{Changed, announcements};
use super::{Shard, ShardError};
use crate::blocking::apart;
use crate::queue::{Pulled, QueueError};
use crate::store::shard_file::Row;
use crate::timing::sleep;

/// How much is asked for in one pull, in bytes. One pull is one batch: its changes are announced together.
pub(super) const PULL_BYTES: usize = 256 << 10;
/// How long one pull waits at the queue for something to come.
const PULL_WAIT: Duration = Duration::from_secs(10);
/// A batch up to this size, in bytes, is applied by the worker that pulled it: it takes less than a millisecond, and a
/// change of thread would cost more than it saves. A larger one, or one that needs documents which may be in the file, is
/// applied apart from the async workers.
const APPLY_INLINE_MAX_BYTES: usize = 64 << 10;
/// The part of the memory for documents that is left to those that readers bring back: a sixteenth.
const READERS_SHARE: u64 = 16;
/// Pause after a queue could not be reached: the first, and the longest.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What one pull has brought.
pub(super) struct Batch {
    pub(super) pulled: Pulled,
    /// Its frames, if they were prepared ahead.
    pub(super) prepared: Option<Frames>,
}

/// Frames, ready for the state, up to the first that can't be read.
pub(super) struct Frames {
    pub(super) ready: Vec<Ready>,
    problem: Option<FrameError>,
}

impl From<Pulled> for Batch {
    fn from(pulled: Pulled) -> Batch {
        Batch { pulled, prepared: None }
    }
}

impl Shard {
    /// Until `stop` says so, or something is wrong that pulling again can't mend.
    pub(super) async fn pull_loop(self: &Arc<Self>, stop: &mut watch::Receiver<bool>) -> Result<(), ShardError> {
        let mut ahead = Ahead::default();
        let ended = self.pull_until(stop, &mut ahead).await;
        ahead.end().await;
        ended
    }

    async fn pull_until(
        self: &Arc<Self>,
        stop: &mut watch::Receiver<bool>,
        ahead: &mut Ahead,
    ) -> Result<(), ShardError> {
        let (mut known, mut pause) = (false, None);
        loop {
            let batch = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                batch = self.next(ahead, &mut known, pause) => batch,
            };
            match batch {
                Ok(batch) => {
                    if pause.take().is_some() {
                        tracing::info!(shard = self.id, "the shard queue can be reached again");
                    }
                    let taking = async {
                        let _telling = self.telling.lock().await;
                        self.take(batch).await?;
                        self.tell_batch(stop).await;
                        Ok::<_, ShardError>(())
                    };
                    let mut taking = std::pin::pin!(taking);
                    tokio::select! {
                        biased;
                        taken = &mut taking => taken,
                        () = self.read_ahead(ahead) => taking.await,
                    }?;
                }
                Err(ShardError::Queue(error)) if can_pass(&error) => {
                    if pause.is_none() {
                        tracing::warn!(shard = self.id, %error, "the shard queue can't be pulled; trying again");
                    }
                    pause = Some(pause.map_or(RETRY_PAUSE.0, |pause: Duration| (pause * 2).min(RETRY_PAUSE.1)));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next batch, once there is room for it: that which was read ahead, if there is one.
    async fn next(
        self: &Arc<Self>,
        ahead: &mut Ahead,
        known: &mut bool,
        pause: Option<Duration>,
    ) -> Result<Batch, ShardError> {
        if let Some(batch) = self.next_ahead(ahead).await {
            let batch = batch?;
            self.room().await;
            return Ok(batch);
        }
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        if !*known {
            // Before the first frame: the queue must not trim what this consumer has yet to see.
            let committed = *self.committed.borrow();
            self.queues.committed(self.id, &self.settings.consumer, committed).await?;
            *known = true;
        }
        self.room().await;
        let after = self.state.read().applied();
        // Readers wait to be told what there is to catch up with.
        let wait = if self.held_at_start.borrow().is_some() { PULL_WAIT } else { Duration::ZERO };
        let pulled = self.queues.pull(self.id, after, PULL_BYTES, wait).await?;
        ahead.note(&pulled);
        Ok(pulled.into())
    }

    /// Waits until the events that are not on disk are few enough, and documents in memory take no more than they may.
    async fn room(&self) {
        let mut committed = self.committed.subscribe();
        let mut held: Option<Stopwatch> = None;
        loop {
            self.shrink();
            let (events, bytes, unwritten) = {
                let state = self.state.read();
                (state.uncommitted_events(), state.bytes(), state.is_unwritten())
            };
            // What is not on disk can't be dropped.
            let full = bytes > self.settings.memory && unwritten;
            if events <= self.settings.uncommitted_events && !full {
                if let Some(since) = held {
                    self.metrics.hold_seconds.observe(since.elapsed().as_secs_f64());
                }
                return;
            }
            held.get_or_insert_with(Stopwatch::start);
            self.flush_wanted.notify_one();
            if committed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Makes room in memory, and some beyond that for what readers bring back.
    fn shrink(&self) {
        let bytes_max = self.settings.memory - self.settings.memory / READERS_SHARE;
        if self.state.read().bytes() > bytes_max {
            let dropped = self.state.write().shrink(bytes_max);
            self.metrics.dropped.inc_by(dropped.len() as u64);
        }
    }

    /// Applies what was pulled.
    pub(super) async fn take(self: &Arc<Self>, batch: Batch) -> Result<(), ShardError> {
        let Batch { pulled: Pulled { frames, last, events_after }, prepared } = batch;
        let lag = |events: u64| self.metrics.lag.set(i64::try_from(events).unwrap_or(i64::MAX));
        lag(events_after);
        self.held_at_start.send_if_modified(|held| held.is_none().then(|| *held = Some(last)).is_some());
        if !frames.is_empty() {
            let started = Stopwatch::start();
            let bytes: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
            let is_small = bytes <= APPLY_INLINE_MAX_BYTES;
            let prepared = if is_small { prepared.or_else(|| Some(self.prepare(&frames))) } else { prepared };
            let is_inline = is_small && prepared.as_ref().is_some_and(|prepared| self.has_all(prepared));
            let shard = self.clone();
            let apply = move || match prepared {
                Some(prepared) => shard.apply_prepared(prepared),
                None => shard.apply(&frames),
            };
            let applied = if is_inline { apply()? } else { apart(apply).await?? };
            self.metrics.apply_seconds.observe(started.elapsed().as_secs_f64());
            lag(events_after.saturating_sub(applied));
        }
        Ok(())
    }

    /// Whether these frames need nothing of the file.
    fn has_all(&self, frames: &Frames) -> bool {
        let state = self.state.read();
        frames.ready.iter().all(|ready| match ready {
            Ready::Events(prepared) => state.has_all(prepared),
            Ready::Documents(taken) => state.missing(&taken.documents).is_empty(),
        })
    }

    /// Applies frames in their order, then announces what they changed; how many events that were. Frames that are
    /// applied already are skipped.
    ///
    /// After an error everything before the frame that caused it is applied and announced.
    pub(super) fn apply(&self, frames: &[(Position, Bytes)]) -> Result<u64, ShardError> {
        let applied = self.state.read().applied();
        let behind = frames.partition_point(|(position, _)| *position <= applied);
        self.apply_prepared(self.prepare(frames.get(behind..).unwrap_or_default()))
    }

    /// Makes frames ready for the state; needs no lock.
    pub(super) fn prepare(&self, frames: &[(Position, Bytes)]) -> Frames {
        let preparer = Preparer { shard: self.id, projections: &self.projections, wanted: &self.wanted };
        let mut prepared = Frames { ready: Vec::with_capacity(frames.len()), problem: None };
        for (position, frame) in frames {
            match preparer.read(*position, frame) {
                Ok(ready) => prepared.ready.push(ready),
                Err(problem) => {
                    prepared.problem = Some(problem);
                    break;
                }
            }
        }
        prepared
    }

    fn apply_prepared(&self, frames: Frames) -> Result<u64, ShardError> {
        let outcome = self.merge(frames);
        let (changed, applied, dirty_bytes, events, uncommitted) = {
            let mut state = self.state.write();
            self.metrics.documents.set(i64::try_from(state.documents()).unwrap_or(i64::MAX));
            self.metrics.bytes.set(i64::try_from(state.bytes()).unwrap_or(i64::MAX));
            let (dirty_bytes, events) = (state.dirty_bytes(), state.events_since_slice());
            (state.take_changed(), state.applied(), dirty_bytes, events, state.uncommitted_events())
        };
        self.metrics.uncommitted.set(i64::try_from(uncommitted).unwrap_or(i64::MAX));
        self.metrics.position.set(i64::try_from(applied).unwrap_or(i64::MAX));
        self.touched.note(&changed, &self.projections);
        // Readable first, announced then: a fetch made after the announcement must see the change.
        self.applied.send_replace(applied);
        self.changes.publish(applied, announcements(self.id, changed, &self.projections));
        if self.is_flush_due(dirty_bytes, events, uncommitted) {
            self.flush_wanted.notify_one();
        }
        outcome
    }

    fn merge(&self, frames: Frames) -> Result<u64, ShardError> {
        let mut events = 0;
        for ready in frames.ready {
            if ready.position() <= self.state.read().applied() {
                continue;
            }
            match ready {
                Ready::Events(prepared) => events += self.merge_events(prepared)?,
                Ready::Documents(taken) => self.take_in(taken)?,
            }
            self.shrink();
        }
        frames.problem.map_or(Ok(events), |problem| Err(problem.into()))
    }

    /// How many events the frame has.
    fn merge_events(&self, mut prepared: Prepared) -> Result<u64, ShardError> {
        // Only the apply loop changes the state, so the mark stays true.
        let mark = self.state.read().mark(prepared.queue);
        for (why, events) in prepared.leave_repeated(mark) {
            self.metrics.unapplied(why).inc_by(events);
        }
        self.metrics.applied.inc_by(prepared.arrived.len() as u64);
        let dropped = self.dead.add(std::mem::take(&mut prepared.dead));
        self.metrics.dead_dropped.inc_by(dropped as u64);
        let events = prepared.events;
        self.bring(&mut prepared)?;
        self.keep_tellings(self.state.write().merge(prepared));
        Ok(events)
    }

    fn take_in(&self, taken: TakenIn) -> Result<(), ShardError> {
        let missing = self.state.read().missing(&taken.documents);
        let rows = if missing.is_empty() { Vec::new() } else { self.file.read(&missing)? };
        let changed = |(projection, key, document): &Row| (*projection, key.clone(), document.version);
        let handed: Vec<Changed> = taken.documents.iter().map(changed).collect();
        {
            let mut state = self.state.write();
            state.bring(rows);
            state.take_in(taken);
        }
        // Nobody is told of them, but this shard may be giving the same slots on, while it replays what it was given.
        self.touched.note(&handed, &self.projections);
        Ok(())
    }

    /// Finds the frame's documents, and reads those that are not in memory from the file.
    fn bring(&self, prepared: &mut Prepared) -> Result<(), ShardError> {
        let missing = self.state.read().find(prepared);
        if !missing.is_empty() {
            let rows = self.file.read(&missing)?;
            self.metrics.read.inc_by(rows.len() as u64);
            self.state.write().bring(rows);
        }
        Ok(())
    }
}

/// Whether asking again may help: not where the queue and this shard disagree about what there is.
pub(super) fn can_pass(error: &QueueError) -> bool {
    use QueueError::{Ahead, Invalid, NoQueue, Trimmed};
    !matches!(error, NoQueue { .. } | Trimmed { .. } | Ahead { .. } | Invalid { .. })
}
