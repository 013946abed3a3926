//! Responses in content codings: from one stored copy, each made once, for those who accept it.

use std::io::Read;
use std::thread;

use crate::e2e::proxy_before;
use crate::harness::client::{Connection, End, Request, Response, get, post};
use crate::harness::eventually;
use crate::harness::http2::Http2;
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, ScriptedOrigin};
use crate::harness::process::Millpond;

const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];
const SETTINGS: &str = "ttl = \"1h\"\ncompress = [\"zstd\", \"br\", \"gzip\"]";
const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn text() -> String {
    (0..1000).map(|number| format!("{{\"number\":{number},\"name\":\"item\"}}\n")).collect()
}

fn html(body: &str) -> Answer {
    Answer::ok(body).field("Content-Type", "text/html; charset=utf-8").field("ETag", "\"v1\"")
}

fn accepting(target: &str, codings: &str) -> Request {
    Request::get(target).field("Accept-Encoding", codings)
}

/// The body without its coding.
fn decoded(coding: Option<&str>, body: &[u8]) -> String {
    let mut plain = String::new();
    let read = match coding {
        None => return String::from_utf8_lossy(body).into_owned(),
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_string(&mut plain),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_string(&mut plain),
        Some("zstd") => zstd::stream::read::Decoder::new(body).expect("a frame").read_to_string(&mut plain),
        Some(other) => panic!("an unknown coding: {other}"),
    };
    read.unwrap_or_else(|error| panic!("{coding:?}: {error}"));
    plain
}

/// Asks until the answer comes in this coding.
#[track_caller]
fn until_coded(pond: &Millpond, target: &str, coding: &str) -> Response {
    eventually(&format!("{target} in {coding}"), || {
        let answer = accepting(target, coding).ask(pond.proxy());
        if answer.field("content-encoding") == Some(coding) { Ok(answer) } else { Err(format!("{:?}", answer.head)) }
    })
}

fn compressions(pond: &Millpond) -> f64 {
    Metrics::of(pond.admin()).sum("millpond_compressions_total", &[])
}

/// In front of an origin whose `/api/a` is stored, and made in every coding.
fn with_all_forms() -> (ScriptedOrigin, Millpond) {
    let origin = ScriptedOrigin::start();
    let answer = html(&text()).field("Last-Modified", MODIFIED).field("Accept-Ranges", "bytes");
    origin.answer("/api/a", answer.field("Content-MD5", "x"));
    let pond = proxy_before(&[&origin], SETTINGS);
    assert_eq!(get(pond.proxy(), "/api/a").outcome(), "miss");
    CODINGS.iter().for_each(|coding| drop(until_coded(&pond, "/api/a", coding)));
    (origin, pond)
}

#[test]
fn one_stored_copy_answers_in_every_coding() {
    let (origin, pond) = with_all_forms();
    for (accepted, expected) in [
        ("", None),
        ("zstd", Some("zstd")),
        ("br", Some("br")),
        ("gzip", Some("gzip")),
        ("x-gzip", Some("gzip")),
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip, deflate, br", Some("br")),
        ("gzip;q=1.0, br;q=0.5, zstd;q=0.8", Some("gzip")),
        ("gzip;q=0, br;q=0", None),
        ("gzip;q=0.5, identity", None),
        ("*", Some("zstd")),
        ("gzip, identity;q=0", Some("gzip")),
        ("*;q=0, br", Some("br")),
        ("gzip;q=7, br;q=x", None),
        ("deflate", None),
    ] {
        let answer = accepting("/api/a", accepted).ask(pond.proxy());
        let coding = answer.field("content-encoding");
        assert_eq!((answer.detail(), coding), ("hit", expected), "{accepted}");
        assert_eq!(decoded(coding, &answer.body), text(), "{accepted}");
        let tag = expected.map_or("\"v1\"".to_owned(), |coding| format!("\"v1-{coding}\""));
        assert_eq!(answer.field("etag"), Some(tag.as_str()), "{accepted}");
        assert_eq!((answer.head.all("vary"), answer.end), (vec!["Accept-Encoding"], End::Length));
        let of_the_bytes_as_they_were = ["content-md5", "accept-ranges"].map(|name| answer.field(name).is_some());
        assert_eq!(of_the_bytes_as_they_were, [expected.is_none(); 2], "{accepted}");
        assert!(answer.field("last-modified").is_some() && answer.field("age").is_some());
        assert!(expected.is_none() || answer.body.len() < text().len() / 4);
        // The same head without its body.
        let head = Request::head("/api/a").field("Accept-Encoding", accepted).ask(pond.proxy());
        let fields = |answer: &Response| {
            let own = ["age", "cache-status"];
            let fields = answer.head.fields.iter().filter(|(name, _)| !own.contains(&name.to_lowercase().as_str()));
            fields.cloned().collect::<Vec<_>>()
        };
        assert_eq!((head.end, fields(&head)), (End::Bodiless, fields(&answer)), "{accepted}");
    }
    let asked = origin.requests("/api/a");
    assert_eq!((asked.len(), asked[0].field("accept-encoding")), (1, Some("identity")));
    assert_eq!(compressions(&pond), 3.0);
}

