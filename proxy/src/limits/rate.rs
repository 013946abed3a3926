//! The token bucket (pure): so many requests in a unit of time, and so many at once.
//!
//! Kept as the generic cell rate algorithm keeps it (ITU-T I.371 Annex A): the one number of a bucket is the moment at
//! which it will be full again, so that an idle bucket is a moment that has passed, and nothing has to be filled up.

use std::fmt;
use std::str::FromStr;

/// Most requests that can be written for a unit of time, and for a burst.
pub const REQUESTS_MAX: u32 = 1_000_000;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: u32,
    unit: Unit,
    /// How many may come at once: what a full bucket holds.
    burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const ALL: [(&'static str, Unit); 3] = [("s", Unit::Second), ("m", Unit::Minute), ("h", Unit::Hour)];

    fn seconds(self) -> u32 {
        match self {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3600,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Unit::Second => "s",
            Unit::Minute => "m",
            Unit::Hour => "h",
        }
    }
}

/// Why a text is no rate, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRate {
    pub fix: &'static str,
}

impl FromStr for Rate {
    type Err = NoRate;

    /// `100/s`, `30/m`, `500/h`; its burst is what comes in a second, at least one.
    fn from_str(text: &str) -> Result<Rate, NoRate> {
        let malformed = NoRate { fix: "write requests and a unit, as in \"100/s\", \"30/m\" or \"500/h\"" };
        let (digits, unit) = text.split_once('/').ok_or(malformed)?;
        let (_, unit) = *Unit::ALL.iter().find(|(word, _)| *word == unit).ok_or(malformed)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed);
        }
        let requests: u32 = digits.parse().unwrap_or(u32::MAX);
        if !(1..=REQUESTS_MAX).contains(&requests) {
            return Err(NoRate { fix: "write 1 to 1000000 requests" });
        }
        Ok(Rate { requests, unit, burst: requests.div_ceil(unit.seconds()) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.requests, self.unit.word())
    }
}

impl Rate {
    /// The same rate with another burst: 1 to [`REQUESTS_MAX`].
    pub fn with_burst(self, burst: u32) -> Rate {
        Rate { burst, ..self }
    }

    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Nanoseconds in which one request's worth flows in.
    fn interval(&self) -> u64 {
        u64::from(self.unit.seconds()) * 1_000_000_000 / u64::from(self.requests.max(1))
    }

    /// Nanoseconds by which the bucket may be from full, and one more request still be let through.
    fn tolerance(&self) -> u64 {
        self.interval() * u64::from(self.burst.saturating_sub(1))
    }
}

/// How much of a rate was used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    /// Nanoseconds, by the clock that `now` is read from.
    full_at: u64,
}

impl Bucket {
    /// Takes one request's worth at `now` (nanoseconds of a clock that does not go back); else, in how many
    /// nanoseconds there will be that much. What is refused costs nothing.
    pub fn take(&mut self, rate: &Rate, now: u64) -> Result<(), u64> {
        let full_at = self.full_at.max(now);
        let early = (full_at - now).saturating_sub(rate.tolerance());
        if early > 0 {
            return Err(early);
        }
        self.full_at = full_at.saturating_add(rate.interval());
        Ok(())
    }

    /// Whether it is as one that was never used.
    pub fn is_full(&self, now: u64) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(text: &str) -> Rate {
        text.parse().expect(text)
    }

    #[test]
    fn rates_are_read_and_written() {
        for (text, burst) in [("1/s", 1), ("100/s", 100), ("30/m", 1), ("90/m", 2), ("1/h", 1), ("1000000/h", 278)] {
            assert_eq!((rate(text).to_string().as_str(), rate(text).burst()), (text, burst));
        }
        for text in ["", "/", "/s", "100", "100/", "100/d", "100/S", "+1/s", "-1/s", " 1/s", "1 /s", "1.5/s", "1/s/s"] {
            assert!(text.parse::<Rate>().expect_err(text).fix.contains("\"100/s\""), "{text}");
        }
        for text in ["0/s", "1000001/s", "99999999999/s"] {
            assert!(text.parse::<Rate>().expect_err(text).fix.contains("1 to 1000000"), "{text}");
        }
    }

    #[test]
    fn a_burst_and_then_as_fast_as_it_flows_in() {
        let (rate, mut bucket) = (rate("2/s").with_burst(3), Bucket::default());
        let mut take = |now| bucket.take(&rate, now);
        let start = 1000 * SECOND;
        assert_eq!([take(start), take(start), take(start)], [Ok(()); 3]);
        assert_eq!(take(start), Err(SECOND / 2));
        assert_eq!(take(start + SECOND / 4), Err(SECOND / 4), "what was refused cost nothing");
        assert_eq!(take(start + SECOND / 2), Ok(()));
        assert_eq!(take(start + SECOND / 2), Err(SECOND / 2));
        assert!(!bucket.is_full(start + SECOND) && bucket.is_full(start + 2 * SECOND));
    }

    /// The bucket as the books have it: what is in it, in nanoseconds' worth, and when that was.
    struct Books {
        inside: u64,
        at: u64,
    }

    proptest! {
        #[test]
        fn it_lets_through_what_a_bucket_of_tokens_would(
            requests in 1_u32..2000, unit in 0_usize..3, burst in 1_u32..50,
            pauses in prop::collection::vec(0_u64..3 * SECOND, 1..200),
        ) {
            let rate = Rate { requests, unit: Unit::ALL[unit].1, burst };
            let (worth, mut bucket, mut now) = (rate.interval(), Bucket::default(), SECOND);
            let size = worth * u64::from(burst);
            let mut books = Books { inside: size, at: now };
            for pause in pauses {
                // Many come close upon each other.
                now += if pause % 3 == 0 { pause % 1000 } else { pause };
                books = Books { inside: (books.inside + (now - books.at)).min(size), at: now };
                let taken = bucket.take(&rate, now);
                if books.inside >= worth {
                    prop_assert_eq!(taken, Ok(()));
                    books.inside -= worth;
                } else {
                    prop_assert_eq!(taken, Err(worth - books.inside));
                }
                prop_assert_eq!(bucket.is_full(now), books.inside == size);
            }
        }
    }
}
