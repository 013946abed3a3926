//! How long a group of calls is given to gather before it is committed (pure).

use std::time::Duration;

use super::limits::{GATHER_BATCHES_MAX, GATHER_MAX, LOAD_FROM_CALLS, LOAD_FROM_EVENTS};

/// The group that was committed last.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastGroup {
    pub calls: usize,
    pub events: usize,
    /// To be committed.
    pub took: Duration,
}

impl LastGroup {
    /// The pause for a next group that has so many calls and events by now; `None`: there is nobody to wait for.
    pub fn pause(&self, calls: usize, events: usize) -> Option<Duration> {
        if calls >= self.calls {
            return None;
        }
        // A quarter of the events is missing: not just a small call beside a large one.
        let wants_events = self.events >= LOAD_FROM_EVENTS && events <= self.events / 4 * 3;
        match (self.calls >= LOAD_FROM_CALLS, wants_events) {
            (true, _) => Some(self.took.min(GATHER_MAX)),
            (false, true) => Some(self.took.min(GATHER_BATCHES_MAX)),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_for_those_who_were_in_the_last() {
        let ms = |ms: f64| Some(Duration::from_secs_f64(ms / 1_000.0));
        for (last, next, pause, why) in [
            ((0, 0, 0.0), (1, 1), None, "there was none"),
            ((1, 1_000, 3.0), (1, 1_000), None, "one client"),
            ((7, 7, 3.0), (1, 1), None, "not under load"),
            ((8, 8, 0.5), (7, 7), ms(0.5), "under load: as long as the last took"),
            ((200, 200, 3.0), (20, 20), ms(1.0), "but no longer than a millisecond"),
            ((200, 200, 3.0), (200, 200), None, "all who were answered are here"),
            ((3, 300, 2.0), (1, 100), ms(2.0), "batches"),
            ((3, 300, 9.0), (2, 200), ms(4.0), "batches, but no longer than four"),
            ((2, 1_000, 3.0), (2, 600), None, "both are here, with less"),
            ((2, 1_001, 3.0), (1, 1_000), None, "only a small one is missing"),
            ((3, 60, 3.0), (1, 20), None, "batches of few events"),
        ] {
            let last = LastGroup { calls: last.0, events: last.1, took: Duration::from_secs_f64(last.2 / 1_000.0) };
            assert_eq!(last.pause(next.0, next.1), pause, "{why}");
        }
    }
}
