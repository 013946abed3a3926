//! All shard queues, cursors and leases: one file, a thread that writes it, and the handle to both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use millpond_shared::shard_map::{MapState, SHARDS_MAX};
use millpond_shared::version::{Position, QueueId, ShardId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use super::limits::{CONSUMER_NAME_MAX, CONSUMERS_MAX, EVENT_QUEUES_MAX};
use super::shard_writer::{Ask, Call, Done, ShardWriter, row};
use super::writer_thread::WriterThread;
use super::{DeadKey, DeadLetter, Lease, Pulled, QueueError, Runtime, lease};
use crate::blocking::apart;
use crate::store::dead_letters::Dead;
use crate::store::shard_queue_file::{Claim, Ends, Handed, Run, ShardQueueFile};
use crate::store::{Place, StoreError};

/// Handle to the open file.
pub struct ShardQueueSet {
    shared: Arc<Shared>,
    writer: WriterThread<Call>,
}

/// What the writer and the handle both see.
pub(super) struct Shared {
    pub runtime: Runtime,
    /// `None` once it is closed. Readers hold the lock while they read, so closing waits for them.
    pub file: RwLock<Option<ShardQueueFile>>,
    /// By shard; as of the last commit.
    pub ends: Vec<watch::Sender<Ends>>,
    /// What the frames of all shards take on disk, in bytes; as of the last commit.
    pub bytes_held: AtomicU64,
    /// By event queue: the last offset that was filed.
    pub cursors: Vec<Arc<AtomicU64>>,
    /// By event queue; as of the last commit.
    pub claims: Mutex<BTreeMap<QueueId, Claim>>,
    pub consumers: Mutex<Consumers>,
    /// As of the last commit.
    pub dead: Mutex<Dead>,
    /// As of the last commit; `None`: nobody has told yet what it begins as.
    pub map: watch::Sender<Option<Arc<MapState>>>,
    pub handed: Mutex<Option<Handed>>,
    /// The attempt in which something was handed over last, and when, since this was opened.
    pub given: Mutex<Option<(u32, Instant)>>,
}

/// What consumers have committed. It is written down with the next commit, or when the writer has nothing else to do.
#[derive(Default)]
pub(super) struct Consumers {
    pub committed: BTreeMap<(ShardId, String), Position>,
    pub changed: BTreeSet<(ShardId, String)>,
    /// When each said so last, or this was opened, in ms since the epoch. It is not written down.
    pub heard_ms: BTreeMap<(ShardId, String), u64>,
    /// As it stands in the file.
    pub recorded: BTreeMap<(ShardId, String), Position>,
}

impl ShardQueueSet {
    pub fn open(place: Place, runtime: &Runtime) -> Result<ShardQueueSet, StoreError> {
        let (file, loaded) = ShardQueueFile::open(place, runtime.limits.cache_bytes)?;
        let ends = (0..SHARDS_MAX).map(|shard| {
            let ends = loaded.ends.get(&shard).copied().unwrap_or_default();
            watch::channel(ends).0
        });
        let cursors = (0..EVENT_QUEUES_MAX).map(|queue| {
            let cursor = loaded.cursors.get(&queue).copied().unwrap_or_default();
            Arc::new(AtomicU64::new(cursor))
        });
        let shared = Arc::new(Shared {
            runtime: runtime.clone(),
            file: RwLock::new(Some(file)),
            ends: ends.collect(),
            bytes_held: AtomicU64::new(loaded.ends.values().map(|ends| ends.bytes).sum()),
            cursors: cursors.collect(),
            claims: Mutex::new(loaded.claims),
            dead: Mutex::new(loaded.dead),
            map: watch::Sender::new(loaded.map.map(Arc::new)),
            handed: Mutex::new(loaded.handed),
            given: Mutex::default(),
            consumers: Mutex::new(Consumers {
                heard_ms: loaded.committed.keys().map(|key| (key.clone(), runtime.now_ms())).collect(),
                recorded: loaded.committed.clone(),
                committed: loaded.committed,
                changed: BTreeSet::new(),
            }),
        });
        let (writer, waiting_max_calls) = (ShardWriter::new(shared.clone()), runtime.limits.waiting_max_calls);
        let writer = WriterThread::start("shard-queues", waiting_max_calls, writer)?;
        Ok(ShardQueueSet { shared, writer })
    }

    /// Where the last filed offset of an event queue is told.
    pub fn cursor(&self, queue: QueueId) -> Arc<AtomicU64> {
        self.shared.cursors.get(usize::from(queue)).cloned().unwrap_or_default()
    }

    /// Has the writer do what is asked; returns once it is on disk.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Done, QueueError> {
        let (answer, answered) = oneshot::channel();
        self.writer.call(Call { ask, answer })?;
        answered.await.unwrap_or(Err(QueueError::Closed))
    }

    /// Whether the lease is the current one and runs.
    pub fn check(&self, lease: Lease) -> Result<(), QueueError> {
        let claims = self.shared.claims.lock();
        lease::check(claims.get(&lease.queue), lease.token, self.shared.runtime.now_ms())
            .map_err(|_| QueueError::Fenced { queue: lease.queue, token: lease.token })
    }

    /// See [`ShardQueues::pull`](super::ShardQueues::pull).
    pub async fn pull(
        &self,
        shard: ShardId,
        after: Position,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Pulled, QueueError> {
        let mut ends = self.shared.ends(shard)?.subscribe();
        judge(shard, after, *ends.borrow())?;
        if !self.shared.runtime.wait_for(&mut ends, |ends| ends.last > after, wait).await? {
            // What came at the last moment is left to the next pull.
            return Ok(Pulled { last: after, ..Pulled::default() });
        }
        let shared = self.shared.clone();
        let read = apart(move || shared.read(shard, after, max_bytes)).await;
        read.unwrap_or(Err(QueueError::Closed))
    }

    /// See [`ShardQueues::committed`](super::ShardQueues::committed).
    pub async fn committed(&self, shard: ShardId, consumer: &str, position: Position) -> Result<(), QueueError> {
        let ends = self.ends(shard)?;
        if position > ends.last {
            return Err(QueueError::Ahead { shard, after: position, last: ends.last });
        }
        valid_name(consumer)?;
        let relied_on = {
            let mut consumers = self.shared.consumers.lock();
            let key = (shard, consumer.to_owned());
            if !consumers.committed.contains_key(&key) && consumers.of(shard).count() >= CONSUMERS_MAX {
                return Err(too_many_consumers(shard));
            }
            // A position that is lost in a crash means that less is trimmed. A consumer that is lost, or one that went
            // back, means that more is: what it has yet to pull, once the others have passed that.
            consumers.heard_ms.insert(key.clone(), self.shared.runtime.now_ms());
            let relied_on = consumers.recorded.get(&key).is_none_or(|recorded| *recorded > position);
            if consumers.committed.insert(key.clone(), position) != Some(position) {
                consumers.changed.insert(key);
            }
            relied_on
        };
        if relied_on {
            self.ask(Ask::Note).await?;
        }
        Ok(())
    }

    /// See [`ShardMaps::map`](super::ShardMaps::map).
    pub async fn map(&self, after: u32, wait: Duration) -> Result<Option<MapState>, QueueError> {
        let mut map = self.shared.map.subscribe();
        let is_newer = |state: &Option<Arc<MapState>>| state.as_ref().is_some_and(|state| state.version() > after);
        if !self.shared.runtime.wait_for(&mut map, is_newer, wait).await? {
            return Ok(None);
        }
        let state = map.borrow().clone();
        Ok(state.map(Arc::unwrap_or_clone))
    }

    #[cfg(test)]
    pub(super) fn map_now(&self) -> Option<Arc<MapState>> {
        self.shared.map.borrow().clone()
    }

    /// Consumers of a shard queue, and what they have committed.
    pub fn consumers(&self, shard: ShardId) -> Vec<(String, Position)> {
        self.shared.consumers.lock().of(shard).map(|(name, position)| (name.to_owned(), position)).collect()
    }

    /// How long ago each of them said what it has committed, in ms.
    pub fn heard_ms_ago(&self, shard: ShardId, now_ms: u64) -> BTreeMap<String, u64> {
        let consumers = self.shared.consumers.lock();
        let heard = consumers.heard_ms.range((shard, String::new())..).take_while(|((of, _), _)| *of == shard);
        heard.map(|((_, name), heard_ms)| (name.clone(), now_ms.saturating_sub(*heard_ms))).collect()
    }

    /// Forgets a consumer that is gone for good, so that its frames may be trimmed; whether there was one.
    pub fn remove_consumer(&self, shard: ShardId, consumer: &str) -> bool {
        let mut consumers = self.shared.consumers.lock();
        let key = (shard, consumer.to_owned());
        let was_there = consumers.committed.remove(&key).is_some();
        consumers.heard_ms.remove(&key);
        if was_there {
            consumers.changed.insert(key);
        }
        was_there
    }

    /// Number of dead letters.
    pub fn dead_count(&self) -> usize {
        self.shared.dead.lock().letters
    }

    /// The first dead letters.
    pub async fn dead(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.read_dead(move |file| file.dead(most)).await
    }

    pub async fn dead_letter(&self, key: DeadKey) -> Result<Option<DeadLetter>, QueueError> {
        let found = self.read_dead(move |file| Ok(file.dead_letter(row(key))?.into_iter().collect())).await?;
        Ok(found.into_iter().next())
    }

    async fn read_dead(
        &self,
        read: impl FnOnce(&ShardQueueFile) -> Result<Vec<Vec<u8>>, StoreError> + Send + 'static,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let shared = self.shared.clone();
        let reading = apart(move || {
            let file = shared.file.read();
            let file = file.as_ref().ok_or(QueueError::Closed)?;
            let letters = read(file).map_err(|error| QueueError::Failed { problem: error.to_string() })?;
            let decoded = letters.iter().map(|bytes| DeadLetter::decode(bytes));
            decoded.collect::<Result<_, _>>().map_err(|problem| QueueError::Failed { problem })
        });
        reading.await.unwrap_or(Err(QueueError::Closed))
    }

    pub fn ends(&self, shard: ShardId) -> Result<Ends, QueueError> {
        Ok(*self.shared.ends(shard)?.borrow())
    }

    /// Commits a frame and says nothing, as the writer does for a moment.
    #[cfg(test)]
    pub(super) fn append_without_a_word(&self, shard: ShardId, events: u64, frame: &[u8]) -> Result<(), StoreError> {
        let file = self.shared.file.read();
        let Some(file) = file.as_ref() else { return Ok(()) };
        let transaction = file.begin(0)?;
        transaction.append(shard, events, frame)?;
        transaction.commit()
    }

    /// Does what was asked, ends the writer and closes the file. Blocks.
    pub fn close(&self) {
        self.writer.close();
        drop(self.shared.file.write().take());
    }
}

impl Drop for ShardQueueSet {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub fn ends(&self, shard: ShardId) -> Result<&watch::Sender<Ends>, QueueError> {
        self.ends.get(usize::from(shard)).ok_or_else(|| no_shard(shard))
    }

    fn read(&self, shard: ShardId, after: Position, max_bytes: usize) -> Result<Pulled, QueueError> {
        let file = self.file.read();
        let file = file.as_ref().ok_or(QueueError::Closed)?;
        let failed = |error: StoreError| QueueError::Failed { problem: error.to_string() };
        // A frame can be read before the writer has said that it is there. Whoever had it would be ahead of the queue.
        let said = *self.ends(shard)?.borrow();
        let (Run { mut frames, events_before }, ends) = file.read(shard, after, max_bytes).map_err(failed)?;
        judge(shard, after, ends)?;
        frames.retain(|(position, _)| *position <= said.last);
        let events_after = if frames.is_empty() { 0 } else { said.events - events_before };
        Ok(Pulled { frames, last: said.last, events_after })
    }
}

impl Consumers {
    pub fn of(&self, shard: ShardId) -> impl Iterator<Item = (&str, Position)> {
        let range = (shard, String::new())..;
        let of_shard = self.committed.range(range).take_while(move |((other, _), _)| *other == shard);
        of_shard.map(|((_, name), position)| (name.as_str(), *position))
    }
}

pub(super) fn no_shard(shard: ShardId) -> QueueError {
    QueueError::NoQueue { what: "shard queue".to_owned(), number: shard, last: SHARDS_MAX - 1 }
}

/// Whether a consumer may have this name.
pub(super) fn valid_name(consumer: &str) -> Result<(), QueueError> {
    if consumer.is_empty() || consumer.len() > CONSUMER_NAME_MAX {
        return Err(QueueError::Invalid { problem: format!("a consumer's name takes 1 to {CONSUMER_NAME_MAX} bytes") });
    }
    Ok(())
}

pub(super) fn too_many_consumers(shard: ShardId) -> QueueError {
    let problem = format!("shard queue {shard} has {CONSUMERS_MAX} consumers already: remove one that is gone");
    QueueError::Invalid { problem }
}

/// Whether what follows `after` is all here.
pub(super) fn judge(shard: ShardId, after: Position, ends: Ends) -> Result<(), QueueError> {
    if after > ends.last {
        return Err(QueueError::Ahead { shard, after, last: ends.last });
    }
    if after < ends.trimmed {
        return Err(QueueError::Trimmed { shard, after, trimmed: ends.trimmed });
    }
    Ok(())
}
