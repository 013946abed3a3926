//! The hot loop and the gateway on one connection: the same answers, in the order of the requests, however they are cut.

use crate::e2e::plain_proxy::plain;
use crate::e2e::proxy_before;
use crate::harness::client::{Connection, End, Request, Response, get};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, ScriptedOrigin, Seen};
use crate::harness::process::Millpond;
use crate::harness::random::Random;

const LARGE: usize = 300_000;
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// An API with something of everything.
fn api() -> ScriptedOrigin {
    let origin = ScriptedOrigin::start();
    let stored = |answer: Answer| answer.field("Cache-Control", "max-age=600").field("ETag", "\"v1\"");
    origin.answer("/small", stored(Answer::ok("small")).field("Last-Modified", MODIFIED));
    origin.answer("/large", stored(Answer::ok("x".repeat(LARGE))));
    origin.answer("/empty", stored(Answer::ok("")));
    origin.answer("/weak", Answer::ok("weak").field("Cache-Control", "max-age=600").field("ETag", "W/\"w\""));
    origin.answer("/gone", stored(Answer::status(404, "nothing here")));
    origin.answer("/moved", stored(Answer::status(301, "")).field("Location", "/small"));
    origin.answer("/passed", Answer::ok("passed").field("Cache-Control", "no-store"));
    let varied = |seen: &Seen| {
        let body = format!("for {}", seen.field("accept-language").unwrap_or("anyone"));
        Answer::ok(body).field("Cache-Control", "max-age=600").field("Vary", "Accept-Language")
    };
    origin.answer_by("/varied", varied);
    origin.answer_by("/echo", |seen| Answer::ok(&seen.body));
    origin
}

const STORED: [&str; 6] = ["/small", "/large", "/empty", "/weak", "/gone", "/moved"];
const LANGUAGES: [&str; 2] = ["de", "en"];

/// Fetches all that can be stored.
fn warmed(origin: &ScriptedOrigin) -> Millpond {
    let pond = plain(origin, &[]);
    STORED.iter().for_each(|path| assert_eq!(get(pond.proxy(), path).outcome(), "miss"));
    for language in LANGUAGES {
        assert_eq!(Request::get("/varied").field("Accept-Language", language).ask(pond.proxy()).outcome(), "miss");
    }
    pond
}

/// One request, and what must come of it: status, body and outcome.
fn drawn(random: &mut Random, unique: &mut usize) -> (Request, u16, String, &'static str) {
    match random.below(14) {
        0..=2 => (Request::get("/small"), 200, "small".to_owned(), "hit"),
        3 => (Request::get("/large"), 200, "x".repeat(LARGE), "hit"),
        4 => (Request::head("/large"), 200, String::new(), "hit"),
        5 => (Request::get("/empty"), 200, String::new(), "hit"),
        6 => (Request::get("/gone"), 404, "nothing here".to_owned(), "hit"),
        7 => (Request::get("/small").field("If-None-Match", "\"v0\", W/\"v1\""), 304, String::new(), "hit"),
        8 => {
            let language = LANGUAGES[random.below(LANGUAGES.len())];
            (Request::get("/varied").field("Accept-Language", language), 200, format!("for {language}"), "hit")
        }
        9 => {
            *unique += 1;
            (Request::get(&format!("/small?{unique}")), 200, "small".to_owned(), "miss")
        }
        10 => (Request::get("/passed"), 200, "passed".to_owned(), "miss"),
        11 => {
            let body = "b".repeat(random.below(5000));
            (Request::post("/echo", &body), 200, body, "pass")
        }
        12 => (Request::post_chunked("/echo", &["one, ", "two"]), 200, "one, two".to_owned(), "pass"),
        _ => (Request::get("/small").field("Cache-Control", "max-age=100"), 200, "small".to_owned(), "hit"),
    }
}

