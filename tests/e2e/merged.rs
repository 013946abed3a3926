//! Documents that their shard merges of several parts: a copy is as old as the oldest of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::harness::client::{Client, Response, post};
use crate::harness::eventually;
use crate::harness::origin::{Answer, ScriptedOrigin, Seen};
use crate::harness::process::Millpond;

/// Most parts of a document that is stored.
const PARTS_MAX: usize = 64;

/// Changes by tag, the position of each its place in the list, from 1.
type Changes = Arc<Mutex<Vec<String>>>;

/// A shard server by the wire alone: it announces what the test tells it to, and its documents are their versions.
struct Shard {
    origin: ScriptedOrigin,
    changes: Changes,
}

impl Shard {
    fn start() -> Shard {
        let (origin, changes) = (ScriptedOrigin::start(), Changes::default());
        let known = Arc::clone(&changes);
        origin.answer_by("/_millpond/shards/0/changes", move |request| stream(&locked(&known), request));
        // Before the first position there is nothing to go on after.
        locked(&changes).push("posts/nobody".to_owned());
        Shard { origin, changes }
    }

    /// A document that is rendered from what has these tags, the first its own.
    fn document(&self, path: &str, tags: &[String]) {
        let (changes, tags) = (Arc::clone(&self.changes), tags.to_vec());
        self.origin.answer_by(path, move |_| {
            let changes = locked(&changes);
            let at = changes.len();
            answer(&tags, version(&changes, &tags).unwrap_or(at), at)
        });
    }

    /// These have changed, in this order.
    fn change(&self, tags: &[&str]) {
        locked(&self.changes).extend(tags.iter().map(|tag| (*tag).to_owned()));
    }
}

fn locked(changes: &Changes) -> MutexGuard<'_, Vec<String>> {
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Position of the last change of any.
fn version(changes: &[String], tags: &[String]) -> Option<usize> {
    changes.iter().rposition(|changed| tags.contains(changed)).map(|index| index + 1)
}

/// What there is of the change stream. It ends there, and the proxy takes it up again: twenty times a second, where a
/// shard would say twice that it is there.
fn stream(changes: &[String], request: &Seen) -> Answer {
    let after = request.target.split_once("?after=").and_then(|(_, after)| after.parse::<usize>().ok());
    let hello = json!({ "message": "hello", "format": 2, "shard": 0, "resumed": after.is_some(), "at": changes.len() });
    let mut lines = format!("{hello}\n");
    for (index, tag) in changes.iter().enumerate().skip(after.unwrap_or(changes.len())) {
        let position = index + 1;
        let documents = json!([{ "tag": tag, "version": { "epoch": 1, "position": position } }]);
        lines += &format!("{}\n", json!({ "message": "changes", "at": position, "documents": documents }));
    }
    Answer::ok(lines)
}

fn answer(tags: &[String], version: usize, at: usize) -> Answer {
    Answer::ok(format!("at {version}"))
        .field("Cache-Tag", &tags.join(", "))
        .field("Millpond-Version", &format!("1-{version}"))
        .field("Millpond-Position", &at.to_string())
        .field("Millpond-Shard", "0")
}

