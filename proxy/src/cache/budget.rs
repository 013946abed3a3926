//! The bytes that the store may take: whoever wants some gets them first, and only then puts them to use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;
use super::padded::Padded;

/// A limit, and how much of it is taken. Never more than all of it, not even for a moment.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    taken: Padded<AtomicU64>,
}

impl Budget {
    pub fn new(limit: u64) -> Budget {
        Budget { limit, taken: Padded(AtomicU64::new(0)) }
    }

    pub fn taken(&self) -> u64 {
        self.taken.0.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, if they are free.
    pub fn take(&self, bytes: u64) -> bool {
        let more = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.taken.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub fn give_back(&self, bytes: u64) {
        self.taken.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Room in the store's budget for a body on its way in; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    store: Arc<Store>,
    bytes: u64,
}

impl Store {
    /// A reservation of nothing yet.
    pub fn reservation(self: &Arc<Store>) -> Reservation {
        Reservation { store: Arc::clone(self), bytes: 0 }
    }

    /// A reservation of `bytes`, for which entries are evicted; `None` where [`Reservation::grow`] says no.
    pub fn reserve(self: &Arc<Store>, bytes: u64) -> Option<Reservation> {
        let mut reservation = self.reservation();
        reservation.grow(bytes).then_some(reservation)
    }
}

impl Reservation {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves `more` bytes, for which entries are evicted. `false`, and nothing has changed: all reservations together
    /// have as much as they may.
    pub fn grow(&mut self, more: u64) -> bool {
        if !self.store.reservations().take(more) {
            return false;
        }
        if !self.store.make_room(more) {
            self.store.reservations().give_back(more);
            return false;
        }
        self.bytes += more;
        true
    }

    /// Gives back what is reserved beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let beyond = self.bytes.saturating_sub(bytes);
        self.bytes -= beyond;
        self.store.reservations().give_back(beyond);
        self.store.budget().give_back(beyond);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
