//! Numbers by window of time: state of a `counter` (pure).

use millpond_shared::projection::{Counting, Windows};
use millpond_shared::stored;
use serde::{Deserialize, Serialize};

use super::numbers::{Numbers, Tick};
use super::series::Series;

/// For each declared row of windows: its windows with their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    rows: Vec<Series<Numbers>>,
    #[serde(skip)]
    weight: usize,
}

/// What a window takes beside its numbers, in bytes.
const WINDOW_BYTES: usize = size_of::<i64>();

impl Counter {
    pub fn empty(counting: &Counting) -> Counter {
        Counter { rows: counting.windows.iter().map(|_| Series::default()).collect(), weight: 0 }
    }

    /// Whether there is a window left for an event of this time.
    pub fn would_change(&self, counting: &Counting, tick: &Tick) -> bool {
        self.rows(counting).any(|(windows, series)| !series.has_expired(windows, tick.time))
    }

    /// Counts an event in every window that it lies in; whether there was one.
    pub fn apply(&mut self, counting: &Counting, tick: &Tick) -> bool {
        let Counting { measures, windows } = counting;
        let mut changed = false;
        for (series, windows) in self.rows.iter_mut().zip(windows) {
            let (mut freed, mut fresh) = (0, 0);
            let new = || {
                fresh = WINDOW_BYTES;
                Numbers::none(measures)
            };
            let dropped = |numbers: &Numbers| freed += WINDOW_BYTES + numbers.weight();
            let Some(numbers) = series.at(*windows, tick.time, new, dropped) else { continue };
            let before = if fresh == 0 { numbers.weight() } else { 0 };
            numbers.add(measures, tick);
            self.weight = (self.weight + fresh + numbers.weight()).saturating_sub(before + freed);
            changed = true;
        }
        changed
    }

    /// The rows as they are declared, with what they hold.
    pub fn rows(&self, counting: &Counting) -> impl Iterator<Item = (Windows, &Series<Numbers>)> {
        counting.windows.iter().copied().zip(&self.rows)
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Appends the state's bytes: their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        stored::append(self, out);
    }

    pub(super) fn restore(counting: &Counting, bytes: &[u8]) -> Result<Counter, String> {
        let (mut counter, rest): (Counter, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes are left over".to_owned());
        }
        if counter.rows.len() != counting.windows.len() || !counter.rows.iter().all(Series::is_sound) {
            return Err("its windows are not those of the declaration".to_owned());
        }
        counter.weight =
            counter.rows.iter().flat_map(Series::iter).map(|(_, numbers)| WINDOW_BYTES + numbers.weight()).sum();
        Ok(counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::testing::{event, tumbling};
    use millpond_shared::event::View;
    use millpond_shared::projection::{Measure, Measures};
    use proptest::prelude::*;

    fn counting() -> Counting {
        let path = |text: &str| text.parse().expect("a path");
        let measures =
            Measures { count: true, sum: vec![path("data.n")], distinct: vec![path("data.n")], ..Measures::default() };
        Counting { measures, windows: vec![tumbling(10, 30), Windows::All] }
    }

    /// Of events at these milliseconds, each with a number.
    fn counter(events: &[(i64, i64)]) -> Counter {
        let counting = counting();
        let mut counter = Counter::empty(&counting);
        for (at, n) in events {
            let event = event("1", at * 1_000_000, &format!("{{\"n\":{n}}}"));
            let tick = Tick::of(&counting.measures, &View::new(&event).expect("JSON"));
            assert!(counter.would_change(&counting, &tick), "there is a window over all time");
            assert!(counter.apply(&counting, &tick));
        }
        counter
    }

    #[test]
    fn events_count_in_every_window_they_lie_in() {
        let counter = counter(&[(5, 1), (9, 2), (12, 4), (41, 8), (3, 16)]);
        let counts: Vec<Vec<(i64, String)>> = counter
            .rows(&counting())
            .map(|(_, series)| {
                series
                    .iter()
                    .map(|(start, numbers)| {
                        (start / 1_000_000, format!("{:?}", numbers.get(&counting().measures, Measure::Count)))
                    })
                    .collect()
            })
            .collect();
        let whole = |n: u64| format!("Whole({n})");
        assert_eq!(counts[0], [(40, whole(1))], "what is 30 ms older than the newest window has gone");
        assert_eq!(counts[1], [(0, whole(5))]);
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_bytes(
            (events, again) in prop::collection::vec((0i64..90, -5i64..5), 0..50)
                .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        ) {
            let (one, other) = (counter(&events), counter(&again));
            prop_assert_eq!(&one, &other, "weights included");
            let blob = postcard::to_allocvec(&one).expect("encoded");
            prop_assert_eq!(&postcard::to_allocvec(&other).expect("encoded"), &blob);
            prop_assert_eq!(Counter::restore(&counting(), &blob), Ok(one));
        }
    }

    #[test]
    fn damage_is_told() {
        let blob = postcard::to_allocvec(&counter(&[(5, 1), (41, 8)])).expect("encoded");
        for cut in 0..blob.len() {
            assert!(Counter::restore(&counting(), &blob[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Counter::restore(&counting(), &[&blob[..], b"x"].concat()).is_err());
        let one_row = Counting { windows: vec![Windows::All], ..counting() };
        assert!(Counter::restore(&one_row, &blob).is_err());
    }
}
