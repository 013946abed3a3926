//! `millpond proxy`: exactly what HTTP says, and nothing beyond it.

use crate::harness::client::{Connection, End, Request, get};
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, ScriptedOrigin, Seen};
use crate::harness::process::{Millpond, finish};
use crate::harness::witness::Witness;

/// `millpond proxy` in front of the origin, with an admin socket, a JSON access log, and `more` arguments.
pub fn plain(origin: &ScriptedOrigin, more: &[&str]) -> Millpond {
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
        let ours = ["content-length", "age", "via"];
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
    assert_eq!((miss.status(), miss.detail()), (304, "miss/not-cached"), "the origin's own");
    let asked = origin.requests("/a");
    let forwarded = asked.first().and_then(|request| request.field("if-none-match"));
    assert_eq!(forwarded, Some("\"v1\""), "nothing was stored to compare it with");
    assert_eq!(witness.get("/a").detail(), "miss/not-cached", "there was nothing to store");
    // It went out before its end was stored.
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
    assert_eq!(origin.count("/a"), 2);
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
        [("en", "miss/not-cached"), ("de", "miss/vary"), ("en", "hit"), ("de", "hit"), ("EN", "hit")]
    {
        let answer = witness.ask(&Request::get("/a").field("Accept-Language", language));
        assert_eq!((answer.text(), answer.detail()), (language.to_lowercase(), detail));
    }
    let none = witness.get("/a");
    assert_eq!((none.text().as_str(), none.detail()), ("none", "miss/vary"));
    assert_eq!(origin.count("/a"), 3);
    witness.all_agree();
}

#[test]
fn what_the_cache_does_not_do_is_passed() {
    let origin = ScriptedOrigin::start();
    origin.answer("/a", Answer::ok("whole").field("Cache-Control", "max-age=60").field("ETag", "\"v1\""));
    let pond = plain(&origin, &[]);
    let witness = Witness::of(&pond);
    assert_eq!(witness.get("/a").detail(), "miss/not-cached");
    for (name, value, detail) in [
        ("Range", "items=0-1", "pass/range"),
        ("If-Match", "\"v1\"", "pass/precondition"),
        ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT", "pass/precondition"),
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
