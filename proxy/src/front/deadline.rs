//! How long a connection may wait, with one timer that is set rarely.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// The moment at which waiting ends, in milliseconds of [`clock::coarse_ms`](millpond_shared::clock::coarse_ms). Moving it
/// later costs nothing: the timer then finds out when it fires.
#[derive(Default)]
pub(super) struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
    set_for: Option<u64>,
}

impl Deadline {
    /// Whether `due` has passed by `now`; if not, the task is woken then, or earlier.
    pub fn poll(&mut self, due: u64, now: u64, cx: &mut Context<'_>) -> Poll<()> {
        if due <= now {
            return Poll::Ready(());
        }
        // A timer that was set for an earlier moment wakes the task in time to set it anew.
        if self.set_for.is_some_and(|set| now < set && set <= due) {
            return Poll::Pending;
        }
        self.set_for = Some(due);
        let mut timer = Box::pin(tokio::time::sleep(Duration::from_millis(due - now)));
        let polled = timer.as_mut().poll(cx);
        self.timer = Some(timer);
        polled
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// The next request.
    Idle,
    /// The rest of a head.
    Head,
    /// Room to write.
    Room,
}

impl Waits {
    /// Milliseconds.
    pub fn limit(self) -> u64 {
        match self {
            Waits::Idle => 60_000,
            Waits::Head => 10_000,
            Waits::Room => super::reply::WRITE_TIMEOUT.as_millis() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moving_it_later_wakes_once_too_often_and_not_too_early() {
        let (mut deadline, mut polls) = (Deadline::default(), [(10, 0), (20, 5), (30, 10), (30, 30)].into_iter());
        let mut pending = 0;
        std::future::poll_fn(|cx| {
            let (due, now) = polls.next().expect("it ends at the last");
            if due == 20 {
                // As when a request came in between: nobody else would wake the task for the next poll.
                cx.waker().wake_by_ref();
            }
            let polled = deadline.poll(due, now, cx);
            if due == 10 {
                cx.waker().wake_by_ref();
            }
            pending += usize::from(polled.is_pending());
            polled
        })
        .await;
        assert_eq!((pending, polls.next()), (3, None));
    }
}
