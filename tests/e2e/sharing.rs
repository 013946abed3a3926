//! What is shared between clients, and what must not be: answers for one, requests of one, purges in between, bodies
//! that are too large to be kept.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::e2e::proxy_before;
use crate::harness::client::{Connection, Request, get, post};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::process::Millpond;

/// Waits until so many requests wait for another's fetch.
pub fn wait_for_waiters(pond: &Millpond, count: usize) {
    eventually("the waiters", || {
        let waiting = Metrics::of(pond.admin()).sum("millpond_collapse_waiters", &[]);
        if waiting as usize == count { Ok(()) } else { Err(format!("{waiting}")) }
    });
}

/// Asks on a connection of its own, without waiting for the answer.
fn asked(pond: &Millpond, request: &Request) -> Connection {
    let mut client = Connection::open(pond.proxy());
    client.send_request(request);
    client
}

#[test]
fn a_304_that_sets_a_cookie_is_for_one_client_only() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("shared").field("ETag", "\"1\"").field("Cache-Control", "max-age=0"));
    let pond = proxy_before(&[&origin], "");
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "miss/not-cached");

    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer_by("/api/a", move |request| match request.field("if-none-match") {
        Some(_) => Answer::status(304, "").field("ETag", "\"1\"").field("Set-Cookie", "sid=of-one").held_by(&held),
        None => Answer::ok("own").field("Cache-Control", "no-store"),
    });
    let mut first = asked(&pond, &Request::get("/api/a"));
    origin.wait_for_requests("/api/a", 2);
    let mut second = asked(&pond, &Request::get("/api/a"));
    wait_for_waiters(&pond, 1);
    gate.open();
    let first = first.receive("GET");
    assert_eq!((first.text().as_str(), first.field("set-cookie")), ("shared", Some("sid=of-one")));
    let second = second.receive("GET");
    assert_eq!((second.text().as_str(), second.field("set-cookie")), ("own", None), "{second:?}");
}

#[test]
fn a_refresh_is_nobodys_own() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("old"));
    let pond = proxy_before(&[&origin], "ttl = \"1s\"\nstale = { revalidate = \"1h\" }");
    assert_eq!(get(pond.proxy(), "/api/a").status(), 200);
    origin.answer("/api/a", Answer::ok("new"));
    let own = Request::head("/api/a").field("Authorization", "Bearer mine").field("Cache-Control", "x-own");
    eventually("a stale answer", || match own.ask(pond.proxy()).detail() {
        "stale/expired" => Ok(()),
        other => Err(other.to_owned()),
    });
    origin.wait_for_requests("/api/a", 2);
    let refresh = origin.requests("/api/a").pop().expect("the refresh");
    assert_eq!(refresh.head.split(' ').next(), Some("GET"), "{}", refresh.head);
    assert_eq!((refresh.field("authorization"), refresh.field("cache-control")), (None, None));
    eventually("the refreshed body", || match get(pond.proxy(), "/api/a") {
        fresh if fresh.text() == "new" => Ok(()),
        other => Err(other.detail().to_owned()),
    });
}

#[test]
fn who_comes_after_a_purge_does_not_get_what_was_fetched_before_it() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer_by("/api/a", move |request| match request.field("x-turn") {
        Some("early") => Answer::ok("before").held_by(&held),
        _ => Answer::ok("after"),
    });
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let mut early = asked(&pond, &Request::get("/api/a").field("X-Turn", "early"));
    origin.wait_for_requests("/api/a", 1);
    let url = format!("/purge?url=http://{}/api/a", pond.proxy());
    assert_eq!(post(pond.admin(), &url, "").status(), 200);
    let mut late = asked(&pond, &Request::get("/api/a").field("X-Turn", "late"));
    wait_for_waiters(&pond, 1);
    gate.open();
    assert_eq!(early.receive("GET").text(), "before");
    let late = late.receive("GET");
    assert_eq!(late.text(), "after", "{late:?}");
}

#[test]
fn a_body_too_large_to_be_kept_goes_whole_to_everybody() {
    let origin = ScriptedOrigin::start();
    let (head, tail) = ("a".repeat(300_000), "b".repeat(300_000));
    let gate = Gate::closed();
    let answer = Answer::ok(&head).field("Cache-Control", "max-age=60").chunked().then_when(&gate, &tail);
    origin.answer("/large", answer);
    let to = origin.address().to_string();
    let pond = Millpond::start(
        &["proxy", "--listen", "127.0.0.1:0", "--to", &to, "--admin", "127.0.0.1:0", "--memory", "1MiB"],
        &["proxy", "admin"],
    );
    let mut clients: Vec<Connection> = (0..4).map(|_| asked(&pond, &Request::get("/large"))).collect();
    origin.wait_for_requests("/large", 1);
    gate.open();
    for client in &mut clients {
        let whole = client.receive("GET");
        assert!(whole.is_whole(), "{:?}", whole.end);
        assert_eq!(whole.text(), format!("{head}{tail}"), "{}", whole.detail());
    }
    assert_eq!(Metrics::of(pond.admin()).sum("millpond_cache_objects", &[]), 0.0);
}

/// An origin that says 103 as soon as it has the head, and waits for the body before it says more.
#[test]
fn an_interim_answer_does_not_end_an_upload() {
    const LENGTH: usize = 200_000;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("an address").to_string();
    let origin = std::thread::spawn(move || {
        let mut stream = listener.accept().expect("the proxy").0;
        let mut got = Vec::new();
        let head = loop {
            if let Some(end) = got.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            read_more(&mut stream, &mut got);
        };
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").expect("said");
        while got.len() < head + LENGTH {
            read_more(&mut stream, &mut got);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").expect("said");
    });
    let pond = Millpond::start(&["proxy", "--listen", "127.0.0.1:0", "--to", &to], &["proxy"]);
    let answer = post(pond.proxy(), "/upload", "x".repeat(LENGTH));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "done"));
    origin.join().expect("the origin saw all of it");
}

fn read_more(stream: &mut TcpStream, got: &mut Vec<u8>) {
    let mut piece = [0; 8192];
    let count = stream.read(&mut piece).expect("more of the request");
    assert!(count > 0, "the proxy stopped sending");
    got.extend_from_slice(&piece[..count]);
}
