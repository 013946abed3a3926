//! What stands at a path into an event: looked at where it is, without a copy (pure).

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde_json::Value;

use crate::event::scalar_text;

/// What stands at a path. Never null: that counts as missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'v> {
    Text(&'v str),
    /// An attribute that is a time.
    Time(TimeText),
    /// Anything that is no text.
    Value(&'v Value),
}

impl<'v> Found<'v> {
    /// `None` for null.
    pub fn of(value: &'v Value) -> Option<Found<'v>> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(Found::Text(text)),
            other => Some(Found::Value(other)),
        }
    }

    /// A scalar as text, as it stands in keys and titles; `None` for lists and objects.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Found::Text(text) => Some(Cow::Borrowed(text)),
            Found::Time(time) => Some(Cow::Borrowed(time.as_str())),
            Found::Value(value) => scalar_text(value),
        }
    }

    /// The value as such: a text is copied for it.
    pub fn value(self) -> Cow<'v, Value> {
        match self {
            Found::Text(text) => Cow::Owned(Value::from(text)),
            Found::Time(time) => Cow::Owned(Value::from(time.as_str())),
            Found::Value(value) => Cow::Borrowed(value),
        }
    }

    /// Appends it as JSON.
    pub fn put_json(&self, out: &mut Vec<u8>) {
        match self {
            Found::Text(text) => put_json(out, text),
            Found::Time(time) => put_json(out, time.as_str()),
            Found::Value(value) => put_json(out, value),
        }
    }
}

/// Appends a text or a value as JSON.
pub fn put_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing a text or a `Value` to memory can't fail: its keys are strings and its numbers are finite.
    let _ = serde_json::to_writer(out, value);
}

/// A time in RFC 3339, in UTC, with as many fraction digits as are needed: `2015-09-12T00:46:58.771Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeText {
    bytes: [u8; TIME_BYTES_MAX],
    length: usize,
}

/// Longest such text, in bytes: nanoseconds in 64 bits reach from the year 1677 to the year 2262.
const TIME_BYTES_MAX: usize = "1677-09-21T00:12:43.145224192Z".len();

impl TimeText {
    pub fn of(nanoseconds: i64) -> TimeText {
        let mut text = TimeText::default();
        // Every such number is a time, and there is room for it.
        if let Ok(time) = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)) {
            let _ = write!(text, "{time}");
        }
        text
    }

    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl Write for TimeText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_time_has_room() {
        assert_eq!(TimeText::of(i64::MIN).as_str(), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(TimeText::of(i64::MAX).as_str(), "2262-04-11T23:47:16.854775807Z");
    }

    proptest! {
        #[test]
        fn a_time_is_the_text_that_jiff_makes_of_it(nanoseconds: i64) {
            let time = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).expect("a time");
            let text = TimeText::of(nanoseconds);
            prop_assert_eq!(text.as_str(), time.to_string());
        }
    }
}
