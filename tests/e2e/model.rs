//! What `config/pipeline.toml` must make of events, worked out the naive way: all events in memory, grouped by key, sorted,
//! cut. Shares no code with the program.
//!
//! Documents are compared as parsed values, Atom as what its elements say.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use roxmltree::{Document as Xml, Node};
use serde_json::{Map, Value, json};

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
}

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
            let feed = Expected { format: Format::JsonFeed, tag: tag.clone(), value: json_feed(&name, &events) };
            documents.insert(format!("/users/{encoded}/feed.json"), feed);
            let feed = Expected { format: Format::Atom, tag, value: atom(&name, encoded, &events) };
            documents.insert(format!("/users/{encoded}/feed.xml"), feed);
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
            let feed = Expected { format: Format::Json, tag: format!("channel-edits/{key}"), value };
            documents.insert(format!("/channels/{key}/edits.json"), feed);
        }
        documents
    }

    /// In how many documents events were filed, one event in several counted as often.
    pub fn filings(&self) -> usize {
        let part = |event: &Event, name: &str| key_part(event.data.get(name)).is_some();
        let filings = |event: &Event| {
            let by_human = event.data.get("isRobot") == Some(&Value::Bool(false));
            let (user, channel, page) = (part(event, "user"), part(event, "channel"), part(event, "page"));
            usize::from(user) + usize::from(channel && page) + usize::from(channel && by_human)
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

fn json_feed(user: &str, events: &[&Event]) -> Value {
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
        "items": events.iter().map(item).collect::<Vec<Value>>(),
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
        "self": format!("/users/{key}/feed.xml"),
        "entries": events.iter().map(entry).collect::<Vec<Value>>(),
    })
}

/// Without the characters that no XML 1.0 document can hold.
fn without_forbidden(text: &str) -> String {
    let is_char =
        |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(|c| is_char(*c)).collect()
}

/// What a body says: comparable with [`Expected::value`]. Fails where it is not what it should be.
pub fn read(format: Format, body: &[u8]) -> Result<Value, String> {
    match format {
        Format::Json | Format::JsonFeed => serde_json::from_slice(body).map_err(|error| error.to_string()),
        Format::Atom => read_atom(body),
    }
}

fn read_atom(body: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let xml = Xml::parse(text).map_err(|error| error.to_string())?;
    let feed = xml.root_element();
    is(feed, "feed")?;
    let entry = |entry: Node<'_, '_>| -> Result<Value, String> {
        let content = one(entry, "content")?;
        Ok(json!({
            "id": text_of(entry, "id")?,
            "title": text_of(entry, "title")?,
            "updated": moment(entry, "updated")?,
            "published": moment(entry, "published")?,
            "content": match content.attribute("type") {
                Some("text") | None => plain(content)?,
                Some(other) => return Err(format!("content is of type {other}")),
            },
        }))
    };
    let link = one(feed, "link")?;
    if link.attribute("rel") != Some("self") {
        return Err("the link is not to the feed itself".to_owned());
    }
    let author = one(feed, "author")?;
    Ok(json!({
        "id": text_of(feed, "id")?,
        "title": text_of(feed, "title")?,
        "updated": moment(feed, "updated")?,
        "author": text_of(author, "name")?,
        "self": link.attribute("href"),
        "entries": all(feed, "entry").map(entry).collect::<Result<Vec<Value>, String>>()?,
    }))
}

fn is(node: Node<'_, '_>, name: &str) -> Result<(), String> {
    let found = node.tag_name();
    if found.namespace() == Some("http://www.w3.org/2005/Atom") && found.name() == name {
        Ok(())
    } else {
        Err(format!("{found:?} is not `{name}` of Atom"))
    }
}

fn all<'a, 'input>(parent: Node<'a, 'input>, name: &str) -> impl Iterator<Item = Node<'a, 'input>> {
    parent.children().filter(move |child| is(*child, name).is_ok())
}

fn one<'a, 'input>(parent: Node<'a, 'input>, name: &str) -> Result<Node<'a, 'input>, String> {
    let mut found = all(parent, name);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("there is no `{name}`")),
        _ => Err(format!("there is more than one `{name}`")),
    }
}

fn text_of(parent: Node<'_, '_>, name: &str) -> Result<String, String> {
    plain(one(parent, name)?)
}

fn plain(node: Node<'_, '_>) -> Result<String, String> {
    match node.children().all(|child| child.is_text()) {
        true => Ok(node.children().filter_map(|child| child.text()).collect()),
        false => Err(format!("{:?} holds more than text", node.tag_name())),
    }
}

/// Nanoseconds since 1970.
fn moment(parent: Node<'_, '_>, name: &str) -> Result<String, String> {
    let text = text_of(parent, name)?;
    let time: Timestamp = text.parse().map_err(|error| format!("{name}: {error}"))?;
    Ok(time.as_nanosecond().to_string())
}

#[test]
fn the_model_knows_what_comes_out() {
    let mut model = Model::default();
    let older =
        r#"{"time":"1970-01-01T00:00:01Z","user":"a/b","channel":"c","page":"p","isRobot":false,"comment":"x"}"#;
    let newer = r#"{"time":2,"user":"a/b","channel":"c","page":"p","isRobot":true,"delta":5}"#;
    let fates = [newer, older, newer, "{}"].map(|text| model.take(text));
    assert_eq!(fates, [Fate::Accepted, Fate::Accepted, Fate::Duplicate, Fate::Rejected]);
    assert_eq!(model.filings(), 5);
    let documents = model.documents();
    let urls: Vec<&str> = documents.keys().map(String::as_str).collect();
    let [channel, page, json, xml] = urls[..] else { panic!("{urls:?}") };
    assert_eq!((channel, page), ("/channels/c/edits.json", "/pages/c/p/latest.json"));
    assert_eq!((json, xml), ("/users/a%2Fb/feed.json", "/users/a%2Fb/feed.xml"));
    let latest = json!({ "page": "p", "channel": "c", "last_user": "a/b", "delta": 5, "time": "1970-01-01T00:00:02Z" });
    assert_eq!(documents[page].value, latest);
    let items = json!([{ "id": id_of(older), "page": "p", "user": "a/b", "time": "1970-01-01T00:00:01Z" }]);
    assert_eq!(documents[channel].value, json!({ "key": "c", "title": "c", "items": items }));
    assert_eq!(documents[json].value["items"][1]["content_text"], "x");
    assert_eq!(documents[xml].value["entries"][0]["id"], format!("urn:millpond:item:{}", id_of(newer)));
}
