//! Messages on the wire, both ways: where they end, how they grow, and what is refused because two readers could read
//! it differently.

use crate::e2e::plain_proxy::plain;
use crate::harness::client::{Connection, End, Request, get};
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin, Seen};
use crate::harness::witness::Witness;

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
    // Nobody asked for leave: that is not for the client.
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
    // The origin was asked for leave, said nothing, and got the body all the same.
    assert_eq!(asked.first().and_then(|request| request.field("expect")), Some("100-continue"));
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