#[test]
fn a_coding_is_put_on_once_however_many_ask() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", html(&text().repeat(20)));
    let pond = proxy_before(&[&origin], SETTINGS);
    assert_eq!(get(pond.proxy(), "/api/a").outcome(), "miss");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Connection::open(pond.proxy());
                let request = accepting("/api/a", "gzip");
                // Also while it is made, everybody is answered.
                eventually("the coding", || {
                    let answer = client.ask(&request);
                    assert_eq!(answer.outcome(), "hit");
                    answer.field("content-encoding").map(|_| ()).ok_or_else(|| "not yet".to_owned())
                });
            });
        }
    });
    assert_eq!((compressions(&pond), origin.count("/api/a")), (1.0, 1));
    let kept = [("coding", "gzip"), ("outcome", "kept")];
    assert_eq!(Metrics::of(pond.admin()).sum("millpond_compressions_total", &kept), 1.0);
}

#[test]
fn the_one_who_fetches_has_it_made_for_the_next() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", html(&text()));
    let pond = proxy_before(&[&origin], SETTINGS);
    assert_eq!(accepting("/api/a", "br").ask(pond.proxy()).outcome(), "miss");
    eventually("the coding", || if compressions(&pond) == 1.0 { Ok(()) } else { Err("not yet".to_owned()) });
    let next = accepting("/api/a", "br").ask(pond.proxy());
    assert_eq!((next.outcome(), next.field("content-encoding")), ("hit", Some("br")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_any_form_is_told_so_of_that_form() {
    let (_origin, pond) = with_all_forms();
    let http2 = Http2::open(pond.proxy()).await;
    let whole = format!("http://{}/api/a", pond.proxy());
    for (accepted, condition, expected) in [
        ("gzip", "\"v1-gzip\"", Some("\"v1-gzip\"")),
        ("br", "W/\"v1-br\"", Some("\"v1-br\"")),
        ("zstd", "\"v1-zstd\"", Some("\"v1-zstd\"")),
        ("", "\"v1\"", Some("\"v1\"")),
        // It has another form than it would be sent now.
        ("br", "\"v1-gzip\"", Some("\"v1-gzip\"")),
        ("br", "\"v1\"", Some("\"v1\"")),
        ("", "\"v0\", \"v1-br\"", Some("\"v1-br\"")),
        ("gzip", "\"v1-br\", \"v1-gzip\"", Some("\"v1-gzip\"")),
        ("gzip", "*", Some("\"v1-gzip\"")),
        ("gzip", "\"v0\", \"v0-gzip\", \"v1-deflate\"", None),
    ] {
        // The hot loop, and the gateway.
        for target in ["/api/a", whole.as_str()] {
            let answer = accepting(target, accepted).field("If-None-Match", condition).ask(pond.proxy());
            let status = if expected.is_some() { 304 } else { 200 };
            assert_eq!((answer.status(), answer.detail()), (status, "hit"), "{accepted} {condition} {target}");
            assert_eq!(answer.field("etag"), expected.or(Some("\"v1-gzip\"")), "{accepted} {condition} {target}");
            assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
        }
        let request = http2.request("GET", "/api/a").header("accept-encoding", accepted);
        let answer = http2.ask(request.header("if-none-match", condition), None).await;
        assert_eq!(answer.status(), if expected.is_some() { 304 } else { 200 }, "{accepted} {condition}");
        assert_eq!(answer.head.field("etag"), expected.or(Some("\"v1-gzip\"")), "{accepted} {condition}");
    }
    for coding in CODINGS {
        let since = accepting("/api/a", coding).field("If-Modified-Since", MODIFIED).ask(pond.proxy());
        let tag = format!("\"v1-{coding}\"");
        assert_eq!((since.status(), since.field("etag")), (304, Some(tag.as_str())));
        let answer = http2.ask(http2.request("GET", "/api/a").header("accept-encoding", coding), None).await;
        assert_eq!((answer.status(), answer.head.field("content-encoding")), (200, Some(coding)));
        assert_eq!((answer.head.outcome(), decoded(Some(coding), &answer.body)), ("hit", text()));
    }
}

#[test]
fn parts_are_those_of_the_stored_copy() {
    let (origin, pond) = with_all_forms();
    let part = |condition: Option<&str>| {
        let request = accepting("/api/a", "gzip").field("Range", "bytes=0-9");
        condition.map_or(request.clone(), |condition| request.field("If-Range", condition)).ask(pond.proxy())
    };
    for condition in [None, Some("\"v1\"")] {
        let answer = part(condition);
        assert_eq!(
            (answer.status(), answer.field("content-encoding"), answer.field("etag")),
            (206, None, Some("\"v1\""))
        );
        assert_eq!(answer.text(), text()[..10]);
    }
    // Of what it has, there are no parts: it gets the whole.
    let other = part(Some("\"v1-gzip\""));
    assert_eq!((other.status(), other.field("content-encoding"), other.text()), (200, None, text()));
    assert_eq!(origin.count("/api/a"), 1);
}

#[test]
fn what_must_not_be_compressed_is_not() {
    let origin = ScriptedOrigin::start();
    let body = text();
    let large = |content_type: &str| Answer::ok(&body).field("Content-Type", content_type);
    origin.answer("/api/image", large("image/png"));
    origin.answer("/api/events", large("text/event-stream"));
    origin.answer("/api/untold", Answer::ok(&body));
    origin.answer("/api/forbidden", large("text/html").field("Cache-Control", "public, no-transform"));
    origin.answer("/api/small", Answer::ok("small").field("Content-Type", "text/html"));
    origin.answer("/api/coded", large("text/html").field("Content-Encoding", "x-own"));
    origin.answer("/api/empty", Answer::status(204, "").field("Content-Type", "text/html"));
    origin.answer("/api/page", html(&body));
    let pond = proxy_before(&[&origin], SETTINGS);
    // All of them first, so that what is made for one shows that the others had their turn.
    let paths = ["image", "events", "untold", "forbidden", "small", "coded", "empty", "page"];
    for path in paths {
        assert_eq!(accepting(&format!("/api/{path}"), "gzip").ask(pond.proxy()).outcome(), "miss");
    }
    until_coded(&pond, "/api/page", "gzip");
    for path in paths.iter().filter(|path| **path != "page") {
        let answer = accepting(&format!("/api/{path}"), "gzip").ask(pond.proxy());
        let own = (*path == "coded").then_some("x-own");
        assert_eq!((answer.outcome(), answer.field("content-encoding")), ("hit", own), "{path}");
        let is_text = ["forbidden", "small", "coded", "empty"].contains(path);
        assert_eq!(answer.field("vary"), is_text.then_some("Accept-Encoding"), "{path}");
    }
    let unchanged = accepting("/api/page", "gzip").field("Cache-Control", "no-transform").ask(pond.proxy());
    assert_eq!((unchanged.outcome(), unchanged.field("content-encoding")), ("hit", None));
    assert_eq!(compressions(&pond), 1.0);
}

#[test]
fn what_clients_accept_makes_no_variants() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", html(&text()).field("Vary", "Accept-Encoding"));
    origin.answer("/api/language", html(&text()).field("Vary", "Accept-Language, accept-encoding"));
    let pond = proxy_before(&[&origin], SETTINGS);
    for accepted in ["", "gzip", "br, gzip", "zstd;q=0.3, *", "identity"] {
        let outcome = if accepted.is_empty() { "miss" } else { "hit" };
        assert_eq!(accepting("/api/a", accepted).ask(pond.proxy()).outcome(), outcome, "{accepted}");
        for language in ["de", "en"] {
            let request = accepting("/api/language", accepted).field("Accept-Language", language);
            assert_eq!(request.ask(pond.proxy()).outcome(), outcome, "{accepted} {language}");
        }
    }
    assert_eq!((origin.count("/api/a"), origin.count("/api/language")), (1, 2));
    assert_eq!(get(pond.proxy(), "/api/a").head.all("vary"), ["Accept-Encoding"]);
}

#[test]
fn forms_outlive_a_confirmation_and_go_with_a_purge() {
    let (origin, pond) = with_all_forms();
    let bytes = || Metrics::of(pond.admin()).sum("millpond_cache_bytes", &[]);
    let purge = |mode: &str| {
        let answer = post(pond.admin(), &format!("/purge?url=http://{}/api/a&mode={mode}", pond.proxy()), "");
        assert_eq!((answer.status(), answer.json()["objects"].as_u64()), (200, Some(1)), "{}", answer.text());
    };
    let full = bytes();
    assert!(full > text().len() as f64 * 1.1, "{full} bytes");
    purge("stale");
    let confirmed = accepting("/api/a", "gzip").ask(pond.proxy());
    assert_eq!(confirmed.outcome(), "revalidated");
    let asked = origin.requests("/api/a");
    assert_eq!(asked.last().and_then(|seen| seen.field("if-none-match")), Some("\"v1\""), "the origin's own tag");
    for coding in CODINGS {
        let answer = accepting("/api/a", coding).ask(pond.proxy());
        assert_eq!((answer.outcome(), answer.field("content-encoding")), ("hit", Some(coding)));
        assert_eq!(decoded(Some(coding), &answer.body), text());
    }
    assert_eq!(compressions(&pond), 3.0, "nothing is made twice");
    let told = accepting("/api/a", "gzip").field("If-None-Match", "\"v1-gzip\"").ask(pond.proxy());
    assert_eq!(told.status(), 304);

    purge("delete");
    assert_eq!(bytes(), 0.0, "with all its forms");
    origin
        .answer("/api/a", Answer::ok(text().to_uppercase()).field("Content-Type", "text/html").field("ETag", "\"v2\""));
    assert_eq!(accepting("/api/a", "gzip").ask(pond.proxy()).outcome(), "miss");
    let answer = until_coded(&pond, "/api/a", "gzip");
    assert_eq!(
        (answer.field("etag"), decoded(Some("gzip"), &answer.body)),
        (Some("\"v2-gzip\""), text().to_uppercase())
    );
}

/// What is not stored goes as it comes, in whatever coding the origin gives it to those who pass by the cache.
#[test]
fn what_is_not_stored_is_not_compressed_here() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/own", html(&text()).field("Cache-Control", "no-store").field("Vary", "Cookie"));
    origin.answer("/api/a", html(&text()).field("Cache-Control", "max-age=60"));
    let pond = proxy_before(&[&origin], "compress = [\"gzip\"]\nbypass = [\"cookie:session\"]");
    let own = accepting("/api/own", "gzip").ask(pond.proxy());
    assert_eq!((own.outcome(), own.field("content-encoding"), own.text()), ("miss", None, text()));
    assert_eq!(own.head.all("vary"), ["Cookie", "Accept-Encoding"]);
    let head = Request::head("/api/a").field("Accept-Encoding", "gzip").ask(pond.proxy());
    assert_eq!(
        (head.outcome(), head.field("vary"), head.field("etag")),
        ("miss", Some("Accept-Encoding"), Some("\"v1\""))
    );
    let passed = accepting("/api/a", "gzip").field("Cookie", "session=1").ask(pond.proxy());
    assert_eq!((passed.outcome(), passed.text()), ("pass", text()));
    let accepted = |path: &str| {
        let seen = origin.requests(path);
        seen.iter().map(|seen| seen.field("accept-encoding").unwrap_or("none").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (accepted("/api/own"), accepted("/api/a")),
        (vec!["identity".to_owned()], vec!["identity".to_owned(), "gzip".to_owned()])
    );
}

/// The origin has never heard of the tags that forms have.
#[test]
fn a_change_on_condition_of_a_form_reaches_the_origin_as_one_on_its_own_tag() {
    let (origin, pond) = with_all_forms();
    let put =
        Request::new("PUT", "/api/a").field("Content-Length", "0").field("If-Match", "\"v1-br\"").ask(pond.proxy());
    assert_eq!(put.status(), 200);
    let asked = origin.requests("/api/a");
    assert_eq!(asked.last().and_then(|seen| seen.field("if-match")), Some("\"v1-br\", \"v1\""));
}

#[test]
fn without_the_setting_nothing_is_compressed() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", html(&text()));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    for outcome in ["miss", "hit"] {
        let answer = accepting("/api/a", "gzip").ask(pond.proxy());
        assert_eq!((answer.outcome(), answer.field("content-encoding")), (outcome, None));
        assert_eq!((answer.field("vary"), answer.field("etag")), (None, Some("\"v1\"")));
    }
    assert_eq!(origin.requests("/api/a")[0].field("accept-encoding"), Some("gzip"), "it is the client's business");
    assert_eq!(compressions(&pond), 0.0);
}
