//! Which keys are being fetched.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::log::{Flight, Turn, Waiting};
use crate::cache::{PurgeSeq, Store};
use crate::key::KeyHash;
use crate::outcome::Reason;
use crate::upstreams::OriginError;

/// What flights may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Keys that are fetched at a time; beyond it a request fetches for itself, uncollapsed.
    pub flights_max: usize,
    /// Waiters of one flight; one more is answered 503 with `Retry-After`.
    pub waiters_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { flights_max: 100_000, waiters_max: 10_000 }
    }
}

#[derive(Debug)]
pub struct Flights {
    limits: Limits,
    table: Mutex<HashMap<KeyHash, Arc<Flight>>>,
    /// Whose budget the logs of all flights take their room from.
    store: Arc<Store>,
}

/// What a request that needs a fetch becomes.
pub enum Join {
    /// The one who fetches.
    Lead(Lead),
    Wait(Waiting),
    /// The flight has as many waiters as it may.
    Full,
}

/// The duty to settle a flight. Dropped unsettled, the flight has failed and its waiters know.
pub struct Lead {
    flights: Arc<Flights>,
    key: Option<KeyHash>,
    began: PurgeSeq,
    /// Made at once where others can join it, else when something is to be read from it.
    flight: Option<Arc<Flight>>,
    settled: bool,
    /// The leave to fetch, where one was needed: given back when this is settled.
    _turn: Option<Turn>,
}

impl Flights {
    pub fn new(limits: Limits, store: Arc<Store>) -> Arc<Flights> {
        Arc::new(Flights { limits, table: Mutex::new(HashMap::new()), store })
    }

    /// `now`: the number of the last purge.
    pub fn join(self: &Arc<Flights>, key: KeyHash, now: PurgeSeq) -> Join {
        let mut table = self.table.lock();
        if let Some(flight) = table.get(&key) {
            return Waiting::join(flight, self.limits.waiters_max).map_or(Join::Full, Join::Wait);
        }
        let flight = Arc::new(Flight::new(now, self.store.reservation()));
        let listed = table.len() < self.limits.flights_max;
        if listed {
            table.insert(key, Arc::clone(&flight));
        }
        let key = listed.then_some(key);
        Join::Lead(Lead {
            flights: Arc::clone(self),
            key,
            began: now,
            flight: Some(flight),
            settled: false,
            _turn: None,
        })
    }

    /// Leads, unless somebody does already.
    pub fn lead(self: &Arc<Flights>, key: KeyHash, now: PurgeSeq) -> Option<Lead> {
        if self.table.lock().contains_key(&key) {
            return None;
        }
        match self.join(key, now) {
            Join::Lead(lead) => Some(lead),
            Join::Wait(_) | Join::Full => None,
        }
    }

    /// A flight that nobody can join. `turn`: the leave for it of one who has waited for another's in vain.
    pub fn alone(self: &Arc<Flights>, now: PurgeSeq, turn: Option<Turn>) -> Lead {
        Lead { flights: Arc::clone(self), key: None, began: now, flight: None, settled: false, _turn: turn }
    }

    /// Takes a flight off the table: nobody joins it any more.
    pub fn unlist(&self, key: KeyHash, flight: &Arc<Flight>) {
        let mut table = self.table.lock();
        if table.get(&key).is_some_and(|listed| Arc::ptr_eq(listed, flight)) {
            table.remove(&key);
        }
    }

    /// Number of keys that are being fetched.
    pub fn len(&self) -> usize {
        self.table.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Lead {
    /// The number of the last purge before the fetch.
    pub fn began(&self) -> PurgeSeq {
        self.began
    }

    pub fn flight(&mut self) -> Arc<Flight> {
        let new = || Arc::new(Flight::new(self.began, self.flights.store.reservation()));
        Arc::clone(self.flight.get_or_insert_with(new))
    }

    /// Takes the flight off the table: nobody joins any more.
    pub fn unlist(&mut self) {
        if let (Some(key), Some(flight)) = (self.key.take(), &self.flight) {
            self.flights.unlist(key, flight);
        }
    }

    /// The response is for one client only; waiters fetch for themselves.
    pub fn unshared(mut self, reason: Reason) {
        self.settle(|flight| flight.settle_unshared(reason));
    }

    pub fn failed(mut self, error: OriginError) {
        self.settle(|flight| flight.settle_failed(error));
    }

    /// The whole body was passed on, and not stored.
    pub fn passed_on(mut self) {
        self.settle(Flight::settle_passed_on);
    }

    /// The whole response is there, and stored if it could be.
    pub fn complete(mut self, entry: Arc<crate::cache::Entry>) {
        self.settle(|flight| flight.settle_complete(entry));
    }

    fn settle(&mut self, how: impl FnOnce(&Flight)) {
        self.unlist();
        // Without a flight there is nobody to tell.
        if let Some(flight) = &self.flight {
            how(flight);
        }
        self.settled = true;
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(|flight| flight.settle_failed(OriginError::Closed));
        }
    }
}
