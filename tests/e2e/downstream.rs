//! What clients and the caches in front of this one are told in place of what the origin says.

use crate::e2e::proxy_before;
use crate::harness::client::{Request, Response, get, post};
use crate::harness::http2::Http2;
use crate::harness::origin::{Answer, ScriptedOrigin};
use crate::harness::process::Millpond;

const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn told<'a>(answer: &'a Response, name: &'a str) -> Option<&'a str> {
    let all = answer.head.all(name);
    assert!(all.len() <= 1, "{name}: {all:?}");
    all.first().copied()
}

fn revalidated(pond: &Millpond) -> Response {
    let purged = post(pond.admin(), "/purge?all", "");
    assert_eq!(purged.status(), 200, "{}", purged.text());
    get(pond.proxy(), "/api/a")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rule_says_goes_out_and_what_the_origin_said_counts_here() {
    let origin = ScriptedOrigin::start();
    let first = Answer::ok("a").field("ETag", "\"v1\"").field("Cache-Control", "max-age=600").field("Date", LONG_AGO);
    origin.answer("/api/a", first.field("Expires", LONG_AGO).field("Surrogate-Control", "max-age=9"));
    let settings = r#"ttl = "1h"
        downstream = { cache_control = "no-cache, max-age=5", cdn_cache_control = "max-age=60", surrogate_control = false }"#;
    let pond = proxy_before(&[&origin], settings);
    let whole = format!("http://{}/api/a", pond.proxy());
    let http2 = Http2::open(pond.proxy()).await;
    let judge = |answer: &Response, outcome: &str| {
        assert_eq!(answer.outcome(), outcome);
        assert_eq!(told(answer, "cache-control"), Some("no-cache, max-age=5"));
        assert_eq!(told(answer, "cdn-cache-control"), Some("max-age=60"));
        assert_eq!((told(answer, "surrogate-control"), told(answer, "expires")), (None, None));
        // Its seconds count from now.
        assert!(told(answer, "date").is_some_and(|date| date != LONG_AGO), "{answer:?}");
        assert_eq!(told(answer, "age"), Some("0"));
    };
    // The head that is handed through is that of the GET, before anything is stored.
    let head = Request::head("/api/a").ask(pond.proxy());
    assert_eq!(
        (head.outcome(), told(&head, "cache-control"), told(&head, "expires")),
        ("miss", Some("no-cache, max-age=5"), None)
    );
    assert!(
        told(&head, "date").is_some_and(|date| date != LONG_AGO) && told(&head, "age").is_none_or(|age| age == "0")
    );
    judge(&get(pond.proxy(), "/api/a"), "miss");
    for target in ["/api/a", whole.as_str()] {
        judge(&get(pond.proxy(), target), "hit");
        let unchanged = Request::get(target).field("If-None-Match", "\"v1\"").ask(pond.proxy());
        assert_eq!(unchanged.status(), 304);
        judge(&unchanged, "hit");
    }
    let answer = http2.get("/api/a").await;
    assert_eq!((answer.head.outcome(), answer.head.field("cache-control")), ("hit", Some("no-cache, max-age=5")));
    assert_eq!((answer.head.field("age"), answer.head.field("expires")), (Some("0"), None));
    judge(&revalidated(&pond), "revalidated");
    judge(&get(pond.proxy(), "/api/a"), "hit");
    assert_eq!(origin.count("/api/a"), 3);
}

/// A 304 confirms what the origin said before, and not what clients were told since.
#[test]
fn a_304_without_a_word_leaves_the_origins_own_standing() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/api/a", |seen| match seen.field("if-none-match") {
        Some(_) => Answer::status(304, "").field("ETag", "\"v1\""),
        None => Answer::ok("a").field("ETag", "\"v1\"").field("Cache-Control", "max-age=600"),
    });
    let pond = proxy_before(&[&origin], r#"downstream = { cache_control = "no-store" }"#);
    assert_eq!(get(pond.proxy(), "/api/a").outcome(), "miss");
    assert_eq!(get(pond.proxy(), "/api/a").outcome(), "hit");
    assert_eq!(revalidated(&pond).outcome(), "revalidated");
    let hit = get(pond.proxy(), "/api/a");
    assert_eq!((hit.outcome(), told(&hit, "cache-control")), ("hit", Some("no-store")));
    assert_eq!(origin.count("/api/a"), 2);
}

#[test]
fn what_is_for_one_client_keeps_the_origins_word() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/own", Answer::ok("own").field("Cache-Control", "private, max-age=60"));
    origin.answer("/api/down", Answer::status(503, "down").field("Cache-Control", "max-age=60"));
    let pond = proxy_before(&[&origin], r#"downstream = { cache_control = "public, max-age=3600" }"#);
    for outcome in ["miss", "miss"] {
        let answer = get(pond.proxy(), "/api/own");
        assert_eq!((answer.outcome(), told(&answer, "cache-control")), (outcome, Some("private, max-age=60")));
    }
    let posted = post(pond.proxy(), "/api/own", "");
    assert_eq!(told(&posted, "cache-control"), Some("private, max-age=60"));
    for outcome in ["miss", "hit"] {
        let answer = get(pond.proxy(), "/api/down");
        assert_eq!((answer.outcome(), told(&answer, "cache-control")), (outcome, Some("max-age=60")), "a failure");
    }
}

#[test]
fn tags_are_told_in_the_field_that_the_next_cache_reads() {
    let origin = ScriptedOrigin::start();
    let answer = Answer::ok("a").field("X-Tags", "red, green").field("Surrogate-Key", "theirs");
    origin.answer("/api/a", answer.field("Cache-Groups", "\"group\"").field("Millpond-Cache-Control", "max-age=600"));
    let tags = r#"tags = { header = "X-Tags", add = ["api"] }"#;
    for (downstream, name, expected) in [
        ("", "x-tags", Some("red, green")),
        (r#"downstream = { tags = "Surrogate-Key" }"#, "surrogate-key", Some("api green red")),
        (r#"downstream = { tags = "Cache-Tag" }"#, "cache-tag", Some("api,green,red")),
        (r#"downstream = { tags = false }"#, "surrogate-key", None),
    ] {
        let pond = proxy_before(&[&origin], &format!("{tags}\n{downstream}"));
        for outcome in ["miss", "hit"] {
            let answer = get(pond.proxy(), "/api/a");
            assert_eq!((answer.outcome(), told(&answer, name)), (outcome, expected), "{downstream}");
            assert_eq!(told(&answer, "x-tags").is_some(), downstream.is_empty(), "{downstream}");
            assert_eq!(told(&answer, "millpond-cache-control"), None, "for us alone");
        }
        let purged = post(pond.admin(), "/purge?tag=green", "");
        assert_eq!(purged.json()["objects"], 1, "{downstream}");
    }
}
