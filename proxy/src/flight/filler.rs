//! What appends to the log of a flight, and waits for its readers once the body is too large to be kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_shared::clock;
use tokio::time::{timeout, timeout_at};

use super::log::{Flight, Inner};

/// Bytes that a fill may be ahead of its slowest reader once its body is too large to be stored.
pub(super) const AHEAD_MAX: usize = 256 * 1024;
/// How long, in all, the readers of such a body wait for slower ones; then those that are more than half of
/// [`AHEAD_MAX`] behind are left behind, and the time begins anew.
const LAG_MAX: Duration = Duration::from_secs(3);
/// How long the fill of such a body waits for its first reader, who may just have been told of it.
const FIRST_READER_TIMEOUT: Duration = Duration::from_secs(1);

/// Appends to the log.
pub struct Filler {
    flight: Arc<Flight>,
    /// Bytes beyond which the body is not stored; readers then hold the fill back.
    store_max: u64,
    length: u64,
    stored: bool,
    /// How long readers may still have to wait for slower ones.
    patience: Duration,
}

impl Filler {
    pub fn new(flight: &Arc<Flight>, store_max: u64) -> Filler {
        Filler { flight: Arc::clone(flight), store_max, length: 0, stored: true, patience: LAG_MAX }
    }

    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Bytes appended so far.
    pub fn length(&self) -> u64 {
        self.length
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

    /// Once the body is too large: waits until the slowest reader has room, or was left behind. `false`: nobody reads.
    pub async fn room(&mut self) -> bool {
        if self.stored {
            return true;
        }
        loop {
            let read = self.flight.read.notified();
            tokio::pin!(read);
            read.as_mut().enable();
            let room = self.flight.inner.lock().room();
            match room {
                Room::Is => return true,
                Room::NobodyAnyMore => return false,
                Room::NobodyYet => {
                    if timeout(FIRST_READER_TIMEOUT, read).await.is_err() {
                        return false;
                    }
                }
                Room::AllAreBehind => read.await,
                Room::SomeWait => {
                    let began = clock::monotonic();
                    let waited = timeout_at((began + self.patience).into(), read).await;
                    self.patience = self.patience.saturating_sub(began.elapsed());
                    if waited.is_err() || self.patience.is_zero() {
                        self.flight.inner.lock().leave_behind();
                        self.flight.grown.notify_waiters();
                        self.patience = LAG_MAX;
                    }
                }
            }
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

/// Whether the log has room for more of a body that is passed on.
enum Room {
    Is,
    NobodyYet,
    NobodyAnyMore,
    /// Every reader has something to read.
    AllAreBehind,
    /// A reader has all there is, and gets no more until a slower one has moved on.
    SomeWait,
}

impl Inner {
    /// Forgets the pieces that every reader has.
    fn room(&mut self) -> Room {
        let Some(slowest) = self.readers.values().min().copied() else {
            return if self.next_reader == 0 { Room::NobodyYet } else { Room::NobodyAnyMore };
        };
        self.drop_before(slowest);
        if self.held < AHEAD_MAX {
            return Room::Is;
        }
        let end = self.dropped + self.pieces.len();
        if self.readers.values().any(|at| *at == end) { Room::SomeWait } else { Room::AllAreBehind }
    }

    /// Forgets the first half of what is held, and the readers that have not had it.
    fn leave_behind(&mut self) {
        let (mut kept, mut from) = (self.held, self.dropped);
        for piece in &self.pieces {
            if kept <= AHEAD_MAX / 2 {
                break;
            }
            kept -= piece.len();
            from += 1;
        }
        self.readers.retain(|_, at| *at >= from);
        self.drop_before(from);
    }

    fn drop_before(&mut self, place: usize) {
        while self.dropped < place
            && let Some(piece) = self.pieces.pop_front()
        {
            self.dropped += 1;
            self.held -= piece.len();
        }
        self.reserved.shrink_to(self.held as u64);
    }
}
