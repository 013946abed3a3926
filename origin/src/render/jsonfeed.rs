//! JSON Feed 1.1 (<https://www.jsonfeed.org/version/1.1/>) (pure).
//!
//! Fields that JSON Feed knows are emitted when their value is of the type it asks for; every other field goes into the
//! item's extension object `_millpond`, so that nothing is lost and the feed is valid whatever the events held.

use millpond_shared::event::scalar_text;
use serde_json::{Map, Value, json};

use super::{Page, address, json as plain, value};

const VERSION: &str = "https://jsonfeed.org/version/1.1";

/// Object for what JSON Feed has no field for; the specification reserves names with `_` for this.
const EXTENSION: &str = "_millpond";

pub(super) fn body(page: &Page<'_>) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(page.items_bytes() * 5 / 4 + 512);
    let mut head = vec![("version", VERSION), ("title", &page.title)];
    let feed_url = address::of_output(page);
    let next_url = address::of_next(page);
    if let Some(site) = &page.projection.site {
        head.extend([("home_page_url", site.as_str()), ("feed_url", &feed_url)]);
    }
    if let Some(next) = &next_url {
        head.push(("next_url", next));
    }
    plain::put_head(&mut out, &head);
    for (index, item) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let fields = value::fields(item)?;
        let id = value::id(&fields, item);
        serde_json::to_writer(&mut out, &feed_item(id, fields)).map_err(|error| error.to_string())?;
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn feed_item(id: String, fields: Map<String, Value>) -> Map<String, Value> {
    let mut item = Map::new();
    let mut extension = Map::new();
    item.insert("id".to_owned(), Value::String(id));
    let authors: Vec<Value> = value::author_names(&fields).into_iter().map(|name| json!({ "name": name })).collect();
    let tags = value::tags(&fields);
    for (name, value) in fields {
        match (name.as_str(), fitting(&name, &value)) {
            ("id", _) => {}
            // A time that is none is not worth keeping: its text stands in the field it was taken from.
            ("date_published" | "date_modified", None) => {}
            ("author" | "authors", None) if !authors.is_empty() => {
                item.insert("authors".to_owned(), Value::Array(authors.clone()));
            }
            ("tags", None) if !tags.is_empty() => {
                item.insert(name, json!(tags));
            }
            (_, Some(fitting)) => {
                item.insert(name, fitting);
            }
            (_, None) => {
                extension.insert(name, value);
            }
        }
    }
    if !item.contains_key("content_text") && !item.contains_key("content_html") {
        item.insert("content_text".to_owned(), Value::from(""));
    }
    if !extension.is_empty() {
        item.insert(EXTENSION.to_owned(), Value::Object(extension));
    }
    item
}

/// The value as JSON Feed wants it in the field `name`; `None` if there is no such field, or no such value in it.
fn fitting(name: &str, value: &Value) -> Option<Value> {
    match name {
        "url" | "external_url" | "title" | "content_html" | "content_text" | "summary" | "image" | "banner_image"
        | "language" => scalar_text(value).map(|text| Value::String(text.into_owned())),
        "date_published" | "date_modified" => value::time(value).map(Value::String),
        "authors" => is_list(value, is_author).then(|| value.clone()),
        "tags" => is_list(value, Value::is_string).then(|| value.clone()),
        "attachments" => is_list(value, is_attachment).then(|| value.clone()),
        // An extension of somebody else's: an object under a name that starts with `_`.
        other => (other != EXTENSION && other.starts_with('_') && value.is_object()).then(|| value.clone()),
    }
}

fn is_list(value: &Value, of: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(of))
}

/// An object of `name`, `url` and `avatar`, at least one of them, all texts.
fn is_author(value: &Value) -> bool {
    let texts = ["name", "url", "avatar"].map(|name| value.get(name));
    texts.iter().any(Option::is_some) && texts.into_iter().flatten().all(Value::is_string)
}

