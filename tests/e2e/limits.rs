//! Limits: requests by rate and by number at a time, by client or for a whole rule; connections by client.

use crate::e2e::{in_front_of, proxy_before};
use crate::harness::client::{Connection, Request, Response, get};
use crate::harness::eventually;
use crate::harness::http2::Http2;
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::process::Millpond;
use crate::harness::witness::Witness;

/// An origin with something that is stored (`/api/a`) and something that is not (`/api/b`).
fn origin() -> ScriptedOrigin {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("a").field("Cache-Control", "max-age=3600"));
    origin.answer("/api/b", Answer::ok("b").field("Cache-Control", "no-store"));
    origin
}

fn proxy_that_trusts_us(origin: &ScriptedOrigin, settings: &str) -> Millpond {
    let proxy = "proxy = { listen = [\"127.0.0.1:0\"], trusted = [\"127.0.0.1\"] }";
    let config = in_front_of(&[origin], settings).replace("proxy = { listen = [\"127.0.0.1:0\"] }", proxy);
    Millpond::run(&config, &["proxy", "admin"])
}

fn as_client(target: &str, client: &str) -> Request {
    Request::get(target).field("X-Forwarded-For", client)
}

#[track_caller]
fn assert_held_back(answer: &Response, detail: &str, words: &str, retry_after: std::ops::RangeInclusive<u64>) {
    assert_eq!((answer.status(), answer.detail()), (429, detail));
    assert!(answer.text().contains(words), "{}", answer.text());
    let seconds = answer.field("retry-after").and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| retry_after.contains(&seconds)), "{:?}", answer.head);
    assert_eq!(answer.field("cache-control"), Some("no-store"));
}

#[test]
fn beyond_the_rate_the_origin_is_not_asked_and_hits_go_on() {
    let origin = origin();
    let pond = proxy_before(&[&origin], "limit = { rate = \"2/h\", burst = 3 }");
    let witness = Witness::of(&pond);
    assert_eq!(witness.get("/api/a").detail(), "miss/not-cached");
    let mut kept = Connection::open(pond.proxy());
    for _ in 0..2 {
        assert_eq!(witness.ask_on(&mut kept, &Request::get("/api/b")).status(), 200);
    }
    let held_back = witness.ask_on(&mut kept, &Request::get("/api/b"));
    let words = "429 Too Many Requests: there are more requests from one client than 2/h with a burst of 3";
    assert_held_back(&held_back, "refused/rate-limit", words, 1700..=1800);
    assert_eq!(witness.ask_on(&mut kept, &Request::get("/api/a")).detail(), "hit", "it costs the origin nothing");
    let post = witness.ask_on(&mut kept, &Request::post("/api/b", "body"));
    assert_held_back(&post, "refused/rate-limit", "2/h", 1700..=1800);
    assert_eq!(witness.ask_on(&mut kept, &Request::get("/api/a")).detail(), "hit", "the connection goes on");
    assert_eq!(origin.count("/api/b"), 2);
    witness.all_agree();
    let metrics = Metrics::of(pond.admin());
    assert_eq!(metrics.sum("millpond_miss_total", &[("rule", "feeds"), ("reason", "rate-limit")]), 2.0);
}

#[test]
fn hits_count_where_the_rule_says_so() {
    let origin = origin();
    let pond = proxy_before(&[&origin], "limit = { rate = \"1/h\", burst = 5, hits = true }");
    let witness = Witness::of(&pond);
    let mut kept = Connection::open(pond.proxy());
    let outcomes: Vec<String> =
        (0..7).map(|_| witness.ask_on(&mut kept, &Request::get("/api/a")).detail().to_owned()).collect();
    let refused = "refused/rate-limit";
    assert_eq!(outcomes, ["miss/not-cached", "hit", "hit", "hit", "hit", refused, refused]);
    witness.all_agree();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_held_to_the_same_limit() {
    let origin = origin();
    let pond = proxy_before(&[&origin], "limit = { rate = \"1/h\", burst = 3, hits = true }");
    assert_eq!(get(pond.proxy(), "/api/a").outcome(), "miss");
    let client = Http2::open(pond.proxy()).await;
    for outcome in ["hit", "hit", "refused"] {
        assert_eq!(client.get("/api/a").await.head.outcome(), outcome);
    }
    let held_back = client.get("/api/b").await;
    assert_eq!((held_back.status(), held_back.head.detail()), (429, "refused/rate-limit"));
    assert!(held_back.head.field("retry-after").is_some());
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "refused/rate-limit", "the client is the same");
}

