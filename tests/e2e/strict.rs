//! Raw bytes from clients and from origins, each with what RFC 9112 and RFC 9110 have us do: forwarded as it is meant,
//! or refused with this status and a closed connection.

use crate::e2e::plain_proxy::plain;
use crate::harness::client::{Connection, get};
use crate::harness::origin::{Answer, ScriptedOrigin, Seen};

/// Requests that are taken: what comes, and the request line and the body that the origin gets.
const TAKEN: &[(&str, &str, &str)] = &[
    ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", ""),
    // One empty line before a request line (RFC 9112 §2.2).
    ("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", ""),
    // A higher minor version is processed as 1.1 (RFC 9110 §2.5).
    ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", ""),
    ("GET / HTTP/1.9\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", ""),
    ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1", ""),
    ("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", ""),
    ("GET http://x:80/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", ""),
    ("GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1", ""),
    ("GET /?a=\\ HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?a=\\ HTTP/1.1", ""),
    ("PURGE / HTTP/1.1\r\nHost: x\r\n\r\n", "PURGE / HTTP/1.1", ""),
    ("GET / HTTP/1.1\r\nHost:x\t \r\nX-Empty:\r\nX:\t a \t\r\n\r\n", "GET / HTTP/1.1", ""),
    ("GET / HTTP/1.1\r\nHost: x\r\nX: \u{e9}\r\n\r\n", "GET / HTTP/1.1", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 005\r\n\r\nabcde", "POST / HTTP/1.1", "abcde"),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "POST / HTTP/1.1", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1", ""),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "POST / HTTP/1.1",
        "abcde",
    ),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0005\r\nabcde\r\n000\r\n\r\n",
        "POST / HTTP/1.1",
        "abcde",
    ),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d;e\";f\r\nabcde\r\n0\r\nX: y\r\n\r\n",
        "POST / HTTP/1.1",
        "abcde",
    ),
    (
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1",
        "0123456789",
    ),
];

