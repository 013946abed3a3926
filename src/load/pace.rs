//! When the next request is due.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_shared::clock;
use tokio::sync::Semaphore;

/// Lets requests go: at a rate, or as soon as a connection is free.
pub struct Pace {
    /// Requests in a second; `None`: the answers set the pace.
    rate: Option<f64>,
    begins: Instant,
    ends: Instant,
    /// Requests that are due and that no connection has taken.
    due: Semaphore,
    taken: AtomicU64,
}

/// Shortest sleep of the pacemaker: what became due meanwhile goes together. Part of the latency that is told.
const NAP: Duration = Duration::from_micros(100);

impl Pace {
    pub fn new(rate: Option<u32>, time: Duration) -> Pace {
        let begins = clock::monotonic();
        let ends = begins + time;
        Pace { rate: rate.map(f64::from), begins, ends, due: Semaphore::new(0), taken: AtomicU64::new(0) }
    }

    /// Runs the pacemaker until the end. Returns at once where there is no rate.
    pub fn keep(&self) {
        let Some(rate) = self.rate else { return };
        let mut let_go = 0;
        loop {
            let now = clock::monotonic().min(self.ends);
            let due = (now.duration_since(self.begins).as_secs_f64() * rate) as u64;
            self.due.add_permits(usize::try_from(due - let_go).unwrap_or(0));
            let_go = due;
            if now == self.ends {
                return self.due.close();
            }
            let next = self.time_of(let_go, rate).saturating_duration_since(now);
            std::thread::sleep(next.max(NAP).min(self.ends.duration_since(now)));
        }
    }

    /// Waits for the next request to be due; when it was. `None` at the end.
    pub async fn next(&self) -> Option<Instant> {
        let Some(rate) = self.rate else {
            let now = clock::monotonic();
            return (now < self.ends).then_some(now);
        };
        self.due.acquire().await.ok()?.forget();
        Some(self.time_of(self.taken.fetch_add(1, Ordering::Relaxed), rate))
    }

    /// How many requests were due and never sent.
    pub fn unsent(&self) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let all = (self.ends.duration_since(self.begins).as_secs_f64() * rate) as u64;
        all.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    fn time_of(&self, request: u64, rate: f64) -> Instant {
        self.begins + Duration::from_secs_f64(request as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_slow_receiver_missed_is_due_when_it_was_due() {
        let pace = Pace::new(Some(1_000), Duration::from_millis(20));
        pace.keep();
        assert_eq!(pace.next().await, None, "the time is over");
        assert_eq!(pace.unsent(), 20, "and what nobody took is told");
        let pace = Pace::new(Some(1_000), Duration::from_secs(10));
        pace.due.add_permits(3);
        for request in 0..3 {
            assert_eq!(pace.next().await, Some(pace.begins + Duration::from_millis(request)));
        }
    }

    #[tokio::test]
    async fn without_a_rate_it_is_always_now() {
        let pace = Pace::new(None, Duration::from_secs(100));
        pace.keep();
        assert!(pace.next().await.is_some() && pace.unsent() == 0);
        assert_eq!(Pace::new(None, Duration::ZERO).next().await, None);
    }
}
