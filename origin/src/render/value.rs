//! What item fields mean in feeds: texts, times, authors, tags (pure).

use millpond_shared::event::{parse_time, scalar_text, time_text};
use serde_json::{Map, Value};

use crate::projection::Item;

/// An item's fields.
pub(super) fn fields(item: &Item) -> Result<Map<String, Value>, String> {
    serde_json::from_str(item.body()).map_err(|error| format!("item `{}` is no JSON object: {error}", item.id()))
}

/// A scalar field as text.
pub(super) fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name).and_then(scalar_text).map(|text| text.into_owned())
}

/// The item's `id` as text; the event's where the item has none.
pub(super) fn id(fields: &Map<String, Value>, item: &Item) -> String {
    text(fields, "id").filter(|id| !id.is_empty()).unwrap_or_else(|| item.id().to_owned())
}

/// A time as RFC 3339 text: a text that is one already, or a number as [`parse_time`] understands it.
pub(super) fn time(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => is_rfc3339(text).then(|| text.clone()),
        number => parse_time(number).map(time_text),
    }
}

/// Names of the authors: of `authors` (a list of texts or of objects with a `name`), else of `author` (one such).
pub(super) fn author_names(fields: &Map<String, Value>) -> Vec<String> {
    let name = |value: &Value| -> Option<String> {
        let name = value.get("name").unwrap_or(value);
        scalar_text(name).filter(|name| !name.is_empty()).map(|name| name.into_owned())
    };
    match (fields.get("authors"), fields.get("author")) {
        (Some(Value::Array(authors)), _) => authors.iter().filter_map(name).collect(),
        (Some(one), _) | (None, Some(one)) => name(one).into_iter().collect(),
        (None, None) => Vec::new(),
    }
}

/// The texts of `tags`: a list of scalars, or one.
pub(super) fn tags(fields: &Map<String, Value>) -> Vec<String> {
    let list = match fields.get("tags") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    list.iter().filter_map(scalar_text).filter(|tag| !tag.is_empty()).map(|tag| tag.into_owned()).collect()
}

/// Whether `text` is a `date-time` of RFC 3339 §5.6, and a time that there is. (Parsers of times take more forms.)
fn is_rfc3339(text: &str) -> bool {
    let Some((date_and_time, rest)) = text.split_at_checked("2015-09-12T00:46:58".len()) else { return false };
    let shaped = date_and_time.bytes().zip("dddd-dd-ddTdd:dd:dd".bytes()).all(|(byte, form)| match form {
        b'd' => byte.is_ascii_digit(),
        form => byte.eq_ignore_ascii_case(&form),
    });
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() { "" } else { zone }
        }
        None => rest,
    };
    let offset = |zone: &str| {
        zone.len() == 6
            && zone.bytes().zip("sdd:dd".bytes()).all(|(byte, form)| match form {
                b's' => byte == b'+' || byte == b'-',
                b'd' => byte.is_ascii_digit(),
                form => byte == form,
            })
    };
    shaped && (zone.eq_ignore_ascii_case("Z") || offset(zone)) && text.parse::<jiff::Timestamp>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else { unreachable!("an object was given") };
        map
    }

    #[test]
    fn times_are_rfc_3339_or_left_out() {
        for text in [
            "2015-09-12T00:46:58Z",
            "2015-09-12T00:46:58.771Z",
            "2015-09-12t00:46:58z",
            "2015-09-12T00:46:58+05:30",
            "2015-09-12T00:46:58.1-00:00",
        ] {
            assert_eq!(time(&json!(text)).as_deref(), Some(text));
        }
        for text in [
            "",
            "yesterday",
            "2015-09-12",
            "2015-09-12 00:46:58Z",
            "2015-09-12T00:46Z",
            "2015-09-12T00:46:58",
            "2015-09-12T00:46:58.Z",
            "2015-09-12T00:46:58,5Z",
            "2015-09-12T00:46:58+05",
            "2015-09-12T00:46:58+0530",
            "2015-09-12T00:46:58Z[UTC]",
            "2015-13-12T00:46:58Z",
            "2015-02-30T00:46:58Z",
            "2015-09-12T25:46:58Z",
            "２015-09-12T00:46:58Z",
        ] {
            assert_eq!(time(&json!(text)), None, "{text}");
        }
        assert_eq!(time(&json!(1.5)).as_deref(), Some("1970-01-01T00:00:01.5Z"));
        assert_eq!((time(&json!(null)), time(&json!([])), time(&json!(true))), (None, None, None));
    }

    #[test]
    fn authors_and_tags_come_in_several_shapes() {
        for (fields, expected) in [
            (json!({"author": "A"}), vec!["A"]),
            (json!({"author": {"name": "A", "url": "x"}}), vec!["A"]),
            (json!({"authors": [{"name": "A"}, "B", {"url": "x"}, ""], "author": "C"}), vec!["A", "B"]),
            (json!({"authors": "A"}), vec!["A"]),
            (json!({"author": []}), vec![]),
            (json!({}), vec![]),
        ] {
            assert_eq!(author_names(&map(fields.clone())), expected, "{fields}");
        }
        assert_eq!(tags(&map(json!({"tags": ["a", 1, null, ["b"], ""]}))), ["a", "1"]);
        assert_eq!(tags(&map(json!({"tags": "a"}))), ["a"]);
    }
}
