//! One event queue as a writer knows it: where it ends, which ids it remembers, how deep it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use millpond_shared::version::{Offset, QueueId};

use super::connection::{self, Connection, Published, unreachable};
use super::heads::{self, EventHead, Remembered};
use super::ids::Ids;
use super::reader::{Reader, Stored};
use super::records::{FiledRecord, Records, filed_key};
use super::streams::Plan;
use crate::queue::ids::IdHasher;
use crate::queue::{Limits, QueueError, Runtime};
use crate::store::event_queue_file::FrameInfo;

/// An event queue, as one process sees it.
pub struct EventLog {
    pub queue: QueueId,
    pub plan: Plan,
    pub connection: Connection,
    pub stream: Stream,
    pub ids: Stream,
    pub state: Records,
    pub hasher: IdHasher,
    pub runtime: Runtime,
    /// The last offset that this process knows to be filed.
    pub filed: Arc<AtomicU64>,
}

/// What a writer knows.
pub struct Known {
    log: EventLog,
    events: Reader,
    /// Sequence of the last message; what the fence is set to.
    sequence: u64,
    fence: u64,
    last: Offset,
    ids: Ids,
    /// Frames with events that were not filed yet, oldest first.
    frames: VecDeque<FrameInfo>,
    depth_bytes: u64,
    remembered: Reader,
    /// Sequence of the last message of ids.
    remembered_sequence: u64,
}

/// Read at once while catching up, in bytes.
const READ_BYTES: usize = 4 << 20;

impl EventLog {
    /// Reads what is needed to write: the ids that were moved away, then what is in the queue.
    pub async fn read(self) -> Result<Known, (EventLog, QueueError)> {
        let mut stream = self.stream.clone();
        let state = match stream.info().await {
            Ok(info) => info.state.clone(),
            Err(error) => return Err((self, unreachable(error))),
        };
        let message_max = self.connection.message_max;
        let is_empty = state.messages == 0;
        let mut known = Known {
            events: Reader::new(self.stream.clone(), message_max),
            remembered: Reader::new(self.ids.clone(), message_max),
            // Reading begins at what there is; a queue that somebody purged as a whole ends where its ids say.
            sequence: if is_empty { state.last_sequence } else { state.first_sequence.saturating_sub(1) },
            fence: 0,
            last: 0,
            ids: Ids::default(),
            frames: VecDeque::new(),
            depth_bytes: 0,
            remembered_sequence: 0,
            log: self,
        };
        let read = async {
            known.read_remembered().await?;
            known.catch_up(None).await?;
            known.refresh_filed().await
        };
        match read.await {
            Ok(()) => Ok(known),
            Err(error) => Err((known.log, error)),
        }
    }
}

impl Known {
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    pub fn last(&self) -> Offset {
        self.last
    }

    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn remembers(&self, hash: u128) -> bool {
        self.ids.contains(hash)
    }

    pub fn depth_bytes(&self) -> u64 {
        self.depth_bytes
    }

    pub fn filed(&self) -> Offset {
        self.log.filed.load(Ordering::Acquire)
    }

    fn limits(&self) -> &Limits {
        &self.log.runtime.limits
    }

    /// Forgets what is filed and ids whose time is over; asks how far others have filed where it may matter.
    pub async fn tidy(&mut self) -> Result<(), QueueError> {
        self.drop_filed();
        let depth = self.last.saturating_sub(self.filed());
        if depth >= self.limits().depth_max_events / 2 || self.depth_bytes >= self.limits().depth_max_bytes / 2 {
            self.refresh_filed().await?;
        }
        let early = self.ids.forget(self.log.runtime.now_ms(), self.limits().ids_max);
        if early > 0 {
            self.log.runtime.metrics.ids_forgotten(self.log.queue, early);
        }
        Ok(())
    }

    async fn refresh_filed(&mut self) -> Result<(), QueueError> {
        let found = self.log.state.get::<FiledRecord>(&filed_key(self.log.queue)).await?.value.unwrap_or_default();
        self.log.filed.fetch_max(found.offset, Ordering::AcqRel);
        self.drop_filed();
        Ok(())
    }

    fn drop_filed(&mut self) {
        let filed = self.filed();
        while let Some(frame) = self.frames.pop_front_if(|frame| frame.last <= filed) {
            self.depth_bytes -= frame.bytes;
        }
    }

    /// Publishes a frame if the last message is the one that is known. After an error nothing is known of it before
    /// [`catch_up`](Known::catch_up) has looked.
    pub async fn publish(&self, head: &EventHead, frame: Bytes) -> Result<Published, QueueError> {
        let subject = self.log.plan.events_subject(self.log.queue);
        connection::publish(&self.log.connection, subject, self.fence, heads::encode(head), frame).await
    }

    /// What was published is stored at `sequence`.
    pub fn stored(&mut self, sequence: u64, head: &EventHead, bytes: u64, ids: impl IntoIterator<Item = (u64, u128)>) {
        for (ends_ms, hash) in ids {
            self.ids.remember(ends_ms, [hash]);
        }
        self.add(sequence, head, bytes);
    }

    fn add(&mut self, sequence: u64, head: &EventHead, bytes: u64) {
        (self.sequence, self.fence, self.last) = (sequence, sequence, head.last);
        if head.last > self.filed() {
            let (first, last, received) = (head.first, head.last, head.received);
            self.frames.push_back(FrameInfo { first, last, bytes, received });
            self.depth_bytes += bytes;
        }
    }

    /// Reads what was stored since; the sequence of the frame that `mine` (writer, group) names, if it is there.
    pub async fn catch_up(&mut self, mine: Option<(u64, u64)>) -> Result<Option<u64>, QueueError> {
        let mut found = None;
        loop {
            let read = self.events.read(self.sequence, READ_BYTES, Duration::ZERO).await?;
            let Some(first) = read.first() else { return Ok(found) };
            if first.sequence > self.sequence + 1 {
                // What is missing was filed and purged; its ids were written down before that.
                self.read_remembered().await?;
            }
            for Stored { sequence, head, payload, .. } in &read {
                let head: EventHead = heads::decode(head.as_deref())?;
                if mine == Some((head.writer, head.group)) {
                    found = Some(*sequence);
                }
                for (ends_ms, hashes) in heads::ids_of(&head, payload, &self.log.hasher, self.log.runtime.now_ms())? {
                    self.ids.remember(ends_ms, hashes);
                }
                self.add(*sequence, &head, payload.len() as u64);
            }
        }
    }

    async fn read_remembered(&mut self) -> Result<(), QueueError> {
        loop {
            let read = self.remembered.read(self.remembered_sequence, READ_BYTES, Duration::ZERO).await?;
            let Some(newest) = read.last() else { return Ok(()) };
            self.remembered_sequence = newest.sequence;
            let now_ms = self.log.runtime.now_ms();
            for message in &read {
                let remembered = Remembered::decode(&message.payload)?;
                self.last = self.last.max(remembered.last);
                for (ends_ms, hashes) in remembered.ids.into_iter().filter(|(ends_ms, _)| *ends_ms > now_ms) {
                    self.ids.remember(ends_ms, hashes);
                }
            }
        }
    }
}
