//! A rule that names the languages of its origin: requests that get the same one share a response.

use crate::e2e::proxy_before;
use crate::harness::client::{Request, Response};
use crate::harness::http2::Http2;
use crate::harness::origin::{Answer, ScriptedOrigin, Seen};
use crate::harness::process::Millpond;

fn speaks(seen: &Seen) -> Answer {
    let language = seen.field("accept-language").unwrap_or("none");
    Answer::ok(language).field("Vary", "Accept-Language").field("Content-Language", language)
}

fn start(settings: &str) -> (ScriptedOrigin, Millpond) {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/api/a", speaks);
    let pond = proxy_before(&[&origin], &format!("ttl = \"1h\"\n{settings}"));
    (origin, pond)
}

fn ask(pond: &Millpond, languages: &str) -> Response {
    Request::get("/api/a").field("Accept-Language", languages).ask(pond.proxy())
}

#[test]
fn requests_that_get_the_same_language_share_a_response() {
    let (origin, pond) = start("languages = [\"en\", \"de\"]");
    for (languages, expected, outcome) in [
        ("de-AT, fr;q=0.5", "de", "miss"),
        ("fr, de;q=0.1", "de", "hit"),
        ("de", "de", "hit"),
        ("*", "en", "miss"),
        ("en-GB, en;q=0.8, de;q=0.1", "en", "hit"),
        ("fr", "none", "miss"),
        ("es, it", "none", "hit"),
    ] {
        let answer = ask(&pond, languages);
        assert_eq!((answer.text().as_str(), answer.outcome()), (expected, outcome), "{languages}");
    }
    // Who asks for none gets what those get who ask for one that there is not.
    let answer = Request::get("/api/a").ask(pond.proxy());
    assert_eq!((answer.text().as_str(), answer.outcome()), ("none", "hit"));
    assert_eq!(origin.count("/api/a"), 3);
}

#[test]
fn without_it_values_that_differ_are_kept_apart() {
    let (origin, pond) = start("");
    for languages in ["de-AT, fr;q=0.5", "fr, de;q=0.1"] {
        let answer = ask(&pond, languages);
        assert_eq!((answer.text().as_str(), answer.outcome()), (languages, "miss"));
    }
    assert_eq!(origin.count("/api/a"), 2);
}

#[tokio::test]
async fn it_is_the_same_over_http2() {
    let (origin, pond) = start("languages = [\"en\", \"de\"]");
    let http2 = Http2::open(pond.proxy()).await;
    for languages in ["de-CH", "fr, de;q=0.5"] {
        let answer = http2.ask(http2.request("GET", "/api/a").header("Accept-Language", languages), None).await;
        assert_eq!(answer.text(), "de");
    }
    assert_eq!(origin.count("/api/a"), 1);
}
