//! What the store tells of itself.

use prometheus::{Histogram, HistogramOpts};

use super::charge::Charge;
use super::store::Cause;
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
