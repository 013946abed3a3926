//! One event queue in the hands of a dispatcher: takes its events, files rounds in the shard queues (one frame at a time
//! by `filing`), and purges what is filed.
//!
//! The cursor may lag behind the marks after a crash, never be ahead of one: it is written once all shards have a round.
//! The last message of a subject is never purged, since the fence of an empty subject would let anybody in who has seen
//! it empty once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use millpond_shared::clock;
use millpond_shared::version::{Offset, ShardId};

use super::connection::unreachable;
use super::filing::{Mark, Shared};
use super::heads::{self, EventHead, Remembered};
use super::reader::Reader;
use super::records::{FiledRecord, Revised, filed_key};
use crate::queue::limits::TAKE_MAX_BYTES;
use crate::queue::{Lease, QueueError, Round, RoundFrame, Taken};

/// An event queue under one lease after the other.
pub struct Filer {
    shared: Shared,
    reader: Reader,
    /// The lease under which the rest was learnt.
    token: u64,
    /// Sequence of the last message that was read.
    read_to: u64,
    /// What was read and is not purged, oldest first.
    frames: VecDeque<Frame>,
    /// Bytes of the frames that were not filed yet.
    unfiled_bytes: usize,
    /// By shard: the last frame of this event queue.
    marks: BTreeMap<ShardId, Mark>,
    tidied: Instant,
    /// The record of the cursor, as it was read or written last.
    written: Revised<FiledRecord>,
    /// Whether it is behind.
    is_dirty: bool,
    /// Where what was taken last begins.
    taken: Offset,
}

struct Frame {
    sequence: u64,
    head: EventHead,
    payload: Bytes,
}

/// The cursor is written down, and what is filed purged, at most so often.
const TIDY_EVERY: Duration = Duration::from_millis(250);
/// How long the end of a round is waited for: the server may give a consumer a message a moment after it was stored.
const ROUND_WAIT: Duration = Duration::from_secs(1);
/// Attempts to write down the cursor while another writes it too.
const ATTEMPTS: usize = 4;
/// What a hash takes in a message of ids, at most; such a message is filled to half of what it may have. A frame's own
/// ids are never split: they take less than the frame.
const ID_BYTES: usize = 20;

impl Filer {
    pub fn new(shared: Shared) -> Filer {
        let reader = Reader::new(shared.stream.clone(), shared.connection.message_max);
        Filer {
            shared,
            reader,
            token: 0,
            read_to: 0,
            frames: VecDeque::new(),
            unfiled_bytes: 0,
            marks: BTreeMap::new(),
            tidied: clock::monotonic(),
            written: Revised::default(),
            is_dirty: false,
            taken: 0,
        }
    }

    /// What work under a lease needs beside what is learnt under it.
    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn filed(&self) -> Offset {
        self.shared.filed.load(Ordering::Acquire)
    }

    /// Under a new lease: nothing that was learnt under another one counts.
    async fn begin(&mut self, lease: Lease) -> Result<(), QueueError> {
        if self.token == lease.token {
            return Ok(());
        }
        self.written = self.shared.state.get(&filed_key(self.shared.queue)).await?;
        self.shared.filed.fetch_max(self.written.value.unwrap_or_default().offset, Ordering::AcqRel);
        (self.read_to, self.unfiled_bytes) = (0, 0);
        self.frames.clear();
        self.marks.clear();
        self.taken = 0;
        self.token = lease.token;
        Ok(())
    }

