//! Parts of responses: cut out of what is stored whole, or on its way there.

use crate::e2e::plain_proxy::plain;
use crate::harness::client::{End, Request, Response, get};
use crate::harness::http2::Http2;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin, Seen};
use crate::harness::process::Millpond;
use crate::harness::random::Random;
use crate::harness::witness::Witness;

pub const DIGITS: &str = "0123456789abcdefghij";
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 09:49:37 GMT";
/// Of a response that may be stored, and whose parts may be put together.
pub const FRESH: [(&str, &str); 2] = [("Cache-Control", "max-age=600"), ("ETag", "\"v\"")];

/// What an origin that knows ranges answers: one range as a 206, all else as a 200, `fields` on both.
pub fn ranged(body: impl AsRef<[u8]>, fields: &[(&str, &str)]) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    let body = body.as_ref().to_vec();
    let fields: Vec<(String, String)> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    move |seen| {
        let span = seen.field("range").and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            let length = body.len();
            match (first, last) {
                ("", suffix) => Some(length.saturating_sub(suffix.parse().ok()?)..length),
                (first, "") => Some(first.parse().ok()?..length),
                (first, last) => Some(first.parse().ok()?..length.min(last.parse::<usize>().ok()? + 1)),
            }
        });
        let answer = match span {
            None => Answer::ok(&body),
            Some(span) if span.start >= span.end => {
                Answer::status(416, "none").field("Content-Range", &format!("bytes */{}", body.len()))
            }
            Some(span) => {
                let range = format!("bytes {}-{}/{}", span.start, span.end - 1, body.len());
                Answer::status(206, body.get(span).expect("the span lies in it")).field("Content-Range", &range)
            }
        };
        fields.iter().fold(answer, |answer, (name, value)| answer.field(name, value))
    }
}

pub fn part(target: &str, range: &str) -> Request {
    Request::get(target).field("Range", range)
}

/// Status, `Content-Range` and body.
pub fn told(answer: &Response) -> (u16, &str, String) {
    let lengths = answer.head.all("content-length");
    assert_eq!((answer.end, lengths), (End::Length, vec![answer.body.len().to_string().as_str()]));
    (answer.status(), answer.field("content-range").unwrap_or_default(), answer.text())
}

/// In front of an origin whose `/a` is stored, with these fields on top.
fn with_digits(fields: &[(&str, &str)]) -> (ScriptedOrigin, Millpond) {
    let origin = ScriptedOrigin::start();
    let answer = Answer::ok(DIGITS).field("Cache-Control", "max-age=600");
    origin.answer("/a", fields.iter().fold(answer, |answer, (name, value)| answer.field(name, value)));
    let pond = plain(&origin, &[]);
    assert_eq!(get(pond.proxy(), "/a").text(), DIGITS);
    (origin, pond)
}

#[test]
fn a_stored_response_answers_ranges() {
    let (origin, pond) = with_digits(&[("Content-Type", "text/plain"), ("Content-MD5", "x"), ("X-Own", "y")]);
    for (range, expected) in [
        ("bytes=0-0", (206, "bytes 0-0/20", "0")),
        ("bytes=0-4", (206, "bytes 0-4/20", "01234")),
        ("bytes=15-", (206, "bytes 15-19/20", "fghij")),
        ("bytes=-3", (206, "bytes 17-19/20", "hij")),
        ("bytes=-300", (206, "bytes 0-19/20", DIGITS)),
        ("bytes=0-", (206, "bytes 0-19/20", DIGITS)),
        ("BYTES=18-99999999999999999999", (206, "bytes 18-19/20", "ij")),
        ("bytes=3-5,4-7,8-8", (206, "bytes 3-8/20", "345678")),
        ("bytes=90-,1-2", (206, "bytes 1-2/20", "12")),
        ("bytes=5-4", (200, "", DIGITS)),
        ("bytes=0-1,x", (200, "", DIGITS)),
        ("bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,1-1,3-3,5-5,7-7,9-9,11-11,13-13", (200, "", DIGITS)),
    ] {
        let answer = part("/a", range).ask(pond.proxy());
        let (status, told_range, body) = told(&answer);
        assert_eq!(((status, told_range, body.as_str()), answer.detail()), (expected, "hit"), "{range}");
        assert!(answer.field("age").is_some() && answer.field("x-own") == Some("y"));
        assert_eq!(answer.field("content-type"), Some("text/plain"));
        assert_eq!(answer.field("content-md5").is_some(), status == 200, "it is that of the whole");
    }
    for range in ["bytes=20-", "bytes=20-30,400-", "bytes=-0"] {
        let answer = part("/a", range).ask(pond.proxy());
        assert_eq!((answer.status(), answer.field("content-range")), (416, Some("bytes */20")), "{range}");
        assert_eq!((answer.detail(), answer.field("accept-ranges")), ("hit", None));
    }
    let head = Request::head("/a").field("Range", "bytes=0-1").ask(pond.proxy());
    assert_eq!((head.status(), head.field("content-length"), head.detail()), (200, Some("20"), "hit"));
    assert_eq!(origin.count("/a"), 1);
}

