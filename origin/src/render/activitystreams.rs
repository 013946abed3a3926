//! Activity Streams 2.0 (<https://www.w3.org/TR/activitystreams-core/>): an ordered collection of objects (pure).
//!
//! One that has more of them than stand on a page holds its first page (§5.3), which names the next.
//!
//! Members that the vocabulary knows are emitted when their values are of the type it asks for; nothing else is, since a
//! name without a context has no meaning in it. An item may say what it is (`type`), a `Note` otherwise.

use serde_json::{Map, Value, json};

use super::markup::html_of;
use super::{Page, address, value};
use crate::projection::Item;

const CONTEXT: &str = "https://www.w3.org/ns/activitystreams";

pub(super) fn body(page: &Page<'_>) -> Result<Vec<u8>, String> {
    let items = page.items.iter().map(|item| object(page, item)).collect::<Result<Vec<Value>, String>>()?;
    let id = match page.projection.site {
        Some(_) => address::link(&address::of_output(page)),
        None => format!("urn:millpond:{}:{}", page.projection.name, page.key),
    };
    let mut collection = match (page.before, &page.next) {
        (None, None) => json!({ "type": "OrderedCollection", "totalItems": items.len(), "orderedItems": items }),
        (None, Some(_)) => {
            let total = page.document.items().count();
            json!({ "type": "OrderedCollection", "totalItems": total, "first": one_page(page, &id, items) })
        }
        (Some(_), _) => one_page(page, &id, items),
    };
    if let Value::Object(members) = &mut collection {
        members.insert("@context".to_owned(), CONTEXT.into());
        members.insert("name".to_owned(), page.title.as_str().into());
        if page.before.is_none() {
            members.insert("id".to_owned(), id.into());
        }
    }
    Ok(collection.to_string().into_bytes())
}

/// A page of the collection with this `id`. The first has no address of its own.
fn one_page(page: &Page<'_>, id: &str, items: Vec<Value>) -> Value {
    let mut one = json!({ "type": "OrderedCollectionPage", "partOf": id, "orderedItems": items });
    let own = page.before.filter(|_| page.projection.site.is_some()).map(|_| address::of_itself(page));
    for (name, address) in [("id", own), ("next", address::of_next(page))] {
        if let (Value::Object(members), Some(address)) = (&mut one, address) {
            members.insert(name.to_owned(), address::link(&address).into());
        }
    }
    one
}

