//! The log of one flight: phases, and the pieces of the body as they come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::http1::Fields;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cache::{Entry, Original, PurgeSeq, Reservation, Stamp};
use crate::outcome::Reason;
use crate::semantics::freshness::Times;
use crate::semantics::vary::Selection;
use crate::upstreams::OriginError;

/// Bytes that a fill may be ahead of its slowest reader once its body is too large to be stored.
const AHEAD_MAX: usize = 256 * 1024;

#[derive(Debug)]
pub struct Flight {
    inner: Mutex<Inner>,
    /// The phase changed, or the log grew.
    grown: Notify,
    /// A reader has moved on, or left.
    read: Notify,
    waiters: AtomicUsize,
    began: PurgeSeq,
}

/// One request that waits; counted for as long as this lives.
pub struct Waiting {
    pub flight: Arc<Flight>,
}

impl Waiting {
    /// Counts a waiter in; `None`: there are `max` already.
    pub(super) fn join(flight: &Arc<Flight>, max: usize) -> Option<Waiting> {
        let waiting = Waiting { flight: Arc::clone(flight) };
        (flight.waiters.fetch_add(1, Ordering::Relaxed) < max).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.flight.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    pieces: VecDeque<Bytes>,
    /// Number of pieces that were dropped from the front because every reader had them.
    dropped: usize,
    /// Bytes in `pieces`.
    held: usize,
    /// Their room in the store's budget.
    reserved: Reservation,
    readers: HashMap<u64, usize>,
    next_reader: u64,
}

#[derive(Debug)]
enum Phase {
    Asking,
    /// The head is there, the body grows.
    Body(Arc<Draft>),
    Complete(Arc<Entry>),
    /// The body is complete, but too large: the log held only a part of it at a time.
    PassedOn,
    Unshared(Reason),
    Failed(OriginError),
}

/// A response whose body is still coming: what will become an [`Entry`].
#[derive(Debug)]
pub struct Draft {
    pub status: StatusCode,
    /// The fields to store.
    pub fields: Fields,
    pub times: Times,
    pub selection: Selection,
    pub tags: Vec<Box<str>>,
    pub stamp: Option<Stamp>,
    /// What the origin said where the fields say something else.
    pub original: Option<Box<Original>>,
    /// The lifetime that clients are told is the rule's, and counts from each answer.
    pub is_restated: bool,
    /// The least length of its body, in bytes, from which it is sent in content codings as well; `None`: it is not.
    pub coded_from: Option<u64>,
    /// Length of the body in bytes, if it was declared.
    pub length: Option<u64>,
}

/// What a waiter sees once the origin has answered.
#[derive(Clone, Debug)]
pub enum Seen {
    Body(Arc<Draft>),
    Complete(Arc<Entry>),
    Unshared(Reason),
    Failed(OriginError),
}

impl Flight {
    /// A flight whose log takes its room from `reserved`; `began` is the number of the last purge before its fetch.
    pub(super) fn new(began: PurgeSeq, reserved: Reservation) -> Flight {
        let inner = Inner {
            phase: Phase::Asking,
            pieces: VecDeque::new(),
            dropped: 0,
            held: 0,
            reserved,
            readers: HashMap::new(),
            next_reader: 0,
        };
        Flight {
            inner: Mutex::new(inner),
            grown: Notify::new(),
            read: Notify::new(),
            waiters: AtomicUsize::new(0),
            began,
        }
    }

    pub fn began(&self) -> PurgeSeq {
        self.began
    }

    /// Waits until the origin has answered.
    pub async fn seen(&self) -> Seen {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            match &self.inner.lock().phase {
                Phase::Asking => {}
                Phase::Body(draft) => return Seen::Body(Arc::clone(draft)),
                Phase::Complete(entry) => return Seen::Complete(Arc::clone(entry)),
                Phase::PassedOn => return Seen::Unshared(Reason::BodyTooLarge),
                Phase::Unshared(reason) => return Seen::Unshared(*reason),
                Phase::Failed(error) => return Seen::Failed(error.clone()),
            }
            grown.await;
        }
    }

    /// The head is there: what comes now is the body.
    pub fn begin(&self, draft: Arc<Draft>) {
        self.settle(Phase::Body(draft));
    }

    pub(super) fn settle_unshared(&self, reason: Reason) {
        self.settle(Phase::Unshared(reason));
    }

    pub(super) fn settle_failed(&self, error: OriginError) {
        self.settle(Phase::Failed(error));
    }

    pub(super) fn settle_complete(&self, entry: Arc<Entry>) {
        self.settle(Phase::Complete(entry));
    }

