//! Cache deception and its kin: what was meant for one client, or for another path, must not come out of the store.

use crate::e2e::plain_proxy::plain;
use crate::e2e::sharing::wait_for_waiters;
use crate::e2e::{in_front_of, proxy_before};
use crate::harness::client::{Connection, Request, Response, get};
use crate::harness::origin::{Answer, Gate, ScriptedOrigin, Seen};
use crate::harness::process::Millpond;

fn with_cookie(path: &str, cookie: &str) -> Request {
    Request::get(path).field("Cookie", cookie)
}

/// Tells the client who it is, by its cookie.
fn account(origin: &ScriptedOrigin, path: &str, fields: &'static [(&'static str, &'static str)]) {
    origin.answer_by(path, move |request: &Seen| {
        let answer = Answer::ok(request.field("cookie").unwrap_or("nobody"));
        fields.iter().fold(answer, |answer, (name, value)| answer.field(name, value))
    });
}

fn told(answer: &Response) -> (String, &str) {
    (answer.text(), answer.detail())
}

#[test]
fn what_cookies_brought_is_for_one_client_under_a_rule() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    account(&origin, "/api/me", &[]);
    for user in ["id=alice", "id=bob", "id=alice"] {
        let answer = with_cookie("/api/me", user).ask(pond.proxy());
        assert_eq!(told(&answer), (user.to_owned(), "pass/cookie"));
    }
    assert_eq!(told(&get(pond.proxy(), "/api/me")), ("nobody".to_owned(), "miss/not-cached"));
    // What is stored is for all, as everywhere in HTTP.
    assert_eq!(told(&with_cookie("/api/me", "id=bob").ask(pond.proxy())), ("nobody".to_owned(), "hit"));

    for (path, fields) in [
        ("/api/public", &[("Cache-Control", "public")][..]),
        ("/api/s-maxage", &[("Cache-Control", "s-maxage=60")]),
        ("/api/targeted", &[("CDN-Cache-Control", "max-age=60")]),
    ] {
        account(&origin, path, fields);
        let answer = with_cookie(path, "id=alice").ask(pond.proxy());
        assert_eq!(told(&answer), ("id=alice".to_owned(), "miss/not-cached"), "{path}");
        assert_eq!(with_cookie(path, "id=bob").ask(pond.proxy()).detail(), "hit", "{path}");
    }
}

#[test]
fn nobody_waits_for_what_cookies_bring() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let gate = Gate::closed();
    let held = gate.clone();
    origin.answer_by("/api/me", move |request| Answer::ok(request.field("cookie").unwrap_or("nobody")).held_by(&held));
    let mut clients: Vec<(String, Connection)> =
        (0..10).map(|id| (format!("id={id}"), Connection::open(pond.proxy()))).collect();
    clients.iter_mut().for_each(|(cookie, client)| client.send_request(&with_cookie("/api/me", cookie)));
    origin.wait_for_requests("/api/me", clients.len());
    wait_for_waiters(&pond, 0);
    gate.open();
    for (cookie, client) in &mut clients {
        assert_eq!(told(&client.receive("GET")), (cookie.clone(), "pass/cookie"));
    }
}

/// What was stored without cookies is validated, refreshed and replaced without any.
#[test]
fn what_is_for_all_is_asked_for_without_cookies() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "stale = { revalidate = \"1h\" }");
    let aged =
        |body: &str, cache_control: &str| Answer::ok(body).field("Cache-Control", cache_control).field("Age", "9");
    let stored = aged("for all", "max-age=1, stale-while-revalidate=0").field("ETag", "\"1\"");
    origin.answer("/api/validated", stored);
    origin.answer_by("/api/replaced", move |request| {
        let tag = if request.field("if-none-match").is_some() { "\"2\"" } else { "\"1\"" };
        aged("for all", "max-age=1, stale-while-revalidate=0").field("ETag", tag)
    });
    origin.answer("/api/refreshed", aged("for all", "max-age=1"));
    origin.answer("/api/public", aged("for all", "public, max-age=1"));
    for (path, detail, cookie) in [
        ("/api/validated", "revalidated/expired", None),
        ("/api/replaced", "miss/expired", None),
        ("/api/refreshed", "stale/expired", None),
        ("/api/public", "stale/expired", Some("id=alice")),
    ] {
        assert_eq!(get(pond.proxy(), path).detail(), "miss/not-cached", "{path}");
        let answer = with_cookie(path, "id=alice").ask(pond.proxy());
        assert_eq!(told(&answer), ("for all".to_owned(), detail), "{path}");
        origin.wait_for_requests(path, 2);
        assert_eq!(origin.requests(path)[1].field("cookie"), cookie, "{path}");
    }
}

