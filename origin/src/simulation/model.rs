//! What documents and dead letters must be, said as plainly as can be.

use std::collections::{BTreeMap, BTreeSet};

use millpond_shared::event::Event;
use millpond_shared::projection::{Projection, document_tag};
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::ShardId;
use serde_json::{Value, json};

use super::pond::KEEP;
use crate::render::Rendered;

/// (id, shard) of the letters that must be there; no shard where the event could not be filed.
pub type Dead = BTreeSet<(String, Option<ShardId>)>;

/// The items of every document by its tag, and the dead letters.
pub fn model(events: &[Event<'static>], map: &ShardMap) -> (BTreeMap<String, Vec<Value>>, Dead) {
    let mut feeds: BTreeMap<&str, BTreeMap<(i64, &str), Value>> = BTreeMap::new();
    let mut lasts: BTreeMap<&str, BTreeMap<(i64, &str), Value>> = BTreeMap::new();
    let (mut dead, mut users) = (Dead::new(), BTreeMap::new());
    let read = |event: &Event<'static>| serde_json::from_str::<Value>(&event.data);
    for event in events {
        match read(event) {
            Ok(data) => drop(users.insert(event.id.to_string(), data)),
            Err(_) => drop(dead.insert((event.id.to_string(), None))),
        }
    }
    for event in events {
        let Some(data) = users.get(event.id.as_ref()) else { continue };
        let user = data["user"].as_str().expect("a user");
        let item = json!({ "content_text": user, "id": event.id, "n": data["n"] });
        feeds.entry(user).or_default().insert((event.time, &event.id), item);
        match data["n"].as_i64() {
            Some(n) => {
                drop(lasts.entry(user).or_default().insert((n, &event.id), json!({ "id": event.id, "n": n })));
            }
            None => drop(dead.insert((event.id.to_string(), Some(map.owner_of("last", user).shard)))),
        }
    }
    let newest = |projection: &'static str, keep: usize, documents: BTreeMap<&str, BTreeMap<(i64, &str), Value>>| {
        let items = |items: BTreeMap<_, Value>| items.into_values().rev().take(keep).collect::<Vec<_>>();
        let named = documents.into_iter().map(|(user, all)| (document_tag(projection, user), items(all)));
        named.collect::<Vec<_>>()
    };
    let documents = [newest("edits", KEEP, feeds), newest("last", 1, lasts)].concat();
    (documents.into_iter().collect(), dead)
}

/// The items of a document as it was read.
pub fn items(projection: &Projection, rendered: &Rendered) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&rendered.body).expect("JSON");
    if projection.name == "edits" { body["items"].as_array().expect("items").clone() } else { vec![body] }
}
