//! CloudEvents 1.0 over HTTP: which of its modes a request is in, and the element that a binary one stands for (pure).
//!
//! Binary: the attributes are `ce-` fields, the body is the data. Structured and batched: the body is JSON that says so
//! in its type. All of them become elements as CloudEvents writes them in JSON, and go the way of all elements.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use serde_json::value::RawValue;

use super::asked::Asked;

/// What the body of a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON: an object, an array of them, or one a line, as its first bytes tell.
    Json,
    /// JSON objects, one a line.
    Lines,
    /// One CloudEvent.
    Event,
    /// An array of CloudEvents.
    Batch,
    /// The data of a CloudEvent, whose attributes are these: members of a JSON object, without its braces.
    Binary { attributes: String, data: DataType },
}

/// What the data of a binary CloudEvent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    Json,
    Text,
    Bytes,
}

/// A request in a mode that is not read here, or that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFormat {
    /// The media type is one of CloudEvents, and not in JSON.
    NotJson,
    /// A field is not text, percent-encoded.
    Field(String),
}

/// What the media types of CloudEvents begin with.
const FAMILY: &str = "application/cloudevents";
/// Media types of JSON objects, one a line.
const LINES: [&str; 4] = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

impl Format {
    pub fn of(asked: &Asked<'_>) -> Result<Format, NoFormat> {
        let content_type = asked.text("content-type");
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| media_type.eq_ignore_ascii_case(name);
        if media_type.get(..FAMILY.len()).is_some_and(|start| start.eq_ignore_ascii_case(FAMILY)) {
            return match media_type {
                _ if is("application/cloudevents+json") => Ok(Format::Event),
                _ if is("application/cloudevents-batch+json") => Ok(Format::Batch),
                _ => Err(NoFormat::NotJson),
            };
        }
        if asked.fields.get("ce-specversion").is_some() {
            return binary(asked, &media_type.to_ascii_lowercase());
        }
        Ok(if LINES.iter().any(|lines| is(lines)) { Format::Lines } else { Format::Json })
    }

    /// Whether its elements are CloudEvents, with all that these require.
    pub fn is_cloud_event(&self) -> bool {
        matches!(self, Format::Event | Format::Batch | Format::Binary { .. })
    }
}

/// The attributes that are read; extensions are not.
const ATTRIBUTES: [&str; 6] = ["specversion", "id", "source", "type", "subject", "time"];

fn binary(asked: &Asked<'_>, media_type: &str) -> Result<Format, NoFormat> {
    let mut attributes = String::new();
    let mut broken = None;
    asked.fields.each(&mut |name, value| {
        let named = name.get(..3).filter(|prefix| prefix.eq_ignore_ascii_case("ce-")).and_then(|_| name.get(3..));
        let known = named.and_then(|name| ATTRIBUTES.iter().find(|known| known.eq_ignore_ascii_case(name)));
        let Some(attribute) = known else { return };
        match field_text(value) {
            Some(text) => attributes.push_str(&format!("\"{attribute}\":{},", Value::String(text))),
            None => broken = Some(format!("ce-{attribute}")),
        }
    });
    if let Some(field) = broken {
        return Err(NoFormat::Field(field));
    }
    let is_json = media_type.is_empty() || media_type.ends_with("/json") || media_type.ends_with("+json");
    let data = match media_type {
        _ if is_json => DataType::Json,
        text if text.starts_with("text/") => DataType::Text,
        _ => DataType::Bytes,
    };
    Ok(Format::Binary { attributes, data })
}

/// The text of a field, out of its quotes if it is in any, and percent-decoded (HTTP protocol binding §3.1.3.2).
fn field_text(value: &[u8]) -> Option<String> {
    let mut text = std::str::from_utf8(value).ok()?.to_owned();
    if let Some(quoted) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        let mut plain = String::new();
        let mut bytes = quoted.chars();
        while let Some(next) = bytes.next() {
            plain.push(if next == '\\' { bytes.next()? } else { next });
        }
        text = plain;
    }
    percent_decode_str(&text).decode_utf8().ok().map(String::from)
}

