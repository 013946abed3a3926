//! `millpond proxy`: exactly what HTTP says, and nothing beyond it.

use crate::harness::client::{Connection, End, Request, get};
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin, Seen};
use crate::harness::process::{Millpond, finish};
use crate::harness::witness::Witness;

/// `millpond proxy` in front of the origin, with an admin socket, a JSON access log, and `more` arguments.
fn plain(origin: &ScriptedOrigin, more: &[&str]) -> Millpond {
    let to = origin.address().to_string();
    let mut args = vec!["proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--to", &to];
    args.extend(["--access-log", "--log-format", "json"]);
    args.extend(more);
    Millpond::start(&args, &["proxy", "admin"])
}

#[test]
fn the_origin_decides_what_is_stored_and_how_long() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    let cases: [(&[(&str, &str)], &str); 11] = [
        (&[], "miss/no-lifetime"),
        (&[("Cache-Control", "max-age=60")], "hit"),
        (&[("Cache-Control", "max-age=0, s-maxage=60")], "hit"),
        (&[("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")], "hit"),
        (&[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=1")], "hit"),
        (&[("Cache-Control", "max-age=0")], "miss/no-lifetime"),
        (&[("Cache-Control", "max-age=0"), ("ETag", "\"v\"")], "revalidated/expired"),
        (&[("Cache-Control", "no-cache, max-age=60"), ("ETag", "\"v\"")], "revalidated/no-cache"),
        (&[("Cache-Control", "no-store, max-age=60")], "miss/no-store"),
        (&[("Cache-Control", "private, max-age=60")], "miss/private"),
        (&[("ETag", "\"v\"")], "revalidated/expired"),
    ];
    for (index, (fields, second)) in cases.into_iter().enumerate() {
        let path = format!("/{index}");
        let answer = fields.iter().fold(Answer::ok("body"), |answer, (name, value)| answer.field(name, value));
        origin.answer(&path, answer);
        assert_eq!(witness.get(&path).outcome(), "miss");
        let again = witness.get(&path);
        assert_eq!((again.detail(), again.text().as_str()), (second, "body"), "{fields:?}");
        assert_eq!(origin.count(&path), if second == "hit" { 1 } else { 2 }, "{fields:?}");
    }
    witness.all_agree();
    assert_eq!(Metrics::of(pond.admin()).sum("millpond_requests_total", &[("rule", "all")]), 22.0);
}

#[test]
fn the_query_is_keyed_and_forwarded_as_it_came() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("x").field("Cache-Control", "max-age=60"));
    let pond = plain(&origin, &[]);
    let targets = ["/a?b=1&a=2", "/a?a=2&b=1", "/a?", "/a", "/a?utm_source=x&&%41=+%20", "/a?A=%7e"];
    for target in targets {
        assert_eq!(get(pond.proxy(), target).outcome(), "miss", "{target}");
        assert_eq!(get(pond.proxy(), target).outcome(), "hit", "{target}");
    }
    let asked: Vec<String> = origin.requests("/a").into_iter().map(|request| request.target).collect();
    assert_eq!(asked, targets);
}

#[test]
fn a_request_reaches_the_origin_as_it_was_written() {
    let origin = ScriptedOrigin::start();
    origin.answer("/Path;v=1/%7Ehome/./x", Answer::ok("x"));
    let pond = plain(&origin, &[]);
    let host = pond.proxy();
    let mut client = Connection::open(host);
    client.send(format!(
        "GET /Path;v=1/%7Ehome/./x?q HTTP/1.1\r\naccept: a/b;q=0.5 , c/d\r\nHOST: {host}\r\nX-oDd-CaSe: One  Two\r\n\
         Connection: keep-alive, X-Drop\r\nX-Drop: 1\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\nCookie: a=1\r\n\
         x-twice: 1\r\nX-Empty:\r\nX-Twice: 2\r\nVia: 1.0 before\r\nUser-Agent: me\r\n\r\n"
    ));
    assert_eq!(client.receive("GET").status(), 200);
    let seen = origin.requests("/Path;v=1/%7Ehome/./x");
    assert_eq!(
        seen.first().map(|seen| seen.head.as_str()),
        Some(
            format!(
                "GET /Path;v=1/%7Ehome/./x?q HTTP/1.1\r\nHost: {host}\r\naccept: a/b;q=0.5 , c/d\r\n\
                 X-oDd-CaSe: One  Two\r\nCookie: a=1\r\nx-twice: 1\r\nX-Empty: \r\nX-Twice: 2\r\nUser-Agent: me\r\n\
                 Via: 1.0 before, 1.1 millpond\r\n\r\n"
            )
            .as_str()
        )
    );
}

