//! One spelling of a path: for the rules, for the key, and for the origin.

use crate::e2e::{in_front_of, proxy_before};
use crate::harness::client::{Request, get};
use crate::harness::origin::{Answer, ScriptedOrigin};
use crate::harness::process::Millpond;

#[test]
fn another_spelling_is_the_same_path_for_rule_key_and_origin() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/feed~1.json", Answer::ok("feed").field("Cache-Control", "max-age=60"));
    origin.answer("/api/a%2Fb", Answer::ok("encoded").field("Cache-Control", "max-age=60"));
    origin.answer("/api/a/b", Answer::ok("apart").field("Cache-Control", "max-age=60"));
    let pond = proxy_before(&[&origin], "");
    assert_eq!(get(pond.proxy(), "/api/feed~1.json").outcome(), "miss");
    for spelled in [
        "/api//feed~1.json",
        "/api/./feed~1.json",
        "/api/x/../feed~1.json",
        "/x/%2e%2E/api/feed%7E1.json",
        "/api/%66eed%7e1.json",
        "/../api/feed~1.json",
    ] {
        for target in [spelled.to_owned(), format!("http://{}{spelled}", pond.proxy())] {
            let answer = get(pond.proxy(), &target);
            assert_eq!((answer.outcome(), answer.text().as_str()), ("hit", "feed"), "{target}");
        }
    }
    assert_eq!(origin.count("/api/feed~1.json"), 1);
    // An encoded slash is no slash.
    for (target, body) in [("/api/a%2fb", "encoded"), ("/api/a/b", "apart"), ("/api/a%2Fb", "encoded")] {
        assert_eq!(get(pond.proxy(), target).text(), body, "{target}");
    }
    // What leaves the rule's paths is not for its origin.
    for outside in ["/api/../other", "/api/%2e%2e/other", "/apix/../other"] {
        assert_eq!(get(pond.proxy(), outside).status(), 404, "{outside}");
    }
    let broken = get(pond.proxy(), "/api/%zz");
    assert_eq!((broken.status(), broken.outcome()), (400, "refused"));
}

#[test]
fn purges_and_invalidations_know_other_spellings() {
    let origin = ScriptedOrigin::start();
    origin.answer_by("/api/feed.json", |seen| match seen.method.as_str() {
        "GET" => Answer::ok("feed").field("Cache-Control", "max-age=60"),
        _ => Answer::status(204, ""),
    });
    let pond = Millpond::run(&in_front_of(&[&origin], ""), &["proxy", "admin"]);
    assert_eq!(get(pond.proxy(), "/api/feed.json").outcome(), "miss");
    assert_eq!(Request::new("DELETE", "/api/x/../%66eed.json").ask(pond.proxy()).status(), 204);
    assert_eq!(get(pond.proxy(), "/api/feed.json").outcome(), "miss");
}
