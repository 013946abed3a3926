//! One event queue: a file, a thread that writes it, and the handle by which everybody else reaches both.
//!
//! Calls wait in a bounded channel; the writer takes all that are waiting, commits them as one group and answers them.
//! So the group grows by itself with the load, and a lone call waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millpond_shared::event::Event;
use millpond_shared::version::{Offset, QueueId};
use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use super::event_writer::{Call, EventWriter};
use super::ids::IdHasher;
use super::limits::TAKE_MAX_BYTES;
use super::packed::Packed;
use super::writer_thread::WriterThread;
use super::{Fate, Limits, QueueError, Runtime, Taken};
use crate::blocking::apart;
use crate::store::event_queue_file::EventQueueFile;
use crate::store::{Place, StoreError};

/// Handle to an open event queue.
pub struct EventQueue {
    shared: Arc<Shared>,
    hasher: IdHasher,
    runtime: Runtime,
    writer: WriterThread<Call>,
}

/// What the writer and the handle both see.
pub(super) struct Shared {
    pub queue: QueueId,
    pub limits: Limits,
    /// `None` once the queue is closed. Readers hold the lock while they read, so closing waits for them.
    pub file: RwLock<Option<EventQueueFile>>,
    /// The last offset that is on disk.
    pub last: watch::Sender<Offset>,
    /// The last offset that was filed in the shard queues; the writer trims up to it.
    pub cursor: Arc<AtomicU64>,
    /// Bytes of events in calls that wait for the writer.
    pub waiting_bytes: AtomicU64,
    pub depth: Depth,
}

/// What was not filed yet, as of the last commit.
#[derive(Default)]
pub(super) struct Depth {
    pub bytes: AtomicU64,
    /// When ingest took the oldest of it, in ms; 0 if there is nothing.
    pub oldest_ms: AtomicU64,
}

impl EventQueue {
    /// Opens the file and starts the writer. `filed` holds the last offset that was filed in the shard queues.
    pub fn open(
        place: Place,
        queue: QueueId,
        filed: Arc<AtomicU64>,
        runtime: &Runtime,
    ) -> Result<EventQueue, StoreError> {
        let cursor = filed.load(Ordering::Acquire);
        let (file, loaded) = EventQueueFile::open(place, queue, runtime.limits.cache_bytes)?;
        let first_here = loaded.frames.first().map_or(loaded.last + 1, |frame| frame.first);
        if first_here > cursor + 1 {
            return Err(StoreError::Damaged {
                file: format!("event queue {queue}"),
                problem: format!(
                    "its events start at offset {first_here}, but the shard queues have filed only up to {cursor}: \
                     the files do not belong together; restore both from one copy, or delete the whole `dir`"
                ),
            });
        }
        if loaded.last < cursor {
            // Offsets up to the cursor were given and filed: they must not be given again.
            tracing::warn!(queue, last = loaded.last, cursor, "the event queue's file lost events that were filed");
        }
        let shared = Arc::new(Shared {
            queue,
            limits: runtime.limits,
            file: RwLock::new(Some(file)),
            last: watch::channel(loaded.last.max(cursor)).0,
            cursor: filed,
            waiting_bytes: AtomicU64::new(0),
            depth: Depth::default(),
        });
        let hasher = IdHasher::new(loaded.secret);
        let writer = EventWriter::new(shared.clone(), runtime.clone(), loaded);
        let (name, waiting_max_calls) = (format!("event-queue-{queue}"), runtime.limits.waiting_max_calls);
        let writer = WriterThread::start(&name, waiting_max_calls, writer)?;
        Ok(EventQueue { shared, hasher, runtime: runtime.clone(), writer })
    }