#[test]
fn an_answer_reaches_the_client_as_it_was_written() {
    let origin = ScriptedOrigin::start();
    let fields = [
        ("x-oDd", "One  Two"),
        ("Set-Cookie", "a=1"),
        ("Content-Type", "text/plain"),
        ("set-cookie", "b=2"),
        ("Cache-Control", "max-age=60"),
        ("Server", "scripted"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Cache-Status", "Other; hit"),
    ];
    let kept = fields.iter().fold(Answer::ok("x"), |answer, (name, value)| answer.field(name, value));
    let answer = kept.clone().field("Connection", "X-Drop").field("X-Drop", "1").field("Keep-Alive", "timeout=5");
    origin.answer("/stored", answer.clone());
    origin.answer("/passed", answer.field("Cache-Control", "no-store"));
    let pond = plain(&origin, &[]);
    for (target, more) in [("/stored", None), ("/stored", None), ("/passed", Some(("Cache-Control", "no-store")))] {
        let answer = get(pond.proxy(), target);
        let ours = ["content-length", "age"];
        let of_origin: Vec<(&str, &str)> = answer
            .head
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, value)| !ours.contains(&name.to_lowercase().as_str()) && !value.starts_with("Millpond;"))
            .collect();
        let expected: Vec<(&str, &str)> = fields.into_iter().chain(more).collect();
        assert_eq!(of_origin, expected, "{target} {}", answer.detail());
        assert_eq!(answer.head.all("cache-status").len(), 2, "ours comes behind that of caches nearer to the origin");
        assert!(answer.head.all("content-length") == ["1"] && answer.head.all("transfer-encoding").is_empty());
    }
}

#[test]
fn nothing_is_sent_twice() {
    let origin = ScriptedOrigin::start();
    origin.answer("/ok", Answer::ok("x"));
    origin.answer("/gone", Answer::hang_up());
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    // Once on a connection made for it, once on one that had been used before.
    for asked in 1..=2 {
        let failed = witness.get("/gone");
        assert_eq!((failed.status(), failed.detail()), (502, "error/origin-error"));
        assert_eq!(origin.count("/gone"), asked);
        assert_eq!(witness.get("/ok").status(), 200);
    }
    let failed = witness.ask(&Request::post("/gone", "x"));
    assert_eq!((failed.status(), failed.detail(), origin.count("/gone")), (502, "error/origin-error", 3));
    assert_eq!(witness.get("/ok").status(), 200);
    let broken = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd";
    for (index, odd) in
        [broken, "HTTP/1.1 200 OK\nX: 1\n\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 200"].iter().enumerate()
    {
        let path = format!("/odd{index}");
        origin.answer(&path, Answer::raw(odd));
        let failed = witness.get(&path);
        assert_eq!((failed.status(), failed.detail(), origin.count(&path)), (502, "error/origin-error", 1), "{odd:?}");
    }
    witness.all_agree();
}

#[test]
fn bodies_of_unknown_length_go_in_chunks() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    let begun = Answer::ok("one, ");
    for (path, begun, lifetime) in [
        ("/chunked/stored", begun.clone().chunked(), "max-age=60"),
        ("/chunked/passed", begun.clone().chunked(), "no-store"),
        ("/close/stored", begun.clone().until_close(), "max-age=60"),
        ("/close/passed", begun.until_close(), "no-store"),
    ] {
        let gate = Gate::closed();
        origin.answer(path, begun.field("Cache-Control", lifetime).then_when(&gate, "two, ").then_when(&gate, "three"));
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get(path));
        let head = client.head().expect("an answer");
        gate.open();
        let miss = client.rest("GET", head);
        assert_eq!((miss.text().as_str(), miss.end), ("one, two, three", End::Chunked), "{path}");
        // Once it is stored, its length is known.
        if lifetime == "max-age=60" {
            let hit = client.ask(&Request::get(path));
            assert_eq!((hit.text().as_str(), hit.end, hit.outcome()), ("one, two, three", End::Length, "hit"));
        }
    }
}

