//! In front of an API that exists already, with ten lines of configuration: every outcome, told in the same words by
//! the answer, the metrics and the log.

use std::sync::Arc;
use std::thread;

use crate::e2e::proxy_before;
use crate::harness::client::{Connection, End, Request, get};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::process::Millpond;
use crate::harness::witness::Witness;

#[test]
fn a_miss_then_hits() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("first").field("Content-Type", "text/plain"));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Witness::of(&pond);

    let miss = witness.get("/api/a");
    assert_eq!((miss.status(), miss.text().as_str(), miss.detail()), (200, "first", "miss/not-cached"));
    assert!(miss.field("cache-status").is_some_and(|value| value.contains("; stored")), "{miss:?}");
    let hit = witness.get("/api/a");
    assert_eq!((hit.text().as_str(), hit.detail()), ("first", "hit"));
    assert_eq!(hit.field("content-type"), Some("text/plain"));
    assert!(hit.field("age").is_some(), "what comes from the store has an age");
    let head = witness.ask(&Request::head("/api/a"));
    assert_eq!((head.detail(), head.end, head.field("content-length")), ("hit", End::Bodiless, Some("5")));

    assert_eq!(origin.count("/api/a"), 1);
    witness.all_agree();
    let metrics = Metrics::of(pond.admin());
    assert_eq!(metrics.sum("millpond_requests_total", &[("rule", "feeds"), ("outcome", "hit")]), 2.0);
    assert_eq!(metrics.sum("millpond_cache_objects", &[]), 1.0);
}

#[test]
fn stale_while_one_refresh_runs_behind() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("old"));
    let pond = proxy_before(&[&origin], "ttl = \"1s\"\nstale = { revalidate = \"1h\" }");
    let witness = Witness::of(&pond);
    assert_eq!(witness.get("/api/a").detail(), "miss/not-cached");

    let gate = Gate::closed();
    origin.answer("/api/a", Answer::ok("new").held_by(&gate));
    let stale = witness.get_until("/api/a", "stale", &["hit"]);
    assert_eq!((stale.text().as_str(), stale.detail()), ("old", "stale/expired"));
    for _ in 0..5 {
        assert_eq!(witness.get("/api/a").detail(), "stale/expired", "nobody waits for the refresh");
    }
    origin.wait_for_requests("/api/a", 2);
    assert_eq!(origin.count("/api/a"), 2, "one refresh for all of them");

    gate.open();
    eventually("the refreshed body", || {
        let text = witness.get("/api/a").text();
        if text == "new" { Ok(()) } else { Err(text) }
    });
    witness.all_agree();
}

#[test]
fn stale_when_the_origin_fails() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("old"));
    let pond = proxy_before(&[&origin], "ttl = \"1s\"\nstale = { error = \"1h\" }");
    let witness = Witness::of(&pond);
    witness.get("/api/a");

    origin.answer("/api/a", Answer::status(503, "down\n"));
    let stale = witness.get_until("/api/a", "stale", &["hit"]);
    assert_eq!((stale.status(), stale.text().as_str(), stale.detail()), (200, "old", "stale/origin-error"));
    let asked = origin.count("/api/a");
    assert_eq!(witness.get("/api/a").detail(), "stale/origin-error");
    assert_eq!(origin.count("/api/a"), asked, "a failing origin is probed, not hammered");

    origin.die();
    eventually("a probe of the dead origin", || {
        let answer = witness.get("/api/a");
        assert_eq!((answer.outcome(), answer.text().as_str()), ("stale", "old"));
        if answer.detail() == "stale/no-origin" { Ok(()) } else { Err(answer.detail().to_owned()) }
    });

    origin.answer("/api/a", Answer::ok("new"));
    origin.come_back();
    let back = witness.get_until("/api/a", "miss", &["stale"]);
    assert_eq!((back.text().as_str(), back.detail()), ("new", "miss/expired"));
    witness.all_agree();
}

#[test]
fn a_304_makes_the_stored_answer_fresh_again() {
    let origin = ScriptedOrigin::start();
    let unchanged = Answer::ok("same").field("ETag", "\"v1\"").field("Cache-Control", "max-age=1");
    origin.answer("/api/a", unchanged);
    let pond = proxy_before(&[&origin], "");
    let witness = Witness::of(&pond);
    witness.get("/api/a");

    let again = witness.get_until("/api/a", "revalidated", &["hit"]);
    assert_eq!((again.status(), again.text().as_str(), again.detail()), (200, "same", "revalidated/expired"));
    let asked = origin.requests("/api/a");
    assert_eq!(asked.last().and_then(|request| request.field("if-none-match")), Some("\"v1\""));
    assert_eq!(asked.len(), 2);
    witness.all_agree();
}

