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

/// What every document holds, by its tag, and the dead letters.
pub fn model(events: &[Event<'static>], map: &ShardMap) -> (BTreeMap<String, Value>, Dead) {
    let (mut users, mut dead) = (BTreeMap::<String, User>::new(), Dead::new());
    for event in events {
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else {
            dead.insert((event.id.to_string(), None));
            continue;
        };
        let name = data["user"].as_str().expect("a user");
        let user = users.entry(name.to_owned()).or_default();
        let item = json!({ "content_text": name, "id": event.id, "n": data["n"] });
        user.edits.insert((event.time, event.id.to_string()), item);
        user.count += 1;
        match data["n"].as_i64() {
            Some(n) => {
                user.sum += n;
                user.lasts.insert((n, event.id.to_string()), json!({ "id": event.id, "n": n }));
            }
            None => drop(dead.insert((event.id.to_string(), Some(map.owner_of("last", name).shard)))),
        }
    }
    let mut documents = BTreeMap::new();
    for (name, user) in users {
        let newest: Vec<Value> = user.edits.into_values().rev().take(KEEP).collect();
        documents.insert(document_tag("edits", &name), Value::Array(newest));
        if let Some((_, last)) = user.lasts.into_iter().next_back() {
            documents.insert(document_tag("last", &name), last);
        }
        documents.insert(document_tag("counts", &name), json!([user.count, user.sum]));
    }
    (documents, dead)
}

/// What a user's events come to, by (order, id).
#[derive(Default)]
struct User {
    edits: BTreeMap<(i64, String), Value>,
    lasts: BTreeMap<(i64, String), Value>,
    count: u64,
    sum: i64,
}

/// What a document that was read holds.
pub fn held(projection: &Projection, rendered: &Rendered) -> Value {
    let mut body: Value = serde_json::from_slice(&rendered.body).expect("JSON");
    match projection.name.as_str() {
        "edits" => body["items"].take(),
        "counts" => json!([body["totals"]["count"], body["totals"]["sum"]["data.n"]]),
        _ => body,
    }
}
