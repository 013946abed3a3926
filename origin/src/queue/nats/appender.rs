//! The one task of a process that appends to an event queue: gathers what waits, judges each event, and publishes one
//! frame at a time.
//!
//! Any number of processes append to one event queue, and offsets have no gaps: a frame is published only if the last
//! message is the one that the writer knows (`Nats-Expected-Last-Subject-Sequence`). A writer that was overtaken reads
//! what it missed, and judges again; so none can overlook an id that another one stored. A writer that did not hear what
//! became of its frame finds it there by its name and number, or publishes it again under the same condition.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millpond_shared::clock;
use millpond_shared::event::Event;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::connection::Published;
use super::draft::{Call, Draft};
use super::event_log::{EventLog, Known};
use crate::queue::limits::FRAME_MAX_BYTES;
use crate::queue::{Fate, Limits, QueueError};

/// Handle to the task.
pub struct Appender {
    calls: mpsc::Sender<Waiting>,
    waiting_bytes: Arc<AtomicU64>,
    waiting_max_bytes: u64,
}

/// A call that waits, or is being worked on.
struct Waiting {
    call: Call,
    answer: oneshot::Sender<Result<Vec<Fate>, QueueError>>,
    _counted: Counted,
}

/// Counts bytes as waiting for as long as it is.
struct Counted {
    counter: Arc<AtomicU64>,
    bytes: u64,
}

/// How long a frame is tried to be stored before those who wait for it are told that it can't be.
const APPEND_TIME: Duration = Duration::from_secs(10);
/// Pause after a server could not be asked.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// What a frame lacks to the largest message: its head, the subject, what the server adds, and the keys that its events
/// will have with them in the shard queues.
pub(super) const HEADROOM_BYTES: usize = 16 << 10;

impl Appender {
    /// Starts the task; it ends when the handle is gone and every call is answered.
    pub fn start(log: EventLog) -> Appender {
        let limits = log.runtime.limits;
        let (calls, received) = mpsc::channel(limits.waiting_max_calls);
        let frame_max = FRAME_MAX_BYTES.min(log.connection.message_max - HEADROOM_BYTES) as u64;
        let writer = RandomState::new().build_hasher().finish();
        let task = Task { log: Log::Unread(Box::new(log)), writer, group: 0, frame_max, limits };
        tokio::spawn(task.run(received));
        let waiting_max_bytes = limits.waiting_max_bytes;
        Appender { calls, waiting_bytes: Arc::default(), waiting_max_bytes }
    }

    /// See [`EventQueues::append`](crate::queue::EventQueues::append).
    pub async fn append(&self, window: Option<Duration>, events: Vec<Event<'static>>) -> Result<Vec<Fate>, QueueError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let count = events.len();
        let bytes: u64 = events.iter().map(Event::frame_bytes).sum();
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        let counted = Counted { counter: self.waiting_bytes.clone(), bytes };
        if before > 0 && before + bytes > self.waiting_max_bytes {
            return Ok(vec![Fate::Full; count]);
        }
        let (answer, answered) = oneshot::channel();
        match self.calls.try_send(Waiting { call: Call::new(window, events), answer, _counted: counted }) {
            Ok(()) => answered.await.unwrap_or(Err(QueueError::Closed)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(QueueError::Closed),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(vec![Fate::Full; count]),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

struct Task {
    log: Log,
    /// Our name, and the number of the last frame.
    writer: u64,
    group: u64,
    frame_max: u64,
    limits: Limits,
}

enum Log {
    Unread(Box<EventLog>),
    Read(Box<Known>),
    /// Between the two.
    Away,
}

impl Task {
    async fn run(mut self, mut calls: mpsc::Receiver<Waiting>) {
        let mut group: VecDeque<Waiting> = VecDeque::new();
        while let Some(first) = calls.recv().await {
            let mut bytes = first._counted.bytes;
            let mut events = first.call.events.len();
            group.push_back(first);
            while bytes < self.limits.group_max_bytes && events < self.limits.group_max_events {
                let Ok(next) = calls.try_recv() else { break };
                (bytes, events) = (bytes + next._counted.bytes, events + next.call.events.len());
                group.push_back(next);
            }
            while !group.is_empty() {
                if let Err(error) = self.store(&mut group).await {
                    for Waiting { answer, .. } in group.drain(..) {
                        // Whoever asked may be gone.
                        let _ = answer.send(Err(error.clone()));
                    }
                }
                while let Some(Waiting { call, answer, .. }) = group.pop_front_if(|first| first.call.is_judged()) {
                    let _ = answer.send(Ok(call.fates));
                }
            }
        }
    }

    /// Stores one frame of what the calls hold, and gives its events their fates. Tries for [`APPEND_TIME`].
    async fn store(&mut self, group: &mut VecDeque<Waiting>) -> Result<(), QueueError> {
        let began = clock::monotonic();
        let mut draft: Option<Draft> = None;
        loop {
            match self.attempt(group, &mut draft).await {
                Ok(true) => return Ok(()),
                Ok(false) if began.elapsed() < APPEND_TIME => {}
                Ok(false) => return Err(QueueError::Busy),
                Err(error) if began.elapsed() >= APPEND_TIME => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "events can't be appended; trying again");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Whether the frame is stored. The draft stays as long as nobody else has stored anything.
    async fn attempt(&mut self, group: &mut VecDeque<Waiting>, draft: &mut Option<Draft>) -> Result<bool, QueueError> {
        let known = self.log.read().await?;
        if let Some(written) = draft.take() {
            let found = known.catch_up(Some((self.writer, self.group))).await?;
            if found.is_some() {
                written.settle(group.iter_mut().map(|waiting| &mut waiting.call));
                return Ok(true);
            }
            if known.sequence() == written.behind {
                *draft = Some(written);
            }
        }
        let written = match draft {
            Some(written) => written,
            None => {
                known.tidy().await?;
                self.group += 1;
                let place = (self.writer, self.group);
                let calls = group.iter().map(|waiting| &waiting.call);
                draft.insert(Draft::new(known, place, calls, self.frame_max))
            }
        };
        if !written.is_empty() {
            match known.publish(&written.head, Bytes::clone(&written.frame)).await? {
                Published::At(sequence) => {
                    known.stored(sequence, &written.head, written.frame.len() as u64, written.ids.drain(..));
                }
                Published::Overtaken => return Ok(false),
                Published::NoRoom => written.refuse(),
            }
        }
        if let Some(written) = draft.take() {
            written.settle(group.iter_mut().map(|waiting| &mut waiting.call));
        }
        Ok(true)
    }
}

impl Log {
    /// What is known of the queue, read first if it was not.
    async fn read(&mut self) -> Result<&mut Known, QueueError> {
        if let Log::Unread(_) = self
            && let Log::Unread(log) = std::mem::replace(self, Log::Away)
        {
            match log.read().await {
                Ok(known) => *self = Log::Read(Box::new(known)),
                Err((log, error)) => {
                    *self = Log::Unread(Box::new(log));
                    return Err(error);
                }
            }
        }
        match self {
            Log::Read(known) => Ok(known),
            Log::Unread(_) | Log::Away => Err(QueueError::Closed),
        }
    }
}
