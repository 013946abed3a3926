//! What HTTP says of caches beyond the plain cases, seen from outside. The decisions have tables of their own beside
//! them; here it is that the gateway acts on them.

use crate::e2e::plain_proxy::plain;
use crate::e2e::proxy_before;
use crate::e2e::sharing::wait_for_waiters;
use crate::harness::client::{Connection, Request, Response, get};
use crate::harness::eventually;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin, Seen};
use crate::harness::witness::Witness;

/// Our member of `Cache-Status`.
fn told(answer: &Response) -> String {
    answer.head.all("cache-status").last().copied().unwrap_or_default().to_owned()
}

#[test]
fn targeted_directives_decide_and_ours_stay_here() {
    let origin = ScriptedOrigin::start();
    let body = Answer::ok("x").field("ETag", "\"v\"");
    let both = body.clone().field("Cache-Control", "no-store").field("CDN-Cache-Control", "max-age=60");
    origin.answer("/cdn", both.clone());
    origin.answer("/own", both.field("Millpond-Cache-Control", "max-age=1").field("Age", "1"));
    origin.answer("/malformed", body.field("Cache-Control", "max-age=60").field("CDN-Cache-Control", "no-store,"));
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    for (path, second) in [("/cdn", "hit"), ("/malformed", "hit"), ("/own", "revalidated/expired")] {
        let first = witness.get(path);
        assert_eq!(first.detail(), "miss/not-cached", "{path}");
        assert!(first.field("cdn-cache-control").is_some() && first.field("millpond-cache-control").is_none());
        let again = witness.get(path);
        assert_eq!(again.detail(), second, "{path}");
        assert!(again.field("cdn-cache-control").is_some() && again.field("millpond-cache-control").is_none());
    }
    // A 304 that does not repeat ours leaves it in force: CDN-Cache-Control would let the copy live for a minute.
    origin.answer_by("/own", |request: &Seen| match request.field("if-none-match") {
        Some(_) => Answer::status(304, "").field("ETag", "\"v\"").field("Age", "1"),
        None => Answer::ok("whole again"),
    });
    for _ in 0..3 {
        let answer = witness.get("/own");
        assert_eq!((answer.detail(), answer.text().as_str()), ("revalidated/expired", "x"));
    }
    witness.all_agree();
}

#[test]
fn fields_that_are_for_one_client_reach_that_client_only() {
    let origin = ScriptedOrigin::start();
    let answer = Answer::ok("shared")
        .field("Cache-Control", "max-age=60, private=\"x-own, set-cookie\"")
        .field("Set-Cookie", "sid=of-one")
        .field("X-Own", "1")
        .field("X-All", "2");
    origin.answer("/whole", answer.clone());
    origin.answer("/pieces", answer.clone().chunked());
    let no_cache = Answer::ok("shared").field("Cache-Control", "max-age=60, no-cache=\"X-Own\"");
    origin.answer("/no-cache", no_cache.field("X-Own", "1").field("X-All", "2"));
    // With a rule a cookie keeps a response from being shared; not one that is shared with nobody.
    origin.answer("/api/cookie", answer);
    let (pond, ruled) = (plain(&origin, &[]), proxy_before(&[&origin], ""));
    let (plainly, by_rule) = (Witness::of(&pond), Witness::of(&ruled));
    for (witness, path) in
        [(&plainly, "/whole"), (&plainly, "/pieces"), (&plainly, "/no-cache"), (&by_rule, "/api/cookie")]
    {
        let first = witness.get(path);
        assert_eq!(
            (first.detail(), first.field("x-own"), first.field("x-all")),
            ("miss/not-cached", Some("1"), Some("2"))
        );
        assert_eq!(first.field("set-cookie").is_some(), path != "/no-cache");
        let second = witness.get_until(path, "hit", &["collapsed"]);
        assert_eq!((second.text().as_str(), second.field("x-all")), ("shared", Some("2")), "{path}");
        assert_eq!((second.field("x-own"), second.field("set-cookie")), (None, None), "{path}");
    }
    plainly.all_agree();
    by_rule.all_agree();
}

