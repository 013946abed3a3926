//! Feeds read page by page, through a cache that the events keep fresh.

use serde_json::{Value, json};

use crate::harness::client::{Client, Request, Response};
use crate::harness::eventually;
use crate::harness::pipeline::{ALL, ONE_PROCESS, Pipeline, SEVERAL_PROCESSES};

/// Behind which line of the example, and what: what each user says, whom each follows, and what those say.
const PAGED: (&str, &str) = (
    "  template = \"countries.html.j2\"",
    r#"
[[projection]]
name = "posts"
kind = "feed"
where = { "data.page" = "post" }
key = "{data.user}"
keep = 100
site = "https://feeds.example"
item = { id = "{data.comment}", title = "{data.comment}", content_text = "" }
remove_on = { where = { "data.page" = "removal" }, id = "{data.comment}" }

  [[projection.output]]
  path = "/posts/{key}.json"
  format = "json"
  page = 2

  [[projection.output]]
  path = "/posts/{key}/feed.json"
  format = "jsonfeed"
  page = 3

[[projection]]
name = "follows"
kind = "edges"
where = { "data.page" = "follow" }
key = "{data.user}"
to = "{data.comment}"
item = { id = "{data.comment}" }
remove_on = { where = { "data.page" = "unfollow" } }

  [[projection.output]]
  path = "/follows/{key}.json"
  format = "json"
  page = 2

[[projection]]
name = "notes"
kind = "feed"
where = { "data.page" = "note" }
key = "{data.user}"
keep = 9
item = { id = "{data.comment}" }

  [[projection.output]]
  path = "/notes/{key}.json"
  format = "json"

[[projection]]
name = "home"
kind = "home"
feed = "notes"
edges = "follows"
keep = 9

  [[projection.output]]
  path = "/home/{key}.json"
  format = "json"
  page = 2
"#,
);

/// How often a page is looked at again to find an old copy of it.
const LOOKS: usize = 50;
/// Pages of a walk, and more would be one without end.
const PAGES_MAX: usize = 60;

fn post(client: &mut Client, user: &str, second: usize, page: &str, comment: &str) {
    let time = format!("2015-09-12T00:{:02}:{:02}Z", second / 60, second % 60);
    let event = json!({ "time": time, "user": user, "channel": "c", "page": page, "comment": comment }).to_string();
    let posted = client.ask(&Request::post("/events/wiki", &event));
    assert_eq!((posted.status(), posted.json()["accepted"].as_u64()), (202, Some(1)), "{}", posted.text());
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("an id")).collect()
}

/// Path and query of the page that this one names as the next.
fn next(page: &Value, name: &str) -> Option<String> {
    page[name].as_str().map(|next| next.strip_prefix("https://feeds.example").unwrap_or(next).to_owned())
}

/// The page once it shows this.
fn shows(client: &mut Client, target: &str, expected: &[&str]) -> Response {
    eventually(target, || match client.get(target) {
        answer if answer.status() == 200 && ids(&answer.json()) == expected => Ok(answer),
        other => Err(other.text()),
    })
}

/// The version of the document that a first page is of.
fn version(first: &Response) -> String {
    let etag = first.field("etag").expect("a tag");
    etag.trim_matches('"').rsplit_once('-').expect("a version and more").0.to_owned()
}