/// The element that a binary CloudEvent stands for; or why it stands for none.
pub fn element(attributes: &str, data: DataType, body: &[u8]) -> Result<String, String> {
    let member = match (data, std::str::from_utf8(body)) {
        _ if body.is_empty() => "\"data\":null".to_owned(),
        (DataType::Json, _) => {
            let json =
                serde_json::from_slice::<&RawValue>(body).map_err(|error| format!("data is not JSON: {error}"))?;
            format!("\"data\":{}", json.get())
        }
        (DataType::Text, Ok(text)) => format!("\"data\":{}", Value::from(text)),
        (DataType::Text | DataType::Bytes, _) => {
            let encoded = STANDARD.encode(body);
            format!("\"datacontenttype\":\"application/octet-stream\",\"data_base64\":\"{encoded}\"")
        }
    };
    Ok(format!("{{{attributes}{member}}}"))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use millpond_shared::http1::Fields;

    use super::*;

    fn format(pairs: &[(&str, &str)]) -> Result<Format, NoFormat> {
        let fields: Fields = pairs.iter().copied().collect();
        Format::of(&Asked::new(&Method::POST, "/", &fields))
    }

    #[test]
    fn modes() {
        for (content_type, expected) in [
            ("application/json", Ok(Format::Json)),
            ("", Ok(Format::Json)),
            ("Application/X-NDJSON; charset=utf-8", Ok(Format::Lines)),
            ("application/CloudEvents+json; charset=utf-8", Ok(Format::Event)),
            ("application/cloudevents-batch+json", Ok(Format::Batch)),
            ("application/cloudevents+avro", Err(NoFormat::NotJson)),
        ] {
            assert_eq!(format(&[("content-type", content_type)]), expected, "{content_type}");
            let with_fields = format(&[("ce-specversion", "1.0"), ("content-type", content_type)]);
            let binary = matches!(with_fields, Ok(Format::Binary { .. }));
            assert_eq!(binary, !content_type.to_lowercase().contains("cloudevents"), "{content_type}");
        }
    }

    /// The example of the HTTP protocol binding, §3.1.3.2, among others.
    #[test]
    fn fields_become_attributes() {
        let read = format(&[
            ("Content-Type", "application/json"),
            ("CE-SpecVersion", "1.0"),
            ("ce-id", "\"a \\\"b\\\" \\\\\""),
            ("ce-type", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("ce-source", "/x"),
            ("ce-extension", "7"),
        ]);
        let attributes = r#""specversion":"1.0","id":"a \"b\" \\","type":"Euro € 😀","source":"/x","#.to_owned();
        assert_eq!(read, Ok(Format::Binary { attributes, data: DataType::Json }));
        for broken in ["%ff", "\"a\\\""] {
            assert_eq!(
                format(&[("ce-specversion", "1.0"), ("ce-id", broken)]),
                Err(NoFormat::Field("ce-id".to_owned()))
            );
        }
    }

    #[test]
    fn a_body_becomes_data() {
        for (data, body, expected) in [
            (DataType::Json, b" {\"a\":1}\n".as_slice(), r#"{"id":"1","data":{"a":1}}"#),
            (DataType::Json, b"", r#"{"id":"1","data":null}"#),
            (DataType::Text, "a\"ä".as_bytes(), r#"{"id":"1","data":"a\"ä"}"#),
            (
                DataType::Text,
                b"\xff",
                r#"{"id":"1","datacontenttype":"application/octet-stream","data_base64":"/w=="}"#,
            ),
            (
                DataType::Bytes,
                b"abc",
                r#"{"id":"1","datacontenttype":"application/octet-stream","data_base64":"YWJj"}"#,
            ),
        ] {
            assert_eq!(element("\"id\":\"1\",", data, body).as_deref(), Ok(expected));
        }
        let smuggled = element("\"id\":\"1\",", DataType::Json, b"1,\"subject\":\"x\"");
        assert!(smuggled.unwrap_err().starts_with("data is not JSON: trailing characters"));
    }
}
