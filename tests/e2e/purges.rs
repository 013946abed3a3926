//! What is stored goes when it is told to: by a command, or by a request that changed it.

use crate::e2e::proxy_before;
use crate::harness::client::{Connection, Request, get, post};
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::witness::Witness;

#[test]
fn purged_by_tag_by_url_and_all() {
    let origin = ScriptedOrigin::start();
    for (path, tags) in [("/api/a", "red, green"), ("/api/b", "green"), ("/api/c", "blue")] {
        origin.answer(path, Answer::ok(path).field("Cache-Tag", tags));
    }
    let pond = proxy_before(&[&origin], "ttl = \"1h\"\ntags = { header = \"Cache-Tag\", add = [\"api\"] }");
    let witness = Witness::of(&pond);
    let outcomes = |paths: [&str; 3]| paths.map(|path| witness.get(path).detail().to_owned());
    let all = ["/api/a", "/api/b", "/api/c"];
    let purge = |what: &str| {
        let answer = post(pond.admin(), &format!("/purge?{what}"), "");
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()
    };
    let (fresh, fetched, gone) = ("hit", "miss/purged", "miss/not-cached");

    assert_eq!(outcomes(all), [gone; 3]);
    assert_eq!(purge("tag=green")["objects"], 2);
    assert_eq!(outcomes(all), [fetched, fetched, fresh]);
    assert_eq!(purge("tag=green&mode=delete")["objects"], 2);
    assert_eq!(outcomes(all), [gone, gone, fresh]);

    assert_eq!(purge(&format!("url=http://{}/api/c", pond.proxy()))["objects"], 1);
    assert_eq!(outcomes(all), [fresh, fresh, fetched]);
    assert_eq!(purge(&format!("url=http%3A%2F%2F{}%2Fapi%2Fnever", pond.proxy()))["objects"], 0);
    assert_eq!(purge("tag=api")["objects"], 3);
    assert_eq!(outcomes(all), [fetched; 3]);
    assert_eq!(purge("all")["objects"], 3);
    assert_eq!(outcomes(all), [fetched; 3]);

    for unclear in ["", "?tag=", "?tag=a&all", "?url=nonsense", "?all&mode=hard"] {
        let refused = post(pond.admin(), &format!("/purge{unclear}"), "");
        assert_eq!(refused.status(), 400, "{unclear}");
        assert!(refused.json()["fix"].is_string(), "{}", refused.text());
    }
    assert_eq!(get(pond.admin(), "/purge?all").status(), 405);
    witness.all_agree();
    let purges = Metrics::of(pond.admin());
    assert_eq!(purges.sum("millpond_purge_total", &[("kind", "tag"), ("mode", "stale")]), 2.0);
    assert_eq!(purges.sum("millpond_purge_total", &[]), 6.0);
}

/// A purge that comes while an answer is under way is about that answer, too.
#[test]
fn a_purge_overtakes_no_fetch() {
    let origin = ScriptedOrigin::start();
    let gate = Gate::closed();
    origin.answer("/api/a", Answer::ok("from before the purge").field("Cache-Tag", "red").held_by(&gate));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"\ntags = { header = \"Cache-Tag\" }");
    let mut early = Connection::open(pond.proxy());
    early.send_request(&Request::get("/api/a"));
    origin.wait_for_requests("/api/a", 1);
    assert_eq!(post(pond.admin(), "/purge?tag=red", "").status(), 200);
    gate.open();
    assert_eq!(early.receive("GET").text(), "from before the purge");

    origin.answer("/api/a", Answer::ok("from after"));
    assert_eq!(get(pond.proxy(), "/api/a").text(), "from after");
}

#[test]
fn a_post_that_succeeds_removes_what_it_changed() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("one"));
    origin.answer("/api/b", Answer::ok("two"));
    origin.answer("/api/c", Answer::ok("three"));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let witness = Witness::of(&pond);
    let all = ["/api/a", "/api/b", "/api/c"];
    all.iter().for_each(|path| assert_eq!(witness.get(path).outcome(), "miss"));

    origin.answer_by("/api/a", |request| match request.method.as_str() {
        "POST" => Answer::status(201, "").field("Location", "/api/b"),
        _ => Answer::ok("changed"),
    });
    let posted = witness.ask(&Request::post("/api/a", "x"));
    assert_eq!((posted.status(), posted.detail()), (201, "pass/method"));
    assert_eq!(origin.requests("/api/a").last().map(|request| request.body.clone()), Some(b"x".to_vec()));
    let after = all.map(|path| witness.get(path).detail().to_owned());
    assert_eq!(after, ["miss/not-cached", "miss/not-cached", "hit"]);

    origin.answer("/api/c", Answer::status(500, "no"));
    assert_eq!(witness.ask(&Request::post("/api/c", "x")).status(), 500);
    assert_eq!(witness.get("/api/c").detail(), "hit", "a POST that failed changed nothing");
    witness.all_agree();
}
