//! While a stale response can still be sent, the head of its replacement is held back: an origin that dies within its
//! body then means the stale response, and not a cut one.

use crate::e2e::proxy_before;
use crate::e2e::sharing::wait_for_waiters;
use crate::harness::client::{Connection, End, Request, get};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};

const ERROR_WINDOW: &str = "stale = { error = \"1h\" }";

/// A response that is stale as soon as it is stored.
fn aged(body: &str) -> Answer {
    Answer::ok(body).field("Cache-Control", "max-age=1").field("Age", "1")
}

#[test]
fn an_origin_that_dies_within_a_body_means_the_stale_response() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], ERROR_WINDOW);
    let body = "x".repeat(100_000);
    let (some, all_but_one) = (&body[..50_000], &body[..body.len() - 1]);
    let promised = |sent: &str| aged(sent).promising(body.len());
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    let broken = |rest: &str| Answer::raw(format!("{head}{rest}"));
    for (name, death) in [
        ("after-its-head", promised("").then_dies()),
        ("after-some-bytes", promised(some).then_dies()),
        ("at-the-last-byte", promised(all_but_one).then_dies()),
        ("reset-after-its-head", promised("").then_resets()),
        ("reset-after-some-bytes", promised(some).then_resets()),
        ("reset-at-the-last-byte", promised(all_but_one).then_resets()),
        ("within-chunks", aged(some).chunked().then_dies()),
        ("reset-within-chunks", aged(&body).chunked().then_resets()),
        ("reset-where-the-end-is-that-of-the-connection", aged(some).until_close().then_resets()),
        ("broken-chunk", broken("zz\r\nabc\r\n0\r\n\r\n")),
        ("short-chunk", broken("9\r\nabc")),
    ] {
        let path = format!("/api/{name}");
        origin.answer(&path, aged("old"));
        assert_eq!(get(pond.proxy(), &path).text(), "old");
        origin.answer(&path, death);
        let answer = get(pond.proxy(), &path);
        assert_eq!((answer.status(), answer.text().as_str(), answer.end), (200, "old", End::Length), "{name}");
        let told = answer.field("cache-status").unwrap_or_default();
        assert!(told.starts_with("Millpond; fwd=stale; ttl="), "{name}: {told}");
        let reason = if name == "broken-chunk" { "origin-error" } else { "origin-truncated" };
        assert_eq!(answer.detail(), format!("stale/{reason}"), "{name}");

        origin.answer(&path, Answer::ok("new").field("Cache-Control", "max-age=60"));
        let new = eventually("the replacement", || match get(pond.proxy(), &path) {
            answer if answer.text() == "old" => Err(answer.detail().to_owned()),
            answer => Ok(answer),
        });
        assert_eq!((new.text().as_str(), new.detail()), ("new", "miss/expired"), "{name}");
    }
}

#[test]
fn those_who_wait_get_the_stale_response_too() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], ERROR_WINDOW);
    origin.answer("/api/a", aged("old"));
    assert_eq!(get(pond.proxy(), "/api/a").text(), "old");
    let gate = Gate::closed();
    origin.answer("/api/a", Answer::ok("new, but ").field("Cache-Control", "max-age=60").then_dies_when(&gate));
    let mut clients: Vec<Connection> = (0..20).map(|_| Connection::open(pond.proxy())).collect();
    clients.iter_mut().for_each(|client| client.send_request(&Request::get("/api/a")));
    wait_for_waiters(&pond, clients.len() - 1);
    gate.open();
    for client in &mut clients {
        let answer = client.receive("GET");
        assert_eq!((answer.text().as_str(), answer.detail()), ("old", "stale/origin-truncated"));
    }
    assert_eq!(origin.count("/api/a"), 2);
}

