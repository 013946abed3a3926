//! What the holder of a lease may do now (pure).

use std::time::{Duration, Instant};

use crate::queue::Lease;

/// A lease in somebody's hands, by the holder's own clock.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    pub lease: Lease,
    ttl: Duration,
    /// When the claim was asked for, or renewed: it runs from some moment after that, so counting from here is safe.
    since: Instant,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Prolong the claim.
    Renew,
    /// Work; be back within this time.
    Work(Duration),
    /// Nothing more: somebody else may hold it by now.
    Stop,
}

impl Hold {
    /// `asked`: a moment before the claim was asked for.
    pub fn new(lease: Lease, ttl: Duration, asked: Instant) -> Hold {
        Hold { lease, ttl, since: asked }
    }

    /// The claim was prolonged; `asked`: a moment before that was asked for.
    pub fn renewed(&mut self, asked: Instant) {
        self.since = asked;
    }

    pub fn next(&self, now: Instant) -> Next {
        let age = now.saturating_duration_since(self.since);
        let renew_after = self.ttl / 3;
        if age >= self.ttl {
            Next::Stop
        } else if age >= renew_after {
            Next::Renew
        } else {
            Next::Work(renew_after - age)
        }
    }

    /// What is left of the claim: nothing done under it may take longer.
    pub fn left(&self, now: Instant) -> Duration {
        self.ttl.saturating_sub(now.saturating_duration_since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use millpond_shared::clock;

    use super::*;

    #[test]
    fn a_holder_renews_in_time_and_stops_in_time() {
        let start = clock::monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut hold = Hold::new(Lease { queue: 0, token: 1 }, Duration::from_secs(9), start);
        assert_eq!(hold.next(at(0)), Next::Work(Duration::from_secs(3)));
        assert_eq!(hold.next(at(2)), Next::Work(Duration::from_secs(1)));
        assert_eq!(hold.next(at(3)), Next::Renew);
        assert_eq!(hold.next(at(8)), Next::Renew);
        assert_eq!(hold.next(at(9)), Next::Stop);
        assert_eq!((hold.left(at(2)), hold.left(at(20))), (Duration::from_secs(7), Duration::ZERO));
        hold.renewed(at(8));
        assert_eq!(hold.next(at(9)), Next::Work(Duration::from_secs(2)));
        assert_eq!(hold.left(at(9)), Duration::from_secs(8));
    }
}