#[test]
fn a_rule_can_have_cookies_ignored_or_shared() {
    let origin = ScriptedOrigin::start();
    let ignoring = proxy_before(&[&origin], "ttl = \"1h\"\ncookies = \"ignore\"\nbypass = [\"cookie:session\"]");
    account(&origin, "/api/a", &[("Vary", "Cookie")]);
    let first = with_cookie("/api/a", "theme=dark").ask(ignoring.proxy());
    assert_eq!(told(&first), ("nobody".to_owned(), "miss/not-cached"));
    for cookie in ["theme=light", "theme=dark"] {
        assert_eq!(told(&with_cookie("/api/a", cookie).ask(ignoring.proxy())), ("nobody".to_owned(), "hit"));
    }
    assert_eq!(get(ignoring.proxy(), "/api/a").detail(), "hit");
    // Whatever passes by the cache is as the client sent it.
    let session = with_cookie("/api/a", "session=1").ask(ignoring.proxy());
    assert_eq!(told(&session), ("session=1".to_owned(), "pass/bypass"));
    let posted = Request::post("/api/a", "x").field("Cookie", "theme=dark").ask(ignoring.proxy());
    assert_eq!(told(&posted), ("theme=dark".to_owned(), "pass/method"));

    let sharing = proxy_before(&[&origin], "ttl = \"1h\"\ncookies = \"share\"");
    account(&origin, "/api/b", &[]);
    assert_eq!(with_cookie("/api/b", "id=1").ask(sharing.proxy()).detail(), "miss/not-cached");
    assert_eq!(told(&with_cookie("/api/b", "id=2").ask(sharing.proxy())), ("id=1".to_owned(), "hit"));
}

/// Without rules RFC 9111 is all there is.
#[test]
fn without_rules_cookies_mean_what_http_says() {
    let origin = ScriptedOrigin::start();
    let pond = plain(&origin, &[]);
    account(&origin, "/a", &[("Cache-Control", "max-age=60")]);
    assert_eq!(with_cookie("/a", "id=1").ask(pond.proxy()).detail(), "miss/not-cached");
    assert_eq!(told(&with_cookie("/a", "id=2").ask(pond.proxy())), ("id=1".to_owned(), "hit"));
}

/// A rule for style sheets, and links that look like style sheets and lead to an account.
#[test]
fn a_page_that_poses_as_a_style_sheet_is_not_stored() {
    let origin = ScriptedOrigin::start();
    let config = in_front_of(&[&origin], "ttl = \"1h\"").replace("/api/**", "/**.css");
    let pond = Millpond::run(&format!("{config}content_type = [\"text/css\"]\n"), &["proxy", "admin"]);
    for path in [
        "/account.php/x.css",
        "/account;x.css",
        "/account%00x.css",
        "/account%0Ax.css",
        "/account%23x.css",
        "/account%3Fx.css",
    ] {
        account(&origin, path, &[("Content-Type", "text/html")]);
        for user in ["id=alice", "id=bob"] {
            assert_eq!(told(&with_cookie(path, user).ask(pond.proxy())), (user.to_owned(), "pass/cookie"), "{path}");
        }
        // Nor for somebody whose credentials are elsewhere: in an address, say.
        assert_eq!(get(pond.proxy(), path).detail(), "miss/content-type", "{path}");
    }
    account(&origin, "/style.css", &[("Content-Type", "text/css; charset=utf-8")]);
    assert_eq!(get(pond.proxy(), "/style.css").detail(), "miss/not-cached");
    assert_eq!(get(pond.proxy(), "/style.css").detail(), "hit");
    // What leads out of the rule's paths has none.
    for outside in ["/style.css/../account", "/x/%2e%2e/account", "/a.css/%2E%2E/account", "/account?x.css"] {
        assert_eq!(get(pond.proxy(), outside).detail(), "refused/no-rule", "{outside}");
    }
}

/// What a rule matched, what is stored and what the origin is asked are one path; and two paths are never one.
#[test]
fn a_path_means_the_same_to_rule_store_and_origin() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let paths = [
        ("/api/account.php/x.css", "/api/account.php/x.css"),
        ("/api/account/%2e%2e/x.css", "/api/x.css"),
        ("/api/static/..%2faccount", "/api/static/..%2Faccount"),
        ("/api/static/%2e%2e%2faccount", "/api/static/..%2Faccount"),
        ("/api/static%5c..%5caccount", "/api/static%5C..%5Caccount"),
        ("/api/account;x.css", "/api/account;x.css"),
        ("/api/account%3bx.css", "/api/account%3Bx.css"),
        ("/api/account%00x.css", "/api/account%00x.css"),
        ("/api/account%0ax.css", "/api/account%0Ax.css"),
        ("/api/account%0d%0ax.css", "/api/account%0D%0Ax.css"),
        ("/api/account%23x.css", "/api/account%23x.css"),
        ("/api/account%3fx.css", "/api/account%3Fx.css"),
        ("/api/account?x.css", "/api/account?x.css"),
        ("/api/account%2523x.css", "/api/account%2523x.css"),
        ("/api/account%252e%252e/x.css", "/api/account%252e%252e/x.css"),
        ("/api/%61ccount", "/api/account"),
        ("/api/account%20", "/api/account%20"),
        ("/api/account/", "/api/account/"),
        ("/api/account/.", "/api/account/"),
    ];
    for (_, forwarded) in paths {
        let path = forwarded.split('?').next().unwrap_or(forwarded);
        origin.answer_by(path, |request| Answer::ok(&request.target));
    }
    for (asked, forwarded) in paths {
        for _ in 0..2 {
            assert_eq!(get(pond.proxy(), asked).text(), forwarded, "{asked}");
        }
        assert_eq!(get(pond.proxy(), asked).detail(), "hit", "{asked}");
    }
    let mut all: Vec<&str> = paths.iter().map(|(_, forwarded)| *forwarded).collect();
    all.sort_unstable();
    all.dedup();
    let asked: usize = all
        .iter()
        .map(|path| {
            origin.requests(path.split('?').next().unwrap_or(path)).iter().filter(|seen| seen.target == **path).count()
        })
        .sum();
    assert_eq!(asked, all.len(), "each was asked for once");
}
