//! What passes between client and origin, and what stays here: interim answers, expectations, the fields of each hop,
//! and what an origin is told of the client.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::e2e::plain_proxy::plain;
use crate::e2e::{in_front_of, proxy_before};
use crate::harness::client::{Connection, End, Request, get};
use crate::harness::http2::Http2;
use crate::harness::origin::{Answer, ScriptedOrigin, Seen};
use crate::harness::process::Millpond;

/// The configuration of `in_front_of` with more settings of `[proxy]`.
fn with_proxy(origin: &ScriptedOrigin, proxy: &str, rule: &str) -> Millpond {
    let config = in_front_of(&[origin], rule);
    let listen = "proxy = { listen = [\"127.0.0.1:0\"]";
    assert!(config.contains(listen));
    Millpond::run(&config.replace(listen, &format!("{listen}, {proxy}")), &["proxy", "admin"])
}

/// Everything that the origin was told in fields called `name`.
fn told<'a>(request: &'a Seen, name: &str) -> Vec<&'a str> {
    let called = request.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    called.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn early_hints_come_before_the_answer_and_are_not_stored() {
    let origin = ScriptedOrigin::start();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";
    for (path, lifetime) in [("/stored", "max-age=60"), ("/passed", "no-store")] {
        let fields = format!("Cache-Control: {lifetime}\r\nConnection: close\r\nContent-Length: 5\r\n");
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\nfinal");
        origin.answer(path, Answer::raw(format!("HTTP/1.1 100 Continue\r\n\r\n{hints}{hints}{answer}")));
    }
    let pond = plain(&origin, &[]);
    for path in ["/stored", "/passed"] {
        let mut client = Connection::open(pond.proxy());
        client.send_request(&Request::get(path));
        for _ in 0..2 {
            let interim = client.interim_head();
            let names: Vec<&str> = interim.fields.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!((interim.status, names), (103, vec!["Link"]), "100 was not asked for");
        }
        let head = client.interim_head();
        assert_eq!(head.status, 200);
        assert_eq!(client.rest("GET", head).text(), "final");
    }
    let mut client = Connection::open(pond.proxy());
    client.send_request(&Request::get("/stored"));
    assert_eq!(client.interim_head().status, 200, "a hit has no hints");

    let mut old = Connection::open(pond.proxy());
    old.send("GET /passed HTTP/1.0\r\n\r\n");
    assert_eq!(old.interim_head().status, 200, "HTTP/1.0 has no interim answers");
}

#[tokio::test]
async fn http_2_gets_early_hints_and_is_told_of() {
    let origin = ScriptedOrigin::start();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    origin.answer("/a", Answer::raw(format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal")));
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    let answer = client.get("/a").await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "final"));
    let asked = origin.requests("/a");
    assert_eq!(asked.first().and_then(|request| request.field("via")), Some("2.0 millpond"));
}

/// RFC 9110 §10.1.1: the origin decides, before it has the body.
#[test]
fn the_leave_to_send_a_body_is_the_origins_to_give() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("an address").to_string();
    let origin = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the proxy connects");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.extend(byte);
        }
        stream.write_all(b"HTTP/1.1 100 Continue\r\nX-From: origin\r\n\r\n").expect("it is read");
        let mut body = [0; 4];
        stream.read_exact(&mut body).expect("a body");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").expect("it is read");
        stream.write_all(&body).expect("it is read");
        String::from_utf8(head).expect("text")
    });
    let pond = Millpond::start(&["proxy", "--listen", "127.0.0.1:0", "--to", &to], &["proxy"]);
    let mut client = Connection::open(pond.proxy());
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let leave = client.interim_head();
    assert_eq!((leave.status, leave.field("x-from")), (100, Some("origin")));
    client.send("body");
    assert_eq!(client.receive("POST").text(), "body");
    assert!(origin.join().expect("it saw it all").contains("\r\nExpect: 100-continue\r\n"));
}