/// An object with at least the texts `url` and `mime_type`.
fn is_attachment(value: &Value) -> bool {
    ["url", "mime_type"].iter().all(|name| value.get(name).is_some_and(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rendered, text};
    use super::*;

    const DECLARATION: &str = r#"
        name = "p"
        kind = "feed"
        key = "{data.user}"
        title = "Edits by {key}"
        item = { id = "{data.id}", url = "{data.url}", title = "{data.title}", content_text = "{data.text}", date_published = "{data.time}", author = "{data.author}", authors = "{data.authors}", tags = "{data.tags}", attachments = "{data.attachments}", _other = "{data.other}", score = "{data.score}" }
        [[projection.output]]
        path = "/users/{key}/feed.json"
        format = "jsonfeed"
    "#;

    fn items(events: &[(&str, i64, &str)]) -> Vec<Value> {
        let feed = rendered(DECLARATION, "ali%20ce", events);
        let feed: Value = serde_json::from_str(text(&feed)).expect("JSON");
        assert_eq!(feed["version"], "https://jsonfeed.org/version/1.1");
        assert_eq!(feed["title"], "Edits by ali ce");
        let items = feed["items"].as_array().expect("items").clone();
        items.iter().for_each(assert_valid);
        items
    }

    /// What JSON Feed 1.1 asks of an item.
    fn assert_valid(item: &Value) {
        assert!(item["id"].is_string(), "{item}");
        assert!(item["content_text"].is_string() || item["content_html"].is_string(), "{item}");
        for (name, value) in item.as_object().expect("an object") {
            let valid = match name.as_str() {
                "id" | "url" | "title" | "content_text" | "content_html" | "summary" => value.is_string(),
                "date_published" => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
                "authors" => is_list(value, |author| author["name"].is_string() || author["url"].is_string()),
                "tags" => is_list(value, Value::is_string),
                "attachments" => is_list(value, |file| file["url"].is_string() && file["mime_type"].is_string()),
                other => other.starts_with('_') && value.is_object(),
            };
            assert!(valid, "{name}: {value}");
        }
    }

    #[test]
    fn known_fields_pass_and_others_go_below_the_extension() {
        let data = r#"{"id":"1","url":"https://a.example/","title":"T","text":"x","time":"2015-09-12T00:46:58Z",
            "authors":[{"name":"A"}],"tags":["t"],"attachments":[{"url":"u","mime_type":"m"}],"other":{"a":1},"score":5}"#;
        let expected = json!({"id": "1", "url": "https://a.example/", "title": "T", "content_text": "x",
            "date_published": "2015-09-12T00:46:58Z", "authors": [{"name": "A"}], "tags": ["t"],
            "attachments": [{"url": "u", "mime_type": "m"}], "_other": {"a": 1}, "_millpond": {"score": 5}});
        assert_eq!(items(&[("a", 1, data)]), [expected]);
    }

    #[test]
    fn whatever_events_hold_the_feed_is_valid() {
        for (data, expected) in [
            ("{}", json!({"id": "e", "content_text": ""})),
            (r#"{"id":7,"title":5}"#, json!({"id": "7", "title": "5", "content_text": ""})),
            (r#"{"id":"","time":"yesterday"}"#, json!({"id": "e", "content_text": ""})),
            (
                r#"{"id":[1],"time":1}"#,
                json!({"id": "e", "date_published": "1970-01-01T00:00:01Z", "content_text": ""}),
            ),
            (r#"{"title":{"a":1}}"#, json!({"id": "e", "content_text": "", "_millpond": {"title": {"a": 1}}})),
            (r#"{"author":"A"}"#, json!({"id": "e", "content_text": "", "authors": [{"name": "A"}]})),
            (r#"{"authors":["A"]}"#, json!({"id": "e", "content_text": "", "authors": [{"name": "A"}]})),
            (r#"{"authors":[7,{}]}"#, json!({"id": "e", "content_text": "", "authors": [{"name": "7"}]})),
            (r#"{"tags":"t"}"#, json!({"id": "e", "content_text": "", "tags": ["t"]})),
            (r#"{"tags":[1,"a"]}"#, json!({"id": "e", "content_text": "", "tags": ["1", "a"]})),
            (r#"{"tags":{"a":1}}"#, json!({"id": "e", "content_text": "", "_millpond": {"tags": {"a": 1}}})),
            (r#"{"attachments":"x"}"#, json!({"id": "e", "content_text": "", "_millpond": {"attachments": "x"}})),
            (r#"{"other":1}"#, json!({"id": "e", "content_text": "", "_millpond": {"_other": 1}})),
        ] {
            assert_eq!(items(&[("e", 1, data)]), [expected], "{data}");
        }
    }

    #[test]
    fn items_stand_newest_first() {
        let items = items(&[("a", 1, "{}"), ("c", 3, "{}"), ("b", 2, "{}")]);
        let ids: Vec<&str> = items.iter().filter_map(|item| item["id"].as_str()).collect();
        assert_eq!(ids, ["c", "b", "a"]);
    }
}