/// What the origin has sent of a body is not held back until the rest comes.
#[test]
fn bodies_flow_both_ways_while_they_grow() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    for (path, lifetime) in [("/stored", "max-age=60"), ("/passed", "no-store")] {
        let gate = Gate::closed();
        origin.answer(path, Answer::ok("first").then_when(&gate, " second").chunked().field("Cache-Control", lifetime));
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get(path));
        let head = client.head().expect("an answer");
        let mut first = client.some();
        while !first.ends_with(b"first\r\n") {
            first.extend(client.some());
        }
        gate.open();
        let rest = client.rest("GET", head);
        assert_eq!((rest.text().as_str(), rest.end), (" second", End::Chunked));
    }

    origin.answer_by("/echo", |request| Answer::ok(&request.body));
    let mut client = Connection::open(pond.proxy());
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    origin.wait_for_requests("/echo", 1);
    client.send("7\r\n second\r\n0\r\n\r\n");
    assert_eq!(client.receive("POST").text(), "first second");
}

#[test]
fn a_client_of_http_1_0() {
    let origin = ScriptedOrigin::start();
    origin.answer("/length", Answer::ok("body"));
    origin.answer("/chunked", Answer::ok("body").chunked());
    let pond = plain(&origin, &[]);

    let mut client = Connection::open(pond.proxy());
    client.send("GET /length HTTP/1.0\r\n\r\n");
    let answer = client.receive("GET");
    assert_eq!((answer.text().as_str(), answer.end), ("body", End::Length));
    assert!(client.is_closed());

    let mut client = Connection::open(pond.proxy());
    client.send("GET /chunked HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.receive("GET");
    assert_eq!((answer.text().as_str(), answer.end), ("body", End::Close), "it does not know chunks");

    let mut client = Connection::open(pond.proxy());
    for _ in 0..2 {
        client.send("GET /length HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n");
        let answer = client.receive("GET");
        assert_eq!((answer.text().as_str(), answer.field("connection")), ("body", Some("keep-alive")));
    }
    let via: Vec<Option<String>> =
        origin.requests("/length").iter().map(|request| request.field("via").map(str::to_owned)).collect();
    assert!(via.iter().all(|via| via.as_deref() == Some("1.0 millpond")), "{via:?}");
    assert!(origin.requests("/length").iter().all(|request| request.head.starts_with("GET /length HTTP/1.1\r\n")));
}

#[test]
fn head_is_answered_from_a_stored_get() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("body").field("Cache-Control", "max-age=60"));
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    let miss = client.ask(&Request::head("/a"));
    assert_eq!((miss.detail(), miss.end, miss.field("content-length")), ("miss/not-cached", End::Bodiless, Some("4")));
    assert_eq!(client.ask(&Request::get("/a")).detail(), "miss/not-cached", "a HEAD stores nothing");
    let hit = client.ask(&Request::head("/a"));
    assert_eq!((hit.detail(), hit.end, hit.field("content-length")), ("hit", End::Bodiless, Some("4")));
    let methods: Vec<String> = origin.requests("/a").into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["HEAD", "GET"]);
    assert_eq!(client.ask(&Request::get("/a")).text(), "body", "the connection is still in step");
}

#[test]
fn a_client_that_has_it_is_told_304() {
    let origin = ScriptedOrigin::start();
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let answer = Answer::ok("body").field("Cache-Control", "max-age=60").field("ETag", "\"v1\"");
    origin.answer("/a", answer.field("Last-Modified", modified).field("X-More", "1"));
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    let with = |name: &str, value: &str| witness.ask(&Request::get("/a").field(name, value));

    let miss = with("If-None-Match", "\"v1\"");
    assert_eq!((miss.status(), miss.detail()), (304, "miss/not-cached"), "and it was stored whole");
    let asked = origin.requests("/a");
    assert_eq!(asked.first().and_then(|request| request.field("if-none-match")), None, "it is the client's condition");
    // The 304 went out before the last byte of the body was stored.
    witness.get_until("/a", "hit", &["collapsed"]);
    for (name, value, status) in [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "W/\"v1\"", 304),
        ("If-None-Match", "\"v0\", \"v1\"", 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"v2\"", 200),
        ("If-Modified-Since", modified, 304),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
    ] {
        let answer = with(name, value);
        assert_eq!((answer.status(), answer.detail()), (status, "hit"), "{name}: {value}");
        assert_eq!(answer.end == End::Bodiless, status == 304);
        assert_eq!((answer.field("etag"), answer.field("x-more").is_some()), (Some("\"v1\""), status == 200));
    }
    assert_eq!(origin.count("/a"), 1);
    witness.all_agree();
}