#[test]
fn a_body_that_the_origin_does_not_want_is_never_asked_for() {
    let origin = ScriptedOrigin::start();
    origin.answer("/full", Answer::status(413, "too large").early());
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    client.send("POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let head = client.interim_head();
    assert_eq!((head.status, head.field("connection")), (413, Some("close")), "whether a body comes is not known");
    assert_eq!(client.rest("POST", head).text(), "too large");
    assert!(client.is_closed());
}

#[test]
fn expectations_that_nobody_can_meet_are_refused() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("a").field("Cache-Control", "max-age=60"));
    let pond = plain(&origin, &[]);
    for _ in 0..2 {
        let answer = Request::get("/a").field("Expect", "200-ok").ask(pond.proxy());
        assert_eq!((answer.status(), answer.field("connection")), (417, Some("close")));
        assert_eq!(get(pond.proxy(), "/a").text(), "a", "and again when it is stored");
    }
    let mut old = Connection::open(pond.proxy());
    old.send("GET /a HTTP/1.0\r\nExpect: 200-ok\r\n\r\n");
    assert_eq!(old.receive("GET").status(), 200, "HTTP/1.0 has no expectations");
}

#[test]
fn max_forwards_counts_down_to_us() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::status(204, ""));
    let pond = plain(&origin, &[]);
    let options = |forwards: &str| Request::new("OPTIONS", "/a").field("Max-Forwards", forwards).ask(pond.proxy());
    let ours = options("0");
    assert_eq!((ours.status(), ours.end), (204, End::Bodiless));
    assert!(ours.field("allow").is_some_and(|methods| methods.contains("OPTIONS")));
    assert_eq!((origin.count("/a"), ours.detail()), (0, "refused/method"));
    assert_eq!(options("10").status(), 204);
    assert_eq!(options("x").status(), 204);
    Request::get("/a").field("Max-Forwards", "0").ask(pond.proxy());
    let asked = origin.requests("/a");
    let forwards: Vec<Vec<&str>> = asked.iter().map(|request| told(request, "max-forwards")).collect();
    assert_eq!(forwards, [["9"], ["x"], ["0"]], "for GET it means nothing");
    for target in ["*", "http://x"] {
        let mut client = Connection::open(pond.proxy());
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = client.receive("OPTIONS");
        assert_eq!(answer.status(), 204, "{target}");
        assert!(answer.field("allow").is_some() && answer.field("content-length").is_none(), "{answer:?}");
    }
    let trace = Request::new("TRACE", "/a").field("Max-Forwards", "0").ask(pond.proxy());
    assert_eq!((trace.status(), origin.count("*")), (405, 0));
}

/// RFC 9110 §7.6.1, RFC 9111 §3.1.
#[test]
fn fields_of_one_hop_go_no_further_either_way() {
    const HOP: [(&str, &str); 8] = [
        ("Connection", "X-Named, keep-alive"),
        ("X-Named", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "h2c"),
        ("Proxy-Authorization", "Basic eA=="),
    ];
    let origin = ScriptedOrigin::start();
    let with_all = |answer: Answer| HOP.iter().fold(answer, |answer, (name, value)| answer.field(name, value));
    origin.answer("/stored", with_all(Answer::ok("a").field("Cache-Control", "max-age=60")));
    origin.answer("/passed", with_all(Answer::ok("a").field("Via", "1.0 other")));
    let pond = plain(&origin, &[]);
    for (path, via) in [("/stored", vec!["1.1 millpond"]), ("/passed", vec!["1.0 other", "1.1 millpond"])] {
        let request = HOP.iter().fold(Request::get(path), |request, (name, value)| request.field(name, value));
        for _ in 0..2 {
            let answer = request.ask(pond.proxy());
            assert_eq!((answer.status(), answer.head.all("via")), (200, via.clone()), "{path} {}", answer.detail());
            assert!(HOP.iter().all(|(name, _)| answer.field(name).is_none()), "{path}: {answer:?}");
            assert!(answer.field("date").is_some(), "the origin gave none");
        }
        for asked in origin.requests(path) {
            assert!(HOP.iter().all(|(name, _)| asked.field(name).is_none()), "{}", asked.head);
        }
    }
    // A request whose Connection takes a field away passes by the cache; a plain one is stored, without what was ours.
    for outcome in ["miss", "hit"] {
        let answer = get(pond.proxy(), "/stored");
        assert_eq!((answer.outcome(), answer.head.all("via")), (outcome, vec!["1.1 millpond"]));
        assert!(HOP.iter().all(|(name, _)| answer.field(name).is_none()), "{answer:?}");
    }
}

