//! The thread that writes one event queue: gathers a group, decides each event's fate, commits, answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use millpond_shared::clock::Stopwatch;
use millpond_shared::version::Offset;
use tokio::sync::oneshot;

use super::event_queue::Shared;
use super::ids::IdSet;
use super::limits::{FORGET_EVERY_MS, FRAME_MAX_BYTES};
use super::pace::LastGroup;
use super::packed::{OpenFrame, Packed, PackedEvent};
use super::writer_thread::Writer;
use super::{Fate, QueueError, Runtime};
use crate::store::StoreError;
use crate::store::event_queue_file::{FrameInfo, ID_BYTES, Loaded, Transaction};

/// An append that waits for the writer.
pub(super) struct Call {
    pub window: Duration,
    pub packed: Packed,
    pub answer: Answer,
}

type Answer = oneshot::Sender<Result<Vec<Fate>, QueueError>>;

/// Owns all that changes with a commit.
pub(super) struct EventWriter {
    shared: Arc<Shared>,
    runtime: Runtime,
    last: Offset,
    /// Frames with events that were not filed yet, oldest first.
    frames: VecDeque<FrameInfo>,
    depth_bytes: u64,
    /// Frames before this one were removed from the file.
    trimmed_before: Offset,
    ids: IdSet,
    /// When it is looked next for ids whose window has ended.
    forget_after_ms: u64,
    /// By it the next is gathered.
    last_group: LastGroup,
}

/// A group on its way to the disk.
#[derive(Default)]
struct Group {
    frames: Vec<(FrameInfo, Vec<u8>)>,
    /// Hashes to remember, by the time their window ends.
    ids: Vec<(u64, Vec<u128>)>,
    answers: Vec<(Answer, Vec<Fate>)>,
}

impl EventWriter {
    pub fn new(shared: Arc<Shared>, runtime: Runtime, loaded: Loaded) -> EventWriter {
        let last = *shared.last.borrow();
        let mut writer = EventWriter {
            shared,
            runtime,
            last,
            depth_bytes: loaded.frames.iter().map(|frame| frame.bytes).sum(),
            trimmed_before: loaded.frames.first().map_or(last + 1, |frame| frame.first),
            frames: loaded.frames.into(),
            ids: IdSet::default(),
            forget_after_ms: 0,
            last_group: LastGroup::default(),
        };
        writer.ids.extend(loaded.ids);
        writer.drop_filed();
        writer.publish();
        writer
    }
}

impl Writer for EventWriter {
    type Call = Call;

    fn tidy_every(&self) -> Duration {
        self.shared.limits.tidy_every
    }

    /// What is waiting; under load, with what comes while the others who were answered last may call again.
    fn gather(&mut self, first: Call, waiting: &Receiver<Call>) -> Vec<Call> {
        let mut group = Gathered::default();
        group.add(first);
        group.add_waiting(waiting, &self.shared);
        let pause =
            if group.is_full(&self.shared) { None } else { self.last_group.pause(group.calls.len(), group.events) };
        if let Some(pause) = pause {
            thread::sleep(pause);
            group.add_waiting(waiting, &self.shared);
        }
        group.calls
    }

    fn write(&mut self, calls: Vec<Call>) -> Result<(), StoreError> {
        let (size, started) = (calls.len(), Stopwatch::start());
        let events = calls.iter().map(|call| call.packed.events().len()).sum();
        let written = self.commit(calls);
        // Where nothing was to be written for a while, it was long ago.
        let group = LastGroup { calls: size, events, took: started.elapsed() };
        self.last_group = if size > 0 { group } else { LastGroup::default() };
        written
    }

    fn fail(&self, error: &StoreError) -> QueueError {
        self.runtime.fail(self.failed(error));
        self.failed(error)
    }

    fn refuse(call: Call, error: QueueError) {
        // Whoever asked may be gone.
        let _ = call.answer.send(Err(error));
    }
}

