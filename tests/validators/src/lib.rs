//! What is rendered, as the parsers that readers of feeds use see it, and by schemas made of the specifications.
//!
//!     cargo test --manifest-path tests/validators/Cargo.toml
//!
//! `../outputs` is kept equal to what is rendered by `render::samples` of `millpond-origin`.
#![cfg(test)]
#![forbid(unsafe_code)]

use std::path::Path;

use feed_rs::model::{Feed, FeedType};
use rss::validation::Validate;
use serde_json::Value;

/// Items of each sample of a feed.
const ITEMS: usize = 4;

fn sample(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../outputs").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn feed(name: &str, kind: FeedType) -> Feed {
    let feed = feed_rs::parser::parse(sample(name).as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!((feed.feed_type.clone(), feed.entries.len()), (kind, ITEMS), "{name}");
    assert_eq!(feed.title.as_ref().map(|title| title.content.as_str()), Some("Posts by <a b>"), "{name}");
    feed
}

fn assert_valid(schema: &str, name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(schema);
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("a schema")).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let document: Value = serde_json::from_str(&sample(name)).expect("JSON");
    let errors: Vec<String> =
        validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}");
    // A schema that takes anything proves nothing.
    assert!(!validator.is_valid(&serde_json::json!({})), "{name}: an empty object is valid");
}

#[test]
fn rss_is_read_and_valid() {
    let channel = rss::Channel::read_from(sample("feed.rss").as_bytes()).expect("a channel");
    channel.validate().expect("valid");
    assert_eq!(channel.items.len(), ITEMS);
    let read = feed("feed.rss", FeedType::RSS2);
    for (entry, item) in read.entries.iter().zip(&channel.items) {
        assert_eq!(Some(&entry.id), item.guid.as_ref().map(|guid| &guid.value));
        assert!(entry.published.is_some(), "{entry:?}");
    }
}

#[test]
fn atom_is_read() {
    let atom = atom_syndication::Feed::read_from(sample("feed.atom").as_bytes()).expect("a feed");
    assert_eq!(atom.entries.len(), ITEMS);
    let read = feed("feed.atom", FeedType::Atom);
    for (entry, other) in read.entries.iter().zip(&atom.entries) {
        assert_eq!(entry.id, other.id);
        assert!(entry.updated.is_some() && entry.title.is_some() && entry.content.is_some(), "{entry:?}");
    }
}

#[test]
fn json_feed_is_read_and_valid() {
    let read = feed("feed.json", FeedType::JSON);
    assert!(read.entries.iter().all(|entry| entry.content.is_some()));
    assert_valid("jsonfeed-1.1.json", "feed.json");
}

#[test]
fn activities_are_valid() {
    assert_valid("activitystreams-2.0.json", "activities.json");
}

#[test]
fn counters_and_groups_are_what_the_docs_say() {
    assert_valid("counter.json", "counts.json");
    assert_valid("group.json", "countries.json");
}

#[test]
fn every_xml_is_well_formed() {
    for name in ["feed.atom", "feed.rss", "items.xml", "counts.xml"] {
        let text = sample(name);
        let mut reader = quick_xml::Reader::from_str(&text);
        reader.config_mut().check_comments = true;
        loop {
            match reader.read_event() {
                Ok(quick_xml::events::Event::Eof) => break,
                Ok(quick_xml::events::Event::Start(tag)) => {
                    tag.attributes().for_each(|attribute| drop(attribute.expect("an attribute")));
                }
                Ok(_) => {}
                Err(error) => panic!("{name}: {error} at {}", reader.error_position()),
            }
        }
    }
}
