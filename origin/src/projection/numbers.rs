//! What is measured of the events of one window (pure).

use millpond_shared::event::View;
use millpond_shared::found::Found;
use millpond_shared::projection::{Measure, Measures};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decimal::Decimal;
use super::distinct::{Distinct, hash_of};

/// Counts, sums, least and greatest values, and how many different ones, in the order of their declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    count: u64,
    sums: Box<[Decimal]>,
    /// The least, then the greatest; none where no event had a number there.
    extremes: Box<[Option<Decimal>]>,
    distinct: Box<[Distinct]>,
}

/// What one event adds to the numbers of every window that it lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// When it counts as having happened: nanoseconds since the Unix epoch.
    pub time: i64,
    /// For sums, least and greatest values, in this order.
    numbers: Given,
    hashes: Box<[Option<u64>]>,
}

/// What one event has where numbers are measured. Most counters measure one, for which no block has to be allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    One(Option<Decimal>),
    Many(Box<[Option<Decimal>]>),
}

/// One measured number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measured {
    /// No event had a number there.
    Nothing,
    Whole(u64),
    Number(Decimal),
}

impl Tick {
    /// What `view` adds. An event can't have happened after it was taken, so that a producer's clock which runs ahead
    /// does not push the windows of all others out.
    pub fn of(measures: &Measures, view: &View<'_>) -> Tick {
        let number = |path| match view.find(path)? {
            Found::Value(Value::Number(number)) => Decimal::of(number),
            _ => None,
        };
        let taken = i64::try_from(view.event.received).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Tick {
            time: view.event.time.min(taken),
            numbers: measures.sum.iter().chain(&measures.min).chain(&measures.max).map(number).collect(),
            hashes: measures.distinct.iter().map(|path| hash_of(&view.find(path)?)).collect(),
        }
    }
}

impl Given {
    fn as_slice(&self) -> &[Option<Decimal>] {
        match self {
            Given::One(number) => std::slice::from_ref(number),
            Given::Many(numbers) => numbers,
        }
    }
}

impl FromIterator<Option<Decimal>> for Given {
    fn from_iter<I: IntoIterator<Item = Option<Decimal>>>(numbers: I) -> Given {
        let mut numbers = numbers.into_iter().fuse();
        match (numbers.next(), numbers.next()) {
            (Some(only), None) => Given::One(only),
            (first, second) => Given::Many(first.into_iter().chain(second).chain(numbers).collect()),
        }
    }
}

impl Numbers {
    /// Of no event.
    pub fn none(measures: &Measures) -> Numbers {
        Numbers {
            count: 0,
            sums: vec![Decimal::default(); measures.sum.len()].into(),
            extremes: vec![None; measures.min.len() + measures.max.len()].into(),
            distinct: vec![Distinct::default(); measures.distinct.len()].into(),
        }
    }

    /// Takes an event in.
    pub fn add(&mut self, measures: &Measures, tick: &Tick) {
        self.count = self.count.wrapping_add(1);
        let mut numbers = tick.numbers.as_slice().iter();
        for (sum, number) in self.sums.iter_mut().zip(numbers.by_ref()) {
            *sum = number.map_or(*sum, |number| sum.plus(number));
        }
        for (index, (extreme, number)) in self.extremes.iter_mut().zip(numbers).enumerate() {
            *extreme = further(index < measures.min.len(), *extreme, *number);
        }
        for (distinct, hash) in self.distinct.iter_mut().zip(&tick.hashes) {
            hash.iter().for_each(|hash| distinct.insert(*hash));
        }
    }

