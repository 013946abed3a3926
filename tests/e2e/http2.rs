//! HTTP/2 over cleartext, by prior knowledge. What the cache decides is tested over HTTP/1.1; here is what is HTTP/2's own.

use h2::Reason;
use h2::client::Builder;

use crate::e2e::plain_proxy::plain;
use crate::harness::client::{Connection, Request, get};
use crate::harness::eventually;
use crate::harness::http2::{Came, DATA, END_STREAM, Frames, Http2, RST_STREAM, frame, headers};
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};

const FRESH: (&str, &str) = ("Cache-Control", "max-age=3600");

fn fresh(body: impl AsRef<[u8]>) -> Answer {
    Answer::ok(body).field(FRESH.0, FRESH.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_a_hit_a_304_and_a_head() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", fresh("body").field("ETag", "\"v\"").field("X-Odd", "One  Two").field("Connection", "x"));
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;

    let miss = client.get("/a").await;
    assert_eq!((miss.status(), miss.head.outcome(), miss.text().as_str()), (200, "miss", "body"));
    let hit = client.get("/a").await;
    assert_eq!((hit.status(), hit.head.detail(), hit.text().as_str()), (200, "hit", "body"));
    for answer in [&miss, &hit] {
        assert_eq!(answer.head.field("x-odd"), Some("One  Two"));
        assert_eq!(answer.head.all("content-length"), ["4"]);
        assert_eq!((answer.head.field("connection"), answer.head.field("transfer-encoding")), (None, None));
        assert!(answer.broken.is_none());
    }
    assert!(hit.head.field("age").is_some());

    let known = client.ask(client.request("GET", "/a").header("if-none-match", "\"v\""), None).await;
    assert_eq!((known.status(), known.text().as_str()), (304, ""));
    assert_eq!((known.head.field("etag"), known.head.field("content-length")), (Some("\"v\""), None));
    let head = client.ask(client.request("HEAD", "/a"), None).await;
    assert_eq!((head.status(), head.text().as_str(), head.head.field("content-length")), (200, "", Some("4")));
    let head = client.ask(client.request("HEAD", "/missing"), None).await;
    assert_eq!((head.status(), head.text().as_str()), (404, ""));
    assert_eq!(origin.count("/a"), 1);
}

/// One store, one key: what one protocol brought in, the other finds.
#[tokio::test(flavor = "multi_thread")]
async fn both_versions_share_the_cache() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", fresh("a"));
    origin.answer("/b", fresh("b"));
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    assert_eq!(client.get("/a").await.head.outcome(), "miss");
    assert_eq!(get(pond.proxy(), "/a").outcome(), "hit");
    assert_eq!(get(pond.proxy(), "/b").outcome(), "miss");
    assert_eq!(client.get("/b").await.head.outcome(), "hit");
    pond.wait_for_access(4, |line| line["status"] == 200);
    // Its line comes before a hit is counted.
    eventually("all requests to be counted", || {
        let counted = Metrics::of(pond.admin()).sum("millpond_requests_total", &[("rule", "all")]);
        if counted == 4.0 { Ok(()) } else { Err(counted.to_string()) }
    });
}

/// The origin speaks HTTP/1.1: the request must be framed for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_is_forwarded() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/in", |seen| Answer::ok(format!("{} bytes", seen.body.len())));
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    // More than a stream may send before it is let flow on.
    let body = vec![b'x'; 1_000_000];
    let told = client.request("POST", "/in").header("content-length", body.len());
    assert_eq!(client.ask(told, Some(&body)).await.text(), "1000000 bytes");
    assert_eq!(client.ask(client.request("PUT", "/in"), Some(&body)).await.text(), "1000000 bytes");
    assert_eq!(client.ask(client.request("POST", "/in"), None).await.text(), "0 bytes");
    let cookies =
        client.request("DELETE", "/in").header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
    assert_eq!(client.ask(cookies, None).await.status(), 200);
    let seen = origin.requests("/in");
    let framing = |index: usize| {
        let request = &seen[index];
        (request.field("content-length"), request.field("transfer-encoding"))
    };
    assert_eq!(framing(0), (Some("1000000"), None));
    assert_eq!(framing(1), (None, Some("chunked")));
    assert_eq!((framing(2), framing(3)), ((None, None), (None, None)));
    assert_eq!((seen[3].field("cookie"), seen[3].field("te")), (Some("a=1; b=2"), None));
    assert_eq!(seen[3].field("host"), Some(pond.proxy().to_string().as_str()));
}