/// Heads that are refused.
const REFUSED: &[(&str, u16)] = &[
    // Start line.
    ("GET /\r\n", 400),
    ("GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505),
    ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    ("GET / http/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET / HTTP/1.1.1\r\nHost: x\r\n\r\n", 400),
    ("GET / HTTP/1\r\nHost: x\r\n\r\n", 400),
    ("GET / XTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    ("GET / HTTP/1.1\rHost: x\r\n\r\n", 400),
    ("G\u{e9}T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET() / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GETGETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
    // Target.
    ("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /a\\b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /..\\..\\b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET http://u:p@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    // Host (RFC 9112 §3.2).
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x/a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x:a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x:99999\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    // Field lines.
    ("GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\n : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\nX\t: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\nX(): a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\nX\u{e9}: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\nX: \u{7f}\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\nX: a\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: x\r\n\r\r\n", 400),
    // Framing (RFC 9112 §6).
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nabcde", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nabcde", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nabcde", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5 5\r\n\r\nabcde", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent_Length: 5\r\nContent-Length : 5\r\n\r\nabcde", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nabcde", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br, chunked\r\n\r\n0\r\n\r\n", 501),
];

/// What may stand where chunks do, and is none.
const NO_CHUNKS: &[&str] = &[
    "5\nabcde\r\n0\r\n\r\n",
    "5\r\nabcde\n0\r\n\r\n",
    "5\r\nabcde0\r\n\r\n",
    "5\r\nabcdefg\r\n0\r\n\r\n",
    " 5\r\nabcde\r\n0\r\n\r\n",
    "5 \r\nabcde\r\n0\r\n\r\n",
    "+5\r\nabcde\r\n0\r\n\r\n",
    "0x5\r\nabcde\r\n0\r\n\r\n",
    "5_0\r\nabcde\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nabcde",
    "10000000000000005\r\nabcde\r\n0\r\n\r\n",
    "5;\r\nabcde\r\n0\r\n\r\n",
    "5;a\rb\r\nabcde\r\n0\r\n\r\n",
    "5;a\nb\r\nabcde\r\n0\r\n\r\n",
    "5;a=\"b\r\nabcde\r\n0\r\n\r\n",
    "5;a=\"\0\"\r\nabcde\r\n0\r\n\r\n",
    "5\r\nabcde\r\n0\r\n X: y\r\n\r\n",
    "5\r\nabcde\r\n0\r\nX : y\r\n\r\n",
    "5\r\nabcde\r\n0\r\nX: y\n\r\n",
    "5\r\nabcde\r\n0\r\n\n",
    "\r\n5\r\nabcde\r\n0\r\n\r\n",
    ";a\r\n0\r\n\r\n",
];

/// What of an origin is no answer.
const NO_ANSWERS: &[&str] = &[
    "HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\na",
    "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na",
    "HTTP/1.1 99 OK\r\nContent-Length: 1\r\n\r\na",
    "HTTP/1.1 600 OK\r\nContent-Length: 1\r\n\r\na",
    "http/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
    "\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
    "HTTP/1.1 200 OK\nContent-Length: 1\n\na",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: a\rb\r\n\r\na",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: a\r\n b\r\n\r\na",
    "HTTP/1.1 200 OK\r\n Content-Length: 1\r\n\r\na",
    "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX\r\n\r\na",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: \0\r\n\r\na",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
    "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\na",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\n",
    "<html>",
];

const BEHIND: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn requests_that_are_taken() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/", |request: &Seen| Answer::ok(&request.body));
    let pond = plain(&origin, &[]);
    for (index, (bytes, line, body)) in TAKEN.iter().enumerate() {
        let mut client = Connection::open(pond.proxy());
        client.send(bytes);
        let answer = client.receive("POST");
        assert_eq!((answer.status(), answer.text().as_str()), (200, *body), "{bytes:?}");
        let asked = origin.requests("/");
        let seen = asked.get(index).unwrap_or_else(|| panic!("{bytes:?} did not reach the origin"));
        assert!(seen.head.starts_with(&format!("{line}\r\n")), "{bytes:?}: {}", seen.head);
    }
}

#[test]
fn heads_that_are_refused() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    for (bytes, status) in REFUSED {
        let mut client = Connection::open(pond.proxy());
        let _ = client.try_send(format!("{bytes}{BEHIND}"));
        let answer = client.receive("POST");
        assert_eq!((answer.status(), answer.field("connection")), (*status, Some("close")), "{bytes:?}");
        assert!(answer.field("date").is_some() && client.is_closed(), "{bytes:?}");
    }
    assert_eq!(origin.count("/smuggled") + origin.count("/"), 0);
}

#[test]
fn bodies_that_are_refused() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    for chunks in NO_CHUNKS {
        let mut client = Connection::open(pond.proxy());
        let _ = client
            .try_send(format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{BEHIND}"));
        let answer = client.receive("POST");
        assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")), "{chunks:?}");
        assert!(client.is_closed(), "{chunks:?}");
    }
    assert_eq!(origin.count("/smuggled"), 0);
}

#[test]
fn answers_that_are_none() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    for answer in NO_ANSWERS {
        origin.answer("/", Answer::raw(answer));
        let told = get(pond.proxy(), "/");
        assert_eq!((told.status(), told.detail()), (502, "error/origin-error"), "{answer:?}");
    }
    for chunks in NO_CHUNKS {
        origin.answer(
            "/",
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=9\r\n\r\n{chunks}"
            )),
        );
        for _ in 0..2 {
            let told = get(pond.proxy(), "/");
            assert!(told.status() == 502 || !told.is_whole(), "{chunks:?}: {told:?}");
            assert_ne!(told.outcome(), "hit", "{chunks:?}");
        }
    }
}

/// A client may send what it means for the tunnel without waiting for an answer.
#[test]
fn nothing_is_read_behind_a_refused_connect() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    client.send(format!("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n{BEHIND}"));
    let answer = client.receive("GET");
    assert_eq!((answer.status(), answer.field("connection")), (405, Some("close")));
    assert!(answer.field("allow").is_some() && client.is_closed());
    assert_eq!(origin.count("/smuggled"), 0);
}

/// RFC 9110 §7.4: or its answer would be stored for those who speak TLS.
#[test]
fn an_https_url_is_not_answered_without_tls() {
    let origin = ScriptedOrigin::start();
    origin.answer("/", Answer::ok("a"));
    let pond = plain(&origin, &[]);
    let mut client = Connection::open(pond.proxy());
    client.send("GET https://x/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.receive("GET").status(), 421);
    client.send("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((client.receive("GET").status(), origin.count("/")), (200, 1), "the connection goes on");
}

/// RFC 9110 §6.6.1: what a recipient forwards has a date, and one that ends here is none.
#[test]
fn an_answer_whose_date_ends_here_gets_another() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    for lifetime in ["max-age=60", "no-store"] {
        let fields =
            format!("Cache-Control: {lifetime}\r\nConnection: date, close\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        origin.answer("/", Answer::raw(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 1\r\n\r\na")));
        let dates: Vec<String> = get(pond.proxy(), "/").head.all("date").iter().map(|date| date.to_string()).collect();
        assert!(matches!(dates.as_slice(), [date] if !date.contains("1994")), "{lifetime}: {dates:?}");
    }
}
