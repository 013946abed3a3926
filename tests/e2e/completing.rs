//! What is stored of a response in part is completed: only the rest is asked for (RFC 9111 §3.3, §3.4).

use crate::e2e::plain_proxy::plain;
use crate::harness::client::{End, Request, Response, get};
use crate::harness::origin::{Answer, ScriptedOrigin, Seen};
use crate::harness::process::Millpond;

const DIGITS: &str = "0123456789abcdefghij";

/// The digits, or the rest of them that is asked for, as version `tag`, whatever `If-Range` says.
fn digits(tag: &'static str) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    move |seen| {
        let span = seen.field("range").map(|range| {
            let (first, last) = range.trim_start_matches("bytes=").split_once('-').expect("a range");
            let first: usize = first.parse().expect("its first byte");
            first..last.parse().map_or(DIGITS.len(), |last: usize| last + 1)
        });
        let answer = match span {
            None => Answer::ok(DIGITS),
            Some(span) => Answer::status(206, DIGITS.get(span.clone()).expect("the span lies in it"))
                .field("Content-Range", &format!("bytes {}-{}/{}", span.start, span.end - 1, DIGITS.len())),
        };
        answer.field("ETag", tag).field("Cache-Control", "max-age=600").field("X-Tag", tag)
    }
}

/// An answer whose body ends after `sent` bytes.
fn broken(sent: usize, tag: &str) -> Answer {
    let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: {tag}\r\nX-Tag: {tag}\r\n");
    let body = DIGITS.get(..sent).expect("so much of it");
    Answer::raw(format!("{head}Content-Length: {}\r\n\r\n{body}", DIGITS.len()))
}

/// `Range` and `If-Range` of the last request for `/a`.
fn asked(origin: &ScriptedOrigin) -> (Option<String>, Option<String>) {
    let last = origin.requests("/a").pop().expect("a request");
    let field = |name: &str| last.field(name).map(str::to_owned);
    (field("range"), field("if-range"))
}

fn some(range: &str, tag: &str) -> (Option<String>, Option<String>) {
    (Some(range.to_owned()), Some(tag.to_owned()))
}

fn whole(answer: &Response) {
    assert_eq!((answer.status(), answer.text().as_str(), answer.end), (200, DIGITS, End::Length));
    assert_eq!((answer.field("content-range"), answer.head.all("via").len()), (None, 1));
}

/// In front of an origin of which the first seven bytes are stored.
fn with_seven(tag: &'static str) -> (ScriptedOrigin, Millpond) {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/a", digits(tag));
    let pond = plain(&origin, &[]);
    let part = Request::get("/a").field("Range", "bytes=0-6").ask(pond.proxy());
    assert_eq!((part.status(), part.text().as_str()), (206, "0123456"));
    (origin, pond)
}

#[test]
fn a_part_from_the_start_is_completed() {
    let (origin, pond) = with_seven("\"v\"");
    let answer = get(pond.proxy(), "/a");
    whole(&answer);
    assert_eq!(asked(&origin), some("bytes=7-", "\"v\""));
    assert_eq!(answer.detail(), "miss/partial");
    assert!(answer.field("cache-status").is_some_and(|status| status.contains("fwd=partial; fwd-status=206")));
    let again = get(pond.proxy(), "/a");
    whole(&again);
    assert_eq!((again.detail(), origin.count("/a")), ("hit", 2));
}

#[test]
fn what_came_of_a_body_that_broke_off_is_completed() {
    for sent in [1, 13, 19] {
        let origin = ScriptedOrigin::start();
        origin.answer("/a", broken(sent, "\"v\""));
        let pond = plain(&origin, &[]);
        let cut = get(pond.proxy(), "/a");
        assert!(cut.end == End::Cut && DIGITS.starts_with(&cut.text()), "{:?}", cut.end);
        origin.answer_by("/a", digits("\"v\""));
        whole(&get(pond.proxy(), "/a"));
        assert_eq!(asked(&origin), some(&format!("bytes={sent}-"), "\"v\""));
        let again = get(pond.proxy(), "/a");
        whole(&again);
        assert_eq!(again.detail(), "hit");
    }
}

#[test]
fn what_breaks_off_again_goes_on_from_there() {
    let (origin, pond) = with_seven("\"v\"");
    let rest = "HTTP/1.1 206 P\r\nETag: \"v\"\r\nCache-Control: max-age=600\r\nContent-Range: bytes 7-19/20\r\nContent-Length: 13\r\n\r\n789";
    origin.answer("/a", Answer::raw(rest));
    let cut = get(pond.proxy(), "/a");
    assert_eq!((cut.end, cut.text().as_str()), (End::Cut, "0123456789"));
    origin.answer_by("/a", digits("\"v\""));
    whole(&get(pond.proxy(), "/a"));
    assert_eq!(asked(&origin), some("bytes=10-", "\"v\""));
}

#[test]
fn only_what_is_of_the_same_representation_is_joined() {
    // The origin heeds If-Range, and sends the whole of what it has now.
    let (origin, pond) = with_seven("\"v\"");
    origin.answer("/a", Answer::ok("another").field("ETag", "\"w\"").field("Cache-Control", "max-age=600"));
    assert_eq!(get(pond.proxy(), "/a").text(), "another");
    assert_eq!((get(pond.proxy(), "/a").text().as_str(), origin.count("/a")), ("another", 2));
    // It does not, and sends a part of something else, or not the part that was asked for.
    let wrong_part = |seen: &Seen| {
        let wrong = Answer::status(206, "x").field("Content-Range", "bytes 19-19/20").field("ETag", "\"v\"");
        if seen.field("range").is_some() { wrong } else { digits("\"v\"")(seen) }
    };
    let refused = |seen: &Seen| {
        let refused = Answer::status(416, "").field("Content-Range", "bytes */3");
        if seen.field("range").is_some() { refused } else { digits("\"v\"")(seen) }
    };
    for way in 0..3 {
        let (origin, pond) = with_seven("\"v\"");
        match way {
            0 => origin.answer_by("/a", digits("\"w\"")),
            1 => origin.answer_by("/a", wrong_part),
            _ => origin.answer_by("/a", refused),
        }
        let answer = get(pond.proxy(), "/a");
        whole(&answer);
        assert_eq!(answer.field("x-tag"), Some(if way == 0 { "\"w\"" } else { "\"v\"" }));
        assert_eq!((asked(&origin), origin.count("/a")), ((None, None), 3), "way {way}");
    }
}

#[test]
fn nothing_is_joined_without_a_strong_tag_or_a_first_byte() {
    let (origin, pond) = with_seven("W/\"v\"");
    whole(&get(pond.proxy(), "/a"));
    assert_eq!(asked(&origin), (None, None));

    let origin = ScriptedOrigin::start();
    origin.answer_by("/a", digits("\"v\""));
    let pond = plain(&origin, &[]);
    Request::get("/a").field("Range", "bytes=3-6").ask(pond.proxy());
    whole(&get(pond.proxy(), "/a"));
    assert_eq!(asked(&origin), (None, None));

    let origin = ScriptedOrigin::start();
    origin.answer("/a", broken(9, "W/\"v\""));
    let pond = plain(&origin, &[]);
    get(pond.proxy(), "/a");
    origin.answer_by("/a", digits("W/\"v\""));
    whole(&get(pond.proxy(), "/a"));
    assert_eq!(asked(&origin), (None, None));
}