#[test]
fn clients_are_told_apart_by_what_a_trusted_proxy_says() {
    let origin = origin();
    let pond = proxy_that_trusts_us(&origin, "limit = { rate = \"1/h\" }");
    let ask = |client: &str| as_client("/api/b", client).ask(pond.proxy()).status();
    assert_eq!([ask("192.0.2.1"), ask("192.0.2.1")], [200, 429]);
    assert_eq!(ask("192.0.2.2"), 200, "another client");
    assert_eq!(ask("192.0.2.9, 192.0.2.1"), 429, "who says that he is another");
    assert_eq!([ask("2001:db8::1"), ask("2001:db8::2"), ask("2001:db8:0:1::1")], [200, 429, 200], "by network");

    let untrusting = proxy_before(&[&origin], "limit = { rate = \"1/h\" }");
    let ask = |client: &str| as_client("/api/b", client).ask(untrusting.proxy()).status();
    assert_eq!([ask("192.0.2.1"), ask("192.0.2.2")], [200, 429], "it is the peer's word alone");
}

#[test]
fn a_rule_can_have_one_limit_for_all() {
    let origin = origin();
    let pond = proxy_that_trusts_us(&origin, "limit = { rate = \"1/h\", per = \"rule\" }");
    assert_eq!(as_client("/api/b", "192.0.2.1").ask(pond.proxy()).status(), 200);
    let held_back = as_client("/api/b", "192.0.2.2").ask(pond.proxy());
    assert_held_back(&held_back, "refused/rate-limit", "of all clients together than 1/h", 3500..=3600);
}

#[test]
fn so_many_at_a_time() {
    let origin = origin();
    let gate = Gate::closed();
    origin.answer("/api/slow", Answer::ok("slow").field("Cache-Control", "no-store").held_by(&gate));
    let pond = proxy_that_trusts_us(&origin, "limit = { concurrent = 2 }");
    let one = |target: &str| as_client(target, "192.0.2.1");
    let mut running = [Connection::open(pond.proxy()), Connection::open(pond.proxy())];
    running.iter_mut().for_each(|client| client.send_request(&one("/api/slow")));
    origin.wait_for_requests("/api/slow", 1);
    eventually("two to run", || match one("/api/b").ask(pond.proxy()) {
        // The second may still be on its way.
        answer if answer.status() == 200 => Err("only one runs".to_owned()),
        answer => {
            assert_held_back(&answer, "refused/concurrency-limit", "more than 2 requests from one client", 1..=1);
            Ok(())
        }
    });
    assert_eq!(as_client("/api/b", "192.0.2.2").ask(pond.proxy()).status(), 200, "another client");
    gate.open();
    assert!(running.iter_mut().all(|client| client.receive("GET").status() == 200));
    eventually("room again", || match one("/api/b").ask(pond.proxy()).status() {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
}

#[test]
fn a_reload_gives_nobody_his_requests_back() {
    let origin = origin();
    let settings = "limit = { rate = \"1/h\" }";
    let pond = proxy_before(&[&origin], settings);
    assert_eq!([get(pond.proxy(), "/api/b").status(), get(pond.proxy(), "/api/b").status()], [200, 429]);
    let reload = |settings: &str, times: usize| {
        let config = in_front_of(&[&origin], settings);
        std::fs::write(pond.dir().join("millpond.toml"), config).expect("the folder can be written");
        pond.signal("HUP");
        pond.log().wait_for("a reload", |lines| {
            (lines.iter().filter(|line| line.contains("rules reloaded")).count() == times).then_some(())
        });
    };
    reload(&format!("{settings}\nttl = \"1m\""), 1);
    assert_eq!(get(pond.proxy(), "/api/b").status(), 429);
    reload("limit = { rate = \"1/h\", burst = 2 }", 2);
    assert_eq!(get(pond.proxy(), "/api/b").status(), 200, "it is another limit");
}

#[test]
fn a_client_has_as_many_connections_as_it_may() {
    let origin = origin();
    let proxy = "proxy = { listen = [\"127.0.0.1:0\"], limit = { connections = 2 } }";
    let config = in_front_of(&[&origin], "").replace("proxy = { listen = [\"127.0.0.1:0\"] }", proxy);
    let pond = Millpond::run(&config, &["proxy", "admin"]);
    let witness = Witness::of(&pond);
    let mut open = [Connection::open(pond.proxy()), Connection::open(pond.proxy())];
    open.iter_mut().for_each(|client| assert_eq!(witness.ask_on(client, &Request::get("/api/b")).status(), 200));
    let mut third = Connection::open(pond.proxy());
    let refused = witness.ask_on(&mut third, &Request::get("/api/b"));
    let words = "429 Too Many Requests: this client has as many connections as it may";
    assert_eq!((refused.status(), refused.detail()), (429, "refused/connection-limit"));
    assert!(refused.text().contains(words), "{}", refused.text());
    assert_eq!((refused.field("retry-after"), refused.field("connection")), (Some("1"), Some("close")));
    assert!(third.is_closed());
    let counted =
        Metrics::of(pond.admin()).sum("millpond_connections_refused_total", &[("reason", "connection-limit")]);
    assert_eq!(counted, 1.0);
    witness.all_agree();
    drop(open);
    eventually("room again", || match get(pond.proxy(), "/api/b").status() {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
}