#[test]
fn a_page_is_kept_and_never_older_than_its_document() {
    for parts in [&ONE_PROCESS[..], &SEVERAL_PROCESSES[..]] {
        let mut pipeline = Pipeline::prepared(&[PAGED]);
        parts.iter().for_each(|part| pipeline.start(*part));
        let mut client = Client::of(pipeline.proxy());
        (1..=7).for_each(|n| post(&mut client, "ann", n, "post", &format!("a{n}")));
        pipeline.wait_until_applied();
        let first = shows(&mut client, "/posts/ann.json", &["a7", "a6"]);
        let second_page = next(&first.json(), "next").expect("more");
        assert_eq!(first.field("link"), Some(format!("<{second_page}>; rel=\"next\"").as_str()));
        let second = client.get(&second_page);
        assert_eq!(ids(&second.json()), ["a5", "a4"]);
        let third_page = next(&second.json(), "next").expect("more");
        let links = format!("</posts/ann.json>; rel=\"first\", <{third_page}>; rel=\"next\"");
        assert_eq!(second.field("link"), Some(links.as_str()));
        assert_eq!(client.get(&second_page).detail(), "hit");

        // What comes in above moves nothing: the page is confirmed, not sent again, and kept again.
        post(&mut client, "ann", 8, "post", "a8");
        shows(&mut client, "/posts/ann.json", &["a8", "a7"]);
        let again = client.get(&second_page);
        assert_eq!((again.outcome(), &again.body), ("revalidated", &second.body));
        assert_eq!(again.field("etag"), second.field("etag"));
        assert_eq!(client.get(&second_page).detail(), "hit");
        let tag = second.field("etag").expect("a tag");
        assert_eq!(client.ask(&Request::get(&second_page).field("If-None-Match", tag)).status(), 304);

        // Whoever knows of a removal by the first page finds it on none.
        let before = version(&client.get("/posts/ann.json"));
        post(&mut client, "ann", 9, "removal", "a5");
        eventually("a later version", || match version(&client.get("/posts/ann.json")) {
            same if same == before => Err(same),
            _ => Ok(()),
        });
        for _ in 0..LOOKS {
            assert_eq!(ids(&client.get(&second_page).json()), ["a4", "a3"]);
        }
        // The item that a cursor was made of may go: it is a place, not an item.
        post(&mut client, "ann", 10, "removal", "a6");
        shows(&mut client, "/posts/ann.json", &["a8", "a7"]);
        shows(&mut client, &second_page, &["a4", "a3"]);
        assert_eq!(ids(&client.get(&third_page).json()), ["a3", "a2"]);
    }
}

#[test]
fn pages_of_all_kinds_are_walked_to_their_end() {
    let mut pipeline = Pipeline::prepared(&[PAGED]);
    pipeline.start(ALL);
    let mut client = Client::of(pipeline.proxy());
    for (second, user, page, comment) in [
        (1, "ann", "follow", "bob"),
        (2, "ann", "follow", "cid"),
        (3, "ann", "follow", "dan"),
        (4, "bob", "note", "b1"),
        (5, "cid", "note", "c1"),
        (6, "bob", "note", "b2"),
        (7, "dan", "note", "d1"),
        (8, "cid", "note", "c2"),
    ] {
        post(&mut client, user, second, page, comment);
    }
    for (path, pages) in [
        ("/follows/ann.json", vec![vec!["dan", "cid"], vec!["bob"]]),
        ("/home/ann.json", vec![vec!["c2", "d1"], vec!["b2", "c1"], vec!["b1"]]),
    ] {
        let mut target = path.to_owned();
        for (number, expected) in (1..).zip(&pages) {
            let page = shows(&mut client, &target, expected).json();
            match next(&page, "next") {
                Some(next) => target = next,
                None => assert_eq!(number, pages.len(), "{path}"),
            }
        }
    }
    // Past the end, of what lists all on one page, made up, and what is no cursor.
    let last = next(&client.get("/follows/ann.json").json(), "next").expect("more");
    let cursor = last.split_once('=').expect("a cursor").1;
    let made_up = format!("/notes/cid.json?before={cursor}");
    for _ in 0..2 {
        let page = client.get(&made_up);
        assert_eq!((page.json()["items"].clone(), page.field("cache-control")), (json!([]), Some("no-store")));
        assert_ne!(page.detail(), "hit", "of such there is no end");
    }
    for (query, problem) in
        [("before=x", "`before` is no cursor of this server"), ("before=&before=", "`before` stands there twice")]
    {
        let refused = client.get(&format!("/follows/ann.json?{query}"));
        assert_eq!((refused.status(), &refused.json()["error"]), (400, &json!(problem)), "{query}");
    }
}

#[test]
fn who_walks_while_items_come_in_sees_each_once() {
    let mut pipeline = Pipeline::prepared(&[PAGED]);
    pipeline.start(ALL);
    let (mut writer, mut reader) = (Client::of(pipeline.proxy()), Client::of(pipeline.proxy()));
    (0..20).for_each(|n| post(&mut writer, "eve", n, "post", &format!("e{n}")));
    pipeline.wait_until_applied();
    let target = "/posts/eve/feed.json";
    shows(&mut reader, target, &["e19", "e18", "e17"]);
    let (mut seen, mut target) = (Vec::new(), Some(target.to_owned()));
    for n in 20..20 + PAGES_MAX {
        let Some(page) = target else { break };
        let page = reader.get(&page).json();
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        post(&mut writer, "eve", n, "post", &format!("e{n}"));
        pipeline.wait_until_applied();
        target = next(&page, "next_url");
    }
    let expected: Vec<String> = (0..20).rev().map(|n| format!("e{n}")).collect();
    assert_eq!(seen, expected);
}