fn tags(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

fn proxy_before(shard: &Shard) -> Millpond {
    let config = format!(
        r#"
proxy = {{ listen = ["127.0.0.1:0"] }}
admin = {{ listen = "127.0.0.1:0" }}
shard_map = {{ count = 1, version = 1, address = {{ "{}" = [0] }} }}

[[projection]]
name = "home"
kind = "latest"
key = "{{data.user}}"
item = {{ id = "{{id}}" }}

  [[projection.output]]
  path = "/home/{{key}}.json"
  format = "json"

[[rule]]
name = "feeds"
match = "/**"
origin = "shards"
ttl = "1h"
"#,
        shard.origin.address()
    );
    Millpond::run(&config, &["proxy", "admin"])
}

/// The text of a fresh stored answer.
fn hit(client: &mut Client, path: &str) -> String {
    eventually(&format!("a hit of {path}"), || match client.get(path) {
        answer if answer.detail() == "hit" => Ok(answer.text()),
        other => Err(format!("{other:?}")),
    })
}

fn eventually_says(client: &mut Client, path: &str, text: &str) -> Response {
    eventually(&format!("{path} to say {text}"), || match client.get(path) {
        answer if answer.text() == text => Ok(answer),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn a_change_of_any_part_makes_a_merged_copy_stale_and_others_leave_it_alone() {
    let shard = Shard::start();
    shard.document("/home/ann.json", &tags(&["home/ann", "posts/3*", "posts/3*bob"]));
    shard.document("/home/carl.json", &tags(&["home/carl", "posts/3*"]));
    shard.document("/home/dora.json", &tags(&["home/dora"]));
    let most: Vec<String> =
        ["home/eve".to_owned()].into_iter().chain((0..PARTS_MAX).map(|part| format!("posts/3*{part}"))).collect();
    shard.document("/home/eve.json", &most);
    let pond = proxy_before(&shard);
    let mut client = Client::of(pond.proxy());
    let all = ["/home/ann.json", "/home/carl.json", "/home/dora.json", "/home/eve.json"];
    all.iter().for_each(|path| assert_eq!(hit(&mut client, path), "at 1"));

    // What is announced last shows when all of it has been heard.
    shard.change(&["posts/3*bob", "posts/3*frank", "home/dora"]);
    eventually_says(&mut client, "/home/dora.json", "at 4");
    assert_eq!(client.get("/home/ann.json").text(), "at 2");
    assert_eq!((hit(&mut client, "/home/carl.json"), shard.origin.count("/home/carl.json")), ("at 1".to_owned(), 1));

    shard.change(&["posts/3*", "home/dora"]);
    eventually_says(&mut client, "/home/dora.json", "at 6");
    for path in ["/home/ann.json", "/home/carl.json"] {
        assert_eq!((client.get(path).text(), hit(&mut client, path)), ("at 5".to_owned(), "at 5".to_owned()), "{path}");
    }
    let fetched = shard.origin.count("/home/eve.json");
    shard.change(&["posts/3*63", "home/dora"]);
    eventually_says(&mut client, "/home/dora.json", "at 8");
    assert_eq!(
        (client.get("/home/eve.json").text(), shard.origin.count("/home/eve.json")),
        ("at 7".to_owned(), fetched + 1)
    );

    let purged = post(pond.admin(), "/purge?tag=posts%2F3*bob&mode=delete", "");
    assert_eq!((purged.status(), &purged.json()["objects"]), (200, &json!(1)), "{}", purged.text());
    assert_eq!(client.get("/home/ann.json").detail(), "miss/not-cached");
}

/// What has more parts is not stored; and as nobody is told of its changes, what was given out counts.
#[test]
fn what_is_merged_of_too_many_parts_is_not_stored_and_does_not_go_back() {
    let shard = Shard::start();
    let too_many: Vec<String> =
        ["home/ann".to_owned()].into_iter().chain((0..=PARTS_MAX).map(|part| format!("posts/3*{part}"))).collect();
    // The second comes of a replica that is behind.
    let (versions, asked) = ([5, 4, 6], Mutex::new(0));
    shard.origin.answer_by("/home/ann.json", move |_| {
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let version = versions.get(*asked).copied().unwrap_or(6);
        *asked += 1;
        answer(&too_many, version, 6)
    });
    let pond = proxy_before(&shard);
    let mut client = Client::of(pond.proxy());
    let first = client.get("/home/ann.json");
    assert_eq!((first.text().as_str(), first.detail()), ("at 5", "miss/too-many-parts"));
    let second = client.get("/home/ann.json");
    assert_eq!((second.text().as_str(), second.outcome()), ("at 6", "miss"));
    assert_eq!(shard.origin.count("/home/ann.json"), 3, "the one in between was given to nobody");
    assert_eq!(client.get("/home/ann.json").outcome(), "miss");
}
