//! How fast a source may send: a token bucket, one token an event (pure).
//!
//! A request is let in while there is any token, before its body is read, and then takes as many as it has events; so
//! the bucket may owe some, and who comes next waits for them.

use std::time::Duration;

use parking_lot::Mutex;

/// Events in a span of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens that come back in a second.
    pub per_second: f64,
    /// Tokens of a full bucket.
    pub burst: f64,
}

/// The tokens of one source.
pub struct Bucket {
    rate: Rate,
    state: Mutex<State>,
}

struct State {
    tokens: f64,
    at_ms: u64,
}

impl Bucket {
    /// A full bucket. Times are milliseconds of any clock that does not go back.
    pub fn new(rate: Rate, now_ms: u64) -> Bucket {
        Bucket { rate, state: Mutex::new(State { tokens: rate.burst, at_ms: now_ms }) }
    }

    /// Whether a request may come in; else how long until one may.
    pub fn admit(&self, now_ms: u64) -> Result<(), Duration> {
        let mut state = self.state.lock();
        self.refill(&mut state, now_ms);
        if state.tokens >= 1.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(((1.0 - state.tokens) / self.rate.per_second).clamp(0.001, WAIT_MAX_S)))
    }

    /// Takes the tokens of a request that was let in.
    pub fn take(&self, events: usize, now_ms: u64) {
        let mut state = self.state.lock();
        self.refill(&mut state, now_ms);
        state.tokens -= events as f64;
    }

    fn refill(&self, state: &mut State, now_ms: u64) {
        let passed = now_ms.saturating_sub(state.at_ms) as f64 / 1e3;
        state.tokens = (state.tokens + passed * self.rate.per_second).min(self.rate.burst);
        state.at_ms = state.at_ms.max(now_ms);
    }
}

/// Longest that anybody is told to wait, in seconds.
const WAIT_MAX_S: f64 = 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = Bucket::new(Rate { per_second: 10.0, burst: 3.0 }, 0);
        for _ in 0..3 {
            assert_eq!(bucket.admit(0), Ok(()));
            bucket.take(1, 0);
        }
        assert_eq!(bucket.admit(0), Err(Duration::from_millis(100)));
        assert_eq!(bucket.admit(50), Err(Duration::from_millis(50)));
        assert_eq!(bucket.admit(100), Ok(()));
        bucket.take(1, 100);
        assert!(bucket.admit(100).is_err());
        assert_eq!(bucket.admit(10_000), Ok(()), "it fills up");
        (0..3).for_each(|_| bucket.take(1, 10_000));
        assert!(bucket.admit(10_000).is_err(), "and not beyond its burst");
    }

    #[test]
    fn a_batch_is_let_in_whole_and_paid_for_later() {
        let bucket = Bucket::new(Rate { per_second: 100.0, burst: 100.0 }, 0);
        bucket.take(1_000, 0);
        assert_eq!(bucket.admit(0), Err(Duration::from_millis(9_010)));
        assert!(bucket.admit(9_000).is_err() && bucket.admit(9_010).is_ok());
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let bucket = Bucket::new(Rate { per_second: 1.0, burst: 1.0 }, 5_000);
        bucket.take(1, 5_000);
        assert!(bucket.admit(0).is_err() && bucket.admit(5_000).is_err() && bucket.admit(6_000).is_ok());
    }
}
