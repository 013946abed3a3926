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

/// Items of each sample of a feed, and of its pages.
const ITEMS: usize = 4;
const ITEMS_OF_PAGES: [(&str, usize); 2] = [("page-1", 3), ("page-2", 1)];

fn sample(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../outputs").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn feed(name: &str, kind: FeedType, items: usize) -> Feed {
    let feed = feed_rs::parser::parse(sample(name).as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!((feed.feed_type.clone(), feed.entries.len()), (kind, items), "{name}");
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
    let read = feed("feed.rss", FeedType::RSS2, ITEMS);
    for (entry, item) in read.entries.iter().zip(&channel.items) {
        assert_eq!(Some(&entry.id), item.guid.as_ref().map(|guid| &guid.value));
        assert!(entry.published.is_some(), "{entry:?}");
    }
}

#[test]
fn atom_is_read() {
    let atom = atom_syndication::Feed::read_from(sample("feed.atom").as_bytes()).expect("a feed");
    assert_eq!(atom.entries.len(), ITEMS);
    let read = feed("feed.atom", FeedType::Atom, ITEMS);
    for (entry, other) in read.entries.iter().zip(&atom.entries) {
        assert_eq!(entry.id, other.id);
        assert!(entry.updated.is_some() && entry.title.is_some() && entry.content.is_some(), "{entry:?}");
    }
}

#[test]
fn json_feed_is_read_and_valid() {
    let read = feed("feed.json", FeedType::JSON, ITEMS);
    assert!(read.entries.iter().all(|entry| entry.content.is_some()));
    assert_valid("jsonfeed-1.1.json", "feed.json");
}

#[test]
fn activities_are_valid() {
    assert_valid("activitystreams-2.0.json", "activities.json");
    assert_valid("activitystreams-2.0.json", "activities-page-1.json");
    assert_valid("activitystreams-2.0.json", "activities-page-2.json");
}

/// RFC 5005 §3: each page names the next, and whoever came in by another finds the first.
#[test]
fn pages_are_feeds_that_name_each_other() {
    const SITE: &str = "https://feeds.example/users/a%20b/";
    for (kind, extension) in [(FeedType::Atom, "atom"), (FeedType::RSS2, "rss")] {
        let address = format!("{SITE}feed.{extension}");
        let pages = ITEMS_OF_PAGES.map(|(page, items)| feed(&format!("feed-{page}.{extension}"), kind.clone(), items));
        let link = |page: usize, relation: &str| {
            let mut links = pages[page].links.iter().filter(|link| link.rel.as_deref() == Some(relation));
            links.next().map(|link| link.href.clone())
        };
        let next = link(0, "next").expect("a next page");
        assert!(next.starts_with(&format!("{address}?before=")), "{next}");
        assert_eq!((link(0, "self"), link(0, "first")), (Some(address.clone()), None));
        assert_eq!((link(1, "self"), link(1, "first"), link(1, "next")), (Some(next), Some(address), None));
        assert_eq!(pages[0].id, pages[1].id, "{extension}");
    }
    for (page, items) in ITEMS_OF_PAGES {
        let name = format!("feed-{page}.json");
        feed(&name, FeedType::JSON, items);
        assert_valid("jsonfeed-1.1.json", &name);
    }
    let json = |name: &str| -> Value { serde_json::from_str(&sample(name)).expect("JSON") };
    let next = |name: &str, of: &str| json(name)[of].as_str().map(str::to_owned);
    assert!(next("feed-page-1.json", "next_url").is_some_and(|next| next.starts_with(&format!("{SITE}feed.json?before="))));
    assert_eq!(next("feed-page-2.json", "next_url"), None);
    let (first, second) = (json("activities-page-1.json"), json("activities-page-2.json"));
    assert_eq!((&first["first"]["next"], &first["id"]), (&second["id"], &second["partOf"]));
    assert_eq!((first["totalItems"].as_u64(), second["next"].as_str()), (Some(ITEMS as u64), None));
}

#[test]
fn counters_and_groups_are_what_the_docs_say() {
    assert_valid("counter.json", "counts.json");
    assert_valid("group.json", "countries.json");
}

#[test]
fn every_xml_is_well_formed() {
    for name in ["feed.atom", "feed.rss", "feed-page-2.atom", "feed-page-2.rss", "items.xml", "counts.xml"] {
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