/// Nothing is held back for a response that must not be sent.
#[test]
fn without_a_stale_response_to_send_nothing_is_held_back() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], ERROR_WINDOW);
    for (path, cache_control) in [("/api/new", None), ("/api/strict", Some("max-age=1, must-revalidate"))] {
        if let Some(cache_control) = cache_control {
            let old = Answer::ok("old").field("ETag", "\"1\"").field("Cache-Control", cache_control).field("Age", "1");
            origin.answer(path, old);
            assert_eq!(get(pond.proxy(), path).text(), "old");
        }
        let gate = Gate::closed();
        origin.answer(path, Answer::ok("begun ").field("Cache-Control", "max-age=60").then_dies_when(&gate));
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get(path));
        let head = client.head().expect("an answer");
        assert_eq!(head.outcome(), "miss", "{path}");
        gate.open();
        assert_eq!(client.rest("GET", head).end, End::Cut, "{path}");
    }
}

/// What has come of a long body is sent before the rest has come.
#[test]
fn of_a_long_body_only_the_beginning_is_held_back() {
    const HELD_BACK_MAX: usize = 1 << 20;
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], ERROR_WINDOW);
    origin.answer("/api/a", aged("old"));
    assert_eq!(get(pond.proxy(), "/api/a").text(), "old");
    let (gate, begun) = (Gate::closed(), "x".repeat(HELD_BACK_MAX));
    origin.answer("/api/a", Answer::ok(&begun).field("Cache-Control", "max-age=60").chunked().then_when(&gate, "y"));
    let mut client = Connection::open(pond.proxy());
    client.send_request(&Request::get("/api/a"));
    let head = client.head().expect("an answer");
    assert_eq!(head.detail(), "miss/expired");
    gate.open();
    let answer = client.rest("GET", head);
    assert_eq!((answer.body.len(), answer.end), (HELD_BACK_MAX + 1, End::Chunked));
}

/// A body that does not come is a time-out, for those who have something else to send; it is stored if it comes at last.
#[test]
fn a_body_that_takes_too_long_means_the_stale_response() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], ERROR_WINDOW);
    origin.answer("/api/a", aged("old"));
    assert_eq!(get(pond.proxy(), "/api/a").text(), "old");
    let gate = Gate::closed();
    origin.answer("/api/a", Answer::ok("new, ").field("Cache-Control", "max-age=60").then_when(&gate, "at last"));
    let mut clients: Vec<Connection> = (0..5).map(|_| Connection::open(pond.proxy())).collect();
    clients.iter_mut().for_each(|client| client.send_request(&Request::get("/api/a")));
    for client in &mut clients {
        let answer = client.receive("GET");
        assert_eq!((answer.text().as_str(), answer.detail()), ("old", "stale/origin-timeout"));
    }
    gate.open();
    eventually("the replacement", || match get(pond.proxy(), "/api/a") {
        answer if answer.detail() == "hit" && answer.text() == "new, at last" => Ok(()),
        answer if answer.text() == "old" => Err(answer.detail().to_owned()),
        answer => panic!("{answer:?}"),
    });
    assert_eq!(origin.count("/api/a"), 2);
}

#[test]
fn a_refresh_that_dies_leaves_the_stale_response_in_place() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "stale = { revalidate = \"1h\" }");
    origin.answer("/api/a", aged("old"));
    assert_eq!(get(pond.proxy(), "/api/a").text(), "old");
    let gate = Gate::closed();
    origin.answer("/api/a", Answer::ok("new, but ").field("Cache-Control", "max-age=60").then_dies_when(&gate));
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "stale/expired");
    origin.wait_for_requests("/api/a", 2);
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "stale/expired", "while its replacement comes");
    gate.open();
    eventually("the end of the refresh", || {
        let failed = Metrics::of(pond.admin()).sum("millpond_refresh_total", &[("outcome", "failed")]);
        if failed == 1.0 { Ok(()) } else { Err(format!("{failed}")) }
    });
    origin.answer("/api/a", Answer::ok("new").field("Cache-Control", "max-age=60"));
    let new = eventually("the next refresh", || match get(pond.proxy(), "/api/a") {
        answer if answer.text() == "old" => Err(answer.detail().to_owned()),
        answer => Ok(answer),
    });
    assert_eq!((new.text().as_str(), new.detail()), ("new", "hit"));
}
