//! Windows of time, and what is kept of each (pure).

use std::collections::VecDeque;
use std::sync::Arc;

use millpond_shared::projection::Windows;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The windows of one row that have an event, the newest last, with their starts.
///
/// A copy shares them: when a document that readers or a commit hold changes, only the windows that change are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series<T>(VecDeque<(i64, Arc<T>)>);

impl<T> Default for Series<T> {
    fn default() -> Series<T> {
        Series(VecDeque::new())
    }
}

impl<T: Serialize> Serialize for Series<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Series<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Series<T>, D::Error> {
        let windows: Vec<(i64, T)> = Vec::deserialize(deserializer)?;
        Ok(Series(windows.into_iter().map(|(start, content)| (start, Arc::new(content))).collect()))
    }
}

impl<T> Series<T> {
    /// Starts, in nanoseconds since the Unix epoch, and contents; the oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (i64, &T)> {
        self.0.iter().map(|(start, content)| (*start, content.as_ref()))
    }

    /// Whether the window that `time` lies in has fallen out.
    pub fn has_expired(&self, windows: Windows, time: i64) -> bool {
        self.0.back().is_some_and(|(newest, _)| windows.has_expired(windows.start_of(time), *newest))
    }

    /// The window that `time` lies in, made by `new` if it has no event yet; `None` if it has fallen out. What falls out
    /// because of it goes to `dropped`.
    ///
    /// What is kept depends on the newest window alone, so that the order in which events arrive does not show.
    pub fn at(
        &mut self,
        windows: Windows,
        time: i64,
        new: impl FnOnce() -> T,
        mut dropped: impl FnMut(&T),
    ) -> Option<&mut T>
    where
        T: Clone,
    {
        let start = windows.start_of(time);
        let newest = self.0.back().map(|(newest, _)| *newest);
        if newest.is_some_and(|newest| start < newest) {
            if self.has_expired(windows, time) {
                return None;
            }
            let index = match self.0.binary_search_by_key(&start, |(start, _)| *start) {
                Ok(index) => index,
                Err(index) => {
                    self.0.insert(index, (start, Arc::new(new())));
                    index
                }
            };
            return self.0.get_mut(index).map(|(_, content)| Arc::make_mut(content));
        }
        if newest != Some(start) {
            self.0.push_back((start, Arc::new(new())));
            while self.0.front().is_some_and(|(oldest, _)| windows.has_expired(*oldest, start)) {
                self.0.pop_front().iter().for_each(|(_, content)| dropped(content));
            }
        }
        self.0.back_mut().map(|(_, content)| Arc::make_mut(content))
    }

    /// Whether it is in the order that it has to be in.
    pub fn is_sound(&self) -> bool {
        self.0.iter().is_sorted_by(|(a, _), (b, _)| a < b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::testing::tumbling;
    use proptest::prelude::*;

    #[test]
    fn a_copy_shares_the_windows_that_do_not_change() {
        let windows = tumbling(1, 9);
        let mut series = Series::default();
        for time in [1_000_000, 2_000_000] {
            series.at(windows, time, || 0, |_| ());
        }
        let copy = series.clone();
        series.at(windows, 2_000_000, || 0, |_| ()).into_iter().for_each(|events| *events += 1);
        let shared = |index: usize| Arc::ptr_eq(&series.0[index].1, &copy.0[index].1);
        assert_eq!((shared(0), shared(1)), (true, false));
        assert_eq!(copy.iter().map(|(_, events)| *events).collect::<Vec<_>>(), [0, 0]);
    }

    proptest! {
        /// Whatever the order: the newest window and those within `keep` before it, each with all its events.
        #[test]
        fn any_order_of_arrival_gives_the_same_windows(
            (times, again) in prop::collection::vec(-50i64..50, 0..60).prop_flat_map(|list| {
                (Just(list.clone()), Just(list).prop_shuffle())
            }),
            every in 1u64..7,
            keep in 1u64..6,
        ) {
            let windows = tumbling(every, every * keep);
            const MILLISECOND: i64 = 1_000_000;
            let series = |times: &[i64]| {
                let (mut series, mut count) = (Series::default(), 0usize);
                for time in times {
                    let mut dropped = 0;
                    let had = series.iter().len();
                    let expired = series.has_expired(windows, time * MILLISECOND);
                    match series.at(windows, time * MILLISECOND, || 0u32, |_| dropped += 1) {
                        Some(events) => *events += 1,
                        None => assert!(expired),
                    }
                    count = (had + 1).saturating_sub(dropped);
                    assert!(series.iter().len() <= count);
                }
                assert!(series.is_sound() && series.iter().len() <= count);
                series
            };
            let one = series(&times);
            prop_assert_eq!(&one, &series(&again));
            let every = every as i64;
            let newest = times.iter().max().map(|time| time.div_euclid(every) * every);
            for (start, events) in one.iter() {
                let start = start / MILLISECOND;
                prop_assert!(start > newest.unwrap_or(0) - every * keep as i64);
                let expected = times.iter().filter(|time| (start..start + every).contains(*time)).count();
                prop_assert_eq!(*events as usize, expected);
            }
            let kept = |time: &&i64| **time >= newest.unwrap_or(0) - every * (keep as i64 - 1);
            prop_assert_eq!(one.iter().map(|(_, events)| *events as usize).sum::<usize>(), times.iter().filter(kept).count());
        }
    }
}
