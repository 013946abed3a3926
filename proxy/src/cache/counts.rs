//! What the store tells of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{Histogram, HistogramOpts};

use super::charge::Charge;
use super::{Purged, Store};

impl Store {
    /// Bytes taken of the budget.
    pub fn bytes(&self) -> u64 {
        self.budget().taken()
    }

    /// Bytes that bodies on their way in take of it.
    pub fn reserved_bytes(&self) -> u64 {
        self.reservations().taken()
    }

    /// Responses stored.
    pub fn objects(&self) -> u64 {
        self.shards().iter().map(|shard| shard.0.read().objects).sum()
    }

    /// Bytes that stored responses take, by what they are for. With [`Store::reserved_bytes`] they sum to
    /// [`Store::bytes`], but for what is admitted meanwhile.
    pub fn charged(&self) -> Charge {
        self.shards().iter().map(|shard| shard.0.read().charged).sum()
    }

    /// Entries that had to go so far.
    pub fn evicted(&self, cause: Cause) -> u64 {
        self.removals.so_far(cause)
    }

    /// Seconds that evicted entries had been stored.
    pub fn evicted_ages(&self) -> &Histogram {
        self.ages()
    }
}

/// Why entries had to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Room was needed.
    Budget,
    /// It was of no use any more: stale beyond all windows, or purged, and nothing to validate it with.
    Expired,
    /// Its key had as many variants as it may.
    Variants,
}

impl Cause {
    pub const ALL: [Cause; 3] = [Cause::Budget, Cause::Expired, Cause::Variants];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Budget => "budget",
            Cause::Expired => "expired",
            Cause::Variants => "variants",
        }
    }
}

/// Entries that had to go, by why.
#[derive(Debug, Default)]
pub(super) struct Removals {
    budget: AtomicU64,
    expired: AtomicU64,
    variants: AtomicU64,
}

impl Removals {
    pub fn count(&self, cause: Cause, entries: usize) {
        self.counter(cause).fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub fn so_far(&self, cause: Cause) -> u64 {
        self.counter(cause).load(Ordering::Relaxed)
    }

    fn counter(&self, cause: Cause) -> &AtomicU64 {
        match cause {
            Cause::Budget => &self.budget,
            Cause::Expired => &self.expired,
            Cause::Variants => &self.variants,
        }
    }
}

impl std::iter::Sum for Purged {
    fn sum<I: Iterator<Item = Purged>>(parts: I) -> Purged {
        parts.fold(Purged::default(), |all, part| Purged {
            objects: all.objects + part.objects,
            bytes: all.bytes + part.bytes,
        })
    }
}

/// Buckets of [`Store::evicted_ages`], in seconds: a second to a week.
const AGES: [f64; 10] = [1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0, 172_800.0, 604_800.0];

pub(super) fn ages() -> Histogram {
    let name = "millpond_object_age_seconds";
    let help = "How long responses had been stored when they were evicted for room";
    let options = HistogramOpts::new(name, help).buckets(AGES.to_vec());
    // Name, help and buckets are constants that the tests have seen accepted.
    #[allow(clippy::expect_used)]
    Histogram::with_opts(options).expect("a valid histogram")
}
