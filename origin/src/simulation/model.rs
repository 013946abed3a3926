//! What documents and dead letters must be, said as plainly as can be.

use std::collections::{BTreeMap, BTreeSet};

use millpond_shared::event::Event;
use millpond_shared::projection::{Projection, document_tag};
use millpond_shared::version::ShardId;
use serde_json::{Value, json};

use super::filed::Filed;
use super::pond::{FOLLOWS_MAX, KEEP};

/// (id, shard) of the letters that must be there; no shard where the event could not be filed.
pub type Dead = BTreeSet<(String, Option<ShardId>)>;

/// What every document holds that is not empty, by its tag, and the dead letters.
pub fn model(events: &[Event<'static>], filed: &Filed) -> (BTreeMap<String, Value>, Dead) {
    let (mut users, mut dead) = (BTreeMap::<String, User>::new(), Dead::new());
    for event in events {
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else {
            dead.insert((event.id.to_string(), None));
            continue;
        };
        let name = data["user"].as_str().expect("a user");
        let user = users.entry(name.to_owned()).or_default();
        if let (Some(what), Some(whom)) = (data["what"].as_str(), data["whom"].as_str()) {
            let said = (event.time, event.id.to_string(), what == "follow");
            let newest = user.follows.entry(whom.to_owned()).or_insert_with(|| said.clone());
            *newest = said.max(newest.clone());
        }
        *user.numbers.entry(data["n"].to_string()).or_default() += 1;
        let item = json!({ "content_text": name, "id": event.id, "n": data["n"] });
        user.edits.insert((event.time, event.id.to_string()), item);
        user.count += 1;
        match data["n"].as_i64() {
            Some(n) => {
                user.sum += n;
                user.lasts.insert((n, event.id.to_string()), json!({ "id": event.id, "n": n }));
            }
            None => drop(dead.insert((event.id.to_string(), filed.shard_of(&event.id, "last", name)))),
        }
    }
    let mut documents = BTreeMap::new();
    for (name, user) in &users {
        let followed = user.followed();
        let items = |user: &String| users.get(user).map(User::newest).unwrap_or_default();
        // Items of one time and id would be told apart by their feeds; ids are unique here.
        let mut home: Vec<_> = followed.iter().flat_map(items).collect();
        home.sort_by(|(one, _), (other, _)| other.cmp(one));
        let home = home.into_iter().take(KEEP).map(|(_, item)| item).collect();
        documents.insert(document_tag("home", name), Value::Array(home));
        let followed = followed.into_iter().map(|whom| json!({ "id": whom })).collect();
        documents.insert(document_tag("follows", name), Value::Array(followed));
    }
    for (name, user) in users {
        let newest = user.newest().into_iter().map(|(_, item)| item).collect();
        documents.insert(document_tag("edits", &name), Value::Array(newest));
        documents.insert(document_tag("numbers", &name), json!(user.numbers));
        if let Some((_, last)) = user.lasts.into_iter().next_back() {
            documents.insert(document_tag("last", &name), last);
        }
        documents.insert(document_tag("counts", &name), json!([user.count, user.sum]));
    }
    documents.retain(|_, held| !is_empty(held));
    (documents, dead)
}

/// Of a list without items it is not told whether it is there: that may be so because something came, and went.
pub fn is_empty(held: &Value) -> bool {
    held.as_array().is_some_and(Vec::is_empty)
}

/// What a user's events come to, by (order, id).
#[derive(Default)]
struct User {
    edits: BTreeMap<(i64, String), Value>,
    lasts: BTreeMap<(i64, String), Value>,
    count: u64,
    sum: i64,
    /// By `n` as JSON: how many.
    numbers: BTreeMap<String, u64>,
    /// By whom: what was said last, by (order, id), and whether that was to follow.
    follows: BTreeMap<String, (i64, String, bool)>,
}

impl User {
    /// What is shown of the edits, with what it is sorted by; the newest first.
    fn newest(&self) -> Vec<((i64, String), Value)> {
        self.edits.iter().rev().take(KEEP).map(|(rank, item)| (rank.clone(), item.clone())).collect()
    }

    /// Who is followed, the last said first: of all that something was said of, only the last few count.
    fn followed(&self) -> Vec<String> {
        let mut said: Vec<_> = self.follows.iter().map(|(whom, (time, id, there))| (time, id, whom, there)).collect();
        said.sort_by(|one, other| other.cmp(one));
        let counts = said.into_iter().take(FOLLOWS_MAX).filter(|(.., is_followed)| **is_followed);
        counts.map(|(_, _, whom, _)| whom.clone()).collect()
    }
}

/// What a document that was read holds.
pub fn held(projection: &Projection, body: &[u8]) -> Value {
    let mut body: Value = serde_json::from_slice(body).expect("JSON");
    match projection.name.as_str() {
        "edits" | "home" | "follows" => body["items"].take(),
        "numbers" => {
            let members = body["totals"]["members"].as_array().expect("members");
            let member = |member: &Value| (member["by"]["data.n"].to_string(), member["count"].clone());
            json!(members.iter().map(member).collect::<BTreeMap<String, Value>>())
        }
        "counts" => json!([body["totals"]["count"], body["totals"]["sum"]["data.n"]]),
        _ => body,
    }
}