#[test]
fn what_the_rule_bypasses_passes() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/api/me", |request| Answer::ok(request.field("authorization").unwrap_or("nobody")));
    let bypass = "bypass = [\"header:authorization\", \"cookie:session\", \"query:preview\"]";
    let pond = proxy_before(&[&origin], &format!("ttl = \"1h\"\n{bypass}"));
    let witness = Witness::of(&pond);

    let alice = Request::get("/api/me").field("Authorization", "alice");
    for _ in 0..2 {
        let answer = witness.ask(&alice);
        assert_eq!((answer.text().as_str(), answer.detail()), ("alice", "pass/bypass"));
    }
    assert_eq!(witness.ask(&Request::get("/api/me").field("Cookie", "a=b; session=1")).detail(), "pass/bypass");
    assert_eq!(witness.get("/api/me?preview").detail(), "pass/bypass");
    assert_eq!(origin.count("/api/me"), 4);

    let nobody = witness.get("/api/me");
    assert_eq!((nobody.text().as_str(), nobody.detail()), ("nobody", "miss/not-cached"));
    assert_eq!(witness.ask(&Request::get("/api/me").field("Cookie", "a=b; session2=1")).detail(), "hit");
    assert_eq!(witness.ask(&alice).detail(), "pass/bypass", "also once something is stored");
    witness.all_agree();
}

/// Without a rule that says so, too: RFC 9111 §3.5.
#[test]
fn an_authorized_answer_is_for_one_client_only() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/api/me", |request| Answer::ok(request.field("authorization").unwrap_or("nobody")));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Witness::of(&pond);
    for user in ["alice", "bob"] {
        let answer = witness.ask(&Request::get("/api/me").field("Authorization", user));
        assert_eq!((answer.text().as_str(), answer.detail()), (user, "pass/authorization"));
    }
    assert_eq!(witness.get("/api/me").text(), "nobody");
    witness.all_agree();
}

#[test]
fn what_no_rule_is_for_is_refused() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Witness::of(&pond);
    let refused = witness.get("/elsewhere");
    assert_eq!((refused.status(), refused.detail()), (404, "refused/no-rule"));
    let traced = witness.ask(&Request::new("TRACE", "/api/a"));
    assert_eq!((traced.status(), traced.detail()), (405, "refused/method"));
    let mut client = Connection::open(pond.proxy());
    client.send("GET /api/a HTTP/1.1\r\n\r\n");
    let malformed = client.receive("GET");
    witness.note(&malformed);
    assert_eq!((malformed.status(), malformed.detail()), (400, "refused/bad-request"));
    assert_eq!(origin.count("/elsewhere") + origin.count("/api/a"), 0);
    witness.all_agree();
    let metrics = Metrics::of(pond.admin());
    assert_eq!(metrics.sum("millpond_requests_total", &[("rule", "none"), ("outcome", "refused")]), 3.0);
}

#[test]
fn an_error_when_every_server_is_dead() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Witness::of(&pond);
    origin.die();
    let dead = witness.get("/api/a");
    assert_eq!((dead.status(), dead.detail()), (502, "error/no-origin"));
    let mut client = Connection::open(pond.proxy());
    let dead = witness.ask_on(&mut client, &Request::post("/api/a", "GET /api/a HTTP/1.1\r\n"));
    assert_eq!((dead.status(), dead.detail()), (502, "error/no-origin"));
    let dead = witness.ask_on(&mut client, &Request::get("/api/a"));
    assert_eq!((dead.status(), dead.detail()), (502, "error/no-origin"), "the unsent body is no request");
    let up = || Metrics::of(pond.admin()).sum("millpond_origin_up", &[("origin", "api")]);
    assert_eq!(up(), 0.0);

    origin.answer("/api/a", Answer::ok("alive"));
    origin.come_back();
    assert_eq!(witness.get("/api/a").text(), "alive", "it is asked as soon as it is there again");
    assert_eq!(up(), 1.0);
    witness.all_agree();
}

#[test]
fn a_dead_server_is_skipped() {
    let (dead, live) = (ScriptedOrigin::start(), ScriptedOrigin::start());
    for origin in [&dead, &live] {
        origin.answer("/api/a", Answer::ok("here").field("Cache-Control", "no-store"));
    }
    let pond = proxy_before(&[&dead, &live], "");
    let witness = Witness::of(&pond);
    for _ in 0..4 {
        assert_eq!(witness.get("/api/a").detail(), "miss/no-store");
    }
    assert_eq!((dead.count("/api/a"), live.count("/api/a")), (2, 2), "in turn");
    dead.die();
    for _ in 0..10 {
        assert_eq!((witness.get("/api/a").status(), live.count("/api/a") > 2), (200, true));
    }
    assert_eq!(live.count("/api/a"), 12);
    witness.all_agree();
}

