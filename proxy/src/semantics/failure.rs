//! How an origin says that it fails, and when it wants to be asked again (RFC 5861 §4, RFC 9110 §10.2.3).

use std::fmt;

use http::StatusCode;
use millpond_shared::http1::Fields;

use super::date;

/// The least and the greatest status that can be taken for a failure.
const STATUSES: std::ops::RangeInclusive<u16> = 400..=599;
const WORDS: usize = (*STATUSES.end() - *STATUSES.start()) as usize / 64 + 1;

/// Statuses that are taken for a failure of the origin: a stale response is sent in their place, if one may be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// A bit for each, from the least on.
    bits: [u64; WORDS],
}

impl Failures {
    /// Those of RFC 5861 §4.
    pub const RFC_5861: Failures = Failures::NONE.and(500).and(502).and(503).and(504);
    /// With 429 (RFC 6585): who is asked too often gets relief from a stale response as well.
    pub const USUAL: Failures = Failures::RFC_5861.and(429);
    pub const NONE: Failures = Failures { bits: [0; WORDS] };

    /// Whether a status can be taken for a failure.
    pub fn may_hold(status: u16) -> bool {
        STATUSES.contains(&status)
    }

    /// With one more; one that [`Failures::may_hold`] refuses changes nothing.
    pub const fn and(mut self, status: u16) -> Failures {
        if status >= *STATUSES.start() && status <= *STATUSES.end() {
            let place = (status - *STATUSES.start()) as usize;
            self.bits[place / 64] |= 1 << (place % 64);
        }
        self
    }

    pub fn hold(self, status: StatusCode) -> bool {
        let Some(place) = status.as_u16().checked_sub(*STATUSES.start()) else { return false };
        self.bits.get(usize::from(place) / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = STATUSES.filter(|status| StatusCode::from_u16(*status).is_ok_and(|status| self.hold(status)));
        f.debug_set().entries(held).finish()
    }
}

/// For how many seconds from `now` on the origin does not want to be asked: `Retry-After` as a number or as a date
/// (RFC 9110 §10.2.3). `None` if there is none, or it is malformed.
pub fn retry_after(response: &Fields, now: u64) -> Option<u64> {
    let value = response.get("retry-after")?;
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    if !is_number {
        return date::parse(value).map(|at| at.saturating_sub(now));
    }
    // What overflows is a long time.
    let digits = std::str::from_utf8(value).ok()?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{NOW, fields};
    use super::*;

    #[test]
    fn which_statuses_are_failures() {
        let all = |failures: Failures| {
            let holds = |code: &u16| failures.hold(StatusCode::from_u16(*code).expect("a status"));
            (100..=999).filter(holds).collect::<Vec<u16>>()
        };
        assert_eq!(all(Failures::RFC_5861), [500, 502, 503, 504]);
        assert_eq!(all(Failures::USUAL), [429, 500, 502, 503, 504]);
        assert_eq!(all(Failures::NONE.and(400).and(463).and(464).and(599)), [400, 463, 464, 599]);
        assert_eq!(all(Failures::NONE.and(0).and(399).and(600).and(u16::MAX)), Vec::<u16>::new());
        assert_eq!(format!("{:?}", Failures::USUAL), "{429, 500, 502, 503, 504}");
    }

    #[test]
    fn when_an_origin_wants_to_be_asked_again() {
        for (line, seconds) in [
            ("Retry-After: 120", Some(120)),
            ("Retry-After: 0", Some(0)),
            ("Retry-After: 99999999999999999999999", Some(u64::MAX)),
            ("Retry-After: Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Retry-After: Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Retry-After: -1", None),
            ("Retry-After: 1.5", None),
            ("Retry-After: soon", None),
            ("Retry-After:", None),
            ("X: 1", None),
        ] {
            assert_eq!(retry_after(&fields(line), NOW), seconds, "{line}");
        }
    }
}