#[test]
fn hits_misses_and_bodies_in_one_stream_are_answered_in_order() {
    let origin = api();
    let pond = warmed(&origin);
    let mut random = Random::told("hits_misses_and_bodies_in_one_stream_are_answered_in_order");
    let mut unique = 0;
    for round in 0..60 {
        let asked: Vec<_> = (0..1 + random.below(24)).map(|_| drawn(&mut random, &mut unique)).collect();
        let bytes: Vec<u8> = asked.iter().flat_map(|(request, ..)| request.bytes(pond.proxy())).collect();
        let mut client = Connection::open(pond.proxy());
        // All at once, in pieces of all sizes, or byte by byte.
        let piece_max = [usize::MAX, 2000, 100, 7, 1][round % 5];
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + random.below(piece_max)).min(rest.len()));
            client.send(piece);
            rest = after;
        }
        for (number, (request, status, body, outcome)) in asked.iter().enumerate() {
            let answer = client.receive(&request.method);
            let told = (answer.status(), answer.outcome(), answer.is_whole());
            assert_eq!(told, (*status, *outcome, true), "{number} of {asked:?}", asked = asked.len());
            assert!(answer.text() == *body, "{number}: {} bytes, not {}", answer.body.len(), body.len());
        }
    }
    let metrics = Metrics::of(pond.admin());
    let counted = metrics.sum("millpond_requests_total", &[]);
    let timed = metrics.sum("millpond_request_duration_seconds_count", &[]);
    assert_eq!(counted, timed, "each request is counted once, and timed once");
}

/// The target as a whole URL is for the gateway, the target as a path for the hot loop: one answer, but for the time.
#[test]
fn both_ways_give_the_same_answer() {
    let origin = api();
    compared_both_ways("both_ways_give_the_same_answer", &warmed(&origin), "");
}

/// The same under a rule that compresses, and says something else to clients than the origin does.
#[test]
fn both_ways_give_the_same_form() {
    let origin = ScriptedOrigin::start();
    let body: String = (0..2000).map(|number| format!("item {number}, ")).collect();
    let text = |answer: Answer| answer.field("Content-Type", "text/html").field("Cache-Control", "max-age=600");
    let tagged = |answer: Answer, tag: &str| text(answer).field("ETag", tag).field("Last-Modified", MODIFIED);
    origin.answer("/api/small", tagged(Answer::ok(&body), "\"v1\""));
    origin.answer("/api/large", tagged(Answer::ok(body.repeat(20)), "\"v1\""));
    origin.answer("/api/weak", tagged(Answer::ok(&body), "W/\"w\""));
    origin.answer("/api/gone", text(Answer::status(404, &body)));
    origin.answer("/api/moved", text(Answer::status(301, &body)).field("Location", "/small"));
    origin.answer("/api/empty", tagged(Answer::ok(""), "\"v1\""));
    origin.answer("/api/varied", text(Answer::ok(&body)).field("Vary", "Accept-Language, Accept-Encoding"));
    // Nothing is fetched anew: its forms would be made anew, and one way might come before them and the other behind.
    let settings = r#"compress = ["zstd", "br", "gzip"]
        client = { no_cache = false, max_age = false, min_fresh = false }
        downstream = { cache_control = "max-age=1", tags = "xkey" }"#;
    let pond = proxy_before(&[&origin], settings);
    let with_forms = STORED.iter().filter(|path| **path != "/empty").map(|path| (*path, "de"));
    for (path, language) in with_forms.chain(["de", "en", ""].map(|language| ("/varied", language))) {
        for coding in ["zstd", "br", "gzip"] {
            let request = Request::get(&format!("/api{path}")).field("Accept-Encoding", coding);
            // Absent is another value than an empty one.
            let request = if language.is_empty() { request } else { request.field("Accept-Language", language) };
            eventually(&format!("{path} in {coding}"), || {
                let answer = request.ask(pond.proxy());
                answer.field("content-encoding").map(|_| ()).ok_or_else(|| format!("{:?}", answer.head))
            });
        }
    }
    get(pond.proxy(), "/api/empty");
    compared_both_ways("both_ways_give_the_same_form", &pond, "/api");
}