impl EventWriter {
    /// Commits the calls, and what is to be tidied, in one transaction; then answers.
    fn commit(&mut self, calls: Vec<Call>) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let file = shared.file.read();
        let Some(file) = file.as_ref() else { return Ok(()) };
        self.drop_filed();
        let nothing_to_do = calls.is_empty() && self.ids.is_empty() && self.first_kept() == self.trimmed_before;
        if nothing_to_do {
            return Ok(());
        }
        let now_ms = self.runtime.now_ms();
        let begun =
            file.begin(self.bytes_held()).and_then(|transaction| Ok((self.tidy(&transaction, now_ms)?, transaction)));
        let (tidied, transaction) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                for call in calls {
                    Self::refuse(call, self.failed(&error));
                }
                return Err(error);
            }
        };
        let group = self.judge(calls, now_ms);
        if group.frames.is_empty() && !tidied {
            self.publish();
            group.answer(|| Ok(()));
            return Ok(());
        }
        let written = self.put(&transaction, &group).and_then(|()| transaction.commit());
        if let Err(error) = written {
            group.answer(|| Err(self.failed(&error)));
            return Err(error);
        }
        self.publish();
        group.answer(|| Ok(()));
        Ok(())
    }

    /// Removes what was filed, and ids whose window is over; whether there was any.
    fn tidy(&mut self, transaction: &Transaction, now_ms: u64) -> Result<bool, StoreError> {
        let mut forgotten = Vec::new();
        if now_ms >= self.forget_after_ms {
            forgotten = transaction.forget_ended(now_ms)?;
            self.forget_after_ms = now_ms.saturating_add(FORGET_EVERY_MS);
        }
        while self.ids.len().saturating_sub(forgotten.len()) > self.shared.limits.ids_max {
            let early = transaction.forget_oldest()?;
            if early.is_empty() {
                break;
            }
            self.runtime.metrics.ids_forgotten(self.shared.queue, early.len());
            forgotten.extend(early);
        }
        for hash in &forgotten {
            self.ids.remove(*hash);
        }
        let before = self.first_kept();
        let trims = before > self.trimmed_before;
        if trims {
            transaction.trim(before)?;
            self.trimmed_before = before;
        }
        Ok(trims || !forgotten.is_empty())
    }

    fn judge(&mut self, calls: Vec<Call>, now_ms: u64) -> Group {
        let mut group = Group::default();
        let mut frame = OpenFrame::default();
        let mut fates = Vec::with_capacity(calls.len());
        for Call { window, packed, .. } in &calls {
            let ends_ms = now_ms.saturating_add(u64::try_from(window.as_millis()).unwrap_or(u64::MAX));
            let mut of_call = Vec::with_capacity(packed.events().len());
            for event in packed.events() {
                let fate = self.fate(event, frame.frame_bytes());
                if let Fate::Stored { .. } = fate {
                    frame.add(packed, event);
                    group.remember(ends_ms, event.hash);
                }
                if frame.frame_bytes() >= FRAME_MAX_BYTES as u64 {
                    self.end_frame(std::mem::take(&mut frame), &mut group);
                }
                of_call.push(fate);
            }
            fates.push(of_call);
        }
        self.end_frame(frame, &mut group);
        group.answers = calls.into_iter().map(|call| call.answer).zip(fates).collect();
        group
    }

    /// `bytes_before`: of the events that are stored in no frame yet.
    fn fate(&mut self, event: &PackedEvent, bytes_before: u64) -> Fate {
        if event.hash.is_some_and(|hash| self.ids.contains(hash)) {
            return Fate::Duplicate;
        }
        let limits = &self.shared.limits;
        let depth_events = self.last - self.shared.cursor.load(Ordering::Acquire).min(self.last);
        let depth_bytes = self.depth_bytes + bytes_before + event.frame_bytes;
        let is_full = depth_events >= limits.depth_max_events || depth_bytes > limits.depth_max_bytes;
        // What documents tell others gets into a full queue: it comes of events that were let in before, and their shard
        // can't go on until it is rid of it. If it had to wait for room that only this shard can make, both would wait
        // for ever.
        if is_full && !event.is_hop {
            return Fate::Full;
        }
        self.ids.extend(event.hash);
        self.last += 1;
        Fate::Stored { offset: self.last }
    }

    fn end_frame(&mut self, frame: OpenFrame<'_>, group: &mut Group) {
        let Some(received) = frame.received() else { return };
        let last = self.last;
        let first = last + 1 - frame.count() as u64;
        let bytes = frame.encode(self.shared.queue, first);
        let info = FrameInfo { first, last, bytes: bytes.len() as u64, received };
        self.depth_bytes += info.bytes;
        self.frames.push_back(info);
        group.frames.push((info, bytes));
    }

    fn put(&self, transaction: &Transaction, group: &Group) -> Result<(), StoreError> {
        for (info, bytes) in &group.frames {
            transaction.append(info.first, info.last, bytes)?;
        }
        let first = group.frames.first().map_or(0, |(info, _)| info.first);
        group.ids.iter().try_for_each(|(ends_ms, hashes)| transaction.remember(*ends_ms, first, hashes))
    }

    /// What is in the file, in bytes.
    fn bytes_held(&self) -> u64 {
        self.depth_bytes + (self.ids.len() * ID_BYTES) as u64
    }

    fn first_kept(&self) -> Offset {
        self.frames.front().map_or(self.last + 1, |frame| frame.first)
    }

    /// Forgets the frames that were filed as a whole.
    fn drop_filed(&mut self) {
        let cursor = self.shared.cursor.load(Ordering::Acquire);
        while let Some(frame) = self.frames.pop_front_if(|frame| frame.last <= cursor) {
            self.depth_bytes -= frame.bytes;
        }
    }

    fn publish(&self) {
        let oldest = self.frames.front().map_or(0, |frame| frame.received);
        self.shared.depth.oldest_ms.store(oldest, Ordering::Relaxed);
        self.shared.depth.bytes.store(self.depth_bytes, Ordering::Relaxed);
        self.shared.last.send_if_modified(|last| std::mem::replace(last, self.last) != self.last);
    }

    fn failed(&self, error: &StoreError) -> QueueError {
        QueueError::Failed { problem: format!("event queue {}: {error}", self.shared.queue) }
    }
}

