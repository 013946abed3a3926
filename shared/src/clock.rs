//! The only place that reads a clock.
//!
//! Pure modules take the time as an argument; shells call these functions and pass the value on.

#![allow(clippy::disallowed_methods, reason = "this module is the one place that may read a clock")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, by the wall clock. 0 if the clock stands before 1970.
pub fn wall_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since the Unix epoch, by the wall clock: the unit of HTTP dates and ages.
pub fn wall_secs() -> u64 {
    wall_ms() / 1000
}

/// A point on the monotonic clock, for time-outs and durations.
pub fn monotonic() -> Instant {
    Instant::now()
}
