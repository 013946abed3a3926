//! Text with holes that an event fills: `"{data.channel}/{data.page}"` (pure).
//!
//! `{{` and `}}` stand for the braces themselves.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serializer;
use serde_json::Value;

use crate::event::{Path, View};

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Text(String),
    Hole(Path),
}

/// What stays as it is in a key: the unreserved characters of RFC 3986 §2.3.
const KEY_BYTES: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One part of a key in its only form: percent-encoded but for unreserved characters.
pub fn encode_key_part(text: &str) -> String {
    let mut encoded = String::new();
    put_key_part(&mut encoded, text);
    encoded
}

fn put_key_part(out: &mut String, text: &str) {
    out.reserve(text.len());
    out.extend(utf8_percent_encode(text, &KEY_BYTES));
}

/// The text that a key, or a part of one, stands for.
pub fn decode_key(key: &str) -> String {
    percent_decode_str(key).decode_utf8_lossy().into_owned()
}

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = brace.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some((hole, after)) = brace.strip_prefix('{').and_then(|hole| hole.split_once('}')) {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Hole(hole.parse().map_err(|error| format!("{error}"))?));
                rest = after;
            } else {
                return Err(format!(
                    "`{text}` has a brace without its partner: write {{{{ or }}}} for the brace itself"
                ));
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Template { parts })
    }
}

impl Template {
    /// Paths of all holes.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole(path) => Some(path),
            Part::Text(_) => None,
        })
    }

    /// Number of `/` outside holes: one less than the path segments a key of this template takes.
    pub fn slashes(&self) -> usize {
        self.parts.iter().map(|part| if let Part::Text(text) = part { text.matches('/').count() } else { 0 }).sum()
    }

    /// The filled text. Every hole must be filled by a scalar; `Err` names the first that isn't.
    pub fn text(&self, view: &View<'_>) -> Result<String, &Path> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Hole(path) => {
                    let found = view.find(path).ok_or(path)?;
                    out.push_str(&found.text().ok_or(path)?);
                }
            }
        }
        Ok(out)
    }

    /// The filled text as a key: what fills a hole is percent-encoded, so that different events never share a key
    /// by accident. `None` where a hole is empty, or is `.` or `..`, which no URL path can carry.
    pub fn key(&self, view: &View<'_>) -> Option<String> {
        let mut key = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    for (index, part) in text.split('/').enumerate() {
                        key.push_str(if index == 0 { "" } else { "/" });
                        put_key_part(&mut key, part);
                    }
                }
                Part::Hole(path) => {
                    let found = view.find(path)?;
                    let text = found.text()?;
                    if matches!(text.as_ref(), "" | "." | "..") {
                        return None;
                    }
                    put_key_part(&mut key, &text);
                }
            }
        }
        Some(key)
    }

    /// The filled value: of a template that is one hole and nothing else the value itself, type kept, `None` where
    /// it is missing; of any other the text, in which missing holes stay empty.
    pub fn value<'v>(&self, view: &'v View<'_>) -> Option<Cow<'v, Value>> {
        if let [Part::Hole(path)] = self.parts.as_slice() {
            return view.get(path);
        }
        Some(Cow::Owned(Value::String(self.filled(view).to_string())))
    }

    /// Appends [`Template::value`] as JSON; whether there is one.
    pub fn put_json(&self, view: &View<'_>, out: &mut Vec<u8>) -> bool {
        if let [Part::Hole(path)] = self.parts.as_slice() {
            let found = view.find(path);
            found.iter().for_each(|found| found.put_json(out));
            return found.is_some();
        }
        // Writing to memory can't fail.
        serde_json::Serializer::new(out).collect_str(&self.filled(view)).is_ok()
    }

    fn filled<'a>(&'a self, view: &'a View<'a>) -> Filled<'a> {
        Filled { parts: &self.parts, view }
    }
}

/// The text of a template, in which missing holes stay empty.
struct Filled<'a> {
    parts: &'a [Part],
    view: &'a View<'a>,
}

impl fmt::Display for Filled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Hole(path) => match self.view.find(path) {
                Some(found) => f.write_str(&found.text().unwrap_or_default()),
                None => Ok(()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, scalar_text};
    use crate::wanted::Wanted;
    use crate::wanted::tests::value;
    use proptest::prelude::*;
    use serde_json::json;

