//! An event, and dotted paths into it (pure).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::found::{Found, TimeText};
use crate::wanted::{Picked, Wanted};

/// What was POSTed, with the attributes of CloudEvents 1.0, as it is stored in queues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<'a> {
    /// Unique within its source for the source's window; the producer's, or assigned by ingest.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Name of the declared source.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub subject: Option<Cow<'a, str>>,
    /// When it happened: nanoseconds since the Unix epoch.
    pub time: i64,
    /// When ingest took it: milliseconds since the Unix epoch.
    pub received: u64,
    /// The payload: one JSON value as text.
    #[serde(borrow)]
    pub data: Cow<'a, str>,
}

impl Event<'_> {
    /// What it takes in a frame, near enough, in bytes.
    pub fn frame_bytes(&self) -> u64 {
        let subject = self.subject.as_ref().map_or(0, |subject| subject.len());
        (self.id.len() + self.source.len() + self.kind.len() + subject + self.data.len() + 24) as u64
    }

    pub fn into_owned(self) -> Event<'static> {
        Event {
            id: Cow::Owned(self.id.into_owned()),
            source: Cow::Owned(self.source.into_owned()),
            kind: Cow::Owned(self.kind.into_owned()),
            subject: self.subject.map(|subject| Cow::Owned(subject.into_owned())),
            time: self.time,
            received: self.received,
            data: Cow::Owned(self.data.into_owned()),
        }
    }
}

/// A path into an event: an attribute (`id`, `source`, `type`, `subject`, `time`, `received`) or `data` and the
/// names of members below it, separated by dots. A member whose name holds a dot can't be named.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    text: String,
}

/// The text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no path into an event: start with id, source, type, subject, time, received or data, as in `data.user`"
)]
pub struct NoPath(String);

impl std::str::FromStr for Path {
    type Err = NoPath;

    fn from_str(text: &str) -> Result<Path, NoPath> {
        let attribute = ["id", "source", "type", "subject", "time", "received", "data"].contains(&text);
        let member = text.strip_prefix("data.").is_some_and(|rest| rest.split('.').all(|name| !name.is_empty()));
        if attribute || member { Ok(Path { text: text.to_owned() }) } else { Err(NoPath(text.to_owned())) }
    }
}

impl Path {
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// An event with its payload parsed, ready to be asked.
pub struct View<'a> {
    pub event: &'a Event<'a>,
    data: Picked<'a>,
}

impl<'a> View<'a> {
    /// Parses the payload. Fails where it is not JSON or nested deeper than 128 levels.
    pub fn new(event: &'a Event<'a>) -> Result<View<'a>, serde_json::Error> {
        Ok(View { data: Picked::Whole(serde_json::from_str(&event.data)?), event })
    }

    /// The same, with no more of the payload than is wanted.
    pub fn of(event: &'a Event<'a>, wanted: &'a Wanted) -> Result<View<'a>, serde_json::Error> {
        Ok(View { data: wanted.read(&event.data)?, event })
    }

    /// An event whose payload nobody asks for: paths into it find nothing.
    pub fn of_attributes(event: &'a Event<'a>) -> View<'a> {
        View { event, data: Picked::Nothing }
    }

    /// What stands at `path`; `None` for what is missing or null.
    pub fn find(&self, path: &Path) -> Option<Found<'_>> {
        match path.text.as_str() {
            "id" => Some(Found::Text(&self.event.id)),
            "source" => Some(Found::Text(&self.event.source)),
            "type" => Some(Found::Text(&self.event.kind)),
            "subject" => self.event.subject.as_deref().map(Found::Text),
            "time" => Some(Found::Time(TimeText::of(self.event.time))),
            "received" => Some(Found::Time(TimeText::of(received_nanoseconds(self.event.received)))),
            data => self.data.find(data.split('.').skip(1)),
        }
    }

    /// The same as a value: a text is copied for it.
    pub fn get(&self, path: &Path) -> Option<Cow<'_, Value>> {
        self.find(path).map(Found::value)
    }
}

fn received_nanoseconds(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

/// A [`TimeText`] that is kept.
pub fn time_text(nanoseconds: i64) -> String {
    TimeText::of(nanoseconds).as_str().to_owned()
}

/// A time as producers write it: an RFC 3339 text, or a number of seconds (or, above 10^11, milliseconds) since the
/// Unix epoch. `None` for anything else, and outside the years 1678 to 2262.
pub fn parse_time(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => {
            let time: jiff::Timestamp = text.parse().ok()?;
            i64::try_from(time.as_nanosecond()).ok()
        }
        Value::Number(number) => {
            if let Some(whole) = number.as_i64() {
                let scale = if whole.unsigned_abs() > 100_000_000_000 { 1_000_000 } else { 1_000_000_000 };
                return whole.checked_mul(scale);
            }
            let seconds = number.as_f64()?;
            (seconds.abs() < 9e9).then(|| (seconds * 1e3).round() as i64 * 1_000_000)
        }
        _ => None,
    }
}

/// A scalar as text, as it stands in keys and titles; `None` for lists and objects.
pub fn scalar_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(_) | Value::Number(_) => Some(Cow::Owned(value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_reach_attributes_and_members() {
        let event = Event {
            id: "1".into(),
            source: "wiki".into(),
            kind: "edit".into(),
            subject: None,
            time: 1_442_018_818_771_000_000,
            received: 1000,
            data: r#"{"user":"GELongstreet","actor":{"login":"x"},"n":null,"list":[1]}"#.into(),
        };
        let view = View::new(&event).expect("valid JSON");
        let get = |path: &str| view.get(&path.parse().expect("a path")).map(Cow::into_owned);
        assert_eq!(get("data.actor.login"), Some(json!("x")));
        assert_eq!(get("time"), Some(json!("2015-09-12T00:46:58.771Z")));
        assert_eq!(get("received"), Some(json!("1970-01-01T00:00:01Z")));
        assert_eq!(
            (get("data.n"), get("data.nothing.below"), get("subject"), get("data.list.0")),
            (None, None, None, None)
        );
        for wrong in ["", "user", "data.", "data..x", "{id}", "ID"] {
            assert!(wrong.parse::<Path>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        for (value, expected) in [
            (json!("1970-01-01T00:00:01Z"), Some(1_000_000_000)),
            (json!("1970-01-01T01:00:01.5+01:00"), Some(1_500_000_000)),
            (json!(1), Some(1_000_000_000)),
            (json!(1_442_018_818_771i64), Some(1_442_018_818_771_000_000)),
            (json!(1.5), Some(1_500_000_000)),
            (json!("yesterday"), None),
            (json!("9999-01-01T00:00:00Z"), None),
            (json!(i64::MAX), None),
            (json!(1e300), None),
            (json!(null), None),
        ] {
            assert_eq!(parse_time(&value), expected, "{value}");
        }
    }
}