#[test]
fn only_a_200_has_parts() {
    let origin = ScriptedOrigin::start();
    origin.answer("/none", Answer::status(404, "not there").field("Cache-Control", "max-age=600"));
    origin.answer("/empty", Answer::ok("").field("Cache-Control", "max-age=600"));
    let pond = plain(&origin, &[]);
    for outcome in ["miss", "hit", "hit"] {
        let answer = part("/none", "bytes=0-1").ask(pond.proxy());
        assert_eq!((told(&answer), answer.outcome()), ((404, "", "not there".to_owned()), outcome));
    }
    get(pond.proxy(), "/empty");
    let suffix = part("/empty", "bytes=-5").ask(pond.proxy());
    assert_eq!((told(&suffix), suffix.detail()), ((200, "", String::new()), "hit"));
    let start = part("/empty", "bytes=0-").ask(pond.proxy());
    assert_eq!((start.status(), start.field("content-range")), (416, Some("bytes */0")));
    assert_eq!((origin.count("/none"), origin.count("/empty")), (1, 1));
}

#[test]
fn if_range_decides_whether_a_range_counts() {
    let strong = [("ETag", "\"v\""), ("Last-Modified", MODIFIED), ("Date", LATER)];
    let weak = [("ETag", "W/\"v\""), ("Last-Modified", MODIFIED), ("Date", MODIFIED)];
    for (stored, condition, counts) in [
        (strong, "\"v\"", true),
        (strong, "\"w\"", false),
        (strong, "W/\"v\"", false),
        (strong, MODIFIED, true),
        (strong, LATER, false),
        (strong, "bogus", false),
        (weak, "W/\"v\"", false),
        (weak, "\"v\"", false),
        (weak, MODIFIED, false),
    ] {
        // Its Date is long past: any max-age would be, too.
        let origin = ScriptedOrigin::start();
        let answer = Answer::ok(DIGITS).field("Expires", "Fri, 31 Dec 9999 23:59:59 GMT");
        origin.answer("/a", stored.iter().fold(answer, |answer, (name, value)| answer.field(name, value)));
        let pond = plain(&origin, &[]);
        get(pond.proxy(), "/a");
        let ask = |range: &str| part("/a", range).field("If-Range", condition).ask(pond.proxy());
        let answer = ask("bytes=2-3");
        let expected = if counts { (206, "bytes 2-3/20", "23".to_owned()) } else { (200, "", DIGITS.to_owned()) };
        assert_eq!((told(&answer), answer.detail()), (expected, "hit"), "{condition} for {stored:?}");
        assert_eq!(ask("bytes=90-").status(), if counts { 416 } else { 200 }, "{condition}");
        let alone = Request::get("/a").field("If-Range", condition).ask(pond.proxy());
        assert_eq!((told(&alone), alone.detail()), ((200, "", DIGITS.to_owned()), "hit"), "without a Range");
        assert_eq!(origin.count("/a"), 1);
    }
}