    fn filled<T>(template: &str, data: Value, ask: impl Fn(&Template, &View<'_>) -> T) -> T {
        let event = Event {
            id: "7".into(),
            source: "s".into(),
            kind: "edit".into(),
            subject: None,
            time: 0,
            received: 0,
            data: data.to_string().into(),
        };
        ask(&template.parse().expect("a template"), &View::new(&event).expect("JSON"))
    }

    #[test]
    fn keys_are_injective_and_addressable() {
        let key = |template, data| filled(template, data, |template, view| template.key(view));
        assert_eq!(key("{data.a}/{data.b}", json!({"a": "#en", "b": "x/y"})), Some("%23en/x%2Fy".to_owned()));
        assert_eq!(key("{data.a}", json!({"a": true})), Some("true".to_owned()));
        for unaddressable in [json!({}), json!({"a": ""}), json!({"a": ".."}), json!({"a": []}), json!({"a": null})] {
            assert_eq!(key("{data.a}", unaddressable), None);
        }
        assert_eq!(decode_key("%23en/x%2Fy"), "#en/x/y");
    }

    #[test]
    fn one_hole_keeps_its_type() {
        let value = |template, data| filled(template, data, |template, view| template.value(view).map(Cow::into_owned));
        assert_eq!(value("{data.n}", json!({"n": 5})), Some(json!(5)));
        assert_eq!(value("{data.n}", json!({})), None);
        assert_eq!(value("n={data.n} {{}}", json!({"n": 5})), Some(json!("n=5 {}")));
        assert_eq!(value("n={data.n}", json!({})), Some(json!("n=")));
    }

    /// What fills the template, of values that are all made.
    fn pieces<'a>(template: &'a Template, view: &View<'_>) -> Vec<(bool, Option<Cow<'a, str>>)> {
        let piece = |part: &'a Part| match part {
            Part::Text(text) => (false, Some(Cow::Borrowed(text.as_str()))),
            Part::Hole(path) => {
                let value = view.get(path);
                (true, value.as_deref().and_then(scalar_text).map(|text| Cow::Owned(text.into_owned())))
            }
        };
        template.parts.iter().map(piece).collect()
    }

    proptest! {
        /// Whatever is read of the payload, and whether texts are copied for it or not.
        #[test]
        fn what_is_put_is_the_value_as_json(
            data in value(),
            id in "[a\"\\\\\u{1}é]{0,3}",
            time: i64,
            received: u64,
            parts in prop::collection::vec(("[a\"\\\\/é\u{7}]{0,3}", "data(\\.[abc]){0,3}|id|type|subject|time|received"), 0..4),
            alone: bool,
        ) {
            let event = Event {
                id: id.into(),
                source: "s".into(),
                kind: "edit".into(),
                subject: Some("a/\u{1}".into()),
                time,
                received,
                data: data.to_string().into(),
            };
            let texts = parts.iter().map(|(text, hole)| format!("{}{{{hole}}}", if alone { "" } else { text }));
            let template: Template = texts.collect::<String>().parse().expect("a template");
            let wanted = Wanted::of(template.paths());
            let (whole, part) = (View::new(&event).expect("JSON"), View::of(&event, &wanted).expect("JSON"));
            let pieces = pieces(&template, &whole);
            for view in [&whole, &part] {
                let value = template.value(view);
                let mut out = b"before".to_vec();
                prop_assert_eq!(template.put_json(view, &mut out), value.is_some());
                let json = value.map(|value| serde_json::to_string(&value).expect("JSON")).unwrap_or_default();
                prop_assert_eq!(String::from_utf8(out).expect("text"), format!("before{json}"));
                let text: Option<String> = pieces.iter().map(|(_, text)| text.as_deref()).collect();
                prop_assert_eq!(template.text(view).ok(), text);
                let filled: String = pieces.iter().filter_map(|(_, text)| text.as_deref()).collect();
                if template.parts.len() != 1 {
                    prop_assert_eq!(template.value(view).map(Cow::into_owned), Some(Value::from(filled)));
                }
                let encode = |(is_hole, text): &(bool, Option<Cow<'_, str>>)| match (is_hole, text.as_deref()) {
                    (true, None | Some("" | "." | "..")) => None,
                    (true, text) => text.map(|text| utf8_percent_encode(text, &KEY_BYTES).to_string()),
                    (false, text) => text.map(|text| encode_key_part(text).replace("%2F", "/")),
                };
                prop_assert_eq!(template.key(view), pieces.iter().map(encode).collect::<Option<String>>());
            }
        }
    }

    #[test]
    fn broken_templates_are_refused_in_words() {
        for wrong in ["{", "}", "{user}", "{data.}", "a{id", "{{id}"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }
}