#[test]
fn a_stored_answer_is_validated_with_its_etag() {
    let origin = ScriptedOrigin::start();
    let version = |tag: &str, body: &str| {
        Answer::ok(body).field("ETag", tag).field("Cache-Control", "no-cache").field("X-Version", tag)
    };
    origin.answer("/a", version("\"v1\"", "one"));
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    assert_eq!(witness.get("/a").detail(), "miss/not-cached");
    let confirmed = witness.ask(&Request::get("/a").field("If-None-Match", "\"other\""));
    assert_eq!((confirmed.status(), confirmed.text().as_str()), (200, "one"));
    assert_eq!(confirmed.detail(), "revalidated/no-cache");

    origin.answer("/a", version("\"v2\"", "two"));
    let replaced = witness.get("/a");
    assert_eq!((replaced.text().as_str(), replaced.detail()), ("two", "miss/no-cache"));
    assert_eq!(witness.get("/a").detail(), "revalidated/no-cache");
    let asked: Vec<Option<String>> =
        origin.requests("/a").iter().map(|request| request.field("if-none-match").map(str::to_owned)).collect();
    let tag = |tag: &str| Some(tag.to_owned());
    assert_eq!(asked, [None, tag("\"v1\""), tag("\"v1\""), tag("\"v2\"")]);
    witness.all_agree();
}

#[test]
fn variants_are_kept_apart() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/a", |request: &Seen| {
        let language = request.field("accept-language").unwrap_or("none").to_owned();
        Answer::ok(language).field("Cache-Control", "max-age=60").field("Vary", "Accept-Language")
    });
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    for (language, detail) in
        [("en", "miss/not-cached"), ("de", "miss/vary"), ("en", "hit"), ("de", "hit"), ("EN", "miss/vary")]
    {
        let answer = witness.ask(&Request::get("/a").field("Accept-Language", language));
        assert_eq!((answer.text().as_str(), answer.detail()), (language, detail));
    }
    let none = witness.get("/a");
    assert_eq!((none.text().as_str(), none.detail()), ("none", "miss/vary"));
    assert_eq!(origin.count("/a"), 4);
    witness.all_agree();
}

#[test]
fn request_bodies_arrive_whole_and_framed_as_they_came() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/echo", |request: &Seen| Answer::ok(&request.body));
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    let large = "0123456789".repeat(100_000);
    for body in ["", "small", &large] {
        let echoed = client.ask(&Request::post("/echo", body));
        assert_eq!((echoed.text() == body, echoed.detail()), (true, "pass/method"));
        let chunks: Vec<&str> = if body.is_empty() { vec![] } else { vec!["a", body, "z"] };
        let echoed = client.ask(&Request::post_chunked("/echo", &chunks));
        assert!(echoed.text() == chunks.concat());
    }
    for (index, request) in origin.requests("/echo").iter().enumerate() {
        let framing = (request.field("content-length").is_some(), request.field("transfer-encoding").is_some());
        let expected = if index % 2 == 0 { (true, false) } else { (false, true) };
        assert_eq!(framing, expected, "request {index}: {}", request.head);
    }
}

/// An origin may refuse a body before it has it all; the client is told at once.
#[test]
fn an_early_answer_does_not_wait_for_the_body() {
    let origin = ScriptedOrigin::start();
    origin.answer("/large", Answer::status(413, "too large").early());
    origin.answer("/a", Answer::ok("a"));
    let pond = plain(&origin, &[]);
    for begun in ["Content-Length: 1000000\r\n\r\nbegun", "Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"] {
        let mut client = Connection::open(pond.proxy());
        client.send(format!("POST /large HTTP/1.1\r\nHost: x\r\n{begun}"));
        let answer = client.receive("POST");
        assert_eq!((answer.status(), answer.text().as_str(), answer.detail()), (413, "too large", "pass/method"));
        assert_eq!(get(pond.proxy(), "/a").text(), "a");
    }
}

