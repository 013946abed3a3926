//! The log of one flight: phases, and the pieces of the body as they come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::Fields;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::cache::{Entry, Original, PurgeSeq, Reservation, Stamp};
use crate::outcome::Reason;
use crate::semantics::coding::Coding;
use crate::semantics::freshness::Times;
use crate::semantics::vary::Selection;
use crate::upstreams::OriginError;

/// Requests of those who waited for one flight that may be on their way to the origin at a time, once it is known that
/// they can't share its response: neither all at once, nor one after another.
pub(super) const RELEASED_MAX: usize = 32;

#[derive(Debug)]
pub struct Flight {
    pub(super) inner: Mutex<Inner>,
    /// The phase changed, or the log grew.
    pub(super) grown: Notify,
    /// A reader has come, moved on, or left.
    pub(super) read: Notify,
    waiters: AtomicUsize,
    turns: Semaphore,
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

/// Leave for one who waited to ask the origin itself, of which there is a bounded number at a time.
#[derive(Debug)]
pub struct Turn {
    flight: Arc<Flight>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.flight.turns.add_permits(1);
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    phase: Phase,
    pub pieces: VecDeque<Bytes>,
    /// Number of pieces that were dropped from the front because every reader had them.
    pub dropped: usize,
    /// Bytes in `pieces`.
    pub held: usize,
    /// Their room in the store's budget.
    pub reserved: Reservation,
    /// How many pieces each reader has had.
    pub readers: HashMap<u64, usize>,
    pub next_reader: u64,
    /// Since when nobody reads.
    unread_since: Instant,
}

#[derive(Debug)]
enum Phase {
    Asking,
    /// The head is there, the body grows.
    Body(Arc<Draft>),
    /// The same of a body that takes too long for whoever has something stale to send instead.
    Late(Arc<Draft>),
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
    /// The coding that whoever caused the fetch would have it in: made at once, for the next.
    pub preferred: Option<Coding>,
    /// Length of the body in bytes, if it was declared.
    pub length: Option<u64>,
}

/// What a waiter sees once the origin has answered.
#[derive(Clone, Debug)]
pub enum Seen {
    Body(Arc<Draft>),
    /// The head was held back for a stale response's sake, and the body takes too long: whoever may send that, does.
    Late(Arc<Draft>),
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
            unread_since: clock::monotonic(),
        };
        Flight {
            inner: Mutex::new(inner),
            grown: Notify::new(),
            read: Notify::new(),
            waiters: AtomicUsize::new(0),
            turns: Semaphore::new(RELEASED_MAX),
            began,
        }
    }

    pub fn began(&self) -> PurgeSeq {
        self.began
    }

    /// Waits for the turn of one who waited for this flight in vain.
    pub async fn turn(self: &Arc<Flight>) -> Turn {
        // Never closed: an error can't come.
        if let Ok(permit) = self.turns.acquire().await {
            permit.forget();
        }
        Turn { flight: Arc::clone(self) }
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
                Phase::Late(draft) => return Seen::Late(Arc::clone(draft)),
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

    /// The head was held back, and what of the body was waited for does not come.
    pub fn is_late(&self, draft: Arc<Draft>) {
        self.settle(Phase::Late(draft));
    }

    /// Waits until nothing more comes; whether the whole response has come.
    pub async fn ended(&self) -> bool {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            match &self.inner.lock().phase {
                Phase::Asking | Phase::Body(_) | Phase::Late(_) => {}
                Phase::Complete(_) | Phase::PassedOn => return true,
                Phase::Unshared(_) | Phase::Failed(_) => return false,
            }
            grown.await;
        }
    }

    /// Since when nobody reads; `None`: somebody does.
    pub fn unread_since(&self) -> Option<Instant> {
        let inner = self.inner.lock();
        inner.readers.is_empty().then_some(inner.unread_since)
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
        drop(inner);
        self.read.notify_waiters();
        Some(Reader { flight: Arc::clone(self), id, at: 0, ended: false })
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
    /// The others have waited for this reader for long enough: what comes next is not held any more.
    LeftBehind,
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
        let Some(place) = self.at.checked_sub(inner.dropped) else { return Some(Piece::LeftBehind) };
        if let Some(piece) = inner.pieces.get(place).cloned() {
            self.at += 1;
            inner.readers.insert(self.id, self.at);
            drop(inner);
            self.flight.read.notify_waiters();
            return Some(Piece::Data(piece));
        }
        match &inner.phase {
            Phase::Asking | Phase::Body(_) | Phase::Late(_) => None,
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
        let mut inner = self.flight.inner.lock();
        inner.readers.remove(&self.id);
        if inner.readers.is_empty() {
            inner.unread_since = clock::monotonic();
        }
        drop(inner);
        self.flight.read.notify_waiters();
    }
}
