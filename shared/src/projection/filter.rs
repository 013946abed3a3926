//! The `where` of a projection (pure).

use serde_json::Value;

use crate::event::{Path, View};

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(pub Vec<(Path, Condition)>);

#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Equal to one of these scalars.
    AnyOf(Vec<Value>),
}

impl Filter {
    /// Whether the event passes. A missing value equals nothing.
    pub fn holds(&self, view: &View<'_>) -> bool {
        self.0.iter().all(|(path, condition)| {
            let found = view.get(path);
            match condition {
                Condition::AnyOf(values) => found.is_some_and(|found| values.iter().any(|value| equal(value, &found))),
            }
        })
    }
}

/// Numbers compare by value: `1` equals `1.0`.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64()),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use serde_json::json;

    #[test]
    fn conditions() {
        let event = Event {
            id: "1".into(),
            source: "s".into(),
            kind: "edit".into(),
            subject: None,
            time: 0,
            received: 0,
            data: r#"{"robot":false,"n":3,"null":null}"#.into(),
        };
        let view = View::new(&event).expect("JSON");
        let holds = |path: &str, values: Value| {
            let Value::Array(values) = values else { unreachable!() };
            Filter(vec![(path.parse().expect("path"), Condition::AnyOf(values))]).holds(&view)
        };
        assert!(holds("type", json!(["post", "edit"])));
        assert!(holds("data.robot", json!([false])));
        assert!(holds("data.n", json!([3.0])));
        assert!(!holds("data.n", json!(["3"])));
        assert!(!holds("data.missing", json!([false])));
        assert!(!holds("data.null", json!([null])));
        assert!(Filter::default().holds(&view));
    }
}
