//! What stands in an element beside its payload (pure).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use millpond_shared::event::parse_time;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of an element.
#[derive(Default)]
pub struct Members<'a> {
    pub id: Option<Cow<'a, str>>,
    pub kind: Option<Cow<'a, str>>,
    pub subject: Option<Cow<'a, str>>,
    pub time: Option<i64>,
    /// The payload: one JSON value as text.
    pub data: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
    #[serde(borrow)]
    datacontenttype: Option<&'a RawValue>,
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
}

/// Reads an element. A `cloud_event` has all that CloudEvents 1.0 requires, and is told from others by its source and
/// its id together, so these are its id here.
pub fn read(text: &str, cloud_event: bool) -> Result<Members<'_>, String> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| format!("it can't be read: {error}"))?;
    let (mut id, kind) = (string("id", envelope.id)?, string("type", envelope.kind)?);
    if cloud_event {
        let missing = |name| format!("{name} is missing, which a CloudEvent must have");
        let specversion = string("specversion", envelope.specversion)?.ok_or_else(|| missing("specversion"))?;
        if specversion != "1.0" {
            let found: String = specversion.chars().take(16).collect();
            return Err(format!("specversion is `{found}`: send CloudEvents 1.0"));
        }
        let source = string("source", envelope.source)?.ok_or_else(|| missing("source"))?;
        kind.as_ref().ok_or_else(|| missing("type"))?;
        // A source is a URI reference, which holds no blank: so no two pairs make the same text.
        id = Some(Cow::Owned(format!("{source} {}", id.ok_or_else(|| missing("id"))?)));
    }
    let time = match envelope.time {
        None => None,
        Some(raw) => {
            let value: Value = serde_json::from_str(raw.get()).map_err(|error| format!("time: {error}"))?;
            let fix = "send it as in \"2026-01-31T12:00:00Z\", or as a number of seconds since 1970";
            Some(parse_time(&value).ok_or_else(|| format!("time is no time between 1678 and 2262: {fix}"))?)
        }
    };
    let data = match (envelope.data, envelope.data_base64) {
        (Some(_), Some(_)) => return Err("both data and data_base64 are there: send one of them".to_owned()),
        (_, Some(raw)) => Cow::Owned(decoded(raw, string("datacontenttype", envelope.datacontenttype)?.as_deref())?),
        (data, None) => Cow::Borrowed(data.map_or("null", RawValue::get)),
    };
    Ok(Members { id, kind, subject: string("subject", envelope.subject)?, time, data })
}

/// Bytes that are JSON by their type become what they say; others stay the base64 that they came in, as a string.
fn decoded(raw: &RawValue, content_type: Option<&str>) -> Result<String, String> {
    let not_base64 = || "data_base64 is not base64 in a string".to_owned();
    let text: String = serde_json::from_str(raw.get()).map_err(|_| not_base64())?;
    let bytes = STANDARD.decode(&text).map_err(|_| not_base64())?;
    let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or("application/json").trim();
    if !(media_type.ends_with("/json") || media_type.ends_with("+json")) {
        return Ok(Value::String(text).to_string());
    }
    let json = serde_json::from_slice::<&RawValue>(&bytes).map(|raw| raw.get().to_owned());
    json.map_err(|error| format!("data_base64 holds no JSON, as datacontenttype says: {error}"))
}

fn string<'a>(name: &str, raw: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, String> {
    let Some(raw) = raw else { return Ok(None) };
    match text(raw) {
        Ok(text) if text.is_empty() => Err(format!("{name} is empty: give it a text, or leave it out")),
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(format!("{name} is not a string: write it in quotes")),
    }
}

/// A string without escapes is what stands between its quotes: that it is JSON is known.
fn text(raw: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    let inside = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match inside.filter(|text| memchr::memchr(b'\\', text.as_bytes()).is_none()) {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => serde_json::from_str(raw.get()).map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"specversion":"1.0","id":"7","source":"/a","type":"t","data":{"n":1}}"#;

    #[test]
    fn a_cloud_event_is_told_from_others_by_source_and_id() {
        let members = read(WHOLE, true).unwrap();
        assert_eq!((members.id.as_deref(), members.data.as_ref()), (Some("/a 7"), r#"{"n":1}"#));
        assert_eq!(read(WHOLE, false).unwrap().id.as_deref(), Some("7"), "unless nobody said it is one");
    }

    #[test]
    fn a_cloud_event_has_what_is_required() {
        for (name, value) in [("specversion", "\"1.0\""), ("id", "\"7\""), ("source", "\"/a\""), ("type", "\"t\"")] {
            let without = WHOLE.replacen(&format!("\"{name}\":{value},"), "", 1);
            let why = read(&without, true).map(|_| ()).unwrap_err();
            assert_eq!(why, format!("{name} is missing, which a CloudEvent must have"));
        }
        let old = WHOLE.replace("1.0", "0.3");
        assert_eq!(read(&old, true).map(|_| ()).unwrap_err(), "specversion is `0.3`: send CloudEvents 1.0");
    }

    #[test]
    fn base64_is_read_by_its_type() {
        for (members, expected) in [
            (r#"{"data_base64":"eyJhIjoxfQ=="}"#, Ok(r#"{"a":1}"#)),
            (r#"{"data_base64":"eyJhIjoxfQ==","datacontenttype":"application/x+json; a=b"}"#, Ok(r#"{"a":1}"#)),
            (r#"{"data_base64":"AAEC","datacontenttype":"image/png"}"#, Ok(r#""AAEC""#)),
            (r#"{"data_base64":"AAEC"}"#, Err("data_base64 holds no JSON, as datacontenttype says")),
            (r#"{"data_base64":"!"}"#, Err("data_base64 is not base64 in a string")),
            (r#"{"data_base64":7}"#, Err("data_base64 is not base64 in a string")),
            (r#"{"data_base64":"AAEC","data":1}"#, Err("both data and data_base64 are there")),
        ] {
            let read = read(members, false).map(|members| members.data.into_owned());
            match expected {
                Ok(expected) => assert_eq!(read.as_deref(), Ok(expected), "{members}"),
                Err(expected) => assert!(read.unwrap_err().starts_with(expected), "{members}"),
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_text_is_what_stands_in_its_json(json in r#""([ a-zß€😀]|\\[nt"/\\]|\\u00e4|\\ud83d\\ude00|\\ud800){0,6}"|7|true|\["a"\]"#) {
            let raw: &RawValue = serde_json::from_str(&json).expect("it is JSON");
            let expected = serde_json::from_str::<String>(&json).ok();
            let found = text(raw).ok();
            proptest::prop_assert_eq!(found.as_deref(), expected.as_deref());
        }
    }
}
