//! Who follows whom, and what they then see, through the whole pipeline; and a document that is fetched no oftener than
//! it is told.

use serde_json::json;

use crate::harness::client::{Client, Request};
use crate::harness::eventually;
use crate::harness::pipeline::{
    ALL, DISPATCHER, ON_NATS, Part, Pipeline, QUEUE, SEVERAL_PROCESSES, SHARD_A, SHARD_A_ON_NATS, SHARD_B,
    SHARD_B_ON_NATS,
};

/// Behind which line of the example, and what: whom each user follows, where the page says what the user did.
pub const FOLLOWS: (&str, &str) = (
    "  template = \"countries.html.j2\"",
    r#"
[[projection]]
name = "follows"
kind = "edges"
where = { "data.page" = "follow" }
key = "{data.user}"
to = "{data.comment}"
item = { id = "{data.comment}", since = "{time}" }
remove_on = { where = { "data.page" = "unfollow" } }

  [[projection.output]]
  path = "/follows/{key}.json"
  format = "json"

  [[projection.output]]
  path = "/follows/{key}/activities.json"
  format = "activitystreams"

[[projection]]
name = "posts"
kind = "feed"
where = { "data.page" = "post" }
key = "{data.user}"
keep = 3
item = { id = "{data.comment}" }

  [[projection.output]]
  path = "/posts/{key}.json"
  format = "json"

[[projection]]
name = "home"
kind = "home"
feed = "posts"
edges = "follows"
keep = 3
fanout = { max = 1 }
title = "Home of {key}"

  [[projection.output]]
  path = "/home/{key}.json"
  format = "json"

[[projection]]
name = "slow"
kind = "counter"
key = "{data.user}"
count = true
refresh = "1h"

  [[projection.output]]
  path = "/slow/{key}.json"
  format = "json"

  [[projection.output]]
  path = "/slow/{key}.xml"
  format = "xml"
"#,
);

fn running() -> Pipeline {
    let mut pipeline = Pipeline::prepared(&[FOLLOWS]);
    pipeline.start(ALL);
    pipeline
}

fn post(pipeline: &Pipeline, second: u32, page: &str, comment: &str) {
    post_of(pipeline, "ann", second, page, comment);
}

fn post_of(pipeline: &Pipeline, user: &str, second: u32, page: &str, comment: &str) {
    let time = format!("2015-09-12T00:01:{second:02}Z");
    let event = json!({ "time": time, "user": user, "channel": "c", "page": page, "comment": comment }).to_string();
    let posted = Client::of(pipeline.proxy()).ask(&Request::post("/events/wiki", &event));
    assert_eq!((posted.status(), posted.json()["accepted"].as_u64()), (202, Some(1)), "{}", posted.text());
}

#[test]
fn edges_come_and_go_by_the_newest_event_of_each() {
    let pipeline = running();
    let shows = |expected: &[(&str, u32)]| {
        let mut client = Client::of(pipeline.proxy());
        let item = |(id, second): &(&str, u32)| json!({ "id": id, "since": format!("2015-09-12T00:01:{second:02}Z") });
        let expected: Vec<_> = expected.iter().map(item).collect();
        eventually("the list", || match client.get("/follows/ann.json") {
            answer if answer.status() == 200 && answer.json()["items"] == json!(expected) => Ok(()),
            other => Err(other.text()),
        });
    };
    post(&pipeline, 30, "unfollow", "early");
    post(&pipeline, 10, "follow", "early");
    post(&pipeline, 20, "follow", "bob");
    shows(&[("bob", 20)]);
    post(&pipeline, 21, "follow", "cid");
    post(&pipeline, 40, "follow", "bob");
    shows(&[("bob", 40), ("cid", 21)]);
    post(&pipeline, 50, "unfollow", "bob");
    post(&pipeline, 45, "follow", "bob");
    shows(&[("cid", 21)]);
    let listed = Client::of(pipeline.proxy()).get("/follows/ann/activities.json").json();
    assert_eq!((&listed["type"], &listed["totalItems"]), (&json!("OrderedCollection"), &json!(1)), "{listed}");
}

