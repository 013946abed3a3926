//! Ingest as producers meet it: on its own socket and through the proxy of the same process.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::client::{Connection, Request, Response};
use crate::harness::metrics::Metrics;
use crate::harness::process::{Millpond, finish};
use crate::harness::producers::pond_with;

const SOURCES: &str = r#"
[[source]]
name = "signed"
path = "/events/signed"
partition = "{data.user}"
body_max = "64KiB"
auth = { kind = "standard-webhooks", secrets = ["file:secret"] }

[[source]]
name = "open"
path = "/events/open"
body_max = "64KiB"

[[source]]
name = "slow"
path = "/events/slow"
rate = "1/h"
"#;

fn pond() -> Millpond {
    pond_with(SOURCES, "batch_max_events = 100")
}

/// Both ways in.
fn ways(pond: &Millpond) -> [SocketAddr; 2] {
    [pond.address("ingest"), pond.proxy()]
}

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("{{\"id\":\"{n}\",\"type\":\"t\",\"data\":{{\"user\":\"u\"}}}}\n")).collect()
}

fn told(response: &Response, status: u16) -> Value {
    assert_eq!(response.status(), status, "{}", response.text());
    response.json()
}

#[test]
fn lines_without_end_are_taken_as_they_come() {
    let pond = pond();
    for (nth, way) in ways(&pond).into_iter().enumerate() {
        let texts: Vec<String> =
            (0..100).map(|part| lines(nth * 10_000 + part * 100, nth * 10_000 + part * 100 + 100)).collect();
        let chunks: Vec<&str> = texts.iter().map(String::as_str).collect();
        let request = Request::post_chunked("/events/open", &chunks).field("Content-Type", "application/x-ndjson");
        let told = told(&request.ask(way), 202);
        assert_eq!((&told["accepted"], &told["rejected"]), (&json!(10_000), &json!([])), "{told}");
        // The same with a length, larger than what is taken at once.
        let request = Request::post("/events/open", chunks.concat()).field("Content-Type", "application/x-ndjson");
        assert_eq!(self::told(&request.ask(way), 202)["duplicates"], 10_000);
        let whole = Request::post("/events/open", chunks.concat()).ask(way);
        assert_eq!(whole.status(), 413, "only lines may have any length: {}", whole.text());
    }
}

#[test]
fn what_is_refused_by_its_head_is_refused_both_ways() {
    let pond = pond();
    for way in ways(&pond) {
        let large = Request::post("/events/signed", vec![b'x'; 60 << 10]);
        assert_eq!(told(&large.ask(way), 401)["error"], "webhook-id is missing");
        let coded = Request::post("/events/open", vec![b'x'; 60 << 10]).field("Content-Encoding", "br");
        let answer = coded.ask(way);
        assert_eq!((answer.status(), answer.field("accept-encoding")), (415, Some("gzip, zstd")));
        assert_eq!(Request::post("/events/none", "{}").ask(way).status(), 404);
    }
    let metrics = Metrics::of(pond.admin());
    assert_eq!(metrics.sum("millpond_http_refused_total", &[("reason", "unsigned")]), 2.0);
}

#[test]
fn a_source_that_is_too_fast_keeps_its_connection() {
    let pond = pond();
    for (way, first) in ways(&pond).into_iter().zip([202, 429]) {
        let mut connection = Connection::open(way);
        let event = Request::post("/events/slow", "{\"type\":\"t\"}");
        assert_eq!(connection.ask(&event).status(), first);
        let refused = connection.ask(&event);
        assert_eq!(refused.status(), 429, "{}", refused.text());
        let seconds: u64 = refused.field("retry-after").and_then(|text| text.parse().ok()).expect("a number");
        assert!((3_000..=3_600).contains(&seconds), "{seconds}");
        let other = Request::post("/events/open", lines(0, 1));
        assert_eq!(connection.ask(&other).status(), 202, "the connection goes on");
    }
}

#[test]
fn requests_that_attack_are_refused_each_with_its_reason() {
    let pond = pond();
    let way = pond.address("ingest");
    let deep = format!("{{\"type\":\"t\",\"data\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let bomb = zstd(&vec![b' '; 64 << 20]);
    for (request, status, says) in [
        (Request::post("/events/open", deep), 400, "nested deeper than 127 levels"),
        (Request::post("/events/open", bomb).field("Content-Encoding", "zstd"), 413, "becomes larger than 65536 bytes"),
        (
            Request::post("/events/open", "{\"type\": \"no gzip\"}").field("Content-Encoding", "gzip"),
            400,
            "is not what its Content-Encoding says",
        ),
        (Request::post("/events/open", b"\xff\xfe"), 400, "this is not JSON"),
        (Request::post("/events/open", vec![b' '; 65 << 10]), 413, "larger than 65536 bytes"),
        (Request::post("/events/open", "{\"type\":\"t\",\"data\":"), 400, "this is not JSON"),
    ] {
        let told = told(&request.ask(way), status);
        assert!(told["error"].as_str().expect("an error").contains(says), "{told}");
    }
}

/// An empty zstd frame of any size is a handful of bytes: blocks of one repeated byte.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 128 << 10;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    let blocks = bytes.len() / BLOCK;
    for block in 0..blocks {
        let header = (BLOCK as u32) << 3 | 1 << 1 | u32::from(block + 1 == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(bytes[0]);
    }
    frame
}

fn load(pond: &Millpond, dir: &Path, more: &[&str]) -> String {
    let url = format!("http://{}/events/signed", pond.address("ingest"));
    let args = ["load", "--url", &url, "--secret", "file:secret", "--keys", "50"];
    let finished = finish(&[&args, more].concat(), dir);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
    finished.stdout
}

/// The number in front of a word.
fn number(text: &str, before: &str) -> f64 {
    let at = text.find(before).unwrap_or_else(|| panic!("{before}: {text}")) + before.len();
    let digits: String = text[at..].trim_start().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    digits.parse().unwrap_or_else(|_| panic!("{before}: {text}"))
}

#[test]
fn load_is_accepted_counted_and_seen() {
    let pond = pond();
    let dir = pond.dir().to_owned();
    let watched = format!("http://{}/users/{{key}}.json", pond.proxy());
    let rated =
        load(&pond, &dir, &["--rate", "100", "--for", "1s", "--batch", "5", "--watch", &watched, "--probe", "."]);
    // Where the machine is busy, the last requests may be due too late to be sent: then that is told.
    assert_eq!(number(&rated, "sent ") + 5.0 * number(&rated, "never sent: "), 500.0, "{rated}");
    assert_eq!((number(&rated, "accepted "), number(&rated, "missed: ")), (number(&rated, "sent "), 0.0), "{rated}");
    assert!(rated.contains("watched    p50 ") && rated.contains("fdatasync  p50 "), "{rated}");

    let closed = load(&pond, &dir, &["--for", "1s", "--connections", "3", "--threads", "2"]);
    assert!(number(&closed, "accepted ") > 0.0, "{closed}");
    assert_eq!(number(&closed, "sent "), number(&closed, "accepted "), "{closed}");

    let metrics = Metrics::of(pond.admin());
    let counted = metrics.sum("millpond_events_total", &[("source", "signed"), ("outcome", "accepted")]);
    let watched = counted - number(&rated, "accepted ") - number(&closed, "accepted ");
    assert!(watched >= 1.0, "{counted}: {rated}{closed}");
}