#[test]
fn a_head_teaches_what_is_stored_for_get() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    let stale = |tag: &str| {
        Answer::ok("body")
            .field("Cache-Control", "max-age=1, stale-while-revalidate=60")
            .field("Age", "1")
            .field("ETag", tag)
    };
    let fresh =
        |tag: &str| Answer::ok("body").field("Cache-Control", "max-age=60").field("ETag", tag).field("X-New", "1");
    for (path, now, detail) in [
        ("/same", fresh("\"v1\""), "hit"),
        ("/other-tag", fresh("\"v2\""), "miss/purged"),
        (
            "/other-length",
            Answer::ok("longer").field("Cache-Control", "max-age=60").field("ETag", "\"v1\""),
            "revalidated/purged",
        ),
        ("/gone", Answer::status(404, "").field("Cache-Control", "max-age=60"), "stale/expired"),
    ] {
        origin.answer(path, stale("\"v1\""));
        assert_eq!(witness.get(path).detail(), "miss/not-cached");
        origin.answer(path, now);
        let head = witness.ask(&Request::head(path).field("Cache-Control", "no-cache"));
        assert_eq!(head.outcome(), "miss", "{path}");
        let after = witness.get(path);
        assert_eq!(after.detail(), detail, "{path}");
        assert_eq!(after.field("x-new").is_some(), ["/same", "/other-tag"].contains(&path), "{path}");
        let methods: Vec<String> = origin.requests(path).into_iter().take(2).map(|request| request.method).collect();
        assert_eq!(methods, ["GET", "HEAD"], "{path}");
    }
    witness.all_agree();
}

#[test]
fn a_disconnected_cache_goes_on_if_told_to_unless_it_is_forbidden() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &["--stale-when-disconnected"]);
    let witness = Witness::of(&pond);
    let cases = [
        ("/free", "max-age=1", 200, "stale/no-origin"),
        ("/named", "max-age=1, stale-if-error=0", 502, "error/no-origin"),
        ("/must", "max-age=1, must-revalidate", 504, "error/no-origin"),
        ("/proxies-must", "max-age=1, proxy-revalidate", 504, "error/no-origin"),
        ("/shared", "s-maxage=1", 504, "error/no-origin"),
        ("/no-cache", "max-age=1, no-cache", 502, "error/no-origin"),
    ];
    for (path, control, _, _) in cases {
        origin.answer(
            path,
            Answer::ok("old")
                .field("Cache-Control", control)
                .field("Age", "1")
                .field("ETag", "\"v\"")
                .field("Connection", "close"),
        );
        assert_eq!(witness.get(path).outcome(), "miss");
    }
    // It answers, if only that it can't: nobody is disconnected, and nothing lets a stale response be sent.
    origin.answer("/free", Answer::status(503, "down"));
    let failed = witness.get("/free");
    assert_eq!((failed.status(), failed.outcome()), (503, "miss"));
    // A client can accept it.
    let accepted = witness.ask(&Request::get("/free").field("Cache-Control", "stale-if-error=60"));
    assert_eq!((accepted.status(), accepted.text().as_str(), accepted.detail()), (200, "old", "stale/origin-error"));
    assert!(told(&accepted).starts_with("Millpond; fwd=stale; fwd-status=503; ttl="), "{}", told(&accepted));

    origin.die();
    for (path, control, status, detail) in cases {
        // The origin was asked a moment ago for the first of them.
        let answer = eventually("an answer that was tried for", || {
            let answer = witness.get(path);
            if answer.detail() == "stale/origin-error" { Err(answer.detail().to_owned()) } else { Ok(answer) }
        });
        assert_eq!((answer.status(), answer.detail()), (status, detail), "{control}");
        assert_eq!(answer.field("age").is_some(), status == 200, "{control}");
    }
    witness.all_agree();
}

/// There is no stale window that nobody has named.
#[test]
fn a_disconnected_cache_serves_nothing_stale_by_itself() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    // No connection is kept that could be found closed: without rules no request is sent twice.
    let old = Answer::ok("old").field("Age", "1").field("ETag", "\"v\"").field("Connection", "close");
    origin.answer("/silent", old.clone().field("Cache-Control", "max-age=1"));
    origin.answer("/named", old.field("Cache-Control", "max-age=1, stale-if-error=60"));
    ["/silent", "/named"].iter().for_each(|path| assert_eq!(witness.get(path).outcome(), "miss"));
    origin.die();
    let silent = witness.get("/silent");
    assert_eq!((silent.status(), silent.detail()), (502, "error/no-origin"));
    let named = witness.get("/named");
    assert_eq!((named.status(), named.text().as_str(), named.detail()), (200, "old", "stale/no-origin"));
    witness.all_agree();
}