#[test]
fn home_feeds_gather_what_is_followed() {
    let mut pipeline = running();
    home_feeds(&mut pipeline, &[]);
}

/// Whoever dies between two events: nothing is lost on its way from one document to another.
#[test]
fn home_feeds_gather_across_shards_that_are_killed() {
    let mut pipeline = Pipeline::prepared(&[FOLLOWS]);
    SEVERAL_PROCESSES.iter().for_each(|part| pipeline.start(*part));
    home_feeds(&mut pipeline, &[SHARD_A, SHARD_B, DISPATCHER, SHARD_A, QUEUE, SHARD_B]);
}

#[test]
fn home_feeds_gather_on_nats() {
    let mut pipeline = Pipeline::prepared(&[FOLLOWS]);
    ON_NATS.iter().for_each(|part| pipeline.start(*part));
    home_feeds(&mut pipeline, &[SHARD_A_ON_NATS, SHARD_B_ON_NATS]);
}

#[test]
fn great_feeds_are_merged_across_shards_that_are_killed() {
    let mut pipeline = Pipeline::prepared(&[FOLLOWS]);
    SEVERAL_PROCESSES.iter().for_each(|part| pipeline.start(*part));
    followed_by_two(&pipeline);
    home_feeds(&mut pipeline, &[SHARD_A, SHARD_B, DISPATCHER, SHARD_A, QUEUE, SHARD_B]);
    assert!(pipeline.sum(MERGED) > 0.0);
}

#[test]
fn great_feeds_are_merged_on_nats() {
    let mut pipeline = Pipeline::prepared(&[FOLLOWS]);
    ON_NATS.iter().for_each(|part| pipeline.start(*part));
    followed_by_two(&pipeline);
    home_feeds(&mut pipeline, &[SHARD_A_ON_NATS, SHARD_B_ON_NATS]);
    assert!(pipeline.sum(MERGED) > 0.0);
}

const MERGED: &str = "millpond_shard_merged_documents_total";

/// Which is more than they tell one by one.
fn followed_by_two(pipeline: &Pipeline) {
    for (second, user) in (1..).zip(["dan", "eve"]) {
        post_of(pipeline, user, second, "follow", "bob");
        post_of(pipeline, user, second, "follow", "cid");
    }
}

/// A copy of a home feed that was made before its feed was a great one has to go when that has news.
#[test]
fn copies_of_home_feeds_change_with_great_feeds() {
    let pipeline = running();
    let mut client = Client::of(pipeline.proxy());
    let mut hit = |path: &str, expected: &[&str]| {
        let expected: Vec<_> = expected.iter().map(|id| json!({ "id": id })).collect();
        eventually("a hit with all items", || match client.get(path) {
            answer if (answer.detail(), &answer.json()["items"]) == ("hit", &json!(expected)) => Ok(()),
            other => Err(format!("{path}: {} {}", other.detail(), other.text())),
        });
    };
    post_of(&pipeline, "bob", 10, "post", "b1");
    post_of(&pipeline, "ann", 11, "follow", "bob");
    hit("/home/ann.json", &["b1"]);
    assert_eq!(pipeline.sum(MERGED), 0.0);
    followed_by_two(&pipeline);
    hit("/home/dan.json", &["b1"]);
    hit("/home/eve.json", &["b1"]);
    for (second, shown) in [(12, ["b2", "b1", ""]), (13, ["b3", "b2", "b1"]), (14, ["b4", "b3", "b2"])] {
        post_of(&pipeline, "bob", second, "post", shown[0]);
        let shown: Vec<&str> = shown.into_iter().filter(|id| !id.is_empty()).collect();
        ["ann", "dan", "eve"].iter().for_each(|user| hit(&format!("/home/{user}.json"), &shown));
    }
    assert!(pipeline.sum(MERGED) > 0.0);
    // One that does not follow it any more has nothing of it, and is not fetched again for its sake.
    post_of(&pipeline, "ann", 20, "unfollow", "bob");
    hit("/home/ann.json", &[]);
    let fetched = || pipeline.sum("millpond_render_total");
    post_of(&pipeline, "bob", 21, "post", "b5");
    hit("/home/dan.json", &["b5", "b4", "b3"]);
    let before = fetched();
    hit("/home/ann.json", &[]);
    assert_eq!(fetched(), before);
}