    /// See [`DispatchQueues::take`](crate::queue::DispatchQueues::take). The lease is checked by the caller.
    pub async fn take(&mut self, lease: Lease, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError> {
        self.begin(lease).await?;
        if self.is_dirty && self.taken == self.filed() + 1 {
            // It can't go on: others may wait to see how far it is, as a move does that holds its next event.
            self.make_due();
            self.tidy_or_later().await;
        }
        let began = clock::monotonic();
        let max_events = u64::try_from(max_events.max(1)).unwrap_or(u64::MAX);
        let runtime = self.shared.runtime.clone();
        let mut has_read = false;
        loop {
            let first = self.filed() + 1;
            let wanted = first.saturating_add(max_events - 1);
            let is_part = (first..wanted).contains(&self.end());
            if is_part && !has_read && self.unfiled_bytes < TAKE_MAX_BYTES {
                // More may be there already.
                self.read(Duration::ZERO).await?;
            }
            let unfiled: Vec<&Frame> = self.frames.iter().filter(|frame| frame.head.last >= first).collect();
            if let Some(newest) = unfiled.last() {
                let last = newest.head.last.min(wanted);
                self.taken = first;
                let frames = unfiled.iter().take_while(|frame| frame.head.first <= last);
                let frames = frames.map(|frame| frame.payload.clone()).collect();
                return Ok(Some(Taken { first, last, frames }));
            }
            let left = wait.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            if runtime.is_ending() {
                return Err(QueueError::Closed);
            }
            // Nobody else writes down how far this is while nothing more comes.
            let until_tidy = if self.is_dirty { self.tidy_every().saturating_sub(self.tidied.elapsed()) } else { left };
            tokio::select! {
                read = self.read(left.min(until_tidy)) => has_read = read?,
                () = runtime.ended() => return Err(QueueError::Closed),
            }
            self.tidy_or_later().await;
        }
    }

    /// See [`DispatchQueues::push`](crate::queue::DispatchQueues::push). The lease is checked by the caller.
    pub async fn push(&mut self, lease: Lease, round: Round) -> Result<(), QueueError> {
        self.begin(lease).await?;
        let (queue, expected) = (self.shared.queue, self.filed() + 1);
        while self.end() < round.last && self.read(ROUND_WAIT).await? {}
        if round.last > self.end() {
            let problem = format!("the round ends at {}, the queue at {}", round.last, self.end());
            return Err(QueueError::Invalid { problem });
        }
        if round.first != expected {
            return Err(QueueError::NotNext { queue, first: round.first, expected });
        }
        if round.last < round.first {
            return Err(QueueError::Invalid { problem: "the round holds no event".to_owned() });
        }
        for RoundFrame { shard, bytes, .. } in &round.frames {
            self.shared.shards.room(*shard, bytes.len() as u64).await?;
        }
        let Round { first, last, map_version, frames } = round;
        let (shared, marks) = (&self.shared, &self.marks);
        let filing = frames.into_iter().map(|frame| async move {
            let mark = marks.get(&frame.shard).copied();
            (frame.shard, shared.file(lease, map_version, (first, last), frame, mark).await)
        });
        let mut outcome = Ok(());
        for (shard, filed) in join_all(filing).await {
            match filed {
                Ok(mark) => drop(self.marks.insert(shard, mark)),
                Err(error) => {
                    // What is known of the subject may be out of date.
                    self.marks.remove(&shard);
                    outcome = Err(error);
                }
            }
        }
        outcome?;
        self.shared.filed.fetch_max(last, Ordering::AcqRel);
        self.unfiled_bytes = self.unfiled().map(|frame| frame.payload.len()).sum();
        self.is_dirty = true;
        self.tidy_or_later().await;
        Ok(())
    }

    /// Writes down at once how far this is.
    pub async fn write_down(&mut self) -> Result<(), QueueError> {
        self.make_due();
        self.tidy().await
    }

    /// It is time to tidy.
    fn make_due(&mut self) {
        self.tidied = clock::monotonic().checked_sub(self.tidy_every()).unwrap_or(self.tidied);
    }

    fn unfiled(&self) -> impl Iterator<Item = &Frame> {
        let filed = self.filed();
        self.frames.iter().filter(move |frame| frame.head.last > filed)
    }

    /// The last offset of what was read.
    fn end(&self) -> Offset {
        self.frames.back().map_or(self.filed(), |frame| frame.head.last)
    }

    /// Reads on; whether something came within `wait`.
    async fn read(&mut self, wait: Duration) -> Result<bool, QueueError> {
        let read = self.reader.read(self.read_to, TAKE_MAX_BYTES, wait).await?;
        let something = !read.is_empty();
        for stored in read {
            let head: EventHead = heads::decode(stored.head.as_deref())?;
            let end = self.frames.back().map(|frame| frame.head.last);
            if end.is_some_and(|end| head.first != end + 1) {
                let problem = format!("event queue {} has a gap before offset {}", self.shared.queue, head.first);
                return Err(QueueError::Failed { problem });
            }
            if end.is_none() {
                // Only what is filed is purged.
                self.shared.filed.fetch_max(head.first - 1, Ordering::AcqRel);
            }
            if head.last > self.filed() {
                self.unfiled_bytes += stored.payload.len();
            }
            self.read_to = stored.sequence;
            self.frames.push_back(Frame { sequence: stored.sequence, head, payload: stored.payload });
        }
        Ok(something)
    }

    fn tidy_every(&self) -> Duration {
        self.shared.runtime.limits.tidy_every.min(TIDY_EVERY)
    }

    /// What is filed stays filed if it can't be tidied now.
    async fn tidy_or_later(&mut self) {
        if let Err(error) = self.tidy().await {
            tracing::debug!(queue = self.shared.queue, %error, "what is filed can't be purged now");
        }
    }

    /// Writes down the cursor, and purges what is filed but for its last frame; the ids in it are written elsewhere first.
    async fn tidy(&mut self) -> Result<(), QueueError> {
        if !self.is_dirty || self.tidied.elapsed() < self.tidy_every() {
            return Ok(());
        }
        let filed = self.filed();
        let filed_frames = self.frames.iter().take_while(|frame| frame.head.last <= filed).count();
        self.write_filed(filed).await?;
        if let Some(kept) = filed_frames.checked_sub(1).filter(|purged| *purged > 0) {
            let purged = self.frames.iter().take(kept);
            self.shared.remember(purged).await?;
            if let Some(first_kept) = self.frames.get(kept) {
                let purge = self.shared.stream.purge().sequence(first_kept.sequence);
                purge.await.map_err(unreachable)?;
            }
            self.frames.drain(..kept);
        }
        self.is_dirty = false;
        self.tidied = clock::monotonic();
        Ok(())
    }

    /// Writes down that everything up to `filed` is, unless more is known to be: whoever believes to hold the lease still
    /// must not set the record back. A move counts on it, since events that are filed again are filed by another map.
    pub(super) async fn write_filed(&mut self, filed: Offset) -> Result<(), QueueError> {
        let key = filed_key(self.shared.queue);
        for _ in 0..ATTEMPTS {
            if let Some(written) = self.written.value.filter(|written| written.offset >= filed) {
                self.shared.filed.fetch_max(written.offset, Ordering::AcqRel);
                return Ok(());
            }
            let record = FiledRecord { offset: filed };
            self.written = match self.shared.state.set(&key, &record, self.written.revision).await? {
                Some(revision) => Revised { value: Some(record), revision },
                None => self.shared.state.get(&key).await?,
            };
        }
        Err(QueueError::Busy)
    }
}

impl Shared {
    /// Writes the ids of frames where writers find them once the frames are gone.
    async fn remember(&self, frames: impl Iterator<Item = &Frame>) -> Result<(), QueueError> {
        let (now_ms, ids_max) = (self.runtime.now_ms(), self.connection.message_max / ID_BYTES / 2);
        let mut remembered = Remembered { last: 0, ids: Vec::new() };
        let mut count = 0;
        for frame in frames {
            let ids = heads::ids_of(&frame.head, &frame.payload, &self.hasher, now_ms)?;
            let more: usize = ids.iter().map(|(_, hashes)| hashes.len()).sum();
            if count > 0 && count + more > ids_max {
                self.write_ids(&remembered).await?;
                (remembered, count) = (Remembered { last: 0, ids: Vec::new() }, 0);
            }
            remembered.last = frame.head.last;
            remembered.ids.extend(ids);
            count += more;
        }
        self.write_ids(&remembered).await
    }

    async fn write_ids(&self, remembered: &Remembered) -> Result<(), QueueError> {
        let (jetstream, subject) = (&self.connection.jetstream, self.plan.ids_subject(self.queue));
        let sent = jetstream.publish(subject, remembered.encode().into()).await.map_err(unreachable)?;
        sent.await.map(drop).map_err(unreachable)
    }
}