/// A kept connection may turn out to be closed, and so may the next: a request that can be sent again is.
#[test]
fn the_connections_that_a_dead_server_leaves_behind_cost_no_answer() {
    let (dead, live) = (ScriptedOrigin::start(), ScriptedOrigin::start());
    let gate = Gate::closed();
    for origin in [&dead, &live] {
        origin.answer("/api/a", Answer::ok("here").field("Cache-Control", "no-store").held_by(&gate));
    }
    let pond = proxy_before(&[&dead, &live], "");
    let witness = Witness::of(&pond);
    let mut clients: Vec<Connection> = (0..8).map(|_| Connection::open(pond.proxy())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        // One query each, so that nobody waits for another's answer.
        client.send_request(&Request::get(&format!("/api/a?{number}")));
    }
    dead.wait_for_requests("/api/a", 4);
    live.wait_for_requests("/api/a", 4);
    gate.open();
    for client in &mut clients {
        let answer = client.receive("GET");
        assert_eq!(answer.status(), 200);
        witness.note(&answer);
    }
    dead.die();
    for number in 0..20 {
        assert_eq!(witness.get(&format!("/api/a?{number}")).status(), 200);
    }
    witness.all_agree();
}

#[test]
fn parameters_outside_the_key_are_not_forwarded() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("page"));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"\nkey = { query = [\"page\", \"size\"] }");
    let witness = Witness::of(&pond);
    assert_eq!(witness.get("/api/a?utm_source=mail&size=5&page=2").outcome(), "miss");
    assert_eq!(witness.get("/api/a?page=2&size=5&utm_source=web").outcome(), "hit");
    assert_eq!(witness.get("/api/a?page=3&size=5").outcome(), "miss");
    assert_eq!(witness.get("/api/a?utm_campaign=x").outcome(), "miss");
    let asked: Vec<String> = origin.requests("/api/a").into_iter().map(|request| request.target).collect();
    assert_eq!(asked, ["/api/a?page=2&size=5", "/api/a?page=3&size=5", "/api/a"]);
    witness.all_agree();
}

/// RFC 9111 §3: what the origin forbids to share stays unshared, whatever lifetime the rule gives.
#[test]
fn a_lifetime_does_not_override_a_prohibition() {
    let origin = ScriptedOrigin::start();
    let prohibitions = [
        ("Cache-Control", "no-store", "miss/no-store"),
        ("Cache-Control", "private", "miss/private"),
        ("Set-Cookie", "id=1", "miss/set-cookie"),
        ("Vary", "*", "miss/vary-any"),
    ];
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Witness::of(&pond);
    for (index, (name, value, detail)) in prohibitions.into_iter().enumerate() {
        let path = format!("/api/{index}");
        origin.answer(&path, Answer::ok("mine").field(name, value));
        assert_eq!(witness.get(&path).detail(), detail, "{name}: {value}");
        assert_eq!(witness.get(&path).detail(), detail, "{name}: {value}");
        assert_eq!(origin.count(&path), 2);
    }
    witness.all_agree();
}

#[test]
fn an_access_line_tells_of_its_request() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("body"));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    get(pond.proxy(), "/api/a?b=c");
    let line = pond.log().wait_for_line("\"outcome\"");
    for once in ["\"path\":", "\"target\":", "\"status\":", "\"outcome\":", "\"timestamp\":", "\"level\":"] {
        assert_eq!(line.matches(once).count(), 1, "{once} in {line}");
    }
    let [line] = pond.access_log().try_into().expect("one line");
    let text = ["method", "host", "path", "rule", "outcome", "reason"].map(|name| line[name].as_str().unwrap_or(""));
    assert_eq!(text, ["GET", &pond.proxy().to_string(), "/api/a?b=c", "feeds", "miss", "not-cached"]);
    assert!(line["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{line}");
    assert!(line["bytes"].as_u64().is_some_and(|bytes| bytes > 100) && line["microseconds"].is_u64(), "{line}");
}

/// The sum over outcomes is the number of requests, also when many come at once on connections that are kept.
#[test]
fn every_request_is_counted_once() {
    let origin = ScriptedOrigin::start();
    (0..5).for_each(|index| origin.answer(&format!("/api/{index}"), Answer::ok("x")));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Arc::new(Witness::of(&pond));
    thread::scope(|scope| {
        for client in 0..8 {
            let witness = Arc::clone(&witness);
            let to = pond.proxy();
            scope.spawn(move || {
                let mut connection = Connection::open(to);
                for request in 0..25 {
                    let path = format!("/api/{}", (client + request) % 6);
                    assert!(witness.ask_on(&mut connection, &Request::get(&path)).is_whole());
                }
            });
        }
    });
    witness.all_agree();
    assert_eq!(Metrics::of(pond.admin()).sum("millpond_requests_total", &[]), 200.0);
}

/// The proxy holds nothing that cannot be fetched again.
#[test]
fn a_killed_proxy_costs_hits_and_nothing_else() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("still here"));
    let mut pond = proxy_before(&[&origin], "ttl = \"1h\"");
    get(pond.proxy(), "/api/a");
    pond.kill9();
    assert_eq!(pond.wait(), None, "a signal has no exit code");
    let again = Millpond::start_in(pond.dir(), &["run", "--config", "millpond.toml"], &["proxy", "admin"]);
    let answer = get(again.proxy(), "/api/a");
    assert_eq!((answer.text().as_str(), answer.detail()), ("still here", "miss/not-cached"));
    assert_eq!(get(again.proxy(), "/api/a").detail(), "hit");
}
