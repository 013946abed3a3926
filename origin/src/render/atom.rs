//! Atom, RFC 4287 (pure).
//!
//! What the RFC requires is there whatever the events held: ids are IRIs, times are times, a feed has an author, an
//! entry has a title and a content, and no text holds a character that XML 1.0 forbids. A page of a feed names the next
//! one, and the first, as RFC 5005 §3 has it.

use atom_syndication::{Category, Content, Entry, Feed, FixedDateTime, Link, Person, Text};
use millpond_shared::event::time_text;
use serde_json::{Map, Value};

use super::markup::allowed;
use super::{Page, address, value};
use crate::projection::Item;

pub(super) fn body(page: &Page<'_>) -> Result<Vec<u8>, String> {
    let entries = page.items.iter().map(|item| entry(item)).collect::<Result<Vec<Entry>, String>>()?;
    let feed = Feed {
        id: format!("urn:millpond:{}:{}", page.projection.name, page.key),
        title: plain_text(&page.title),
        updated: entries.iter().map(|entry| entry.updated).max().unwrap_or_default(),
        // RFC 4287 §4.1.1: without it, every entry would need one.
        authors: vec![person(&page.projection.name)],
        links: links(page),
        entries,
        ..Feed::default()
    };
    let written = feed.write_to(Vec::new()).map_err(|error| error.to_string())?;
    Ok(with_carriage_returns(written))
}

fn links(page: &Page<'_>) -> Vec<Link> {
    let first = page.before.map(|_| link("first", &address::of_output(page)));
    let next = address::of_next(page).map(|next| link("next", &next));
    std::iter::once(link("self", &address::of_itself(page))).chain(first).chain(next).collect()
}

/// XML parsers take a carriage return for a line feed (XML 1.0 §2.11) unless it is a character reference. The writer
/// makes none of its own, nor a CDATA section, so every one in `xml` stands in a text or an attribute.
fn with_carriage_returns(xml: Vec<u8>) -> Vec<u8> {
    if xml.contains(&b'\r') { xml.split(|byte| *byte == b'\r').collect::<Vec<_>>().join(&b"&#13;"[..]) } else { xml }
}

fn entry(item: &Item) -> Result<Entry, String> {
    let fields = value::fields(item)?;
    let text = |name: &str| value::text(&fields, name);
    let id = value::id(&fields, item);
    let title = text("title").filter(|title| !title.trim().is_empty());
    Ok(Entry {
        title: plain_text(title.as_deref().unwrap_or(&id)),
        id: address::iri(&id),
        updated: updated(&fields, item),
        authors: value::author_names(&fields).iter().map(|name| person(name)).collect(),
        categories: value::tags(&fields).iter().map(|tag| category(tag)).collect(),
        links: text("url").filter(|url| !url.is_empty()).iter().map(|url| link("alternate", url)).collect(),
        published: fields.get("date_published").and_then(moment),
        summary: text("summary").map(|summary| plain_text(&summary)),
        content: Some(content(text("content_html"), text("content_text"))),
        ..Entry::default()
    })
}

/// `date_modified`, else `date_published`, else what the item sorts by, which is the event's time unless the projection
/// declares an `order`.
fn updated(fields: &Map<String, Value>, item: &Item) -> FixedDateTime {
    let declared = ["date_modified", "date_published"].into_iter().find_map(|name| fields.get(name).and_then(moment));
    declared.or_else(|| time_text(item.order).parse().ok()).unwrap_or_default()
}

fn moment(value: &Value) -> Option<FixedDateTime> {
    value::time(value)?.parse().ok()
}

/// An entry always has content: without it the RFC would require a link (§4.1.2).
fn content(html: Option<String>, text: Option<String>) -> Content {
    let (kind, text) = match html {
        Some(html) => ("html", html),
        None => ("text", text.unwrap_or_default()),
    };
    Content { content_type: Some(kind.to_owned()), value: Some(allowed(&text)), ..Content::default() }
}

fn plain_text(text: &str) -> Text {
    Text::plain(allowed(text))
}

fn person(name: &str) -> Person {
    Person { name: allowed(name), ..Person::default() }
}

fn category(tag: &str) -> Category {
    Category { term: allowed(tag), ..Category::default() }
}

