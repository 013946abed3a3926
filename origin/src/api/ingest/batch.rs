//! From the body of a request to its elements: one JSON object, an array of them, or one a line (pure).
//!
//! What is broken spoils as little as it can: a broken line only itself, a broken element of an array itself and what
//! stands behind it, since nobody can know where that would begin.

use std::borrow::Cow;

use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::cloud_events::{self, Format};

/// Elements in the order they were sent: JSON text without white space around it, or why it is none.
pub type Elements<'a> = Vec<Result<Cow<'a, str>, String>>;

/// Why a body as a whole is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBatch {
    Empty,
    /// It holds more events than the limit.
    TooMany,
}

/// Splits a body. Where the format leaves it open, its first bytes tell.
pub fn split<'a>(body: &'a [u8], format: &Format, max_events: usize) -> Result<Elements<'a>, NoBatch> {
    if let Format::Binary { attributes, data } = format {
        return Ok(vec![cloud_events::element(attributes, *data, body).map(Cow::Owned)]);
    }
    let Some(first) = body.iter().find(|byte| !is_blank(**byte)) else { return Err(NoBatch::Empty) };
    match format {
        Format::Lines => lines(body, max_events),
        Format::Batch if *first == b'[' => array(body, max_events),
        Format::Batch => Ok(vec![Err("a batch of CloudEvents is an array: send [ … ]".to_owned())]),
        Format::Json if *first == b'[' => array(body, max_events),
        Format::Json | Format::Event | Format::Binary { .. } => match whole(body) {
            Ok(element) => Ok(vec![Ok(Cow::Borrowed(element))]),
            Err(_) if *format == Format::Json && first_line_is_whole(body) => lines(body, max_events),
            Err(problem) => Ok(vec![Err(problem)]),
        },
    }
}

fn lines(body: &[u8], max_events: usize) -> Result<Elements<'_>, NoBatch> {
    let mut elements = Vec::new();
    for (line, number) in body.split(|byte| *byte == b'\n').zip(1..) {
        if line.iter().all(|byte| is_blank(*byte)) {
            continue;
        }
        if elements.len() == max_events {
            return Err(NoBatch::TooMany);
        }
        elements.push(one(line).map(Cow::Borrowed).map_err(|error| in_words(&error, number)));
    }
    Ok(elements)
}

fn array(body: &[u8], max_events: usize) -> Result<Elements<'_>, NoBatch> {
    let mut found = Found { elements: Vec::new(), max_events, too_many: false };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = deserializer.deserialize_seq(&mut found).and_then(|()| deserializer.end());
    if found.too_many {
        return Err(NoBatch::TooMany);
    }
    let mut elements: Elements<'_> = found.elements.into_iter().map(|element| Ok(Cow::Borrowed(element))).collect();
    if let Err(error) = read {
        elements.push(Err(format!("{}; nothing behind it was read", in_words(&error, error.line()))));
    }
    Ok(elements)
}

/// Keeps what it has when an element is broken.
struct Found<'a> {
    elements: Vec<&'a str>,
    max_events: usize,
    too_many: bool,
}

impl<'a> Visitor<'a> for &mut Found<'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut sequence: A) -> Result<(), A::Error> {
        while let Some(element) = sequence.next_element::<&'a RawValue>()? {
            if self.elements.len() == self.max_events {
                self.too_many = true;
                return Ok(());
            }
            self.elements.push(element.get());
        }
        Ok(())
    }
}

fn whole(body: &[u8]) -> Result<&str, String> {
    one(body).map_err(|error| in_words(&error, error.line()))
}

fn first_line_is_whole(body: &[u8]) -> bool {
    let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(|byte| is_blank(*byte)));
    let first = lines.next();
    lines.next().is_some() && first.is_some_and(|line| one(line).is_ok())
}

fn one(text: &[u8]) -> Result<&str, serde_json::Error> {
    serde_json::from_slice::<&RawValue>(text).map(RawValue::get)
}