/// After each step one of `killed` is killed, before anybody looks, and started again.
fn home_feeds(pipeline: &mut Pipeline, killed: &[Part]) {
    for (user, second, comment) in [
        ("bob", 10, "b1"),
        ("cid", 15, "c1"),
        ("bob", 20, "b2"),
        ("cid", 25, "c2"),
        ("cid", 35, "c3"),
        ("cid", 45, "c4"),
    ] {
        post_of(pipeline, user, second, "post", comment);
    }
    let mut killed = killed.iter();
    let steps: [(&str, u32, &str, &str, &[&str]); 8] = [
        ("ann", 50, "follow", "bob", &["b2", "b1"]),
        ("ann", 51, "follow", "cid", &["c4", "c3", "c2"]),
        ("bob", 40, "post", "b3", &["c4", "b3", "c3"]),
        // What cid's had pushed out comes back.
        ("ann", 58, "unfollow", "cid", &["b3", "b2", "b1"]),
        ("ann", 55, "follow", "cid", &["b3", "b2", "b1"]),
        ("cid", 56, "post", "c5", &["b3", "b2", "b1"]),
        ("bob", 57, "post", "b4", &["b4", "b3", "b2"]),
        ("ann", 59, "follow", "cid", &["b4", "c5", "c4"]),
    ];
    for (user, second, page, comment, expected) in steps {
        post_of(pipeline, user, second, page, comment);
        if let Some(part) = killed.next() {
            pipeline.kill9(*part);
            pipeline.start(*part);
        }
        let mut client = Client::of(pipeline.proxy());
        let expected: Vec<_> = expected.iter().map(|id| json!({ "id": id })).collect();
        eventually("the home feed", || match client.get("/home/ann.json") {
            answer if answer.status() == 200 && answer.json()["items"] == json!(expected) => Ok(()),
            other => Err(format!("after {page} of {comment}: {}", other.text())),
        });
    }
    assert_eq!(Client::of(pipeline.proxy()).get("/home/ann.json").json()["title"], "Home of ann");
}

#[test]
fn a_copy_of_a_document_with_a_refresh_is_used_though_the_document_changes() {
    let pipeline = running();
    post(&pipeline, 1, "p", "one");
    let mut client = Client::of(pipeline.proxy());
    let copy = eventually("a hit", || match client.get("/slow/ann.json") {
        answer if (answer.status(), answer.detail()) == (200, "hit") => Ok(answer),
        other => Err(other.text()),
    });
    assert_eq!(copy.json()["totals"]["count"], 1);
    assert_eq!(copy.field("millpond-refresh"), None, "between proxy and shard only");
    post(&pipeline, 2, "follow", "two");
    // What came of the same event elsewhere was announced with it, or later.
    eventually("the list", || match client.get("/follows/ann.json") {
        answer if answer.status() == 200 => Ok(()),
        other => Err(other.text()),
    });
    pipeline.wait_until_applied();
    let still = client.get("/slow/ann.json");
    assert_eq!((still.detail(), &still.body), ("hit", &copy.body));
    // Whoever has seen the newer one on another output must not see the older one again.
    let other = client.get("/slow/ann.xml");
    assert!(other.detail() != "hit" && other.text().contains("<number key=\"count\">2</number>"), "{}", other.text());
    assert_eq!(client.get("/slow/ann.json").json()["totals"]["count"], 2);
}
