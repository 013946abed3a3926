//! RSS 2.0 (<https://www.rssboard.org/rss-specification>), by the advice of the RSS Best Practices Profile (pure).
//!
//! What the specification requires is there whatever the events held: a channel has title, link and description, an item
//! has a title or a description, links are absolute, times are those of RFC 822 with four digits for the year. Descriptions
//! are HTML. A page of a channel names itself, the next one and the first by `atom:link` (RFC 5005 §3). Names of authors stand in `dc:creator`, since `author` is an e-mail address.

use std::time::{Duration, UNIX_EPOCH};

use millpond_shared::event::time_text;
use serde_json::{Map, Value};

use super::markup::{html_of, put_element, put_text};
use super::{Page, address, value};
use crate::projection::Item;

const HEAD: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
    "<rss version=\"2.0\" xmlns:atom=\"http://www.w3.org/2005/Atom\" xmlns:dc=\"http://purl.org/dc/elements/1.1/\">",
    "<channel>"
);

pub(super) fn body(page: &Page<'_>) -> Result<Vec<u8>, String> {
    let mut items = String::new();
    let mut newest = None;
    for item in &page.items {
        let fields = value::fields(item)?;
        newest = newest.max(updated(&fields, item));
        put_item(&mut items, page, item, &fields);
    }
    let mut out = String::with_capacity(HEAD.len() + items.len() + 512);
    out.push_str(HEAD);
    put_element(&mut out, "title", &page.title);
    put_element(&mut out, "link", page.projection.site.as_deref().unwrap_or_default());
    put_element(&mut out, "description", &page.title);
    put_link(&mut out, "self", &address::of_itself(page));
    if page.before.is_some() {
        put_link(&mut out, "first", &address::of_output(page));
    }
    if let Some(next) = address::of_next(page) {
        put_link(&mut out, "next", &next);
    }
    if let Some(date) = newest.and_then(date) {
        put_element(&mut out, "lastBuildDate", &date);
    }
    out.push_str(&items);
    out.push_str("</channel></rss>");
    Ok(out.into_bytes())
}

fn put_link(out: &mut String, relation: &str, to: &str) {
    out.push_str("<atom:link rel=\"");
    out.push_str(relation);
    out.push_str("\" type=\"application/rss+xml\" href=\"");
    put_text(out, &address::link(to));
    out.push_str("\"/>");
}

fn put_item(out: &mut String, page: &Page<'_>, item: &Item, fields: &Map<String, Value>) {
    let text = |name: &str| value::text(fields, name).filter(|text| !text.trim().is_empty());
    out.push_str("<item>");
    let title = text("title");
    if let Some(title) = &title {
        put_element(out, "title", title);
    }
    if let Some(link) = text("url").and_then(|url| address::absolute(page, &url)) {
        put_element(out, "link", &link);
    }
    let plain = || text("content_text").or_else(|| text("summary")).map(|text| html_of(&text));
    match text("content_html").or_else(plain) {
        Some(html) => put_element(out, "description", &html),
        None if title.is_none() => put_element(out, "description", &html_of(&value::id(fields, item))),
        None => {}
    }
    for author in value::author_names(fields) {
        put_element(out, "dc:creator", &author);
    }
    for tag in value::tags(fields) {
        put_element(out, "category", &tag);
    }
    out.push_str("<guid isPermaLink=\"false\">");
    put_text(out, &value::id(fields, item));
    out.push_str("</guid>");
    let published = fields.get("date_published").and_then(nanoseconds).or_else(|| nanoseconds_of_order(item));
    if let Some(date) = published.and_then(date) {
        put_element(out, "pubDate", &date);
    }
    out.push_str("</item>");
}

/// When the item changed last, in nanoseconds since the Unix epoch.
fn updated(fields: &Map<String, Value>, item: &Item) -> Option<i128> {
    let declared =
        ["date_modified", "date_published"].into_iter().find_map(|name| fields.get(name).and_then(nanoseconds));
    declared.or_else(|| nanoseconds_of_order(item))
}