#[test]
fn conditions_come_before_ranges() {
    let (origin, pond) = with_digits(&[("ETag", "\"v\""), ("Last-Modified", MODIFIED)]);
    for (name, value, status) in [
        ("If-None-Match", "\"v\"", 304),
        ("If-None-Match", "\"w\"", 206),
        ("If-Modified-Since", MODIFIED, 304),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", 206),
    ] {
        for range in ["bytes=0-1", "bytes=90-"] {
            let answer = part("/a", range).field(name, value).field("If-Range", "\"v\"").ask(pond.proxy());
            let expected = if status == 206 && range == "bytes=90-" { 416 } else { status };
            assert_eq!((answer.status(), answer.detail()), (expected, "hit"), "{name}: {value}, {range}");
        }
    }
    let passed = part("/a", "bytes=0-1").field("If-Match", "\"v\"").ask(pond.proxy());
    assert_eq!((passed.detail(), origin.count("/a")), ("pass/precondition", 2));
}

/// The parts of a `multipart/byteranges` body: `Content-Type`, `Content-Range`, bytes.
pub fn parts_of(kind: &str, body: &[u8]) -> Vec<(String, String, Vec<u8>)> {
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    let (mut rest, mut parts) = (body.strip_prefix(format!("--{boundary}").as_bytes()).expect("a boundary"), vec![]);
    while let Some(of_part) = rest.strip_prefix(b"\r\n") {
        let head = find(of_part, b"\r\n\r\n").expect("the end of a part's head");
        let text = String::from_utf8_lossy(&of_part[..head]).into_owned();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_default().to_owned()
        };
        let behind = &of_part[head + 4..];
        let delimiter = format!("\r\n--{boundary}");
        let end = find(behind, delimiter.as_bytes()).expect("the boundary behind a part");
        parts.push((field("Content-Type"), field("Content-Range"), behind[..end].to_vec()));
        rest = &behind[end + delimiter.len()..];
    }
    assert_eq!(rest, b"--\r\n", "the last boundary");
    parts
}

#[test]
fn several_ranges_come_as_multipart() {
    let (origin, pond) = with_digits(&[("Content-Type", "text/plain"), ("ETag", "\"v\"")]);
    let answer = part("/a", "bytes=-2,0-1,4-5,5-6,70-").ask(pond.proxy());
    assert_eq!((answer.status(), answer.detail(), answer.field("etag")), (206, "hit", Some("\"v\"")));
    assert_eq!((answer.field("content-range"), answer.head.all("content-type").len()), (None, 1));
    let parts = parts_of(answer.field("content-type").unwrap_or_default(), &answer.body);
    let expected = [("bytes 18-19/20", "ij"), ("bytes 0-1/20", "01"), ("bytes 4-6/20", "456")];
    let expected = expected.map(|(range, body)| ("text/plain".to_owned(), range.to_owned(), body.into()));
    assert_eq!(parts, expected);
    assert_eq!(origin.count("/a"), 1);
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::from(seed);
    (0..length).map(|_| random.below(256) as u8).collect()
}

#[test]
fn a_large_body_is_put_together_from_its_ranges() {
    let body = noise(7, 300_000);
    let origin = ScriptedOrigin::start();
    origin.answer("/big", Answer::ok(&body).field("Cache-Control", "max-age=600"));
    let pond = plain(&origin, &[]);
    assert!(get(pond.proxy(), "/big").body == body);
    let mut got = Vec::new();
    for start in (0..body.len()).step_by(47_000) {
        let answer = part("/big", &format!("bytes={start}-{}", start + 46_999)).ask(pond.proxy());
        assert_eq!((answer.status(), answer.end), (206, End::Length));
        got.extend(answer.body);
    }
    assert!(got == body);
    let answer = part("/big", "bytes=0-99999,150000-199999,-70000").ask(pond.proxy());
    let parts = parts_of(answer.field("content-type").unwrap_or_default(), &answer.body);
    let bytes: Vec<&[u8]> = parts.iter().map(|(_, _, bytes)| bytes.as_slice()).collect();
    assert!(bytes == [&body[..100_000], &body[150_000..200_000], &body[230_000..]]);
    assert_eq!(origin.count("/big"), 1);
}