fn link(relation: &str, to: &str) -> Link {
    Link { rel: relation.to_owned(), href: address::link(to), ..Link::default() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rendered, text};
    use super::*;
    use serde_json::json;

    const DECLARATION: &str = r#"
        name = "p"
        kind = "feed"
        key = "{data.user}/{data.user}"
        title = "Edits by {key}"
        item = { id = "{data.id}", url = "{data.url}", title = "{data.title}", content_text = "{data.text}", content_html = "{data.html}", date_published = "{data.time}", date_modified = "{data.changed}", author = "{data.author}", tags = "{data.tags}", summary = "{data.summary}" }
        [[projection.output]]
        path = "/users/{key}/feed.xml"
        format = "atom"
    "#;

    /// The feed, read back by the library's parser, after checking what RFC 4287 requires.
    fn feed(events: &[(&str, i64, &str)]) -> Feed {
        let rendered = rendered(DECLARATION, "ali%20ce/x", events);
        let feed = Feed::read_from(text(&rendered).as_bytes()).unwrap_or_else(|error| panic!("{error}: {rendered:?}"));
        assert_eq!(feed.id, "urn:millpond:p:ali%20ce/x");
        assert_eq!(feed.title.as_str(), "Edits by ali ce/x");
        assert_eq!(feed.authors[0].name, "p");
        assert_eq!((feed.links[0].rel.as_str(), feed.links[0].href.as_str()), ("self", "/users/ali%20ce/x/feed.xml"));
        assert_eq!(feed.entries.len(), events.len());
        for entry in &feed.entries {
            assert!(entry.id.contains(':') && !entry.id.contains(' '), "{}", entry.id);
            assert!(!entry.title.is_empty());
            assert!(entry.content.is_some() && entry.updated <= feed.updated);
        }
        feed
    }

    fn entry(data: Value) -> Entry {
        feed(&[("e 1", 1_500_000_000, &data.to_string())]).entries.remove(0)
    }

    #[test]
    fn an_entry_holds_what_its_item_holds() {
        let entry = entry(json!({"id": "https://a.example/1", "url": "https://a.example/ü?q=a b", "title": "T <&> \"",
            "html": "<p>x</p>", "text": "x", "time": "2015-09-12T00:46:58.5+01:00", "author": "A", "tags": ["t", "u"],
            "summary": "S"}));
        assert_eq!(entry.id, "https://a.example/1");
        assert_eq!(entry.links[0].href, "https://a.example/%C3%BC?q=a%20b");
        assert_eq!(entry.title.as_str(), "T <&> \"");
        let content = entry.content.expect("content");
        assert_eq!((content.content_type.as_deref(), content.value.as_deref()), (Some("html"), Some("<p>x</p>")));
        assert_eq!(entry.updated.to_rfc3339(), "2015-09-12T00:46:58.500+01:00");
        assert_eq!(entry.published, Some(entry.updated));
        assert_eq!(entry.authors[0].name, "A");
        assert_eq!(entry.categories.iter().map(|category| category.term.as_str()).collect::<Vec<_>>(), ["t", "u"]);
        assert_eq!(entry.summary.expect("summary").as_str(), "S");
    }

    #[test]
    fn an_empty_item_is_a_valid_entry() {
        let entry = entry(json!({}));
        assert_eq!(entry.id, "urn:millpond:item:e%201");
        assert_eq!(entry.title.as_str(), "e 1");
        assert_eq!(entry.updated.to_rfc3339(), "1970-01-01T00:00:01.500+00:00");
        assert_eq!(entry.content.expect("content").content_type.as_deref(), Some("text"));
        assert!(entry.links.is_empty() && entry.published.is_none());
    }

    #[test]
    fn times_that_are_none_are_passed_over() {
        let entry = entry(json!({"changed": "soon", "time": "1970-01-01T00:00:09Z"}));
        assert_eq!(entry.updated.to_rfc3339(), "1970-01-01T00:00:09+00:00");
    }

    #[test]
    fn the_feed_was_updated_when_its_latest_entry_was() {
        let at = |text: &str| json!({"time": text}).to_string();
        let (early, late) = (at("2015-01-01T00:00:00Z"), at("2016-01-01T00:00:00+01:00"));
        let feed = feed(&[("a", 2, &early), ("b", 1, &late)]);
        assert_eq!(feed.updated.to_rfc3339(), "2016-01-01T00:00:00+01:00");
    }

    #[test]
    fn no_text_breaks_the_xml() {
        let nasty = "a\u{0}\u{8}\u{b}\u{1f}\u{fffe}\u{ffff}]]>&lt;<![CDATA[\t\n𝄞";
        let entry = entry(json!({"title": nasty, "text": nasty, "author": nasty, "tags": [nasty], "summary": nasty,
            "url": nasty, "id": nasty}));
        let kept = "a]]>&lt;<![CDATA[\t\n𝄞";
        assert_eq!(entry.title.as_str(), kept);
        assert_eq!(entry.content.expect("content").value.as_deref(), Some(kept));
        assert_eq!(entry.authors[0].name, kept);
    }

    #[test]
    fn carriage_returns_come_through_xml_parsers() {
        let data = json!({"title": "a\r\nb", "text": "\r", "tags": ["\r"]}).to_string();
        let rendered = rendered(DECLARATION, "k", &[("a", 1, &data)]);
        assert!(!rendered.body.contains(&b'\r') && text(&rendered).contains("a&#13;\nb"), "{}", text(&rendered));
        let entry = entry(json!({"title": "a\r\nb", "text": "\r"}));
        assert_eq!((entry.title.as_str(), entry.content.expect("content").value.as_deref()), ("a\r\nb", Some("\r")));
    }
}