/// An origin that answers before it has read all leaves bytes that nobody reads: they must not use up the window that
/// all streams share.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_that_nobody_wants_is_let_go() {
    let origin = ScriptedOrigin::start();
    origin.answer("/early", Answer::status(413, "too large").early());
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    let body = vec![b'x'; 2_000_000];
    for _ in 0..8 {
        let answer = client.ask(client.request("POST", "/early"), Some(&body)).await;
        assert!([413, 502].contains(&answer.status()), "{answer:?}");
    }
    assert_eq!(client.get("/missing").await.status(), 404);
}

#[test]
fn a_client_that_waits_for_a_100_gets_it() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/a", |seen| Answer::ok(format!("got {}", String::from_utf8_lossy(&seen.body))));
    let pond = plain(&origin, &[]);
    let mut client = Frames::open(pond.proxy());
    let post = [(":method", "POST"), GOOD[1], GOOD[2], GOOD[3], ("content-length", "4"), ("expect", "100-continue")];
    client.send(&headers(1, 0, &post));
    client.wait_for_head(1);
    client.send(&frame(DATA, END_STREAM, 1, b"body"));
    assert_eq!(client.receive(1), Came::Answer("got body".to_owned()));
    assert_eq!(origin.requests("/a").first().and_then(|seen| seen.field("expect")), Some("100-continue"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_at_a_time_and_none_waits_for_another() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    origin.answer_by("/held", {
        let gate = gate.clone();
        move |seen| fresh(seen.target.clone()).held_by(&gate)
    });
    origin.answer("/quick", fresh("quick"));
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    let mut held = Vec::new();
    for index in 0..100 {
        // Two ask for each: one leads, one waits.
        held.push(client.send(client.request("GET", &format!("/held?{}", index / 2)), None).await);
    }
    origin.wait_for_requests("/held", 50);
    assert_eq!(client.get("/quick").await.head.outcome(), "miss");
    assert_eq!(client.get("/quick").await.head.outcome(), "hit");
    gate.open();
    for (index, asked) in held.into_iter().enumerate() {
        let answer = asked.whole().await;
        assert_eq!((answer.status(), answer.text()), (200, format!("/held?{}", index / 2)));
    }
    assert_eq!(origin.count("/held"), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_flows_as_the_client_lets_it() {
    let origin = ScriptedOrigin::start();
    let body: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    origin.answer("/large", fresh(&body));
    origin.answer("/chunked", fresh(&body).chunked());
    origin.answer("/small", fresh("small"));
    let pond = plain(&origin, &[]);
    let mut settings = Builder::new();
    settings.initial_window_size(10_000).initial_connection_window_size(20_000);
    let client = Http2::open_with(pond.proxy(), &settings).await;
    for (path, outcome) in [("/large", "miss"), ("/large", "hit"), ("/chunked", "miss"), ("/chunked", "hit")] {
        let answer = client.get(path).await;
        assert_eq!((answer.head.outcome(), answer.broken.is_none()), (outcome, true), "{path}");
        assert!(answer.body == body, "{path} {outcome}: {} bytes", answer.body.len());
    }
    // One that is not read does not keep the others.
    let unread = client.send(client.request("GET", "/large"), None).await;
    assert_eq!(client.get("/small").await.text(), "small");
    assert!(unread.whole().await.body == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_reset_and_never_looks_complete() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    origin.answer("/a", fresh("the first part").then_dies_when(&gate));
    origin.answer("/b", fresh("the first part").chunked().then_dies_when(&gate));
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    for path in ["/a", "/b"] {
        let asked = client.send(client.request("GET", path), None).await;
        let gate = gate.clone();
        let answer = asked.read(move |so_far| {
            if so_far == b"the first part" {
                gate.open();
            }
        });
        let answer = answer.await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "the first part"));
        assert_eq!(answer.broken.and_then(|error| error.reason()), Some(Reason::INTERNAL_ERROR), "{path}");
    }
    // The connection goes on.
    assert_eq!(client.get("/missing").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_taken_back_harms_nobody() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    origin.answer("/slow", fresh("slow").held_by(&gate));
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    let leader = client.send(client.request("GET", "/slow"), None).await;
    origin.wait_for_requests("/slow", 1);
    let waiter = client.send(client.request("GET", "/slow"), None).await;
    leader.cancel();
    let other = client.get("/missing").await;
    assert_eq!(other.status(), 404);
    gate.open();
    let answer = waiter.whole().await;
    assert_eq!((answer.text().as_str(), answer.head.outcome()), ("slow", "collapsed"));
    assert_eq!(origin.count("/slow"), 1);
    // It counts as one that the client did not wait for.
    pond.wait_for_access(1, |line| line["path"] == "/slow" && line["broken_off"] == true);
}

const GOOD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "a")];
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A good request but for one field: another value, or left out.
fn but(name: &'static str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
    let changed = |(other, kept)| if other == name { Some((other, value?)) } else { Some((other, kept)) };
    GOOD.into_iter().filter_map(changed).collect()
}

fn and(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    GOOD.iter().chain(more).copied().collect()
}

/// RFC 9113 §8: what is malformed is reset or answered 400, and never forwarded.
#[test]
fn a_malformed_request_is_refused() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", fresh("reached"));
    let pond = plain(&origin, &[]);
    let cases: Vec<(Vec<(&str, &str)>, Came)> = vec![
        (and(&[]), Came::Answer("reached".to_owned())),
        (and(&[("te", "trailers")]), Came::Answer("reached".to_owned())),
        (and(&[("host", "A:80")]), Came::Answer("reached".to_owned())),
        // The library ends the connection for it, as RFC 9113 §5.4 allows.
        (and(&[("X-Upper", "1")]), Came::GoAway(PROTOCOL_ERROR)),
        (and(&[("connection", "close")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[("transfer-encoding", "chunked")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[("keep-alive", "1")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[("upgrade", "h2c")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[("proxy-connection", "close")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[("te", "gzip")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[("x", "1"), (":path", "/b")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[(":path", "/b")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[(":status", "200")]), Came::Reset(PROTOCOL_ERROR)),
        (but(":method", None), Came::Reset(PROTOCOL_ERROR)),
        (but(":scheme", None), Came::Reset(PROTOCOL_ERROR)),
        (but(":path", None), Came::Reset(PROTOCOL_ERROR)),
        (but(":path", Some("")), Came::Reset(PROTOCOL_ERROR)),
        (but(":path", Some("*")), refused("begin with /")),
        (but(":path", Some("/\u{e4}")), refused("8-bit")),
        (but(":scheme", Some("ftp")), refused(":scheme")),
        (but(":authority", None), refused("neither :authority nor Host")),
        (but(":authority", Some("user@a")), refused("user-info")),
        (and(&[("host", "b")]), refused("differs")),
        (and(&[("host", "a"), ("host", "a")]), refused("more than one Host")),
        (and(&[("x", " blank")]), refused("blank")),
        (and(&[("content-length", "5")]), Came::Reset(PROTOCOL_ERROR)),
        (and(&[("content-length", "0"), ("content-length", "0")]), refused("more than one Content-Length")),
        (vec![(":method", "CONNECT"), (":authority", "a:443")], refused("no tunnels")),
        (vec![(":method", "CONNECT"), (":authority", "a")], refused("host:port")),
        (vec![(":method", "CONNECT"), (":authority", "a:443"), (":path", "/")], Came::Reset(PROTOCOL_ERROR)),
    ];
    let mut wrong = Vec::new();
    for (fields, expected) in cases {
        let mut client = Frames::open(pond.proxy());
        client.send(&headers(1, END_STREAM, &fields));
        let came = client.receive(1);
        let as_expected = match (&came, &expected) {
            (Came::Answer(text), Came::Answer(part)) => text.contains(part),
            _ => came == expected,
        };
        if !as_expected {
            wrong.push(format!("{fields:?}: {came:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let seen = origin.requests("/a");
    assert_eq!(seen.len(), 1, "{seen:?}");
    let reasons = Metrics::of(pond.admin());
    assert_eq!(reasons.sum("millpond_miss_total", &[("reason", "bad-request")]), 10.0);
}

/// An answer of our own that says this.
fn refused(why: &str) -> Came {
    Came::Answer(why.to_owned())
}

#[test]
fn heads_have_limits() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    let long = format!("/{}", "a".repeat(9_000));
    let mut client = Frames::open(pond.proxy());
    client.send(&headers(1, END_STREAM, &[GOOD[0], GOOD[1], (":path", &long), GOOD[3]]));
    assert!(matches!(client.receive(1), Came::Answer(text) if text.starts_with("414 ")));
    let large = "a".repeat(12_000);
    client.send(&headers(3, END_STREAM, &[&GOOD[..], &[("x", &large), ("y", &large), ("z", &large)]].concat()));
    // The library answers it, without a body.
    assert_eq!(client.receive(3), Came::Answer(String::new()));
    let many: Vec<(&str, &str)> = GOOD.into_iter().chain(std::iter::repeat_n(("x", "1"), 129)).collect();
    client.send(&headers(5, END_STREAM, &many));
    assert!(matches!(client.receive(5), Came::Answer(text) if text.starts_with("431 ")));
}

/// "Rapid reset", CVE-2023-44487: work that nobody waits for ends the connection.
#[test]
fn a_client_that_takes_back_all_it_asks_for_is_told_to_go() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    origin.answer("/a", fresh("a").held_by(&gate));
    let pond = plain(&origin, &[]);
    let mut client = Frames::open(pond.proxy());
    let cancel = 8_u32.to_be_bytes();
    let flood = (0..2_000_u32).map(|index| index * 2 + 1);
    let flood =
        flood.flat_map(|stream| [headers(stream, END_STREAM, &GOOD), frame(RST_STREAM, 0, stream, &cancel)].concat());
    client.send(&flood.collect::<Vec<u8>>());
    assert_eq!(client.receive(4_001), Came::GoAway(ENHANCE_YOUR_CALM));
    gate.open();
    assert_eq!(get(pond.proxy(), "/a").status(), 200);
}

/// The preface may come in pieces, and looks like the beginning of HTTP/1.1 until it does not.
#[test]
fn the_preface_is_told_from_a_request_byte_by_byte() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", fresh("reached"));
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send([*byte]);
    }
    client.send(frame(4, 0, 0, b""));
    assert_eq!(client.some().get(3), Some(&4), "the server's settings");
    let mut other = Connection::open(pond.proxy());
    for byte in Request::post("/a", "body").bytes(pond.proxy()) {
        other.send([byte]);
    }
    assert_eq!(other.receive("POST").status(), 200);
    let mut wrong = Connection::open(pond.proxy());
    wrong.send("PRI * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(wrong.receive("PRI").status(), 400);
    // Only what a connection begins with can be the preface.
    other.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(other.receive("PRI").status(), 505);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_goodbye_and_finishes_what_was_begun() {
    let origin = ScriptedOrigin::start();
    let (head, rest) = (Gate::closed(), Gate::closed());
    origin.answer("/slow", fresh("first half, ").held_by(&head).then_when(&rest, "second half"));
    origin.answer("/quick", fresh("quick"));
    let mut pond = plain(&origin, &[]);
    let (idle, busy) = (Http2::open(pond.proxy()).await, Http2::open(pond.proxy()).await);
    assert_eq!(idle.get("/quick").await.status(), 200);
    let asked = busy.send(busy.request("GET", "/slow"), None).await;
    origin.wait_for_requests("/slow", 1);
    pond.signal("TERM");
    assert!(idle.end().await.is_ok(), "an idle connection is closed with a word");
    busy.wait_for_goodbye().await;
    head.open();
    let gate = rest.clone();
    let answer = asked
        .read(move |so_far| {
            if so_far == b"first half, " {
                gate.open()
            }
        })
        .await;
    assert_eq!((answer.text().as_str(), answer.broken.is_none()), ("first half, second half", true));
    assert!(busy.end().await.is_ok());
    assert_eq!(pond.wait(), Some(0));
}

/// A client that is gone frees what it held.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_forgotten() {
    let origin = ScriptedOrigin::start();
    let body = vec![b'x'; 1_000_000];
    origin.answer("/large", fresh(&body));
    let mut pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    assert_eq!(client.get("/large").await.body.len(), body.len());
    let (head, unread) = client.send(client.request("GET", "/large"), None).await.head().await;
    assert_eq!(head.outcome(), "hit");
    drop((unread, client));
    let gone = |line: &serde_json::Value| line["path"] == "/large" && line["broken_off"] == true;
    eventually("the request to be given up", || match pond.access_log().iter().filter(|line| gone(line)).count() {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
    pond.signal("TERM");
    assert_eq!(pond.wait(), Some(0));
}
