//! Text with holes that an event fills: `"{data.channel}/{data.page}"` (pure).
//!
//! `{{` and `}}` stand for the braces themselves.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use crate::event::{Path, View, scalar_text};

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
    utf8_percent_encode(text, &KEY_BYTES).to_string()
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
                    let value = view.get(path).ok_or(path)?;
                    out.push_str(&scalar_text(&value).ok_or(path)?);
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
                    let encoded: Vec<String> = text.split('/').map(encode_key_part).collect();
                    key.push_str(&encoded.join("/"));
                }
                Part::Hole(path) => {
                    let value = view.get(path)?;
                    let text = scalar_text(&value)?;
                    if matches!(text.as_ref(), "" | "." | "..") {
                        return None;
                    }
                    key.push_str(&encode_key_part(&text));
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
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Hole(path) => {
                    out.push_str(view.get(path).as_deref().and_then(scalar_text).as_deref().unwrap_or_default());
                }
            }
        }
        Some(Cow::Owned(Value::String(out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
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

    #[test]
    fn broken_templates_are_refused_in_words() {
        for wrong in ["{", "}", "{user}", "{data.}", "a{id", "{{id}"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }
}