/// Sends generated requests for what is stored at `base` both ways.
fn compared_both_ways(name: &str, pond: &Millpond, base: &str) {
    let mut random = Random::told(name);
    let codings =
        ["gzip", "br, gzip", "gzip;q=0.5, zstd;q=0.4", "identity", "*", "*;q=0", "gzip;q=0, *", "gzip;q=2", ""];
    let tags = ["\"v1-gzip\"", "\"v1-br\"", "W/\"w-zstd\"", "\"v2\", \"v1-zstd\"", "\"v1-gzip-gzip\""];
    let conditions = ["\"v1\"", "W/\"v1\"", "\"v2\"", "*", "\"v2\", \"v1\"", "W/\"w\"", "broken", "", "\"v1\" \"v2\""];
    let dates = [MODIFIED, "Sun, 06 Nov 1994 08:49:36 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "yesterday", "0"];
    let directives = [
        "max-age=100",
        "max-age=0",
        "no-cache",
        "min-fresh=10",
        "min-fresh=999999",
        "max-stale",
        "no-transform",
        "bogus",
    ];
    let mut compared = 0;
    let mut client = Connection::open(pond.proxy());
    for _ in 0..1500 {
        let path = if random.below(6) == 0 { "/varied" } else { STORED[random.below(STORED.len())] };
        let path = format!("{base}{path}");
        let mut fields: Vec<(&str, &str)> = Vec::new();
        let mut with = |chance: usize, name, values: &[&'static str]| {
            if random.below(chance) == 0 {
                fields.push((name, values[random.below(values.len())]));
            }
        };
        with(3, "If-None-Match", &conditions);
        with(6, "If-None-Match", &tags);
        with(2, "Accept-Encoding", &codings);
        with(4, "If-Modified-Since", &dates);
        with(6, "Cache-Control", &directives);
        with(8, "Connection", &["keep-alive", "Keep-Alive", "keep-alive, x-other", "x-other"]);
        with(3, "Accept-Language", &LANGUAGES);
        with(9, "Authorization", &["Basic YTpi"]);
        with(9, "Cookie", &["a=b"]);
        with(9, "Range", &["bytes=0-1"]);
        with(9, "If-Match", &["\"v1\"", "\"v2\""]);
        with(9, "Pragma", &["no-cache"]);
        with(9, "X-Other", &["", "1", "a, b"]);
        let method = if random.below(4) == 0 { "HEAD" } else { "GET" };
        let whole = format!("http://{}{path}", pond.proxy());
        let mut ask = |target: &str| {
            let request =
                fields.iter().fold(Request::new(method, target), |request, (name, value)| request.field(name, value));
            client.ask(&request)
        };
        let (by_gateway, by_loop) = (ask(&whole), ask(&path));
        let told = (by_gateway.detail(), by_loop.detail());
        // What goes to the origin may change what is stored, so that the second answer comes from something else.
        if by_gateway.outcome() != "hit" {
            continue;
        }
        assert_eq!(by_loop.outcome(), "hit", "{method} {path} {fields:?} {told:?}");
        assert_eq!(comparable(&by_loop), comparable(&by_gateway), "{method} {path} {fields:?} {told:?}");
        compared += 1;
    }
    assert!(compared > 500, "{compared} of them were hits");
}

/// An answer without what tells of its time, and of the way it took.
fn comparable(answer: &Response) -> (u16, Vec<(String, String)>, &[u8], End) {
    let of_its_own = ["age", "date", "cache-status"];
    let fields = answer.head.fields.iter().filter(|(name, _)| !of_its_own.contains(&name.to_lowercase().as_str()));
    (answer.status(), fields.cloned().collect(), &answer.body, answer.end)
}

#[test]
fn a_client_that_leaves_in_the_middle_disturbs_nobody() {
    let origin = api();
    let pond = warmed(&origin);
    for length in [1, 10, 40] {
        let mut leaving = Connection::open(pond.proxy());
        let bytes = Request::get("/large").bytes(pond.proxy());
        // Many large answers, of which none is read, and the beginning of one more request.
        (0..20).for_each(|_| leaving.send(&bytes));
        leaving.send(&bytes[..length]);
        drop(leaving);
        let mut client = Connection::open(pond.proxy());
        assert_eq!(client.ask(&Request::get("/small")).text(), "small");
    }
    // A head that ends with the connection is a mistake, and told as such.
    let mut cut = Connection::open(pond.proxy());
    cut.send(Request::get("/small").bytes(pond.proxy()));
    cut.send("GET /small HTTP/1.1\r\nHost");
    cut.close_writing();
    assert_eq!(cut.receive("GET").outcome(), "hit");
    assert_eq!(cut.receive("GET").status(), 400);
    assert!(cut.is_closed());
}

/// A client that pipelines without end does not keep its worker from the others.
#[test]
fn one_busy_client_leaves_others_their_turn() {
    let origin = api();
    let pond = {
        let pond = plain(&origin, &["--threads", "1"]);
        assert_eq!(get(pond.proxy(), "/small").outcome(), "miss");
        pond
    };
    let to = pond.proxy();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut busy = Connection::open(to);
            let burst = Request::get("/small").bytes(to).repeat(500);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                busy.send(&burst);
                (0..500).for_each(|_| assert_eq!(busy.receive("GET").text(), "small"));
            }
        });
        let mut other = Connection::open(to);
        (0..200).for_each(|_| assert_eq!(other.ask(&Request::get("/small")).outcome(), "hit"));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