#[test]
fn groups_go_together_within_their_origin() {
    let origin = ScriptedOrigin::start();
    let stored = Answer::ok("x").field("Cache-Control", "max-age=60");
    for (path, groups) in [("/a", "\"one\", \"two\""), ("/b", "\"two\";x=1"), ("/c", "\"three\""), ("/d", "two")] {
        origin.answer_by(path, {
            let stored = stored.clone().field("Cache-Groups", groups);
            move |request: &Seen| match request.method.as_str() {
                "POST" => Answer::ok("done"),
                _ => stored.clone(),
            }
        });
    }
    origin.answer("/change", Answer::ok("done").field("Cache-Group-Invalidation", "\"three\", \"absent\""));
    origin.answer("/fail", Answer::status(500, "").field("Cache-Group-Invalidation", "\"two\""));
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    let ask = |path: &str, host: &str| witness.ask(&Request::get(path).field("Host", host)).outcome().to_owned();
    let state = |host: &str| ["/a", "/b", "/c", "/d"].map(|path| ask(path, host));
    let (miss, hit) = ("miss".to_owned(), "hit".to_owned());
    let change = |path: &str| witness.ask(&Request::post(path, "x").field("Host", "one.example"));

    for host in ["one.example", "two.example"] {
        assert_eq!(state(host), [&miss, &miss, &miss, &miss].map(Clone::clone));
        assert_eq!(state(host), [&hit, &hit, &hit, &hit].map(Clone::clone));
    }
    assert_eq!(change("/fail").status(), 500);
    assert_eq!(witness.ask(&Request::get("/change").field("Host", "one.example")).status(), 200);
    assert_eq!(state("one.example"), [&hit, &hit, &hit, &hit].map(Clone::clone), "an error, and a safe method");
    assert_eq!(change("/change").status(), 200);
    assert_eq!(state("one.example"), [&hit, &hit, &miss, &hit].map(Clone::clone), "the group that it names");
    // What is stored at /a belongs to a group that /b is of, too; /d has no valid group.
    assert_eq!(change("/a").status(), 200);
    assert_eq!(state("one.example"), [&miss, &miss, &hit, &hit].map(Clone::clone), "the groups of what it changes");
    assert_eq!(state("two.example"), [&hit, &hit, &hit, &hit].map(Clone::clone), "another origin's are its own");
    witness.all_agree();
}

#[test]
fn a_rule_need_not_heed_what_clients_ask() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("x"));
    let all =
        "client = { no_cache = false, no_store = false, max_age = false, min_fresh = false, only_if_cached = false }";
    let pond = proxy_before(&[&origin], &format!("ttl = \"1h\"\n{all}"));
    let witness = Witness::of(&pond);
    let with = |name: &str, value: &str| witness.ask(&Request::get("/api/a").field(name, value));
    assert_eq!(with("Cache-Control", "only-if-cached, no-store").detail(), "miss/not-cached");
    witness.get_until("/api/a", "hit", &["collapsed"]);
    for (name, value) in [
        ("Cache-Control", "no-cache"),
        ("Cache-Control", "max-age=0"),
        ("Cache-Control", "min-fresh=9999"),
        ("Pragma", "no-cache"),
    ] {
        assert_eq!(with(name, value).detail(), "hit", "{name}: {value}");
    }
    assert_eq!(origin.count("/api/a"), 1);
    let heeded = proxy_before(&[&origin], "ttl = \"1h\"");
    assert_eq!(get(heeded.proxy(), "/api/a").outcome(), "miss");
    let reload = Request::get("/api/a").field("Cache-Control", "max-age=0").ask(heeded.proxy());
    assert_eq!(reload.detail(), "miss/request-max-age");
    witness.all_agree();
}

#[test]
fn a_response_to_be_validated_is_shared_with_nobody_who_waits() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    let answer = Answer::ok("x").field("ETag", "\"v\"").field("Cache-Control", "no-cache");
    origin.answer("/a", answer.held_by(&gate));
    let pond = plain(&origin, &[]);
    let asked = || {
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get("/a"));
        client
    };
    let mut first = asked();
    origin.wait_for_requests("/a", 1);
    let mut second = asked();
    wait_for_waiters(&pond, 1);
    gate.open();
    assert_eq!(first.receive("GET").detail(), "miss/not-cached");
    let second = second.receive("GET");
    assert_eq!((second.text().as_str(), second.outcome() == "collapsed"), ("x", false), "{second:?}");
    assert_eq!(origin.count("/a"), 2, "each was answered for by the origin");
}

#[test]
fn a_validated_response_has_no_age_and_the_caches_before_us_are_told_of() {
    let origin = ScriptedOrigin::start();
    let answer = Answer::ok("x").field("ETag", "\"v\"").field("Cache-Control", "no-cache");
    origin.answer("/a", answer.field("Cache-Status", "Other; hit"));
    let pond = plain(&origin, &[]);
    assert!(told(&get(pond.proxy(), "/a")).contains("; stored"));
    let confirmed = get(pond.proxy(), "/a");
    assert_eq!((confirmed.status(), confirmed.field("age")), (200, None));
    assert!(told(&confirmed).starts_with("Millpond; fwd=stale; fwd-status=304;"), "{}", told(&confirmed));
    let had = Request::get("/a").field("If-None-Match", "\"v\"").ask(pond.proxy());
    assert_eq!((had.status(), had.head.all("cache-status").first().copied()), (304, Some("Other; hit")));
    assert!(told(&had).starts_with("Millpond; fwd=stale; fwd-status=304;"), "{}", told(&had));
}
