//! `where`: conditions on paths.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::super::written::{Scalar, WrittenCondition};
use super::super::{Bound, Condition, Filter, Limit, Side};
use super::Judge;
use crate::config::At;
use crate::event::parse_time;

const OPERATORS: &str = "gt, gte, lt, lte or exists";

impl Judge<'_> {
    /// The conditions written below `field`, as far as they are free of mistakes.
    pub(super) fn filter(&mut self, field: &str, written: Option<&BTreeMap<String, At<WrittenCondition>>>) -> Filter {
        let mut conditions = Vec::new();
        for (path, at) in written.into_iter().flatten() {
            let field = format!("{field}.\"{path}\"");
            let path = path.parse();
            if let Err(error) = &path {
                self.wrong(&field, at, format!("{error}"), "name an attribute or a member of data");
            }
            let condition = match &at.value {
                WrittenCondition::One(scalar) => Ok(Condition::AnyOf(vec![value(scalar)])),
                WrittenCondition::AnyOf(scalars) if scalars.is_empty() => {
                    Err(Wrong::new("an empty list can never match", "list at least one value"))
                }
                WrittenCondition::AnyOf(scalars) => Ok(Condition::AnyOf(scalars.iter().map(value).collect())),
                WrittenCondition::Compared(operators) => compared(operators),
            };
            match (path, condition) {
                (Ok(path), Ok(condition)) => conditions.push((path, condition)),
                (_, Err(Wrong { problem, fix })) => self.wrong(&field, at, problem, fix),
                (Err(_), Ok(_)) => {}
            }
        }
        Filter(conditions)
    }
}

struct Wrong {
    problem: String,
    fix: String,
}

impl Wrong {
    fn new(problem: impl Into<String>, fix: impl Into<String>) -> Wrong {
        Wrong { problem: problem.into(), fix: fix.into() }
    }
}

/// `{ gt, gte, lt, lte }` or `{ exists }`.
fn compared(operators: &BTreeMap<String, Scalar>) -> Result<Condition, Wrong> {
    if operators.is_empty() {
        return Err(Wrong::new("asks nothing", format!("write {OPERATORS}, as in {{ gt = 0 }}")));
    }
    if let Some(exists) = operators.get("exists") {
        return match exists {
            Scalar::Flag(there) if operators.len() == 1 => Ok(Condition::Exists(*there)),
            // A value that compares is there, and one that is missing compares with nothing.
            Scalar::Flag(_) => Err(Wrong::new(
                "`exists` stands beside a comparison",
                "remove `exists`: a missing value never compares",
            )),
            _ => Err(Wrong::new("`exists` is neither true nor false", "write exists = true or exists = false")),
        };
    }
    let bounds = operators.iter().map(|(name, scalar)| bound(name, scalar)).collect::<Result<Vec<Bound>, Wrong>>()?;
    let one = |lower| {
        let mut side = bounds.iter().filter(move |bound| bound.side.is_lower() == lower);
        match (side.next(), side.next()) {
            (_, Some(_)) => Err(Wrong::new("has two bounds on one side", "keep the narrower one")),
            (one, None) => Ok(one),
        }
    };
    if let (Some(low), Some(high)) = (one(true)?, one(false)?) {
        let order = low
            .limit
            .compare(&high.limit)
            .ok_or_else(|| Wrong::new("compares with a number and with a time", "write two numbers, or two times"))?;
        let touching = (low.side, high.side) == (Side::AtOrAbove, Side::AtOrBelow);
        if order.is_gt() || (order.is_eq() && !touching) {
            return Err(Wrong::new("no value is above the one and below the other", "exchange or widen the bounds"));
        }
    }
    Ok(Condition::Within(bounds))
}

fn bound(name: &str, scalar: &Scalar) -> Result<Bound, Wrong> {
    let side = match name {
        "gt" => Side::Above,
        "gte" => Side::AtOrAbove,
        "lt" => Side::Below,
        "lte" => Side::AtOrBelow,
        other => return Err(Wrong::new(format!("`{other}` is no comparison"), format!("use {OPERATORS}"))),
    };
    let limit = match scalar {
        Scalar::Whole(number) => Some(Limit::Number(Number::from(*number))),
        Scalar::Number(number) => Number::from_f64(*number).map(Limit::Number),
        Scalar::Text(text) => parse_time(&Value::from(text.as_str())).map(Limit::Time),
        Scalar::Flag(_) => None,
    };
    let limit = limit.ok_or_else(|| {
        let fix = format!("compare with a number or with a time, as in {name} = \"2015-09-12T00:00:00Z\"");
        Wrong::new(format!("`{name}` is neither a number nor a time"), fix)
    })?;
    Ok(Bound { side, limit })
}

fn value(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Text(text) => Value::from(text.as_str()),
        Scalar::Flag(flag) => Value::from(*flag),
        Scalar::Whole(number) => Value::from(*number),
        Scalar::Number(number) => Value::from(*number),
    }
}
