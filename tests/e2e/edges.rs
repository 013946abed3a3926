//! Who follows whom, through the whole pipeline; and a document that is fetched no oftener than it is told.

use serde_json::json;

use crate::harness::client::{Client, Request};
use crate::harness::eventually;
use crate::harness::pipeline::{ALL, Pipeline};

/// Behind which line of the example, and what: whom each user follows, where the page says what the user did.
const FOLLOWS: (&str, &str) = (
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
    let time = format!("2015-09-12T00:00:{second:02}Z");
    let event = json!({ "time": time, "user": "ann", "channel": "c", "page": page, "comment": comment }).to_string();
    let posted = Client::of(pipeline.proxy()).ask(&Request::post("/events/wiki", &event));
    assert_eq!((posted.status(), posted.json()["accepted"].as_u64()), (202, Some(1)), "{}", posted.text());
}

#[test]
fn edges_come_and_go_by_the_newest_event_of_each() {
    let pipeline = running();
    let shows = |expected: &[(&str, u32)]| {
        let mut client = Client::of(pipeline.proxy());
        let item = |(id, second): &(&str, u32)| json!({ "id": id, "since": format!("2015-09-12T00:00:{second:02}Z") });
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
fn a_copy_of_a_document_with_a_refresh_is_used_though_the_document_changes() {
    let pipeline = running();
    post(&pipeline, 1, "p", "one");
    let mut client = Client::of(pipeline.proxy());
    let copy = eventually("a hit", || match client.get("/slow/ann.json") {
        answer if answer.detail() == "hit" => Ok(answer),
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