#[test]
fn interim_answers_of_the_origin_are_not_taken_for_the_answer() {
    let origin = ScriptedOrigin::start();
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    origin.answer("/a", Answer::raw(format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal")));
    let pond = plain(&origin, &[]);
    let answer = get(pond.proxy(), "/a");
    assert_eq!((answer.status(), answer.text().as_str(), answer.field("link")), (200, "final", None));
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/echo", |request: &Seen| Answer::ok(&request.body));
    origin.answer("/a", Answer::ok("a"));
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let mut interim = client.some();
    while !interim.ends_with(b"\r\n\r\n") {
        interim.extend(client.some());
    }
    assert_eq!(interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    assert_eq!(client.receive("POST").text(), "body");
    assert_eq!(client.ask(&Request::get("/a")).text(), "a", "the connection is kept");
    let asked = origin.requests("/echo");
    assert_eq!(asked.first().and_then(|request| request.field("expect")), None, "it was answered here");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    origin.answer("/slow", Answer::ok("slow").held_by(&gate));
    origin.answer("/quick", Answer::ok("quick").field("Cache-Control", "max-age=60"));
    origin.answer_by("/echo", |request: &Seen| Answer::ok(&request.body));
    let pond = plain(&origin, &[]);
    assert_eq!(get(pond.proxy(), "/quick").outcome(), "miss");

    let requests = [
        Request::get("/slow"),
        Request::get("/quick"),
        Request::post("/echo", "with a length"),
        Request::head("/quick"),
        Request::post_chunked("/echo", &["in ", "chunks"]),
        Request::get("/quick").field("Connection", "close"),
        Request::get("/never"),
    ];
    let mut client = Connection::open(pond.proxy());
    client.send(requests.iter().flat_map(|request| request.bytes(pond.proxy())).collect::<Vec<u8>>());
    origin.wait_for_requests("/slow", 1);
    gate.open();
    let methods = ["GET", "GET", "POST", "HEAD", "POST", "GET"];
    let bodies = methods.map(|method| client.receive(method).text());
    assert_eq!(bodies, ["slow", "quick", "with a length", "", "in chunks", "quick"]);
    assert!(client.is_closed(), "nothing is answered behind a close");
    assert_eq!(origin.count("/never"), 0);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/echo", |request: &Seen| Answer::ok(&request.body));
    origin.answer("/a", Answer::ok("a").field("Cache-Control", "max-age=60"));
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    for request in [
        Request::get("/a"),
        Request::post_chunked("/echo", &["byte ", "by byte"]),
        Request::post("/echo", "byte by byte"),
        Request::get("/a"),
    ] {
        for byte in request.bytes(pond.proxy()) {
            client.send([byte]);
        }
        let answer = client.receive("GET");
        assert!(["a", "byte by byte"].contains(&answer.text().as_str()), "{answer:?}");
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    let long = "x".repeat(9_000);
    let large: String = (0..60).map(|index| format!("X-{index}: {}\r\n", "y".repeat(1_000))).collect();
    let many: String = (0..200).map(|index| format!("X-{index}: y\r\n")).collect();
    let cases = [
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), 501),
        ("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), 400),
        ("GET http://x/ HTTP/1.1\r\nHost: y\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\nHost: x\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\nY: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n".to_owned(), 400),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET /#f HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/3.0\r\nHost: x\r\n\r\n".to_owned(), 505),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{large}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431),
    ];
    for (bytes, status) in &cases {
        let mut client = Connection::open(pond.proxy());
        // What it refuses it need not read.
        let _ = client.try_send(format!("{bytes}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"));
        let start: String = bytes.chars().take(120).collect();
        let answer = client.receive("GET");
        witness.note(&answer);
        assert_eq!((answer.status(), answer.detail()), (*status, "refused/bad-request"), "{start:?}");
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(client.is_closed(), "{start:?}");
    }
    assert_eq!(origin.count("/smuggled") + origin.count("/"), 0, "none of it reached the origin");
    witness.all_agree();
}

/// The head was fine, and the origin has it; then the body is not what it should be.
#[test]
fn a_malformed_body_is_refused_and_reaches_no_second_request() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    for body in ["zz\r\nabc\r\n", "3 \r\nabc\r\n", "3\r\nabcX\r\n", "3\nabc\r\n", "-3\r\nabc\r\n", "0x3\r\nabc\r\n"] {
        let mut client = Connection::open(pond.proxy());
        let head = "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{body}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = client.receive("POST");
        assert_eq!((answer.status(), answer.detail()), (400, "refused/bad-request"), "{body:?}");
        assert!(client.is_closed());
    }
    assert_eq!(origin.count("/smuggled"), 0);
}

#[test]
fn a_body_larger_than_the_cache_passes_through_whole() {
    let origin = ScriptedOrigin::start();
    let large: Vec<u8> = (0..20_000_000_u32).map(|index| (index / 7) as u8).collect();
    for (path, answer) in [("/length", Answer::ok(&large)), ("/chunked", Answer::ok(&large).chunked())] {
        origin.answer(path, answer.field("Cache-Control", "max-age=60"));
    }
    let pond = plain(&origin, &["--memory", "2MiB"]);
    for path in ["/length", "/chunked", "/length"] {
        let answer = get(pond.proxy(), path);
        assert!(answer.is_whole() && answer.body == large, "{path}: {} bytes, {:?}", answer.body.len(), answer.end);
        assert_eq!(answer.outcome(), "miss");
    }
    let metrics = Metrics::of(pond.admin());
    assert!(metrics.sum("millpond_cache_bytes", &[]) <= metrics.sum("millpond_cache_budget_bytes", &[]));
}

/// A client that does not read holds up nobody but itself.
#[test]
fn a_slow_client_gets_everything_and_disturbs_nobody() {
    let origin = ScriptedOrigin::start();
    let large = vec![b'x'; 20_000_000];
    origin.answer("/large", Answer::ok(&large).field("Cache-Control", "max-age=60"));
    origin.answer("/small", Answer::ok("small").field("Cache-Control", "max-age=60"));
    for memory in ["2MiB", "256MiB"] {
        let pond = plain(&origin, &["--memory", memory, "--threads", "1"]);
        let mut slow = Connection::open(pond.proxy());
        slow.send_request(&Request::get("/large"));
        let head = slow.head().expect("an answer");
        for _ in 0..20 {
            assert_eq!(get(pond.proxy(), "/small").text(), "small");
        }
        let quick = get(pond.proxy(), "/large");
        assert!(quick.is_whole() && quick.body == large, "{memory}: {} bytes", quick.body.len());
        let answer = slow.rest("GET", head);
        assert!(answer.is_whole() && answer.body == large, "{memory}: {} bytes", answer.body.len());
    }
}

#[test]
fn what_the_cache_does_not_do_is_passed() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("whole").field("Cache-Control", "max-age=60").field("ETag", "\"v1\""));
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    assert_eq!(witness.get("/a").detail(), "miss/not-cached");
    for (name, value, detail) in [
        ("Range", "bytes=0-1", "pass/range"),
        ("If-Match", "\"v1\"", "pass/precondition"),
        ("If-Range", "\"v1\"", "pass/precondition"),
        ("Cache-Control", "no-cache", "revalidated/request-no-cache"),
        ("Authorization", "me", "hit"),
    ] {
        let answer = witness.ask(&Request::get("/a").field(name, value));
        assert_eq!((answer.text().as_str(), answer.detail()), ("whole", detail), "{name}: {value}");
    }
    let absent = witness.ask(&Request::get("/b").field("Cache-Control", "only-if-cached"));
    assert_eq!((absent.status(), absent.detail(), origin.count("/b")), (504, "error/only-if-cached", 0));
    witness.all_agree();
}

