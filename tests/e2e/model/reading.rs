//! What documents say, read by parsers that the program does not share.

use jiff::Timestamp;
use roxmltree::{Document as Xml, Node};
use serde_json::{Map, Value, json};

use super::Format;

/// What a body says: comparable with [`Expected::value`]. Fails where it is not what it should be.
pub fn read(format: Format, body: &[u8]) -> Result<Value, String> {
    match format {
        Format::Json | Format::JsonFeed | Format::ActivityStreams => {
            serde_json::from_slice(body).map_err(|error| error.to_string())
        }
        Format::Html => Ok(std::str::from_utf8(body).map_err(|error| error.to_string())?.into()),
        Format::Atom | Format::Rss | Format::Xml => {
            let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
            let xml = Xml::parse(text).map_err(|error| error.to_string())?;
            match format {
                Format::Atom => read_atom(xml.root_element()),
                Format::Rss => read_rss(xml.root_element()),
                _ => read_json(xml.root_element()),
            }
        }
    }
}

/// The JSON that XML in the form of XPath's `json-to-xml` stands for.
fn read_json(node: Node<'_, '_>) -> Result<Value, String> {
    let name = node.tag_name();
    if name.namespace() != Some("http://www.w3.org/2005/xpath-functions") {
        return Err(format!("{name:?} is of another namespace"));
    }
    let text = || node.children().filter_map(|child| child.text()).collect::<String>();
    match name.name() {
        "map" => node
            .children()
            .map(|child| Ok((child.attribute("key").ok_or("no key")?.to_owned(), read_json(child)?)))
            .collect::<Result<Map<String, Value>, String>>()
            .map(Value::Object),
        "array" => node.children().map(read_json).collect(),
        "string" => Ok(text().into()),
        _ => serde_json::from_str(if name.name() == "null" { "null".to_owned() } else { text() }.as_str())
            .map_err(|error| error.to_string()),
    }
}

fn read_rss(rss: Node<'_, '_>) -> Result<Value, String> {
    let only = |parent: Node<'_, '_>, name: &str| -> Result<Option<String>, String> {
        let is_it = |child: &Node<'_, '_>| child.has_tag_name(name) && child.tag_name().namespace().is_none();
        let mut found = parent.children().filter(is_it);
        match (found.next(), found.next()) {
            (one, None) => one.map(plain).transpose(),
            _ => Err(format!("there is more than one `{name}`")),
        }
    };
    let seconds = |parent: Node<'_, '_>, name: &str| -> Result<Option<String>, String> {
        let Some(text) = only(parent, name)? else { return Ok(None) };
        let time = jiff::fmt::rfc2822::parse(&text).map_err(|error| format!("{name}: {error}"))?;
        Ok(Some(time.timestamp().as_second().to_string()))
    };
    let item = |item: Node<'_, '_>| -> Result<Value, String> {
        Ok(json!({
            "title": only(item, "title")?,
            "description": only(item, "description")?,
            "guid": only(item, "guid")?,
            "seconds": seconds(item, "pubDate")?,
        }))
    };
    let channel = rss.children().find(|child| child.has_tag_name("channel")).ok_or("no channel")?;
    Ok(json!({
        "title": only(channel, "title")?,
        "link": only(channel, "link")?,
        "self": one(channel, "link")?.attribute("href"),
        "seconds": seconds(channel, "lastBuildDate")?,
        "items": channel.children().filter(|child| child.has_tag_name("item")).map(item).collect::<Result<Vec<_>, _>>()?,
    }))
}

fn read_atom(feed: Node<'_, '_>) -> Result<Value, String> {
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