fn object(page: &Page<'_>, item: &Item) -> Result<Value, String> {
    let fields = value::fields(item)?;
    let text = |name: &str| value::text(&fields, name).filter(|text| !text.is_empty());
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|value| object.insert(name.to_owned(), value));
    put("id", Some(address::iri(&value::id(&fields, item)).into()));
    put("type", Some(text("type").unwrap_or_else(|| "Note".to_owned()).into()));
    put("name", text("title").map(Value::from));
    match (text("content_html"), text("content_text")) {
        (Some(html), _) => put("content", Some(html.into())),
        (None, Some(plain)) => {
            put("content", Some(plain.into()));
            put("mediaType", Some("text/plain".into()))
        }
        (None, None) => None,
    };
    put("summary", text("summary").map(|summary| html_of(&summary).into()));
    put("url", text("url").and_then(|url| address::absolute(page, &url)).map(Value::from));
    put("published", fields.get("date_published").and_then(value::time).map(Value::from));
    put("updated", fields.get("date_modified").and_then(value::time).map(Value::from));
    let named = |kind: &str, names: Vec<String>| -> Option<Value> {
        let list: Vec<Value> = names.into_iter().map(|name| json!({ "type": kind, "name": name })).collect();
        (!list.is_empty()).then_some(Value::Array(list))
    };
    put("attributedTo", named("Person", value::author_names(&fields)));
    put("tag", named("Object", value::tags(&fields)));
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rendered, text};
    use super::*;

    const DECLARATION: &str = r#"
        name = "p"
        kind = "feed"
        key = "{data.user}"
        title = "Posts by {key}"
        item = { id = "{data.id}", type = "{data.type}", url = "{data.url}", title = "{data.title}", content_text = "{data.text}", content_html = "{data.html}", date_published = "{data.time}", date_modified = "{data.changed}", author = "{data.author}", tags = "{data.tags}", summary = "{data.summary}", score = "{data.score}" }
        [[projection.output]]
        path = "/users/{key}/outbox.json"
        format = "activitystreams"
    "#;

    fn is_iri(value: &Value) -> bool {
        value.as_str().is_some_and(|text| text.contains(':') && !text.contains([' ', '<', '>', '"']))
    }

    /// `xsd:dateTime` with an offset, as RFC 3339 has it (§2.3).
    fn is_time(value: &Value) -> bool {
        value.as_str().is_some_and(|text| text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok())
    }

    fn is_named(value: &Value) -> bool {
        let named = |one: &Value| one["type"].is_string() && one["name"].is_string();
        value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(named))
    }

    /// What the vocabulary says of the members that are used.
    fn assert_valid(object: &Value) {
        assert!(is_iri(&object["id"]) && object["type"].as_str().is_some_and(|kind| !kind.is_empty()), "{object}");
        for (name, value) in object.as_object().expect("an object") {
            let valid = match name.as_str() {
                "id" | "url" => is_iri(value),
                "type" | "name" | "content" | "summary" => value.is_string(),
                "mediaType" => value == "text/plain" && object["content"].is_string(),
                "published" | "updated" => is_time(value),
                "attributedTo" | "tag" => is_named(value),
                _ => false,
            };
            assert!(valid, "{name}: {value}");
        }
    }

    fn collection(declaration: &str, events: &[(&str, i64, &str)]) -> Value {
        let rendered = rendered(declaration, "ali%20ce", events);
        assert_eq!(rendered.content_type.as_ref(), "application/activity+json");
        let collection: Value = serde_json::from_str(text(&rendered)).expect("JSON");
        assert_eq!((&collection["@context"], &collection["type"]), (&json!(CONTEXT), &json!("OrderedCollection")));
        assert!(is_iri(&collection["id"]), "{collection}");
        let items = collection["orderedItems"].as_array().expect("items");
        items.iter().for_each(assert_valid);
        assert_eq!((collection["totalItems"].as_u64(), items.len()), (Some(events.len() as u64), events.len()));
        collection
    }

    #[test]
    fn an_object_holds_what_the_item_holds() {
        let data =
            json!({"id": "https://a.example/1", "type": "Article", "url": "/1", "title": "T", "html": "<p>x</p>",
            "text": "x", "time": "2015-09-12T00:46:58Z", "changed": 1_500_000_000, "author": "A", "tags": ["t"],
            "summary": "a < b", "score": 5})
            .to_string();
        let with_site = format!("site = \"https://feeds.example\"\n{DECLARATION}");
        let collection = collection(&with_site, &[("e", 1, &data)]);
        assert_eq!(collection["id"], "https://feeds.example/users/ali%20ce/outbox.json");
        assert_eq!(collection["name"], "Posts by ali ce");
        let expected = json!({"id": "https://a.example/1", "type": "Article", "url": "https://feeds.example/1",
            "name": "T", "content": "<p>x</p>", "published": "2015-09-12T00:46:58Z",
            "updated": "2017-07-14T02:40:00Z", "attributedTo": [{"type": "Person", "name": "A"}],
            "tag": [{"type": "Object", "name": "t"}], "summary": "a &lt; b"});
        assert_eq!(collection["orderedItems"], json!([expected]));
    }

    #[test]
    fn whatever_events_hold_the_collection_is_valid() {
        for (data, expected) in [
            ("{}", json!({"id": "urn:millpond:item:e", "type": "Note"})),
            (
                r#"{"id":7,"text":"a < b","url":"/1"}"#,
                json!({"id": "urn:millpond:item:7", "type": "Note", "content": "a < b", "mediaType": "text/plain"}),
            ),
            (
                r#"{"type":["x"],"time":"soon","title":{},"tags":{},"author":[],"url":"a b"}"#,
                json!({"id": "urn:millpond:item:e", "type": "Note"}),
            ),
        ] {
            let collection = collection(DECLARATION, &[("e", 1, data)]);
            assert_eq!(collection["id"], "urn:millpond:p:ali%20ce");
            assert_eq!(collection["orderedItems"], json!([expected]), "{data}");
        }
    }

    #[test]
    fn items_stand_newest_first() {
        let collection = collection(DECLARATION, &[("a", 1, "{}"), ("c", 3, "{}"), ("b", 2, "{}")]);
        let ids: Vec<_> =
            collection["orderedItems"].as_array().expect("items").iter().map(|item| &item["id"]).collect();
        assert_eq!(ids, ["urn:millpond:item:c", "urn:millpond:item:b", "urn:millpond:item:a"]);
    }
}