#[test]
fn the_target_may_be_a_whole_url() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("a").field("Cache-Control", "max-age=60"));
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    client.send("GET http://Example.com/a?b HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_eq!(client.receive("GET").outcome(), "miss");
    client.send("GET /a?b HTTP/1.1\r\nHost: EXAMPLE.com:80\r\n\r\n");
    assert_eq!(client.receive("GET").outcome(), "hit", "it is the same resource");
    let asked = origin.requests("/a");
    assert_eq!(
        asked.first().map(|seen| (seen.target.as_str(), seen.field("host"))),
        Some(("/a?b", Some("example.com")))
    );
}

#[test]
fn the_admin_socket_tells_how_it_is() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = get(pond.admin(), path);
        assert_eq!((answer.status(), answer.text().as_str()), (200, text));
    }
    assert_eq!(get(pond.admin(), "/").status(), 404);
    assert_eq!(get(pond.proxy(), "/metrics").status(), 404, "the origin's own, not ours");
    assert_eq!(origin.count("/metrics"), 1);
}

#[test]
fn a_wrong_command_line_is_told_in_words() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let listen = ["proxy", "--listen", "127.0.0.1:0"];
    for (more, words) in [
        (
            &["--to", "127.0.0.1:9", "--memory", "1KiB"][..],
            "--memory 1KiB is too little for a cache; fix: give at least",
        ),
        (&["--to", "127.0.0.1:9", "--memory", "lots"], "`lots` is not a size: write a whole number and B, KiB"),
        (&["--to", "nowhere"], "--to nowhere: "),
        (&["--to", "127.0.0.1:9", "--threads", "0"], "0 is not in 1..=1024"),
        (&[], "--to <ADDR>"),
        (&["--to", "127.0.0.1:9", "--retries", "3"], "unexpected argument '--retries'"),
    ] {
        let finished = finish(&[&listen[..], more].concat(), dir.path());
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{more:?}");
        assert!(finished.stderr.contains(words), "{more:?}: {}", finished.stderr);
    }
}
