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

/// The same as [`wall_ms`], as the kernel last noted it: up to ten milliseconds late, for a tenth of the price.
pub fn coarse_wall_ms() -> u64 {
    milliseconds(rustix::time::ClockId::RealtimeCoarse)
}

/// Milliseconds since some moment before this process, as the kernel last noted them, up to ten late. For time limits.
pub fn coarse_ms() -> u64 {
    milliseconds(rustix::time::ClockId::MonotonicCoarse)
}

/// How long the processors have worked for this process, all its threads together.
pub fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Nanoseconds since some moment before this process. For what is counted by rate.
pub fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)).unwrap_or(0)
}

fn milliseconds(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Tells how long something took, by the processor's counter: cheap enough for what takes microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(quanta::Instant);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(quanta::Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A point on the monotonic clock, for time-outs and durations.
pub fn monotonic() -> Instant {
    Instant::now()
}
