//! What is remembered of clients, in bounded memory.
//!
//! A client's place is one of a few in the set that its hash names, as in a processor's cache; the hash has a random key,
//! so that nobody can choose addresses that fall into one set. A client whose bucket is full and who has nothing running
//! is as one who never came, and its place is free: nothing has to be aged out. Where a set is full of others, the one
//! that was forgotten is the one that used least of its limit. So a flood of addresses, each of which comes a few times,
//! pushes out itself, and not those who are held back by their limit.

use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

use super::client::ClientId;
use super::rate::Bucket;

/// Clients that one limit remembers at most; each takes 32 bytes, and none anything while it is idle.
pub const CLIENTS_MAX: usize = 65_536;
/// Places of one set.
const WAYS: usize = 16;

#[derive(Debug)]
pub(super) struct Table {
    sets: Box<[Mutex<Vec<Place>>]>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    client: ClientId,
    used: Used,
}

/// What a client has used of its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Used {
    /// Requests that are being answered. First: what runs is forgotten last.
    pub running: u32,
    pub bucket: Bucket,
}

impl Used {
    fn is_nothing(&self, now: u64) -> bool {
        self.running == 0 && self.bucket.is_full(now)
    }
}

impl Table {
    /// Room for `clients`, at least [`WAYS`].
    pub fn for_clients(clients: usize) -> Table {
        let sets = (clients / WAYS).max(1);
        Table { sets: (0..sets).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    fn set(&self, client: ClientId) -> Option<&Mutex<Vec<Place>>> {
        let at = self.hasher.hash_one(client) % (self.sets.len() as u64);
        self.sets.get(usize::try_from(at).ok()?)
    }

    /// Looks at, and changes, what a client has used by `now` (nanoseconds).
    pub fn with<R>(&self, client: ClientId, now: u64, change: impl FnOnce(&mut Used) -> R) -> R {
        // There always is one.
        let Some(set) = self.set(client) else { return change(&mut Used::default()) };
        let mut places = set.lock();
        if let Some(place) = places.iter_mut().find(|place| place.client == client) {
            return change(&mut place.used);
        }
        let mut used = Used::default();
        let changed = change(&mut used);
        if !used.is_nothing(now) {
            put(&mut places, Place { client, used }, now);
        }
        changed
    }

    /// One of a client's requests is no longer running.
    pub fn ended(&self, client: ClientId) {
        let Some(set) = self.set(client) else { return };
        if let Some(place) = set.lock().iter_mut().find(|place| place.client == client) {
            place.used.running = place.used.running.saturating_sub(1);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.sets.iter().map(|set| set.lock().len()).sum()
    }
}

fn put(places: &mut Vec<Place>, new: Place, now: u64) {
    let idle = places.iter().position(|place| place.used.is_nothing(now));
    let at = idle.or_else(|| {
        let least = places.iter().enumerate().min_by_key(|(_, place)| place.used);
        least.map(|(at, _)| at).filter(|_| places.len() >= WAYS)
    });
    match at.and_then(|at| places.get_mut(at)) {
        Some(place) => *place = new,
        None => places.push(new),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::limits::Rate;

    const SECOND: u64 = 1_000_000_000;

    fn client(number: u32) -> ClientId {
        ClientId::of(Some(IpAddr::V4(Ipv4Addr::from_bits(number))))
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_than_its_room_and_frees_nobody() {
        let table = Table::for_clients(1024);
        let rate: Rate = "1/m".parse::<Rate>().expect("a rate").with_burst(10);
        let take = |client| table.with(client, SECOND, |used| used.bucket.take(&rate, SECOND));
        let heavy = client(u32::MAX);
        while take(heavy).is_ok() {}
        for flood in 0..100_000 {
            assert_eq!(take(client(flood)), Ok(()), "a client that was not there before");
        }
        assert_eq!(table.len(), 1024);
        assert!(take(heavy).is_err(), "it is still held back");
    }

    #[test]
    fn the_idle_leave_their_places_to_others() {
        let table = Table::for_clients(16);
        let rate: Rate = "1/s".parse().expect("a rate");
        for second in 1..100 {
            let now = second * SECOND;
            for number in 0..16 {
                let client = client(u32::try_from(second).expect("few") * 16 + number);
                assert_eq!(table.with(client, now, |used| used.bucket.take(&rate, now)), Ok(()));
                assert!(table.with(client, now, |used| used.bucket.take(&rate, now)).is_err(), "none was pushed out");
            }
        }
        assert_eq!(table.len(), 16);
    }

    #[test]
    fn what_runs_is_kept_longest_and_looking_takes_no_place() {
        let table = Table::for_clients(16);
        let now = SECOND;
        table.with(client(7), now, |used| used.running += 1);
        let rate: Rate = "1/s".parse::<Rate>().expect("a rate").with_burst(100);
        for number in 100..1000 {
            table.with(client(number), now, |used| used.bucket.take(&rate, now)).expect("the first");
        }
        assert_eq!(table.with(client(7), now, |used| used.running), 1);
        table.ended(client(7));
        assert_eq!(table.with(client(7), now, |used| used.running), 0);
        let empty = Table::for_clients(16);
        assert_eq!(empty.with(client(1), now, |used| used.running), 0);
        assert_eq!(empty.len(), 0);
    }
}
