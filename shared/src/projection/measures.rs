//! What counters and groups measure, and over which windows (pure).

use std::time::Duration;

use crate::config::Seconds;
use crate::event::Path;

/// Numbers that are kept of the events of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// How many events there were.
    pub count: bool,
    /// Sums of the numbers at these paths; what is no number adds nothing.
    pub sum: Vec<Path>,
    /// The least number at each path.
    pub min: Vec<Path>,
    /// The greatest number at each path.
    pub max: Vec<Path>,
    /// How many different scalars there were at each path.
    pub distinct: Vec<Path>,
}

/// One of the numbers of [`Measures`], by its place in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Count,
    Sum(usize),
    Min(usize),
    Max(usize),
    Distinct(usize),
}

/// A row of windows: one after the other without gaps and without overlap, from the start of 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// A single one, over all time.
    All,
    /// Each `every` long. The newest that has an event, and those before it, are kept for `keep`, which is a multiple
    /// of `every`.
    Tumbling { every: Span, keep: Span },
}

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// What a `counter` keeps of the events of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
    pub measures: Measures,
    pub windows: Vec<Windows>,
}

/// What a `group` keeps of the events of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    pub counting: Counting,
    /// The values that make a member; a missing one is a value of its own.
    pub by: Vec<Path>,
    /// What members are listed by, the greatest first.
    pub rank: Measure,
    /// Most members that a document lists of a window.
    pub top: usize,
    /// Most members that are counted one by one in a window; of more, those whose hashes are the least.
    pub members: usize,
}

impl Measures {
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.sum, &self.min, &self.max, &self.distinct].into_iter().flatten()
    }

    /// Whether nothing is measured.
    pub fn is_empty(&self) -> bool {
        !self.count && self.paths().next().is_none()
    }

    /// All measures with the names that `rank` knows them by: `count`, `sum data.added`.
    pub fn named(&self) -> impl Iterator<Item = (String, Measure)> {
        let count = self.count.then(|| ("count".to_owned(), Measure::Count)).into_iter();
        let list = |name: &'static str, paths: &'_ [Path], measure: fn(usize) -> Measure| -> Vec<(String, Measure)> {
            paths
                .iter()
                .enumerate()
                .map(|(index, path)| (format!("{name} {}", path.as_str()), measure(index)))
                .collect()
        };
        count
            .chain(list("sum", &self.sum, Measure::Sum))
            .chain(list("min", &self.min, Measure::Min))
            .chain(list("max", &self.max, Measure::Max))
            .chain(list("distinct", &self.distinct, Measure::Distinct))
    }
}

impl Windows {
    /// Start of the window that `time` lies in, in nanoseconds since the Unix epoch; of the only one, 0.
    pub fn start_of(self, time: i64) -> i64 {
        match self {
            Windows::All => 0,
            // Below the first window that i64 can name the start of there is one more, cut short.
            Windows::Tumbling { every, .. } => time.saturating_sub(time.rem_euclid(every.nanoseconds())),
        }
    }

    /// Whether the window from `start` is no longer kept once there is one from `newest`.
    pub fn has_expired(self, start: i64, newest: i64) -> bool {
        match self {
            Windows::All => false,
            Windows::Tumbling { keep, .. } => start <= newest.saturating_sub(keep.nanoseconds()),
        }
    }

    /// Most windows that are kept at a time.
    pub fn count_max(self) -> u64 {
        match self {
            Windows::All => 1,
            Windows::Tumbling { every, keep } => keep.nanoseconds().unsigned_abs() / every.nanoseconds().unsigned_abs(),
        }
    }
}

impl Span {
    /// At least one, so that it can be divided by.
    pub fn nanoseconds(self) -> i64 {
        i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX).max(1)
    }
}

impl From<Seconds> for Span {
    fn from(seconds: Seconds) -> Span {
        Span(seconds.0)
    }
}

/// As it can be written in a configuration, in the largest unit that takes a whole number: `90s`, `3h`.
impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let milliseconds = self.0.as_millis();
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        match units.iter().find(|(_, unit)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", milliseconds / unit),
            None => write!(f, "{milliseconds}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        text.parse::<Seconds>().expect("a duration").into()
    }

    fn tumbling(every: &str, keep: &str) -> Windows {
        Windows::Tumbling { every: span(every), keep: span(keep) }
    }

    #[test]
    fn windows_are_counted_from_1970() {
        let minutes = tumbling("1m", "3m");
        const MINUTE: i64 = 60_000_000_000;
        for (time, start) in [(0, 0), (1, 0), (MINUTE - 1, 0), (MINUTE, MINUTE), (-1, -MINUTE), (-MINUTE, -MINUTE)] {
            assert_eq!(minutes.start_of(time), start, "{time}");
        }
        assert_eq!((minutes.start_of(i64::MIN), Windows::All.start_of(i64::MAX)), (i64::MIN, 0));
        let expired = |start: i64| minutes.has_expired(start * MINUTE, 5 * MINUTE);
        assert_eq!([expired(2), expired(3), expired(5)], [true, false, false]);
        assert!(!minutes.has_expired(0, i64::MIN) && !Windows::All.has_expired(0, i64::MAX));
        assert_eq!((minutes.count_max(), Windows::All.count_max()), (3, 1));
    }

    #[test]
    fn spans_are_told_as_they_are_written() {
        for text in ["500ms", "1500ms", "90s", "1m", "3h", "7d", "400d"] {
            assert_eq!(span(text).to_string(), text);
        }
        assert_eq!(span("60m").to_string(), "1h");
    }

    #[test]
    fn measures_have_names() {
        let path = |text: &str| text.parse::<Path>().expect("a path");
        let measures =
            Measures { count: true, sum: vec![path("data.a")], distinct: vec![path("id")], ..Measures::default() };
        let names: Vec<_> = measures.named().collect();
        let expected =
            [("count", Measure::Count), ("sum data.a", Measure::Sum(0)), ("distinct id", Measure::Distinct(0))];
        assert_eq!(names, expected.map(|(name, measure)| (name.to_owned(), measure)));
        assert!(!measures.is_empty() && Measures::default().is_empty());
    }
}
