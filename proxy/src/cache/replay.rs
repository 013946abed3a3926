//! A trace of requests through the store that the proxy serves from; origin and clock are the trace's.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::http1::Fields;

use super::charge::Overhead;
use super::slot::Slot;
use super::{Cause, Entry, Store, StoreLayout, StoreLimits};
use crate::key::KeyRef;
use crate::semantics::freshness::{self, Times};
use crate::semantics::vary::Selection;

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Seconds, or whatever the trace counts in.
    pub time: u64,
    pub key: &'a str,
    /// Bytes of the body.
    pub size: u64,
    /// Lifetime in the unit of `time`; `None`: for ever.
    pub lifetime: Option<u64>,
}

/// How long responses live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToLive {
    /// As the trace says.
    Trace,
    /// For ever.
    None,
    /// All as long.
    Fixed(u64),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Hit,
    /// Fetched; the store took it in.
    Miss,
    /// The same, and what was stored had expired.
    Expired,
    /// Fetched, and too large to be taken in.
    Rejected,
}

/// A store that a trace is played to. Requests may come from several threads.
pub struct Replay {
    store: Store,
    fields: Fields,
    /// Bodies are parts of this one: none of them is ever written or read.
    body: Bytes,
}

impl Replay {
    /// `limits` and `layout` as for the proxy's store; `largest`: bytes of the largest body of the trace.
    pub fn new(limits: StoreLimits, layout: StoreLayout, largest: u64) -> Replay {
        // What an API's answers carry at least; its length counts.
        let fields = [
            ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("Content-Type", "application/json"),
            ("Cache-Control", "public, max-age=60"),
        ];
        let fields = if layout.overhead == Overhead::None { Fields::default() } else { fields.into_iter().collect() };
        let largest = usize::try_from(largest.min(limits.object_max_bytes)).unwrap_or(usize::MAX);
        Replay { store: Store::build(limits, layout), fields, body: Bytes::from(vec![0; largest]) }
    }

    /// Looks the key up, and takes the response in if it is not there.
    pub fn request(&self, request: &Request<'_>) -> Reply {
        let Request { time, key, size, lifetime } = *request;
        self.store.tell_time(time);
        let (key, everything) = (KeyRef::new(key), Fields::default());
        let found = self.store.read(key, &everything, |entry| freshness::ttl(&entry.times, time) > 0);
        if found == Some(true) {
            return Reply::Hit;
        }
        let length = usize::try_from(size).ok().filter(|length| *length <= self.body.len());
        let Some(length) = length else { return Reply::Rejected };
        let times = Times { received: time, lifetime: lifetime.unwrap_or(u64::MAX), ..Times::default() };
        let body = self.body.slice(..length);
        let entry = Entry::new(StatusCode::OK, self.fields.clone(), body, times, Selection::NONE, Vec::new(), None);
        if !self.store.admit_at(key, Arc::new(entry), self.store.purge_seq(), || false) {
            return Reply::Rejected;
        }
        if found.is_some() { Reply::Expired } else { Reply::Miss }
    }

    pub fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// Entries that are stored.
    pub fn objects(&self) -> u64 {
        self.store.objects()
    }

    /// Entries that had to go for this cause.
    pub fn evicted(&self, cause: Cause) -> u64 {
        self.store.evicted(cause)
    }

    /// Bytes charged beyond those of the bodies, for each entry that is stored.
    pub fn overhead_bytes(&self) -> u64 {
        let body_bytes = |slot: &Slot| slot.variants().iter().map(|entry| entry.body.len() as u64).sum::<u64>();
        let bodies: u64 =
            self.store.shards().iter().map(|shard| shard.0.read().slots().iter().map(body_bytes).sum::<u64>()).sum();
        self.store.bytes().saturating_sub(bodies).checked_div(self.objects()).unwrap_or(0)
    }
}
