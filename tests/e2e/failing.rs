//! Origins that fail while something stale could be sent: what counts as a failure, and how often they are asked again.

use crate::e2e::proxy_before;
use crate::harness::client::{Connection, End, Request, get};
use crate::harness::eventually;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};

/// A response that is stale as soon as it is stored.
fn aged(body: &str) -> Answer {
    Answer::ok(body).field("Cache-Control", "max-age=1").field("Age", "1")
}

#[test]
fn a_rule_says_which_statuses_are_failures() {
    const USUAL: &[u16] = &[429, 500, 502, 503, 504];
    for (settings, failures) in
        [("", USUAL), (", statuses = [404, 503]", &[404, 503])].map(|(more, failures)| (more.to_owned(), failures))
    {
        let origin = ScriptedOrigin::start();
        let pond = proxy_before(&[&origin], &format!("stale = {{ error = \"1h\"{settings} }}"));
        for status in [403, 404, 429, 500, 501, 502, 503, 504] {
            let path = format!("/api/{status}");
            origin.answer(&path, aged("old"));
            assert_eq!(get(pond.proxy(), &path).text(), "old");
            origin.answer(&path, Answer::status(status, "failed"));
            let answer = get(pond.proxy(), &path);
            let told = answer.field("cache-status").unwrap_or_default().to_owned();
            if failures.contains(&status) {
                assert_eq!((answer.status(), answer.text().as_str()), (200, "old"), "{status}{settings}");
                assert_eq!(answer.detail(), "stale/origin-error");
                assert!(told.contains(&format!("; fwd=stale; fwd-status={status}; ")), "{told}");
            } else {
                assert_eq!((answer.status(), answer.text().as_str()), (status, "failed"), "{told}{settings}");
            }
        }
    }
}

#[test]
fn the_answer_to_a_head_may_be_stale_too() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "stale = { error = \"1h\" }");
    for (path, failure) in [
        ("/api/status", Answer::status(503, "down")),
        ("/api/hangs-up", Answer::hang_up()),
        ("/api/malformed", Answer::raw("HTTP/9.9 what\r\n\r\n")),
    ] {
        origin.answer(path, aged("old"));
        assert_eq!(get(pond.proxy(), path).text(), "old");
        origin.answer(path, failure);
        let answer = Request::head(path).ask(pond.proxy());
        assert_eq!((answer.status(), answer.field("content-length")), (200, Some("3")), "{path}");
        assert_eq!(answer.detail(), "stale/origin-error", "{path}");
        assert_eq!(origin.requests(path).last().map(|asked| asked.method.as_str()), Some("HEAD"));
    }
}

/// The other path, which fails as well and says nothing, tells how time goes by.
#[test]
fn an_origin_is_not_asked_before_it_wants_to_be() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "stale = { error = \"1h\" }");
    let failures =
        [("/api/429", 429, "3600"), ("/api/503", 503, "Tue, 31 Dec 2199 23:59:59 GMT"), ("/api/other", 503, "")];
    for (path, ..) in failures {
        origin.answer(path, aged("old"));
        assert_eq!(get(pond.proxy(), path).text(), "old");
    }
    for (path, status, retry_after) in failures {
        origin.answer(path, Answer::status(status, "not now").field("Retry-After", retry_after));
        assert_eq!(get(pond.proxy(), path).detail(), "stale/origin-error");
    }
    eventually("two more probes of the other one", || {
        for (path, ..) in failures {
            assert_eq!(get(pond.proxy(), path).text(), "old");
        }
        if origin.count("/api/other") >= 4 { Ok(()) } else { Err(origin.count("/api/other").to_string()) }
    });
    assert_eq!([origin.count("/api/429"), origin.count("/api/503")], [2, 2]);
}

#[test]
fn one_asks_whether_the_origin_still_fails_and_the_others_do_not_wait() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "stale = { error = \"1h\" }");
    origin.answer("/api/a", aged("old"));
    assert_eq!(get(pond.proxy(), "/api/a").text(), "old");
    origin.answer("/api/a", Answer::status(500, "failed"));
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "stale/origin-error");

    let gate = Gate::closed();
    origin.answer("/api/a", Answer::ok("new").field("Cache-Control", "max-age=60").held_by(&gate));
    // One connection after the other, until one is not answered since it asks.
    let mut clients = Vec::new();
    eventually("the probe", || {
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get("/api/a"));
        clients.push(client);
        if origin.count("/api/a") == 3 { Ok(()) } else { Err(origin.count("/api/a").to_string()) }
    });
    for _ in 0..10 {
        let answer = get(pond.proxy(), "/api/a");
        assert_eq!((answer.text().as_str(), answer.detail()), ("old", "stale/origin-error"));
    }
    assert_eq!(origin.count("/api/a"), 3);
    gate.open();
    let answers: Vec<String> = clients.iter_mut().map(|client| client.receive("GET").text()).collect();
    assert!(answers.iter().any(|text| text == "new"), "{answers:?}");
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "hit");
}

/// Where no server can be reached, one request looks whether that is still so; what is stored of other paths is sent
/// at once.
#[test]
fn an_origin_that_cannot_be_reached_is_not_asked_for_every_path() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "stale = { error = \"1h\" }");
    let paths: Vec<String> = (0..20).map(|number| format!("/api/{number}")).collect();
    for path in &paths {
        origin.answer(path, aged("old"));
        assert_eq!(get(pond.proxy(), path).text(), "old");
    }
    origin.die();
    for path in &paths {
        assert_eq!(get(pond.proxy(), path).detail(), "stale/no-origin", "{path}");
    }
    paths.iter().for_each(|path| origin.answer(path, Answer::ok("new").field("Cache-Control", "max-age=60")));
    origin.come_back();
    for path in &paths {
        eventually("the new one", || match get(pond.proxy(), path) {
            answer if answer.text() == "new" => Ok(()),
            answer => Err(answer.detail().to_owned()),
        });
    }
}

/// Before its head, and within its body.
#[test]
fn a_rule_says_how_long_an_origin_may_stay_silent() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "timeout = \"500ms\"\nstale = { error = \"1h\" }");
    let never = Gate::closed();
    let silent = || Answer::ok("late").field("Cache-Control", "max-age=60");
    for (path, silence) in [
        ("/api/head", silent().held_by(&never)),
        ("/api/body", silent().then_when(&never, "never")),
        ("/api/own", Answer::ok("late").field("Cache-Control", "no-store").then_when(&never, "never")),
    ] {
        origin.answer(path, aged("old"));
        assert_eq!(get(pond.proxy(), path).text(), "old");
        origin.answer(path, silence);
        let answer = get(pond.proxy(), path);
        assert_eq!((answer.text().as_str(), answer.detail()), ("old", "stale/origin-timeout"), "{path}");
    }
    origin.answer("/api/new", silent().held_by(&never));
    let answer = get(pond.proxy(), "/api/new");
    assert_eq!((answer.status(), answer.detail()), (504, "error/origin-timeout"));
    origin.answer("/api/cut", silent().then_when(&never, "never"));
    let answer = get(pond.proxy(), "/api/cut");
    assert_eq!((answer.status(), answer.text().as_str(), answer.end), (200, "late", End::Cut));
}