    pub(super) fn settle_passed_on(&self) {
        self.settle(Phase::PassedOn);
    }

    fn settle(&self, phase: Phase) {
        self.inner.lock().phase = phase;
        self.grown.notify_waiters();
    }

    /// Reads the body from its start; `None` if its start is no longer held.
    pub fn reader(self: &Arc<Flight>) -> Option<Reader> {
        let mut inner = self.inner.lock();
        if inner.dropped > 0 {
            return None;
        }
        let id = inner.next_reader;
        inner.next_reader += 1;
        inner.readers.insert(id, 0);
        Some(Reader { flight: Arc::clone(self), id, at: 0, ended: false })
    }
}

impl Inner {
    /// Forgets the pieces that every reader has; the bytes that are still held, or `None` without any reader.
    fn drop_what_all_have(&mut self) -> Option<usize> {
        let slowest = self.readers.values().min().copied()?;
        while self.dropped < slowest
            && let Some(piece) = self.pieces.pop_front()
        {
            self.dropped += 1;
            self.held -= piece.len();
        }
        self.reserved.shrink_to(self.held as u64);
        Some(self.held)
    }
}

/// Appends to the log.
pub struct Filler {
    flight: Arc<Flight>,
    /// Bytes beyond which the body is not stored; readers then hold the fill back.
    store_max: u64,
    length: u64,
    stored: bool,
}

impl Filler {
    pub fn new(flight: &Arc<Flight>, store_max: u64) -> Filler {
        Filler { flight: Arc::clone(flight), store_max, length: 0, stored: true }
    }

    /// Appends a piece. `false`: the body is too large to be stored, or too much is on its way into the store already;
    /// from now on the log only passes it on.
    pub fn push(&mut self, piece: Bytes) -> bool {
        self.length += piece.len() as u64;
        let mut inner = self.flight.inner.lock();
        inner.held += piece.len();
        // What is passed on without room in the budget is bounded by `AHEAD_MAX`.
        let has_room = inner.reserved.grow(piece.len() as u64);
        inner.pieces.push_back(piece);
        drop(inner);
        self.flight.grown.notify_waiters();
        self.stored &= self.length <= self.store_max && has_room;
        self.stored
    }

    /// Once the body is too large: waits until the slowest reader has room. `false`: nobody reads any more.
    pub async fn room(&self) -> bool {
        if self.stored {
            return true;
        }
        loop {
            let read = self.flight.read.notified();
            tokio::pin!(read);
            read.as_mut().enable();
            let held = self.flight.inner.lock().drop_what_all_have();
            match held {
                None => return false,
                Some(held) if held < AHEAD_MAX => return true,
                Some(_) => {}
            }
            read.await;
        }
    }

    /// Whether the log still holds the body from its start, and it is small enough to be stored.
    pub fn is_storable(&self) -> bool {
        self.stored
    }

    /// What the log holds, in one piece and in memory of its own: a piece that came with its head is part of a read
    /// buffer many times its size.
    pub fn body(&self) -> Bytes {
        let inner = self.flight.inner.lock();
        let mut body = Vec::with_capacity(inner.held);
        inner.pieces.iter().for_each(|piece| body.extend_from_slice(piece));
        body.into()
    }
}

/// One client's place in the log.
pub struct Reader {
    flight: Arc<Flight>,
    id: u64,
    at: usize,
    ended: bool,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    End,
    /// The fill died: what was sent so far is all there will be, and must not look complete.
    Cut(OriginError),
}

impl Reader {
    pub async fn next(&mut self) -> Piece {
        let flight = Arc::clone(&self.flight);
        loop {
            let grown = flight.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            if let Some(piece) = self.ready() {
                return piece;
            }
            grown.await;
        }
    }

    /// What there is without waiting.
    pub fn ready(&mut self) -> Option<Piece> {
        if self.ended {
            return Some(Piece::End);
        }
        let mut inner = self.flight.inner.lock();
        if let Some(piece) = self.at.checked_sub(inner.dropped).and_then(|at| inner.pieces.get(at)).cloned() {
            self.at += 1;
            inner.readers.insert(self.id, self.at);
            drop(inner);
            self.flight.read.notify_waiters();
            return Some(Piece::Data(piece));
        }
        match &inner.phase {
            Phase::Asking | Phase::Body(_) => None,
            Phase::Complete(_) | Phase::PassedOn => {
                self.ended = true;
                Some(Piece::End)
            }
            Phase::Unshared(_) => Some(Piece::Cut(OriginError::Truncated)),
            Phase::Failed(error) => Some(Piece::Cut(error.clone())),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.flight.inner.lock().readers.remove(&self.id);
        self.flight.read.notify_waiters();
    }
}