    /// Takes in what `other` has seen: the numbers of all events of both.
    pub fn merge(&mut self, measures: &Measures, other: &Numbers) {
        self.count = self.count.wrapping_add(other.count);
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, other)| *sum = sum.plus(*other));
        for (index, (extreme, other)) in self.extremes.iter_mut().zip(&other.extremes).enumerate() {
            *extreme = further(index < measures.min.len(), *extreme, *other);
        }
        self.distinct.iter_mut().zip(&other.distinct).for_each(|(distinct, other)| distinct.merge(other));
    }

    pub fn get(&self, measures: &Measures, measure: Measure) -> Measured {
        let extreme = |index: usize| match self.extremes.get(index) {
            Some(Some(number)) => Measured::Number(*number),
            _ => Measured::Nothing,
        };
        match measure {
            Measure::Count => Measured::Whole(self.count),
            Measure::Sum(index) => self.sums.get(index).map_or(Measured::Nothing, |sum| Measured::Number(*sum)),
            Measure::Min(index) => extreme(index),
            Measure::Max(index) => extreme(measures.min.len() + index),
            Measure::Distinct(index) => {
                self.distinct.get(index).map_or(Measured::Nothing, |distinct| Measured::Whole(distinct.count()))
            }
        }
    }

    /// What they take in memory, in bytes, with the rounding of the allocator.
    pub fn weight(&self) -> usize {
        const BLOCK_BYTES: usize = 8;
        let block = |bytes: usize| if bytes == 0 { 0 } else { bytes + BLOCK_BYTES };
        size_of::<Numbers>()
            + block(size_of_val(&*self.sums))
            + block(size_of_val(&*self.extremes))
            + block(size_of_val(&*self.distinct))
            + self.distinct.iter().map(|distinct| block(distinct.weight())).sum::<usize>()
    }
}

/// The lesser or the greater of two; the one that there is.
fn further(least: bool, a: Option<Decimal>, b: Option<Decimal>) -> Option<Decimal> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if least { a.min(b) } else { a.max(b) }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::testing::event;
    use proptest::prelude::*;

    fn measures() -> Measures {
        let path = |text: &str| text.parse().expect("a path");
        Measures {
            count: true,
            sum: vec![path("data.a"), path("data.b")],
            min: vec![path("data.a")],
            max: vec![path("data.a"), path("data.b")],
            distinct: vec![path("data.c")],
        }
    }

    fn tick(data: &str) -> Tick {
        Tick::of(&measures(), &View::new(&event("1", 5, data)).expect("JSON"))
    }

    fn numbers(events: &[&str]) -> Numbers {
        let mut numbers = Numbers::none(&measures());
        events.iter().for_each(|data| numbers.add(&measures(), &tick(data)));
        numbers
    }

    fn told(numbers: &Numbers) -> Vec<String> {
        let text = |(name, measure)| match numbers.get(&measures(), measure) {
            Measured::Nothing => format!("{name} -"),
            Measured::Whole(number) => format!("{name} {number}"),
            Measured::Number(number) => format!("{name} {number}"),
        };
        measures().named().map(text).collect()
    }

    #[test]
    fn everything_is_measured() {
        let some = numbers(&[
            r#"{"a":1,"b":0.1,"c":"x"}"#,
            r#"{"a":-5,"b":0.2,"c":"y"}"#,
            r#"{"a":"7","b":null,"c":"x"}"#,
            r#"{"c":[1]}"#,
        ]);
        let expected = [
            "count 4",
            "sum data.a -4",
            "sum data.b 0.3",
            "min data.a -5",
            "max data.a 1",
            "max data.b 0.2",
            "distinct data.c 2",
        ];
        assert_eq!(told(&some), expected);
        assert_eq!(told(&numbers(&["{}"]))[3..5], ["min data.a -", "max data.a -"]);
    }

    #[test]
    fn no_event_happened_after_it_was_taken() {
        let early = Tick::of(&Measures::default(), &View::new(&event("1", 3, "{}")).expect("JSON"));
        let mut ahead = event("1", i64::MAX, "{}");
        ahead.received = 7;
        let ahead = Tick::of(&Measures::default(), &View::new(&ahead).expect("JSON"));
        assert_eq!((early.time, ahead.time), (3, 7_000_000));
    }

    proptest! {
        #[test]
        fn order_and_grouping_of_events_do_not_matter(
            (events, again) in prop::collection::vec((-9i64..9, prop::option::of(-1e6f64..1e6), 0u8..20), 0..30)
                .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
            cut in 0usize..30,
        ) {
            let texts = |list: &[(i64, Option<f64>, u8)]| -> Vec<String> {
                list.iter().map(|(a, b, c)| serde_json::json!({ "a": a, "b": b, "c": c }).to_string()).collect()
            };
            let (one, other) = (texts(&events), texts(&again));
            let refs = |list: &[String]| -> Numbers { numbers(&list.iter().map(String::as_str).collect::<Vec<_>>()) };
            let all = refs(&one);
            prop_assert_eq!(&refs(&other), &all);
            let (first, second) = other.split_at(cut.min(other.len()));
            let mut merged = refs(first);
            merged.merge(&measures(), &refs(second));
            prop_assert_eq!(merged.weight(), all.weight());
            prop_assert_eq!(merged, all);
        }
    }
}
