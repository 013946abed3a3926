//! Generic XML: the JSON document in the XML that XPath and XQuery Functions 3.1 defines for it (§17.5.3,
//! `fn:json-to-xml`; its schema is appendix C.2), so that whatever speaks XSLT or XQuery can turn it into anything (pure).
//!
//! `map`, `array`, `string`, `number`, `boolean` and `null` in the namespace of these functions; members of a map carry
//! their names as `key`. Characters that XML can't hold become U+FFFD, as the specification says.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::markup::{is_forbidden, put_text};

const NAMESPACE: &str = "http://www.w3.org/2005/xpath-functions";

/// `json` must be valid.
pub(super) fn of_json(json: &[u8]) -> Result<Vec<u8>, String> {
    let root: &RawValue = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut out = String::with_capacity(json.len() * 2);
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    put(&mut out, &[("xmlns", NAMESPACE)], root).map_err(|error| error.to_string())?;
    Ok(out.into_bytes())
}

fn put(out: &mut String, attributes: &[(&str, &str)], value: &RawValue) -> Result<(), serde_json::Error> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'{') => {
            open(out, "map", attributes);
            for (name, value) in serde_json::from_str::<Members<'_>>(json)?.0 {
                put(out, &[("key", &name)], value)?;
            }
            close(out, "map");
        }
        Some(b'[') => {
            open(out, "array", attributes);
            for value in serde_json::from_str::<Vec<&RawValue>>(json)? {
                put(out, &[], value)?;
            }
            close(out, "array");
        }
        Some(b'"') => {
            open(out, "string", attributes);
            put_replaced(out, &serde_json::from_str::<String>(json)?);
            close(out, "string");
        }
        Some(b't' | b'f') => {
            open(out, "boolean", attributes);
            out.push_str(json);
            close(out, "boolean");
        }
        Some(b'n') => {
            open(out, "null", attributes);
            close(out, "null");
        }
        // With all its digits, as it stands there.
        _ => {
            open(out, "number", attributes);
            out.push_str(json);
            close(out, "number");
        }
    }
    Ok(())
}

fn open(out: &mut String, name: &str, attributes: &[(&str, &str)]) {
    out.push('<');
    out.push_str(name);
    for (attribute, value) in attributes {
        out.push(' ');
        out.push_str(attribute);
        out.push_str("=\"");
        put_replaced(out, value);
        out.push('"');
    }
    out.push('>');
}

fn close(out: &mut String, name: &str) {
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

fn put_replaced(out: &mut String, text: &str) {
    if text.contains(is_forbidden) {
        put_text(out, &text.replace(is_forbidden, "\u{fffd}"));
    } else {
        put_text(out, text);
    }
}

/// An object's members in the order that they stand in, their values unread.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key()? {
            members.push((name, map.next_value()?));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rendered, text};
    use super::*;
    use proptest::prelude::*;
    use roxmltree::Node;
    use serde_json::{Map, Value, json};

    /// Back to JSON, refusing whatever the schema of the specification does not allow.
    fn read(node: Node<'_, '_>, in_map: bool) -> Result<Value, String> {
        let tag = node.tag_name();
        let wrong = |what: &str| Err(format!("{what} in {tag:?}"));
        if tag.namespace() != Some(NAMESPACE) {
            return wrong("another namespace");
        }
        if node.attributes().any(|attribute| attribute.name() != "key") || node.has_attribute("key") != in_map {
            return wrong("wrong attributes");
        }
        let elements: Vec<_> = node.children().filter(Node::is_element).collect();
        let text: String = node.children().filter_map(|child| child.text()).collect();
        match tag.name() {
            "map" | "array" if elements.len() != node.children().count() => wrong("text"),
            "string" | "number" | "boolean" | "null" if !elements.is_empty() => wrong("an element"),
            "map" => {
                let mut map = Map::new();
                for element in elements {
                    let key = element.attribute("key").unwrap_or_default().to_owned();
                    if map.insert(key, read(element, true)?).is_some() {
                        return wrong("a key twice");
                    }
                }
                Ok(Value::Object(map))
            }
            "array" => elements.into_iter().map(|element| read(element, false)).collect(),
            "string" => Ok(Value::String(text)),
            "number" | "boolean" => {
                let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
                if value.is_number() == (tag.name() == "number") { Ok(value) } else { wrong("another type") }
            }
            "null" if text.is_empty() => Ok(Value::Null),
            _ => wrong("no element of the schema"),
        }
    }

    fn back(xml: &str) -> Value {
        let document = roxmltree::Document::parse(xml).unwrap_or_else(|error| panic!("{error}: {xml}"));
        read(document.root_element(), false).unwrap_or_else(|error| panic!("{error}: {xml}"))
    }

    #[test]
    fn a_document_is_its_json() {
        let declaration = r#"
            name = "p"
            kind = "feed"
            key = "{data.user}"
            item = { id = "{id}", data = "{data}" }
            [[projection.output]]
            path = "/{key}.xml"
            format = "xml"
        "#;
        let feed = rendered(declaration, "k", &[("a", 1, r#"{"n":1.50,"x":[true,null,{"<\"&\n":"]]>\r"}]}"#)]);
        assert_eq!(feed.content_type.as_ref(), "application/xml; charset=utf-8");
        let expected = json!({ "key": "k", "title": "k", "items": [
            { "id": "a", "data": { "n": 1.5, "x": [true, null, { "<\"&\n": "]]>\r" }] } },
        ] });
        assert_eq!(back(text(&feed)), expected);
        let start =
            r#"<map xmlns="http://www.w3.org/2005/xpath-functions"><string key="key">k</string><string key="title">"#;
        assert!(text(&feed).contains(start), "{}", text(&feed));
    }

    #[test]
    fn what_xml_can_not_hold_is_replaced_and_digits_stay() {
        let xml =
            String::from_utf8(of_json(br#"{"a":"\u0000\ufffe","n":123456789012345678901234567890.5}"#).expect("JSON"));
        let xml = xml.expect("UTF-8");
        assert!(xml.contains("<string key=\"a\">\u{fffd}\u{fffd}</string>"), "{xml}");
        assert!(xml.contains("<number key=\"n\">123456789012345678901234567890.5</number>"), "{xml}");
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = "[^\u{0}-\u{8}\u{b}\u{c}\u{e}-\u{1f}\u{fffe}\u{ffff}]{0,6}";
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_comes_back(value in value()) {
            let json = value.to_string();
            let xml = of_json(json.as_bytes()).expect("JSON");
            // Read again: a fraction may not come back as it was made, but must come back as it is read.
            let read: Value = serde_json::from_str(&json).expect("JSON");
            prop_assert_eq!(back(std::str::from_utf8(&xml).expect("UTF-8")), read);
        }
    }
}