#[test]
fn a_stale_response_is_validated_whole_and_then_cut() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok(DIGITS).field("ETag", "\"1\"").field("Cache-Control", "max-age=0"));
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    witness.get("/a");
    let confirmed = witness.ask(&part("/a", "bytes=3-4").field("If-Range", "\"1\""));
    assert_eq!((told(&confirmed), confirmed.detail()), ((206, "bytes 3-4/20", "34".to_owned()), "revalidated/expired"));
    origin.answer("/a", Answer::ok("something else").field("ETag", "\"2\"").field("Cache-Control", "max-age=600"));
    let changed = witness.ask(&part("/a", "bytes=3-4"));
    assert_eq!((told(&changed), changed.detail()), ((206, "bytes 3-4/14", "et".to_owned()), "miss/expired"));
    assert_eq!(witness.get("/a").detail(), "hit");
    for asked in origin.requests("/a").iter().skip(1) {
        assert_eq!(asked.field("if-none-match"), Some("\"1\""));
        assert_eq!((asked.field("range"), asked.field("if-range")), (None, None), "the whole is validated");
    }
    witness.all_agree();
}

/// A part does not wait for what is behind it.
#[test]
fn a_part_is_cut_out_of_a_body_that_still_comes() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("old").field("ETag", "\"1\"").field("Cache-Control", "max-age=0"));
    let pond = plain(&origin, &[]);
    get(pond.proxy(), "/a");
    let gate = Gate::closed();
    let fresh = Answer::ok("0123456789").field("ETag", "\"2\"").field("Cache-Control", "max-age=600");
    origin.answer("/a", fresh.then_when(&gate, "abcdefghij"));
    let early = part("/a", "bytes=4-6").ask(pond.proxy());
    assert_eq!((told(&early), early.detail()), ((206, "bytes 4-6/20", "456".to_owned()), "miss/expired"));
    let unsatisfiable = part("/a", "bytes=20-").ask(pond.proxy());
    assert_eq!((unsatisfiable.status(), unsatisfiable.field("content-range")), (416, Some("bytes */20")));
    let late = std::thread::scope(|scope| {
        let across = scope.spawn(|| part("/a", "bytes=8-12").ask(pond.proxy()));
        gate.open();
        across.join().expect("an answer")
    });
    assert_eq!(told(&late), (206, "bytes 8-12/20", "89abc".to_owned()));
    let whole = get(pond.proxy(), "/a");
    assert_eq!((told(&whole), origin.count("/a")), ((200, "", DIGITS.to_owned()), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_over_http2() {
    let body = noise(8, 300_000);
    let origin = ScriptedOrigin::start();
    origin.answer("/big", Answer::ok(&body).field("Cache-Control", "max-age=600").field("ETag", "\"v\""));
    origin.answer_by("/a", ranged(DIGITS, &FRESH));
    let pond = plain(&origin, &[]);
    let client = Http2::open(pond.proxy()).await;
    assert!(client.get("/big").await.body == body);
    let ask = |target: &str, range: &str| client.ask(client.request("GET", target).header("range", range), None);

    let middle = ask("/big", "bytes=100000-249999").await;
    assert_eq!((middle.status(), middle.head.field("content-range")), (206, Some("bytes 100000-249999/300000")));
    assert_eq!((middle.head.all("content-length"), middle.head.detail()), (vec!["150000"], "hit"));
    assert!(middle.body == body[100_000..250_000] && middle.broken.is_none());
    let several = ask("/big", "bytes=0-99999,-100000").await;
    let parts = parts_of(several.head.field("content-type").unwrap_or_default(), &several.body);
    assert!(parts[0].2 == body[..100_000] && parts[1].2 == body[200_000..]);
    let none = ask("/big", "bytes=300000-").await;
    assert_eq!((none.status(), none.head.field("content-range")), (416, Some("bytes */300000")));
    let condition = client.request("GET", "/big").header("range", "bytes=0-1").header("if-range", "\"w\"");
    let changed = client.ask(condition, None).await;
    assert!(changed.status() == 200 && changed.body == body);

    for detail in ["miss/not-cached", "hit"] {
        let part = ask("/a", "bytes=3-5").await;
        assert_eq!((part.status(), part.text().as_str(), part.head.detail()), (206, "345", detail));
    }
    assert_eq!((origin.count("/big"), origin.count("/a")), (1, 1));
}