/// RFC 9110 §6.5.1 lets a recipient discard them; what it may not do is take them for fields of the head.
#[test]
fn trailers_end_here() {
    let origin = ScriptedOrigin::start();
    let chunks = "4\r\nbody\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nCache-Control: no-store\r\n\r\n";
    let head =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\nConnection: close\r\n\r\n";
    origin.answer("/a", Answer::raw(format!("{head}{chunks}")));
    origin.answer_by("/echo", |request: &Seen| Answer::ok(&request.body));
    let pond = plain(&origin, &[]);
    for outcome in ["miss", "hit"] {
        let answer = get(pond.proxy(), "/a");
        assert_eq!((answer.text().as_str(), answer.outcome(), answer.field("x-sum")), ("body", outcome, None));
    }
    let mut client = Connection::open(pond.proxy());
    client.send(format!("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
    assert_eq!(client.receive("POST").text(), "body");
    assert_eq!(client.ask(&Request::post("/echo", "next")).text(), "next");
    assert!(origin.requests("/echo").iter().all(|request| request.field("x-sum").is_none()));
}

#[test]
fn origins_of_http_1_0() {
    let origin = ScriptedOrigin::start();
    for (path, answer) in [
        ("/close", "HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\n\r\nbody"),
        ("/length", "HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nbody"),
    ] {
        origin.answer(path, Answer::raw(answer));
    }
    origin
        .answer("/short", Answer::raw("HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nbody"));
    let pond = plain(&origin, &[]);
    for path in ["/close", "/length"] {
        for outcome in ["miss", "hit"] {
            let answer = get(pond.proxy(), path);
            assert_eq!(
                (answer.text().as_str(), answer.outcome(), answer.is_whole()),
                ("body", outcome, true),
                "{path}"
            );
            assert_eq!(answer.field("via"), Some("1.0 millpond"));
        }
    }
    for _ in 0..2 {
        let answer = get(pond.proxy(), "/short");
        assert_eq!((answer.outcome(), answer.end), ("miss", End::Cut), "never taken for whole, nor stored");
    }
}

#[test]
fn origins_are_told_of_the_client_by_us_alone() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("a").field("Cache-Control", "no-store"));
    let lies = [
        ("X-Forwarded-For", "1.1.1.1"),
        ("x_forwarded_for", "1.1.1.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil"),
        ("X-Forwarded-Port", "1"),
        ("Forwarded", "for=1.1.1.1"),
        ("X-Real-IP", "1.1.1.1"),
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Proxy", "evil"),
    ];
    let request = lies
        .iter()
        .fold(Request::get("/api/a").field("Host", "x.example"), |request, (name, value)| request.field(name, value));
    let heads = |pond: &Millpond| {
        for method in ["GET", "POST"] {
            let mut request = request.clone();
            request.method = method.to_owned();
            assert_eq!(request.ask(pond.proxy()).status(), 200);
        }
        origin.requests("/api/a").split_off(origin.count("/api/a") - 2)
    };

    for seen in heads(&proxy_before(&[&origin], "")) {
        assert_eq!(told(&seen, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(told(&seen, "x-forwarded-proto"), ["http"]);
        assert_eq!(told(&seen, "x-forwarded-host"), ["x.example"]);
        let held_back = lies
            .iter()
            .filter(|(name, _)| !["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"].contains(name));
        assert!(held_back.clone().all(|(name, _)| seen.field(name).is_none()), "{}", seen.head);
    }
    for seen in heads(&with_proxy(&origin, "trusted = [\"10.0.0.0/8\", \"127.0.0.0/8\"]", "")) {
        assert_eq!(told(&seen, "x-forwarded-for"), ["1.1.1.1, 127.0.0.1"]);
        assert_eq!(told(&seen, "x-forwarded-proto"), ["https"]);
        assert_eq!(told(&seen, "x-forwarded-host"), ["evil"]);
        assert_eq!(told(&seen, "forwarded"), ["for=1.1.1.1, for=127.0.0.1;proto=http"]);
        assert_eq!(told(&seen, "x-real-ip"), ["1.1.1.1"]);
        let overrides = ["X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "Proxy"];
        assert!(overrides.iter().all(|name| seen.field(name).is_none()), "not even from there: {}", seen.head);
    }
    // Without rules nothing is added, and what comes is forwarded.
    origin.answer("/api/a", Answer::ok("a").field("Cache-Control", "no-store"));
    for seen in heads(&plain(&origin, &[])) {
        assert!(lies.iter().all(|(name, value)| told(&seen, name) == [*value]), "{}", seen.head);
    }
}

/// What a field changes at the origin is not in the key.
#[test]
fn a_field_that_the_rule_forwards_passes_by_the_cache() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/api/a", |request| Answer::ok(request.field("x-original-url").unwrap_or("none")));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"\nforward = [\"X-Original-URL\"]");
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "miss/not-cached");
    for _ in 0..2 {
        let other = Request::get("/api/a").field("X-Original-URL", "/b").ask(pond.proxy());
        assert_eq!((other.text().as_str(), other.detail()), ("/b", "pass/bypass"));
        let plain = get(pond.proxy(), "/api/a");
        assert_eq!((plain.text().as_str(), plain.detail()), ("none", "hit"));
    }
}

#[test]
fn the_body_of_a_get_does_not_reach_the_origin_of_a_rule() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/api/a", |request: &Seen| Answer::ok([b"body: ", &request.body[..]].concat()));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let mut client = Connection::open(pond.proxy());
    for body in ["Content-Length: 4\r\n\r\nevil", "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"] {
        client.send(format!("GET /api/a HTTP/1.1\r\nHost: x\r\n{body}"));
        let answer = client.receive("GET");
        assert_eq!((answer.text().as_str(), answer.detail()), ("body: ", "pass/request-body"));
    }
    assert_eq!(client.ask(&Request::get("/api/a")).detail(), "miss/not-cached", "nothing was stored, and it goes on");
    assert!(origin.requests("/api/a").iter().all(|seen| seen.field("transfer-encoding").is_none()));
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/api/a", |request: &Seen| Answer::ok(&request.body));
    let pond = with_proxy(&origin, "body_max = \"10B\"", "");
    for (body, status) in [
        ("Content-Length: 10\r\n\r\n0123456789", 200),
        ("Content-Length: 11\r\n\r\n", 413),
        ("Content-Length: 11\r\nExpect: 100-continue\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n", 413),
    ] {
        let mut client = Connection::open(pond.proxy());
        client.send(format!("POST /api/a HTTP/1.1\r\nHost: x\r\n{body}"));
        let answer = client.receive("POST");
        assert_eq!(answer.status(), status, "{body:?}");
        if status == 413 {
            assert_eq!((answer.field("connection"), answer.detail()), (Some("close"), "refused/bad-request"));
            assert!(client.is_closed());
        }
    }
}

/// An answer of another kind than the rule is for is likely an error page, or somebody's own page at a path that only
/// looks like a file's.
#[test]
fn a_rule_stores_the_content_types_that_it_names() {
    let origin = ScriptedOrigin::start();
    for (path, content_type) in [
        ("/api/json", "application/JSON; charset=utf-8"),
        ("/api/png", "image/png"),
        ("/api/html", "text/html"),
        ("/api/other", "application/json-seq"),
    ] {
        origin.answer(path, Answer::ok("a").field("Content-Type", content_type));
    }
    origin.answer("/api/none", Answer::ok("a"));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"\ncontent_type = [\"application/json\", \"image/*\"]");
    for (path, second) in [
        ("/api/json", "hit"),
        ("/api/png", "hit"),
        ("/api/html", "miss/content-type"),
        ("/api/other", "miss/content-type"),
        ("/api/none", "miss/content-type"),
    ] {
        get(pond.proxy(), path);
        let answer = get(pond.proxy(), path);
        assert_eq!((answer.text().as_str(), answer.detail()), ("a", second), "{path}");
    }
}