    /// See [`EventQueues::append`](super::EventQueues::append).
    pub async fn append(&self, window: Option<Duration>, events: Vec<Event<'static>>) -> Result<Vec<Fate>, QueueError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let count = events.len();
        let bytes: u64 = events.iter().map(Event::frame_bytes).sum();
        let waiting = Waiting::enter(&self.shared, bytes);
        if waiting.before + bytes > self.shared.limits.waiting_max_bytes && waiting.before > 0 {
            return Ok(vec![Fate::Full; count]);
        }
        let hash = |event: &Event<'_>| window.map(|_| self.hasher.hash(&event.source, &event.id));
        // Encoded here, by the thread that made them: see there.
        let packed = Packed::new(events, bytes, hash);
        let (answer, answered) = oneshot::channel();
        let call = Call { window: window.unwrap_or_default(), packed, answer };
        match self.writer.call(call) {
            Ok(()) => {}
            Err(QueueError::Busy) => return Ok(vec![Fate::Full; count]),
            Err(error) => return Err(error),
        }
        answered.await.unwrap_or(Err(QueueError::Closed))
    }

    /// Whether another event may find room.
    pub fn has_room(&self) -> bool {
        let limits = &self.shared.limits;
        self.last().saturating_sub(self.cursor()) < limits.depth_max_events
            && self.depth_bytes() < limits.depth_max_bytes
            && self.shared.waiting_bytes.load(Ordering::Relaxed) < limits.waiting_max_bytes
    }

    /// Waits up to `wait` for an event behind the cursor, then reads what is there.
    pub async fn take(&self, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError> {
        let mut last = self.shared.last.subscribe();
        if !self.runtime.wait_for(&mut last, |last| *last > self.cursor(), wait).await? {
            return Ok(None);
        }
        let (shared, first) = (self.shared.clone(), self.cursor() + 1);
        let max_events = u64::try_from(max_events.max(1)).unwrap_or(u64::MAX);
        let read = apart(move || shared.read(first, max_events)).await;
        let (frames, last) = read.unwrap_or(Err(QueueError::Closed))?;
        // A frame can be read before the writer has said that it is there: then it waits for the next round, since a
        // push beyond what the queue says it has is refused.
        let last = last.min(first.saturating_add(max_events - 1)).min(self.last());
        Ok((last >= first).then_some(Taken { first, last, frames }))
    }

    /// Events behind `after` that are still here.
    pub async fn peek(&self, after: Offset, max_events: usize) -> Result<Option<Taken>, QueueError> {
        let (shared, first) = (self.shared.clone(), after.saturating_add(1));
        let max_events = u64::try_from(max_events.max(1)).unwrap_or(u64::MAX);
        let read = apart(move || shared.read(first, max_events)).await;
        let (frames, last) = read.unwrap_or(Err(QueueError::Closed))?;
        let last = last.min(first.saturating_add(max_events - 1)).min(self.last());
        Ok((last >= first).then_some(Taken { first, last, frames }))
    }

    /// The last offset that was filed.
    pub fn cursor(&self) -> Offset {
        self.shared.cursor.load(Ordering::Acquire)
    }

    /// The last offset that is on disk.
    pub fn last(&self) -> Offset {
        *self.shared.last.borrow()
    }

    /// Bytes that were not filed yet, as of the last commit.
    pub fn depth_bytes(&self) -> u64 {
        self.shared.depth.bytes.load(Ordering::Relaxed)
    }

    /// When ingest took the oldest event that was not filed yet, as of the last commit.
    pub fn oldest_ms(&self) -> Option<u64> {
        Some(self.shared.depth.oldest_ms.load(Ordering::Relaxed)).filter(|oldest| *oldest > 0)
    }

    /// Answers the calls that are waiting, ends the writer and closes the file. Blocks.
    pub fn close(&self) {
        self.writer.close();
        drop(self.shared.file.write().take());
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn read(&self, first: Offset, max_events: u64) -> Result<(Vec<Bytes>, Offset), QueueError> {
        let file = self.file.read();
        let file = file.as_ref().ok_or(QueueError::Closed)?;
        file.read(first, max_events, TAKE_MAX_BYTES).map_err(|error| QueueError::Failed { problem: error.to_string() })
    }
}

/// Counts a call's bytes as waiting for as long as it is.
struct Waiting<'a> {
    shared: &'a Shared,
    bytes: u64,
    before: u64,
}

impl Waiting<'_> {
    fn enter(shared: &Shared, bytes: u64) -> Waiting<'_> {
        let before = shared.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        Waiting { shared, bytes, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.waiting_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
