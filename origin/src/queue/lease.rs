//! Leases of event queues: who may work on one, until when, and under which token (pure).
//!
//! The lease saves work, the token keeps order: tokens only rise, and a push under any but the newest is refused.
//! So a holder that slept through the end of its lease can do no harm, whatever it believes.

use std::time::Duration;

use super::QueueError;
use crate::store::shard_queue_file::Claim;

/// A claim runs this long unless it is renewed.
pub const TTL_DEFAULT: Duration = Duration::from_secs(10);
/// No claim may run longer: a holder that died is missed for so long.
pub const TTL_MAX: Duration = Duration::from_secs(300);
/// Longest name of a holder, in bytes.
pub const HOLDER_MAX: usize = 128;

/// Whether a claim can be asked for so.
pub fn valid(holder: &str, ttl: Duration) -> Result<(), QueueError> {
    if holder.is_empty() || holder.len() > HOLDER_MAX {
        return Err(QueueError::Invalid { problem: format!("a holder's name takes 1 to {HOLDER_MAX} bytes") });
    }
    valid_ttl(ttl)
}

pub fn valid_ttl(ttl: Duration) -> Result<(), QueueError> {
    if ttl.is_zero() || ttl > TTL_MAX {
        return Err(QueueError::Invalid { problem: format!("a lease runs for 1 ms to {} s", TTL_MAX.as_secs()) });
    }
    Ok(())
}

/// Somebody else's claim still runs, for so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub for_ms: u64,
}

/// The claim has run out, was given up, or was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHeld;

/// A new claim under the next token, unless the current one still runs, even if it is the same holder's: two
/// processes may have been given one name.
pub fn acquire(
    current: Option<&Claim>,
    holder: &str,
    in_process: bool,
    now_ms: u64,
    ttl: Duration,
) -> Result<Claim, Held> {
    let token = current.map_or(0, |claim| claim.token) + 1;
    match current.and_then(|claim| runs_for(claim, now_ms)) {
        Some(for_ms) => Err(Held { for_ms }),
        None => Ok(Claim { holder: holder.to_owned(), token, ends_ms: end(now_ms, ttl), in_process }),
    }
}

/// The same claim, ending `ttl` from now.
pub fn renew(current: Option<&Claim>, token: u64, now_ms: u64, ttl: Duration) -> Result<Claim, NotHeld> {
    let claim = held(current, token, now_ms)?;
    Ok(Claim { ends_ms: end(now_ms, ttl), ..claim.clone() })
}

/// The same claim, ended. Its token stays, so that the next one is higher.
pub fn release(current: Option<&Claim>, token: u64) -> Result<Claim, NotHeld> {
    let claim = current.filter(|claim| claim.token == token).ok_or(NotHeld)?;
    Ok(Claim { ends_ms: 0, ..claim.clone() })
}

/// Whether work under `token` may go on.
pub fn check(current: Option<&Claim>, token: u64, now_ms: u64) -> Result<(), NotHeld> {
    held(current, token, now_ms).map(|_| ())
}

fn held(current: Option<&Claim>, token: u64, now_ms: u64) -> Result<&Claim, NotHeld> {
    current.filter(|claim| claim.token == token && runs_for(claim, now_ms).is_some()).ok_or(NotHeld)
}

/// Milliseconds the claim still runs. One that would run longer than any may was made before the clock was set back:
/// waiting for it could take years, and the token protects us from its holder.
fn runs_for(claim: &Claim, now_ms: u64) -> Option<u64> {
    let for_ms = claim.ends_ms.checked_sub(now_ms)?;
    (1..=milliseconds(TTL_MAX)).contains(&for_ms).then_some(for_ms)
}

fn end(now_ms: u64, ttl: Duration) -> u64 {
    now_ms.saturating_add(milliseconds(ttl.min(TTL_MAX)))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_millis(100);

    #[test]
    fn a_claim_excludes_until_it_ends() {
        let first = acquire(None, "a", true, 1_000, TTL).unwrap();
        assert_eq!(first, Claim { holder: "a".into(), token: 1, ends_ms: 1_100, in_process: true });
        for holder in ["a", "b"] {
            assert_eq!(acquire(Some(&first), holder, true, 1_099, TTL), Err(Held { for_ms: 1 }), "{holder}");
        }
        let second = acquire(Some(&first), "b", false, 1_100, TTL).unwrap();
        assert_eq!((second.token, second.ends_ms), (2, 1_200));
        assert_eq!(check(Some(&second), 1, 1_100), Err(NotHeld), "the old token is worthless");
        assert_eq!(check(Some(&second), 2, 1_199), Ok(()));
        assert_eq!(check(Some(&second), 2, 1_200), Err(NotHeld), "so is a current one past its end");
        assert_eq!(check(None, 1, 0), Err(NotHeld));
    }

    #[test]
    fn renewing_prolongs_and_comes_too_late_once_it_ended() {
        let claim = acquire(None, "a", true, 1_000, TTL).unwrap();
        assert_eq!(renew(Some(&claim), 1, 1_050, TTL).unwrap().ends_ms, 1_150);
        assert_eq!(renew(Some(&claim), 1, 1_100, TTL), Err(NotHeld));
        assert_eq!(renew(Some(&claim), 2, 1_050, TTL), Err(NotHeld));
    }

    #[test]
    fn tokens_rise_over_a_release() {
        let claim = acquire(None, "a", true, 1_000, TTL).unwrap();
        let released = release(Some(&claim), 1).unwrap();
        assert_eq!(check(Some(&released), 1, 1_001), Err(NotHeld));
        assert_eq!(acquire(Some(&released), "a", true, 1_001, TTL).unwrap().token, 2);
        assert_eq!(release(Some(&claim), 9), Err(NotHeld));
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nobody() {
        let claim = acquire(None, "a", true, u64::MAX / 2, TTL).unwrap();
        assert_eq!(acquire(Some(&claim), "b", true, 1_000, TTL).unwrap().token, 2);
    }
}