/// Calls that are to be committed together.
#[derive(Default)]
struct Gathered {
    calls: Vec<Call>,
    events: usize,
    bytes: u64,
}

impl Gathered {
    fn add(&mut self, call: Call) {
        self.events += call.packed.events().len();
        self.bytes += call.packed.events().iter().map(|event| event.frame_bytes).sum::<u64>();
        self.calls.push(call);
    }

    /// All that is waiting, up to the limits of a group.
    fn add_waiting(&mut self, calls: &Receiver<Call>, shared: &Shared) {
        while !self.is_full(shared)
            && let Ok(call) = calls.try_recv()
        {
            self.add(call);
        }
    }

    fn is_full(&self, shared: &Shared) -> bool {
        self.events >= shared.limits.group_max_events || self.bytes >= shared.limits.group_max_bytes
    }
}

impl Group {
    fn remember(&mut self, ends_ms: u64, hash: Option<u128>) {
        let Some(hash) = hash else { return };
        match self.ids.iter_mut().find(|(other, _)| *other == ends_ms) {
            Some((_, hashes)) => hashes.push(hash),
            None => self.ids.push((ends_ms, vec![hash])),
        }
    }

    fn answer(self, outcome: impl Fn() -> Result<(), QueueError>) {
        for (answer, fates) in self.answers {
            // Whoever asked may be gone; the events are stored all the same.
            let _ = answer.send(outcome().map(|()| fates));
        }
    }
}
