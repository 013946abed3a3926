//! The `where` of a projection (pure).

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::event::{Path, View, parse_time};
use crate::found::Found;

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(pub Vec<(Path, Condition)>);

/// What is asked of the value at a path. A missing value, or null, meets only `Exists(false)`.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Equal to one of these scalars.
    AnyOf(Vec<Value>),
    /// On this side of each of these bounds.
    Within(Vec<Bound>),
    /// There at all, or not.
    Exists(bool),
}

/// One side of a comparison, and what is compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub side: Side,
    pub limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Above,
    AtOrAbove,
    Below,
    AtOrBelow,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Limit {
    Number(Number),
    /// Nanoseconds since the Unix epoch.
    Time(i64),
}

impl Filter {
    /// Whether the event passes. A missing value equals nothing, and is neither above nor below anything.
    pub fn holds(&self, view: &View<'_>) -> bool {
        self.0.iter().all(|(path, condition)| match condition {
            Condition::AnyOf(values) => {
                view.find(path).is_some_and(|found| values.iter().any(|value| equal(value, &found)))
            }
            Condition::Within(bounds) => {
                view.get(path).is_some_and(|found| bounds.iter().all(|bound| bound.holds(&found)))
            }
            Condition::Exists(there) => view.find(path).is_some() == *there,
        })
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path)
    }
}

impl Bound {
    fn holds(&self, found: &Value) -> bool {
        let order = match (&self.limit, found) {
            (Limit::Number(limit), Value::Number(found)) => Some(compare(found, limit)),
            (Limit::Time(limit), found) => parse_time(found).map(|found| found.cmp(limit)),
            _ => None,
        };
        order.is_some_and(|order| self.side.admits(order))
    }
}

impl Side {
    /// Whether a value that stands so to the limit is on this side of it.
    fn admits(self, order: Ordering) -> bool {
        match self {
            Side::Above => order.is_gt(),
            Side::AtOrAbove => order.is_ge(),
            Side::Below => order.is_lt(),
            Side::AtOrBelow => order.is_le(),
        }
    }

    pub fn is_lower(self) -> bool {
        matches!(self, Side::Above | Side::AtOrAbove)
    }
}

impl Limit {
    /// How two limits of one kind stand to each other; `None` for a number and a time.
    pub fn compare(&self, other: &Limit) -> Option<Ordering> {
        match (self, other) {
            (Limit::Number(a), Limit::Number(b)) => Some(compare(a, b)),
            (Limit::Time(a), Limit::Time(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// Numbers compare by value: `1` equals `1.0`.
fn equal(value: &Value, found: &Found<'_>) -> bool {
    match (value, found) {
        (Value::Number(number), Found::Value(Value::Number(found))) => compare(number, found).is_eq(),
        (value, Found::Value(found)) => value == *found,
        (value, Found::Text(text)) => value.as_str() == Some(*text),
        (value, Found::Time(time)) => value.as_str() == Some(time.as_str()),
    }
}

/// By value and exactly, whatever the numbers are written as: 2^53 + 1 is above 2^53 as a fraction.
fn compare(a: &Number, b: &Number) -> Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => compare_with_fraction(a, fraction(b)),
        (None, Some(b)) => compare_with_fraction(b, fraction(a)).reverse(),
        (None, None) => fraction(a).total_cmp(&fraction(b)),
    }
}

/// A number that is no whole one of 64 bits. JSON has no infinite ones; adding zero makes one zero of two.
fn fraction(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default() + 0.0
}

fn compare_with_fraction(whole: i128, fraction: f64) -> Ordering {
    // The conversion keeps to the ends of i128, which are beyond any whole number that JSON gave.
    let floor = fraction.floor();
    whole.cmp(&(floor as i128)).then(if fraction > floor { Ordering::Less } else { Ordering::Equal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use serde_json::json;

    fn holds(path: &str, condition: Condition) -> bool {
        let event = Event {
            id: "1".into(),
            source: "s".into(),
            kind: "edit".into(),
            subject: None,
            time: 1_500_000_000,
            received: 0,
            data:
                r#"{"robot":false,"n":3,"f":2.5,"big":9007199254740993,"null":null,"at":"1970-01-01T00:00:02+01:00"}"#
                    .into(),
        };
        Filter(vec![(path.parse().expect("path"), condition)]).holds(&View::new(&event).expect("JSON"))
    }

    #[test]
    fn equality_and_any_of() {
        let any_of = |path, values: Value| {
            let Value::Array(values) = values else { unreachable!() };
            holds(path, Condition::AnyOf(values))
        };
        assert!(any_of("type", json!(["post", "edit"])));
        assert!(any_of("data.robot", json!([false])));
        assert!(any_of("data.n", json!([3.0])));
        assert!(!any_of("data.n", json!(["3"])));
        assert!(!any_of("data.missing", json!([false])));
        assert!(!any_of("data.null", json!([null])));
    }

    #[test]
    fn bounds_compare_numbers_and_times_by_value() {
        let number = |value: Value| match value {
            Value::Number(number) => Limit::Number(number),
            _ => unreachable!(),
        };
        let within =
            |path, side, limit: &Limit| holds(path, Condition::Within(vec![Bound { side, limit: limit.clone() }]));
        // (path, limit, whether the value is above, equal, below)
        for (path, limit, order) in [
            ("data.n", number(json!(2)), Ordering::Greater),
            ("data.n", number(json!(3.0)), Ordering::Equal),
            ("data.n", number(json!(3.5)), Ordering::Less),
            ("data.n", number(json!(-1e300)), Ordering::Greater),
            ("data.f", number(json!(2)), Ordering::Greater),
            ("data.f", number(json!(2.5)), Ordering::Equal),
            ("data.f", number(json!(1e300)), Ordering::Less),
            ("data.big", number(json!(9007199254740992.0)), Ordering::Greater),
            ("time", Limit::Time(1_500_000_000), Ordering::Equal),
            ("time", Limit::Time(1_000_000_000), Ordering::Greater),
            ("data.at", Limit::Time(0), Ordering::Less),
        ] {
            let case = format!("{path} {limit:?}");
            assert_eq!(within(path, Side::Above, &limit), order.is_gt(), "{case}");
            assert_eq!(within(path, Side::AtOrAbove, &limit), order.is_ge(), "{case}");
            assert_eq!(within(path, Side::Below, &limit), order.is_lt(), "{case}");
            assert_eq!(within(path, Side::AtOrBelow, &limit), order.is_le(), "{case}");
        }
        for (path, limit) in [
            ("data.missing", number(json!(0))),
            ("data.null", number(json!(0))),
            ("data.robot", number(json!(0))),
            ("data.at", number(json!(0))),
            ("type", Limit::Time(0)),
        ] {
            for side in [Side::Above, Side::AtOrAbove, Side::Below, Side::AtOrBelow] {
                assert!(!within(path, side, &limit), "{path} can't be compared with {limit:?}");
            }
        }
        let bound = |side, limit| Bound { side, limit };
        let both = |low, high| {
            holds(
                "data.n",
                Condition::Within(vec![bound(Side::Above, number(low)), bound(Side::AtOrBelow, number(high))]),
            )
        };
        assert!(both(json!(2), json!(3)) && !both(json!(3), json!(4)) && !both(json!(1), json!(2)));
    }

    #[test]
    fn existence() {
        for (path, there) in
            [("data.n", true), ("data.robot", true), ("data.null", false), ("data.x.y", false), ("subject", false)]
        {
            assert_eq!(holds(path, Condition::Exists(true)), there, "{path}");
            assert_eq!(holds(path, Condition::Exists(false)), !there, "{path}");
        }
    }
}
