//! What `config/pipeline.toml` must make of events, worked out the naive way: all events in memory, grouped by key, sorted,
//! cut. Shares no code with the program.
//!
//! Documents are compared as parsed values, Atom and RSS as what their elements say, other XML as the JSON that it stands
//! for, HTML as its text.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

mod numbers;
mod reading;

pub use reading::read;

/// Most items of a feed of a user, and of one of a channel.
const USER_FEED_ITEMS: usize = 50;
const CHANNEL_FEED_ITEMS: usize = 100;

/// All events that were taken.
#[derive(Default)]
pub struct Model {
    events: Vec<Event>,
    ids: BTreeSet<String>,
}

/// What must become of an event that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Accepted,
    Duplicate,
    Rejected,
}

struct Event {
    /// Nanoseconds since 1970.
    time: i128,
    id: String,
    data: Value,
}

/// What a document must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub format: Format,
    /// `projection/key`
    pub tag: String,
    pub value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    JsonFeed,
    Atom,
    Rss,
    ActivityStreams,
    Xml,
    Html,
}

/// Where the examples say that clients get the documents.
const SITE: &str = "http://127.0.0.1:8080";

/// The id of an event: of what was sent, without white space around it.
pub fn id_of(text: &str) -> String {
    let hash = digest(&SHA256, text.trim_matches([' ', '\t', '\r', '\n']).as_bytes());
    hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A key, or a part of one, as it stands in URLs.
pub fn encoded(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let byte = |byte: u8| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

impl Model {
    /// What becomes of an event that is sent now.
    pub fn take(&mut self, text: &str) -> Fate {
        let id = id_of(text);
        let Ok(data) = serde_json::from_str::<Value>(text) else { return Fate::Rejected };
        let user = scalar(data.get("user")).unwrap_or_default();
        let Some(time) = data.get("time").and_then(time).filter(|_| data.is_object() && !user.is_empty()) else {
            return Fate::Rejected;
        };
        if !self.ids.insert(id.clone()) {
            return Fate::Duplicate;
        }
        self.events.push(Event { time, id, data });
        Fate::Accepted
    }

    /// Every document, by the path of its URL.
    pub fn documents(&self) -> BTreeMap<String, Expected> {
        let mut documents = BTreeMap::new();
        for (key, events) in self.newest(USER_FEED_ITEMS, |event| key_part(event.data.get("user"))) {
            let tag = format!("user-edits/{key}");
            let (name, encoded) = (scalar(events[0].data.get("user")).unwrap_or_default(), &key);
            for (file, format, value) in [
                ("feed.json", Format::JsonFeed, json_feed(&name, encoded, &events)),
                ("feed.xml", Format::Atom, atom(&name, encoded, &events)),
                ("feed.rss", Format::Rss, rss(&name, encoded, &events)),
                ("activities.json", Format::ActivityStreams, activities(&name, encoded, &events)),
            ] {
                let tag = tag.clone();
                documents.insert(format!("/users/{encoded}/{file}"), Expected { format, tag, value });
            }
        }
        let page = |event: &Event| {
            Some(format!("{}/{}", key_part(event.data.get("channel"))?, key_part(event.data.get("page"))?))
        };
        for (key, events) in self.newest(1, page) {
            let value = json_item(events[0], &["page", "channel", "delta"], &[("last_user", "user")], false);
            let latest = Expected { format: Format::Json, tag: format!("page-state/{key}"), value };
            documents.insert(format!("/pages/{key}/latest.json"), latest);
        }
        let channel = |event: &Event| {
            let by_human = event.data.get("isRobot") == Some(&Value::Bool(false));
            key_part(event.data.get("channel")).filter(|_| by_human)
        };
        for (key, events) in self.newest(CHANNEL_FEED_ITEMS, channel) {
            let name = scalar(events[0].data.get("channel")).unwrap_or_default();
            let items: Vec<Value> =
                events.iter().map(|event| json_item(event, &["page", "user", "delta"], &[], true)).collect();
            let value = json!({ "key": name, "title": name, "items": items });
            let in_xml = with_forbidden_replaced(&value);
            for (file, format, value) in [("edits.json", Format::Json, value), ("edits.xml", Format::Xml, in_xml)] {
                let tag = format!("channel-edits/{key}");
                documents.insert(format!("/channels/{key}/{file}"), Expected { format, tag, value });
            }
        }
        for (key, events) in self.newest(usize::MAX, page) {
            let counts = Expected {
                format: Format::Json,
                tag: format!("page-counts/{key}"),
                value: numbers::page_counts(&plain_page(events[0]), &events),
            };
            documents.insert(format!("/pages/{key}/counts.json"), counts);
        }
        for (key, events) in self.newest(usize::MAX, from_a_country) {
            let name = scalar(events[0].data.get("channel")).unwrap_or_default();
            let tag = format!("channel-countries/{key}");
            let value = numbers::channel_countries(&name, &events);
            let html =
                Expected { format: Format::Html, tag: tag.clone(), value: numbers::countries_page(&name, &value) };
            documents.insert(format!("/channels/{key}/countries.html"), html);
            documents.insert(format!("/channels/{key}/countries.json"), Expected { format: Format::Json, tag, value });
        }
        documents
    }

    /// In how many documents events were filed, one event in several counted as often.
    pub fn filings(&self) -> usize {
        let part = |event: &Event, name: &str| key_part(event.data.get(name)).is_some();
        let filings = |event: &Event| {
            let by_human = event.data.get("isRobot") == Some(&Value::Bool(false));
            let (user, channel, page) = (part(event, "user"), part(event, "channel"), part(event, "page"));
            let country = from_a_country(event).is_some();
            usize::from(user)
                + 2 * usize::from(channel && page)
                + usize::from(channel && by_human)
                + usize::from(country)
        };
        self.events.iter().map(filings).sum()
    }

    /// The newest events of each key, the newest first; of the same time the one with the greater id.
    fn newest(&self, keep: usize, key: impl Fn(&Event) -> Option<String>) -> BTreeMap<String, Vec<&Event>> {
        let mut groups: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            if let Some(key) = key(event) {
                groups.entry(key).or_default().push(event);
            }
        }
        for events in groups.values_mut() {
            events.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
            events.truncate(keep);
        }
        groups
    }
}

/// Key of the channel, of an event from a known country that added something, or nothing.
fn from_a_country(event: &Event) -> Option<String> {
    let country = event.data.get("countryName").is_some_and(|name| !name.is_null());
    let added = event.data.get("added").and_then(Value::as_f64).is_some_and(|added| added >= 0.0);
    key_part(event.data.get("channel")).filter(|_| country && added)
}

/// Channel and page, as they are.
fn plain_page(event: &Event) -> String {
    let text = |name: &str| scalar(event.data.get(name)).unwrap_or_default();
    format!("{}/{}", text("channel"), text("page"))
}

/// A part of a key: a scalar that a URL can carry.
fn key_part(value: Option<&Value>) -> Option<String> {
    let text = scalar(value)?;
    (!["", ".", ".."].contains(&text.as_str())).then(|| encoded(&text))
}

fn scalar(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Nanoseconds since 1970 of RFC 3339 text, or of a whole number of seconds or, when it is large, milliseconds.
fn time(value: &Value) -> Option<i128> {
    let time = match value {
        Value::String(text) => text.parse::<Timestamp>().ok()?.as_nanosecond(),
        Value::Number(number) => {
            let number = i128::from(number.as_i64()?);
            if number > 100_000_000_000 { number * 1_000_000 } else { number * 1_000_000_000 }
        }
        _ => return None,
    };
    i64::try_from(time).is_ok().then_some(time)
}

fn time_text(time: i128) -> String {
    Timestamp::from_nanosecond(time).expect("a time").to_string()
}

/// An item with these members of the event, some under another name, without those that it lacks.
fn json_item(event: &Event, same: &[&str], renamed: &[(&str, &str)], with_id: bool) -> Value {
    let mut item = Map::new();
    item.insert("time".into(), time_text(event.time).into());
    if with_id {
        item.insert("id".into(), event.id.clone().into());
    }
    let names = same.iter().map(|name| (*name, *name)).chain(renamed.iter().copied());
    for (name, member) in names {
        if let Some(value) = event.data.get(member).filter(|value| !value.is_null()) {
            item.insert(name.into(), value.clone());
        }
    }
    Value::Object(item)
}

fn json_feed(user: &str, key: &str, events: &[&Event]) -> Value {
    let item = |event: &&Event| {
        let mut item = json!({
            "id": event.id,
            "date_published": time_text(event.time),
            "content_text": scalar(event.data.get("comment")).unwrap_or_default(),
        });
        match event.data.get("page") {
            None | Some(Value::Null) => {}
            // What JSON Feed does not allow as a title is an extension.
            Some(page) => match scalar(Some(page)) {
                Some(title) => item["title"] = title.into(),
                None => item["_millpond"] = json!({ "title": page }),
            },
        }
        item
    };
    json!({
        "version": "https://jsonfeed.org/version/1.1",
        "title": format!("Edits by {user}"),
        "home_page_url": SITE,
        "feed_url": format!("{SITE}/users/{key}/feed.json"),
        "items": events.iter().map(item).collect::<Vec<Value>>(),
    })
}

fn rss(user: &str, key: &str, events: &[&Event]) -> Value {
    let item = |event: &&Event| {
        let some = |name: &str| scalar(event.data.get(name)).filter(|text| !text.trim().is_empty());
        let escaped = |text: String| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let (title, comment) = (some("page"), some("comment"));
        let description = match (&title, comment) {
            (_, Some(comment)) => Some(escaped(comment)),
            (Some(_), None) => None,
            (None, None) => Some(event.id.clone()),
        };
        json!({
            "title": title.map(|title| without_forbidden(&title)),
            "description": description.map(|description| without_forbidden(&description)),
            "guid": event.id,
            "seconds": event.time.div_euclid(1_000_000_000).to_string(),
        })
    };
    json!({
        "title": without_forbidden(&format!("Edits by {user}")),
        "link": SITE,
        "self": format!("{SITE}/users/{key}/feed.rss"),
        "seconds": events[0].time.div_euclid(1_000_000_000).to_string(),
        "items": events.iter().map(item).collect::<Vec<Value>>(),
    })
}

fn activities(user: &str, key: &str, events: &[&Event]) -> Value {
    let item = |event: &&Event| {
        let some = |name: &str| scalar(event.data.get(name)).filter(|text| !text.is_empty());
        let mut item = json!({
            "id": format!("urn:millpond:item:{}", event.id),
            "type": "Note",
            "published": time_text(event.time),
        });
        if let Some(page) = some("page") {
            item["name"] = page.into();
        }
        if let Some(comment) = some("comment") {
            item["content"] = comment.into();
            item["mediaType"] = "text/plain".into();
        }
        item
    };
    json!({
        "@context": "https://www.w3.org/ns/activitystreams",
        "id": format!("{SITE}/users/{key}/activities.json"),
        "type": "OrderedCollection",
        "name": format!("Edits by {user}"),
        "totalItems": events.len(),
        "orderedItems": events.iter().map(item).collect::<Vec<Value>>(),
    })
}

fn atom(user: &str, key: &str, events: &[&Event]) -> Value {
    let entry = |event: &&Event| {
        let title = scalar(event.data.get("page")).filter(|title| !title.trim().is_empty());
        let seconds = event.time.to_string();
        json!({
            "id": format!("urn:millpond:item:{}", event.id),
            "title": without_forbidden(title.as_ref().unwrap_or(&event.id)),
            "updated": seconds,
            "published": seconds,
            "content": without_forbidden(&scalar(event.data.get("comment")).unwrap_or_default()),
        })
    };
    json!({
        "id": format!("urn:millpond:user-edits:{key}"),
        "title": without_forbidden(&format!("Edits by {user}")),
        "updated": events[0].time.to_string(),
        "author": "user-edits",
        "self": format!("{SITE}/users/{key}/feed.xml"),
        "entries": events.iter().map(entry).collect::<Vec<Value>>(),
    })
}

/// Without the characters that no XML 1.0 document can hold.
fn without_forbidden(text: &str) -> String {
    text.chars().filter(|c| is_char(*c)).collect()
}

/// A value as generic XML holds it: U+FFFD stands for each of these characters.
fn with_forbidden_replaced(value: &Value) -> Value {
    match value {
        Value::String(text) => text.chars().map(|c| if is_char(c) { c } else { '\u{fffd}' }).collect::<String>().into(),
        Value::Array(list) => list.iter().map(with_forbidden_replaced).collect(),
        Value::Object(map) => {
            map.iter().map(|(name, value)| (name.clone(), with_forbidden_replaced(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

#[test]
fn the_model_knows_what_comes_out() {
    let mut model = Model::default();
    let older =
        r#"{"time":"1970-01-01T00:00:01Z","user":"a/b","channel":"c","page":"p","isRobot":false,"comment":"x"}"#;
    let newer = r#"{"time":2,"user":"a/b","channel":"c","page":"p","isRobot":true,"delta":5}"#;
    let fates = [newer, older, newer, "{}"].map(|text| model.take(text));
    assert_eq!(fates, [Fate::Accepted, Fate::Accepted, Fate::Duplicate, Fate::Rejected]);
    assert_eq!(model.filings(), 7);
    let documents = model.documents();
    let urls: Vec<&str> = documents.keys().map(String::as_str).collect();
    let [channel, _, counts, page, activities, json, rss, xml] = urls[..] else { panic!("{urls:?}") };
    assert_eq!((channel, counts), ("/channels/c/edits.json", "/pages/c/p/counts.json"));
    assert_eq!((page, activities), ("/pages/c/p/latest.json", "/users/a%2Fb/activities.json"));
    assert_eq!((json, rss, xml), ("/users/a%2Fb/feed.json", "/users/a%2Fb/feed.rss", "/users/a%2Fb/feed.xml"));
    let latest = json!({ "page": "p", "channel": "c", "last_user": "a/b", "delta": 5, "time": "1970-01-01T00:00:02Z" });
    assert_eq!(documents[page].value, latest);
    let items = json!([{ "id": id_of(older), "page": "p", "user": "a/b", "time": "1970-01-01T00:00:01Z" }]);
    assert_eq!(documents[channel].value, json!({ "key": "c", "title": "c", "items": items }));
    assert_eq!(documents[json].value["items"][1]["content_text"], "x");
    assert_eq!(documents[rss].value["items"][1]["description"], "x");
    assert_eq!(documents[counts].value["totals"]["count"], 2);
    assert_eq!(documents[xml].value["entries"][0]["id"], format!("urn:millpond:item:{}", id_of(newer)));
}
