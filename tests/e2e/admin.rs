//! The admin socket, where it asks for a token.

use crate::e2e::in_front_of;
use crate::harness::client::{Request, Response, get};
use crate::harness::origin::ScriptedOrigin;
use crate::harness::process::{Millpond, finish};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn with_token(request: Request, token: &str) -> Request {
    request.field("Authorization", &format!("Bearer {token}"))
}

#[track_caller]
fn assert_refused(answer: &Response) {
    assert_eq!((answer.status(), answer.field("www-authenticate")), (401, Some("Bearer realm=\"millpond admin\"")));
    assert_eq!(answer.json()["error"], "the token is missing or wrong");
}

/// What is asked of a socket with a token, whoever started it.
fn only_who_has_it_is_let_in(pond: &Millpond) {
    let admin = pond.admin();
    for request in [Request::get("/metrics"), Request::get("/none"), Request::post("/purge?all", "")] {
        assert_refused(&request.ask(admin));
        assert_refused(&with_token(request.clone(), "0123456789abcdef0123456789abcdeX").ask(admin));
        assert_refused(&request.clone().field("Authorization", TOKEN).ask(admin));
        let answer = with_token(request.clone(), TOKEN).ask(admin);
        assert_ne!(answer.status(), 401, "{request:?}");
    }
    assert_eq!(with_token(Request::get("/metrics"), TOKEN).ask(admin).status(), 200);
    assert_eq!(with_token(Request::post("/purge?all", ""), TOKEN).ask(admin).status(), 200);
    for open in ["/healthz", "/readyz"] {
        assert_eq!(get(admin, open).status(), 200, "{open}");
    }
    let log = pond.log().text();
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn with_a_token_only_who_has_it_is_let_in() {
    let (origin, dir) = (ScriptedOrigin::start(), tempfile::tempdir().expect("a temporary folder"));
    std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).expect("the folder can be written");
    let admin = "admin = { listen = \"0.0.0.0:0\", token = \"file:token\" }";
    let config = in_front_of(&[&origin], "").replace("admin = { listen = \"127.0.0.1:0\" }", admin);
    std::fs::write(dir.path().join("millpond.toml"), config).expect("the folder can be written");
    let run = ["run", "--config", "millpond.toml"];
    only_who_has_it_is_let_in(&Millpond::start_in(dir.path(), &run, &["proxy", "admin"]));

    let to = origin.address().to_string();
    let proxy = ["proxy", "--listen", "127.0.0.1:0", "--to", &to, "--admin", "127.0.0.1:0"];
    let plain = [&proxy[..], &["--admin-token", "file:token"]].concat();
    only_who_has_it_is_let_in(&Millpond::start_in(dir.path(), &plain, &["proxy", "admin"]));
}

#[test]
fn beyond_loopback_there_has_to_be_a_token() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let proxy = ["proxy", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:9", "--admin", "0.0.0.0:0"];
    for (more, words) in [
        (&[][..], "--admin 0.0.0.0:0 is no loopback address, and there is no token; fix: listen on 127.0.0.1"),
        (&["--admin-token", TOKEN], "--admin-token: names no place: a secret is in an environment variable or a file"),
        (
            &["--admin-token", "env:MILLPOND_NOT_SET"],
            "--admin-token: the environment variable MILLPOND_NOT_SET is not set",
        ),
    ] {
        let finished = finish(&[&proxy[..], more].concat(), dir.path());
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{more:?}");
        assert!(finished.stderr.contains(words) && !finished.stderr.contains(TOKEN), "{}", finished.stderr);
    }
}