fn in_words(error: &serde_json::Error, line: usize) -> String {
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    format!("this is not JSON: {problem} at line {line}, column {}", error.column())
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_text(body: &str, format: Format) -> Result<Vec<String>, NoBatch> {
        let elements = split(body.as_bytes(), &format, 3)?;
        let told =
            |element: Result<Cow<'_, str>, String>| element.map_or_else(|why| format!("! {why}"), Cow::into_owned);
        Ok(elements.into_iter().map(told).collect())
    }

    #[test]
    fn bodies() {
        let (json, lines) = (Format::Json, Format::Lines);
        for (body, format, expected) in [
            (" {\"a\": 1}\r\n", &json, &["{\"a\": 1}"][..]),
            ("{\n\"a\": 1\n}", &json, &["{\n\"a\": 1\n}"]),
            ("[ {\"a\":1} , {\"a\":2}\n]", &json, &["{\"a\":1}", "{\"a\":2}"]),
            ("[]", &json, &[]),
            ("{\"a\":1}\n{\"a\":2}\n", &json, &["{\"a\":1}", "{\"a\":2}"]),
            ("{\"a\":1}\r\n\r\n{\"a\":2}", &lines, &["{\"a\":1}", "{\"a\":2}"]),
            ("{\"a\":1}", &lines, &["{\"a\":1}"]),
            ("7", &json, &["7"]),
            (
                "{\"a\":1}\n\n{\"a\":\n{\"a\":3}",
                &lines,
                &["{\"a\":1}", "! this is not JSON: EOF while parsing a value at line 3, column 5", "{\"a\":3}"],
            ),
            (
                "[{\"a\":1},\n{\"a\":1,},\n{\"a\":3}]",
                &json,
                &[
                    "{\"a\":1}",
                    "! this is not JSON: key must be a string at line 2, column 8; nothing behind it was read",
                ],
            ),
            (
                "[{\"a\":1}] x",
                &json,
                &[
                    "{\"a\":1}",
                    "! this is not JSON: trailing characters at line 1, column 11; nothing behind it was read",
                ],
            ),
            (
                "[{\"a\":1}",
                &json,
                &[
                    "{\"a\":1}",
                    "! this is not JSON: EOF while parsing a list at line 1, column 8; nothing behind it was read",
                ],
            ),
            ("{\"a\":1\n", &json, &["! this is not JSON: EOF while parsing an object at line 2, column 0"]),
            ("{\"a\":1} {\"a\":2}", &json, &["! this is not JSON: trailing characters at line 1, column 9"]),
            ("nonsense", &json, &["! this is not JSON: expected ident at line 1, column 2"]),
        ] {
            assert_eq!(split_text(body, format.clone()).unwrap(), expected, "{body:?}");
        }
        for blank in ["", " \r\n\t"] {
            assert_eq!(split_text(blank, json.clone()), Err(NoBatch::Empty));
            assert_eq!(split_text(blank, lines.clone()), Err(NoBatch::Empty));
        }
    }

    #[test]
    fn the_limit_counts_events() {
        assert_eq!(split_text("[1,2,3]", Format::Json).unwrap().len(), 3);
        assert_eq!(split_text("1\n2\n3\n\n", Format::Lines).unwrap().len(), 3);
        assert_eq!(split_text("[1,2,3,4]", Format::Json), Err(NoBatch::TooMany));
        assert_eq!(split_text("1\n2\n3\n\n4", Format::Lines), Err(NoBatch::TooMany));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_where_they_stand() {
        let body = [b"{\"a\":1}\n{\"a\":\"\xff\"}\n{\"a\":3}".as_slice()].concat();
        let elements = split(&body, &Format::Json, 9).unwrap();
        assert!(elements[1].as_ref().is_err_and(|why| why.contains("line 2")), "{elements:?}");
        assert_eq!((elements.len(), elements[2].is_ok()), (3, true));
    }

    #[test]
    fn nesting_can_not_exhaust_the_stack() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(split(deep.as_bytes(), &Format::Json, 9).unwrap().len(), 1);
        let object = format!("{{\"a\":{deep}}}");
        assert_eq!(split(object.as_bytes(), &Format::Json, 9).unwrap().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_split_without_panic(body: Vec<u8>, lines: bool) {
            let format = if lines { Format::Lines } else { Format::Json };
            let _ = split(&body, &format, 10);
        }
    }
}
