//! Items of a feed that later events take out, through the whole pipeline.

use serde_json::{Value, json};

use crate::harness::client::{Client, Request};
use crate::harness::eventually;
use crate::harness::pipeline::{ALL, Pipeline};

/// Behind which line of the example, and what: a feed by user of comments, which an edit of the page `removal` takes out.
const POSTS: (&str, &str) = (
    "  template = \"countries.html.j2\"",
    r#"
[[projection]]
name = "posts"
kind = "feed"
key = "{data.user}"
item = { id = "{data.comment}" }
remove_on = { where = { "data.page" = "removal" }, id = "{data.comment}" }

  [[projection.output]]
  path = "/posts/{key}.json"
  format = "json"
"#,
);

#[test]
fn a_removal_takes_an_item_out_whichever_comes_first() {
    let mut pipeline = Pipeline::prepared(&[POSTS]);
    pipeline.start(ALL);
    let mut client = Client::of(pipeline.proxy());
    let mut post = |second: u32, page: &str, comment: &str| {
        let time = format!("2015-09-12T00:00:{second:02}Z");
        let event =
            json!({ "time": time, "user": "ann", "channel": "c", "page": page, "comment": comment }).to_string();
        let posted = client.ask(&Request::post("/events/wiki", &event));
        assert_eq!((posted.status(), posted.json()["accepted"].as_u64()), (202, Some(1)), "{}", posted.text());
    };
    let shows = |expected: &[&str]| {
        let mut client = Client::of(pipeline.proxy());
        let expected: Vec<Value> = expected.iter().map(|id| json!({ "id": id })).collect();
        eventually("the feed", || match client.get("/posts/ann.json") {
            answer if answer.status() == 200 && answer.json()["items"] == json!(expected) => Ok(()),
            other => Err(other.text()),
        });
    };
    post(30, "removal", "early");
    post(10, "p", "early");
    post(20, "p", "b");
    shows(&["b"]);
    post(5, "removal", "b");
    post(25, "p", "c");
    shows(&["c", "b"]);
    post(40, "removal", "b");
    shows(&["c"]);
    post(50, "p", "early");
    shows(&["early", "c"]);
}
