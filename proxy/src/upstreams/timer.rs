//! A time-out that costs next to nothing where nothing times out.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use millpond_shared::clock;
use tokio::time::{Sleep, sleep_until};

/// The timer of one connection, for all waits on it, one after the other.
///
/// It is armed by the first wait, and moved on only when it fires: to set a timer for each wait costs more than what is
/// waited for. So it may wake its connection's task once for nothing in the time that one wait may last.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

/// When a wait ends, set as soon as there is something to wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    limit: Duration,
    at: Option<Instant>,
}

/// What was waited for did not come in time.
#[derive(Debug)]
pub(super) struct Elapsed;

impl Deadline {
    /// `limit`: counted from the first poll that is not ready.
    pub fn within(limit: Duration) -> Deadline {
        Deadline { limit, at: None }
    }
}

impl Timer {
    /// Waits for `poll` until `deadline`.
    pub async fn wait<T>(
        &mut self,
        deadline: &mut Deadline,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Elapsed> {
        poll_fn(|context| {
            if let Poll::Ready(value) = poll(context) {
                return Poll::Ready(Ok(value));
            }
            let limit = deadline.limit;
            let at = *deadline.at.get_or_insert_with(|| clock::monotonic() + limit);
            self.poll_until(context, at).map(|()| Err(Elapsed))
        })
        .await
    }

    fn poll_until(&mut self, context: &mut Context<'_>, at: Instant) -> Poll<()> {
        let at = at.into();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_timer_that_was_armed_for_an_earlier_wait_serves_a_later_one() {
        let mut timer = Timer::default();
        let short = Duration::from_millis(5);
        let began = clock::monotonic();
        for _ in 0..2 {
            let mut never = pin!(pending::<()>());
            let wait = timer.wait(&mut Deadline::within(short), |context| never.as_mut().poll(context)).await;
            assert!(wait.is_err());
        }
        assert!(began.elapsed() >= 2 * short, "the second wait had its whole time");
    }

    #[tokio::test]
    async fn a_shorter_wait_after_a_longer_one_ends_in_time() {
        let mut timer = Timer::default();
        let mut polls = 0;
        let mut long = Deadline::within(Duration::from_secs(3600));
        let ready = timer.wait(&mut long, |context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls == 2 { Poll::Ready(7) } else { Poll::Pending }
        });
        assert_eq!(ready.await.ok(), Some(7));
        let mut never = pin!(pending::<()>());
        let mut deadline = Deadline::within(Duration::from_millis(1));
        assert!(timer.wait(&mut deadline, |context| never.as_mut().poll(context)).await.is_err());
    }
}
