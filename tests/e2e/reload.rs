//! SIGHUP: the file is read again, and its rules are swapped whole or not at all.

use crate::e2e::{in_front_of, proxy_before};
use crate::harness::client::{Connection, Request, get};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, Gate, ScriptedOrigin};
use crate::harness::process::Millpond;

fn write(pond: &Millpond, config: &str) {
    std::fs::write(pond.dir().join("millpond.toml"), config).expect("the folder can be written");
}

fn last_reload(pond: &Millpond) -> f64 {
    Metrics::of(pond.admin()).sum("millpond_config_last_reload_success", &[])
}

#[test]
fn a_changed_rule_takes_effect_and_the_cache_stays() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("a"));
    origin.answer("/other", Answer::ok("other"));
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    assert_eq!(get(pond.proxy(), "/api/a").outcome(), "miss");
    assert_eq!(get(pond.proxy(), "/other").detail(), "refused/no-rule");
    let mut kept = Connection::open(pond.proxy());
    assert_eq!(kept.ask(&Request::get("/other")).status(), 404);

    let more = "ttl = \"1h\"\n[[rule]]\nname = \"more\"\nmatch = \"/**\"\norigin = \"api\"\nttl = \"1h\"";
    write(&pond, &in_front_of(&[&origin], more));
    pond.signal("HUP");
    eventually("the new rule", || match get(pond.proxy(), "/other").status() {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
    assert_eq!(kept.ask(&Request::get("/other")).detail(), "hit", "also on a connection from before");
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "hit", "what was stored is still there");
    assert_eq!(last_reload(&pond), 1.0);
}

#[test]
fn a_broken_file_is_refused_in_words_and_the_old_rules_keep_serving() {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("a"));
    let mut pond = proxy_before(&[&origin], "ttl = \"1h\"");
    assert_eq!(get(pond.proxy(), "/api/a").outcome(), "miss");

    write(&pond, &in_front_of(&[&origin], "ttl = \"1 parsec\"\norigon = \"api\""));
    pond.signal("HUP");
    let refusal = pond.log().wait_for_line("the old rules keep serving");
    assert!(refusal.contains("millpond.toml:11:7: rule[0].ttl: `1 parsec` is not a duration"), "{refusal}");
    assert!(
        refusal.contains("millpond.toml:12:1: rule[0].origon: unknown field `origon`; fix: did you mean"),
        "{refusal}"
    );
    assert_eq!(get(pond.proxy(), "/api/a").detail(), "hit");
    eventually("the refusal in the metrics", || match last_reload(&pond) {
        0.0 => Ok(()),
        other => Err(other.to_string()),
    });

    write(&pond, &in_front_of(&[&origin], "ttl = \"2h\""));
    pond.signal("HUP");
    eventually("the mended file to be taken", || match last_reload(&pond) {
        1.0 => Ok(()),
        other => Err(other.to_string()),
    });
    pond.signal("TERM");
    assert_eq!(pond.wait(), Some(0));
}

/// A reload brings about all of a file or nothing: a setting that it can't change is not taken without a word.
#[test]
fn what_needs_a_restart_is_refused_in_words() {
    let origin = ScriptedOrigin::start();
    let pond = proxy_before(&[&origin], "ttl = \"1h\"");
    let listen = "proxy = { listen = [\"127.0.0.1:0\"] }";
    let other = "proxy = { listen = [\"127.0.0.1:0\"], memory = \"7MiB\" }";
    write(&pond, &in_front_of(&[&origin], "ttl = \"1h\"").replace(listen, other));
    pond.signal("HUP");
    let refusal = pond.log().wait_for_line("the old rules keep serving");
    assert!(refusal.contains("[proxy] has changed"), "{refusal}");
}

/// A request that is under way is answered by the rules and servers it began with.
#[test]
fn a_reload_does_not_disturb_what_is_under_way() {
    let (old, new) = (ScriptedOrigin::start(), ScriptedOrigin::start());
    let gate = Gate::closed();
    old.answer("/api/slow", Answer::ok("by the old server").held_by(&gate));
    old.answer("/api/quick", Answer::ok("by the old server").field("Cache-Control", "no-store"));
    new.answer("/api/quick", Answer::ok("by the new server"));
    let pond = proxy_before(&[&old], "ttl = \"1h\"");
    let mut slow = Connection::open(pond.proxy());
    slow.send_request(&Request::get("/api/slow"));
    old.wait_for_requests("/api/slow", 1);

    write(&pond, &in_front_of(&[&new], "ttl = \"1h\""));
    pond.signal("HUP");
    eventually("the new server", || match get(pond.proxy(), "/api/quick").text() {
        text if text == "by the new server" => Ok(()),
        text => Err(text),
    });
    gate.open();
    let answer = slow.receive("GET");
    assert_eq!((answer.text().as_str(), answer.detail()), ("by the old server", "miss/not-cached"));
}