fn nanoseconds(value: &Value) -> Option<i128> {
    Some(value::time(value)?.parse::<jiff::Timestamp>().ok()?.as_nanosecond())
}

/// What an item sorts by is the event's time unless the projection declares an `order`.
fn nanoseconds_of_order(item: &Item) -> Option<i128> {
    Some(time_text(item.order).parse::<jiff::Timestamp>().ok()?.as_nanosecond())
}

/// `Sat, 12 Sep 2015 00:46:58 GMT`; `None` before 1970 and after 9999, which the format can't tell.
fn date(nanoseconds: i128) -> Option<String> {
    let seconds = u64::try_from(nanoseconds.div_euclid(1_000_000_000)).ok()?;
    (seconds <= super::HTTP_DATE_MAX_SECONDS)
        .then(|| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rendered, text};
    use super::*;
    use roxmltree::{Document, Node};
    use serde_json::json;

    const DECLARATION: &str = r#"
        name = "p"
        kind = "feed"
        key = "{data.user}"
        title = "Edits by {key}"
        site = "https://feeds.example"
        item = { id = "{data.id}", url = "{data.url}", title = "{data.title}", content_text = "{data.text}", content_html = "{data.html}", date_published = "{data.time}", author = "{data.author}", tags = "{data.tags}", summary = "{data.summary}" }
        [[projection.output]]
        path = "/users/{key}/feed.rss"
        format = "rss"
    "#;

    fn elements<'a, 'i>(parent: Node<'a, 'i>, name: &str) -> Vec<Node<'a, 'i>> {
        let is_it = |child: &Node<'_, '_>| child.has_tag_name(name) && child.tag_name().namespace().is_none();
        parent.children().filter(is_it).collect()
    }

    /// Text of the only element of this name.
    fn text_of(parent: Node<'_, '_>, name: &str) -> Option<String> {
        match elements(parent, name)[..] {
            [] => None,
            [one] => Some(one.text().unwrap_or_default().to_owned()),
            _ => panic!("several {name}"),
        }
    }

    /// `Sat, 12 Sep 2015 00:46:58 GMT`
    fn is_date(text: &str) -> bool {
        text.len() == 29 && text.ends_with(" GMT") && httpdate::parse_http_date(text).is_ok()
    }

    /// What of an item is compared; it is checked to be what the specification requires.
    #[derive(Debug, PartialEq)]
    struct Found {
        title: Option<String>,
        link: Option<String>,
        description: Option<String>,
        guid: String,
        date: Option<String>,
        creators: Vec<String>,
        categories: Vec<String>,
    }

    fn found(item: Node<'_, '_>) -> Found {
        const DC: (&str, &str) = ("http://purl.org/dc/elements/1.1/", "creator");
        let known = ["title", "link", "description", "guid", "pubDate", "creator", "category"];
        assert!(item.children().all(|child| child.is_element() && known.contains(&child.tag_name().name())));
        let texts =
            |nodes: Vec<Node<'_, '_>>| nodes.iter().map(|node| node.text().unwrap_or_default().to_owned()).collect();
        let [guid] = elements(item, "guid")[..] else { panic!("one guid") };
        assert_eq!(guid.attribute("isPermaLink"), Some("false"));
        let found = Found {
            title: text_of(item, "title"),
            link: text_of(item, "link"),
            description: text_of(item, "description"),
            guid: guid.text().unwrap_or_default().to_owned(),
            date: text_of(item, "pubDate"),
            creators: texts(item.children().filter(|child| child.has_tag_name(DC)).collect()),
            categories: texts(elements(item, "category")),
        };
        assert!(found.title.is_some() || found.description.is_some(), "one of both must be there: {found:?}");
        assert!(found.link.iter().all(|link| link.contains(':')) && found.date.iter().all(|date| is_date(date)));
        found
    }

    /// When the channel was built, and its items, after checking what the specification requires.
    fn channel(events: &[(&str, i64, &str)]) -> (Option<String>, Vec<Found>) {
        let rendered = rendered(DECLARATION, "ali%20ce", events);
        assert_eq!(rendered.content_type.as_ref(), "application/rss+xml; charset=utf-8");
        let xml = Document::parse(text(&rendered)).unwrap_or_else(|error| panic!("{error}: {}", text(&rendered)));
        let root = xml.root_element();
        assert_eq!((root.tag_name().name(), root.attribute("version")), ("rss", Some("2.0")));
        let [channel] = elements(root, "channel")[..] else { panic!("one channel") };
        assert_eq!(text_of(channel, "title").as_deref(), Some("Edits by ali ce"));
        assert_eq!(text_of(channel, "link").as_deref(), Some("https://feeds.example"));
        assert!(text_of(channel, "description").is_some_and(|text| !text.is_empty()));
        let own = channel.children().find(|child| child.has_tag_name(("http://www.w3.org/2005/Atom", "link")));
        let own = own.expect("a link to itself");
        assert_eq!(own.attribute("rel"), Some("self"));
        assert_eq!(own.attribute("href"), Some("https://feeds.example/users/ali%20ce/feed.rss"));
        let items: Vec<Found> = elements(channel, "item").into_iter().map(found).collect();
        assert_eq!(items.len(), events.len());
        (text_of(channel, "lastBuildDate"), items)
    }

    fn item(data: Value) -> Found {
        channel(&[("e 1", 1_500_000_000, &data.to_string())]).1.remove(0)
    }

    #[test]
    fn an_item_holds_what_the_feeds_item_holds() {
        let item = item(json!({"id": "7", "url": "/posts/7?x=ü", "title": "T <&> \"", "text": "a < b & c",
            "time": "2015-09-12T00:46:58.5+01:00", "author": "A", "tags": ["t", "u"], "summary": "S"}));
        let some = |text: &str| Some(text.to_owned());
        let expected = Found {
            title: some("T <&> \""),
            link: some("https://feeds.example/posts/7?x=%C3%BC"),
            // Escaped once more than the text: a description is HTML.
            description: some("a &lt; b &amp; c"),
            guid: "7".to_owned(),
            date: some("Fri, 11 Sep 2015 23:46:58 GMT"),
            creators: vec!["A".to_owned()],
            categories: vec!["t".to_owned(), "u".to_owned()],
        };
        assert_eq!(item, expected);
    }

    #[test]
    fn html_stays_html() {
        let item = item(json!({"html": "<p>x &amp; y</p>", "text": "x & y"}));
        assert_eq!(item.description.as_deref(), Some("<p>x &amp; y</p>"));
    }

    #[test]
    fn an_empty_item_is_valid() {
        let item = item(json!({"url": "no address"}));
        assert_eq!((item.title, item.link, item.description.as_deref()), (None, None, Some("e 1")));
        assert_eq!(item.date.as_deref(), Some("Thu, 01 Jan 1970 00:00:01 GMT"));
    }

    #[test]
    fn no_text_breaks_the_xml() {
        let nasty = "a\u{0}\u{8}\u{b}\u{1f}\u{fffe}\u{ffff}]]>&lt;<![CDATA[\t\n𝄞";
        let kept = "a]]>&lt;<![CDATA[\t\n𝄞";
        let data = json!({"title": nasty, "html": nasty, "author": nasty, "tags": [nasty], "url": nasty, "id": nasty});
        let item = item(data);
        assert_eq!((item.title.as_deref(), item.description.as_deref()), (Some(kept), Some(kept)));
        assert_eq!((item.guid.as_str(), item.creators, item.categories), (kept, vec![kept.into()], vec![kept.into()]));
    }

    #[test]
    fn the_channel_was_built_when_its_latest_item_was() {
        let at = |text: &str| json!({"time": text}).to_string();
        let (early, late) = (at("2015-01-01T00:00:00Z"), at("2016-01-01T00:00:00+01:00"));
        let (built, _) = channel(&[("a", 2, &early), ("b", 1, &late)]);
        assert_eq!(built.as_deref(), Some("Thu, 31 Dec 2015 23:00:00 GMT"));
        assert_eq!(date(-1), None);
    }
}
