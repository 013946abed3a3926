//! TLS to origins: who is trusted, by which name, over which connection, and what is told when it fails.

use rustls::{HandshakeKind, ProtocolVersion};
use tempfile::TempDir;

use crate::e2e::in_front_of;
use crate::harness::certificates::Made;
use crate::harness::client::{Connection, Request, get};
use crate::harness::origin::{Answer, ScriptedOrigin, Seen};
use crate::harness::process::{Millpond, finish};
use crate::harness::tls_origin::{Shaken, TlsOrigin};

fn origin() -> ScriptedOrigin {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("a").field("Cache-Control", "no-store"));
    origin.answer_by("/api/echo", |request: &Seen| Answer::ok(&request.body).field("Cache-Control", "no-store"));
    origin
}

fn folder_with(ca: &Made) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    ca.write(dir.path(), "ca");
    dir
}

/// A proxy whose origin has these settings, in a folder with `ca.pem`.
fn proxy_before(origin: &ScriptedOrigin, settings: &str, dir: &TempDir) -> Millpond {
    let cleartext = format!("origin.api.servers = [\"{}\"]", origin.address());
    let config = in_front_of(&[origin], "").replace(&cleartext, settings);
    assert!(config.contains(settings), "{config}");
    std::fs::write(dir.path().join("millpond.toml"), config).expect("the folder can be written");
    Millpond::start_in(dir.path(), &["run", "--config", "millpond.toml"], &["proxy", "admin"])
}

#[test]
fn requests_go_over_one_verified_connection() {
    let (origin, made) = (origin(), Made::for_names(&["127.0.0.1"]));
    let (tls, dir) = (TlsOrigin::before(&origin, &made), folder_with(&made));
    let settings = format!("origin.api = {{ servers = [\"https://{}\"], tls = {{ ca = \"ca.pem\" }} }}", tls.address());
    let pond = proxy_before(&origin, &settings, &dir);
    let mut client = Connection::open(pond.proxy());
    for _ in 0..3 {
        let answer = client.ask(&Request::get("/api/a"));
        assert_eq!((answer.status(), answer.text().as_str()), (200, "a"));
    }
    // More than a socket takes at once, both ways.
    let body = "0123456789abcdef".repeat(256 * 1024);
    assert!(client.ask(&Request::post("/api/echo", &body)).text() == body);
    let chunked = client.ask(&Request::post_chunked("/api/echo", &["one", "two"]));
    assert_eq!(chunked.text(), "onetwo");
    let shaken = tls.shaken();
    let told = shaken.first().expect("a handshake");
    assert_eq!((told.name.as_deref(), told.protocol.as_deref()), (None, Some("http/1.1")), "an address is no name");
    assert_eq!(told.version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(shaken.len(), 1, "{shaken:?}");
}

#[test]
fn both_versions_are_spoken_and_sessions_are_resumed() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (origin, made) = (origin(), Made::for_names(&["a.example"]));
        origin.answer("/api/b", Answer::ok("b").until_close());
        let (tls, dir) = (TlsOrigin::with(&origin, &made, &[version], None), folder_with(&made));
        let settings = format!(
            "origin.api = {{ servers = [\"{}\"], tls = {{ ca = \"ca.pem\", server_name = \"a.example\" }} }}",
            tls.address()
        );
        let pond = proxy_before(&origin, &settings, &dir);
        for _ in 0..2 {
            assert_eq!(get(pond.proxy(), "/api/b").text(), "b");
        }
        let shaken = tls.shaken();
        let kinds: Vec<_> = shaken.iter().map(|shaken| shaken.kind).collect();
        assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)], "{version:?}");
        let named =
            |shaken: &Shaken| shaken.name.as_deref() == Some("a.example") && shaken.version == Some(version.version);
        assert!(shaken.iter().all(named), "{shaken:?}");
    }
}

/// The log tells whoever has to mend it, and the client gets a 502.
#[test]
fn what_cannot_be_verified_is_not_asked() {
    let (good, other) = (Made::for_names(&["127.0.0.1"]), Made::issued_by("somebody else", &["127.0.0.1"]));
    let (named, expired) = (Made::for_names(&["a.example"]), Made::expired(&["127.0.0.1"]));
    for (shown, trusted, name, words) in [
        (&good, &other, "", "issued by nobody who is trusted"),
        (&named, &named, "", "its certificate is not for 127.0.0.1 but for a.example"),
        (&named, &named, ", server_name = \"b.example\"", "its certificate is not for b.example but for a.example"),
        (&expired, &expired, "", "its certificate expired on Sat, 03 Feb 2001"),
    ] {
        let origin = origin();
        let (tls, dir) = (TlsOrigin::before(&origin, shown), folder_with(trusted));
        let settings =
            format!("origin.api = {{ servers = [\"https://{}\"], tls = {{ ca = \"ca.pem\"{name} }} }}", tls.address());
        let pond = proxy_before(&origin, &settings, &dir);
        let answer = get(pond.proxy(), "/api/a");
        assert_eq!((answer.status(), answer.detail()), (502, "error/no-origin"), "{words}");
        pond.log().wait_for_line(words);
        assert_eq!(origin.count("/api/a"), 0);
    }
}

#[test]
fn a_server_in_the_clear_is_told_apart() {
    let (origin, made) = (origin(), Made::for_names(&["127.0.0.1"]));
    let dir = folder_with(&made);
    let settings = format!("origin.api = {{ servers = [\"{}\"], tls = {{ ca = \"ca.pem\" }} }}", origin.address());
    // It answers what it takes for a request, and not with TLS.
    let clear = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let settings = settings.replace(&origin.address().to_string(), &clear.local_addr().expect("bound").to_string());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = clear.accept().expect("the proxy connects");
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it is read");
        // Closed once the other side is done with it.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let pond = proxy_before(&origin, &settings, &dir);
    assert_eq!(get(pond.proxy(), "/api/a").status(), 502);
    pond.log().wait_for_line("it does not speak TLS");
    answering.join().expect("no panic");
}

#[test]
fn who_asks_can_be_shown() {
    let (origin, made, client) = (origin(), Made::for_names(&["127.0.0.1"]), Made::for_names(&["client.example"]));
    let tls = TlsOrigin::with(&origin, &made, rustls::DEFAULT_VERSIONS, Some(&client));
    let dir = folder_with(&made);
    client.write(dir.path(), "client");
    let settings = format!(
        "origin.api = {{ servers = [\"https://{}\"], tls = {{ ca = \"ca.pem\", cert = \"client.pem\", key = \"client.key\" }} }}",
        tls.address()
    );
    let pond = proxy_before(&origin, &settings, &dir);
    assert_eq!(get(pond.proxy(), "/api/a").status(), 200);
    assert!(tls.shaken().first().is_some_and(|shaken| shaken.knows_client));
}

#[test]
fn connections_are_kept_apart_by_the_name_that_was_verified() {
    let (origin, made) = (origin(), Made::for_names(&["a.example", "b.example"]));
    origin.answer("/other", Answer::ok("other").field("Cache-Control", "no-store"));
    let (tls, dir) = (TlsOrigin::before(&origin, &made), folder_with(&made));
    let one = |origin: &str, name: &str| {
        format!(
            "origin.{origin} = {{ servers = [\"{}\"], tls = {{ ca = \"ca.pem\", server_name = \"{name}\" }} }}\n",
            tls.address()
        )
    };
    let settings = one("api", "a.example") + &one("other", "b.example");
    let config = in_front_of(&[&origin], "[[rule]]\nmatch = \"/other\"\norigin = \"other\"");
    let config = config.replace(&format!("origin.api.servers = [\"{}\"]\n", origin.address()), &settings);
    std::fs::write(dir.path().join("millpond.toml"), config).expect("the folder can be written");
    let pond = Millpond::start_in(dir.path(), &["run", "--config", "millpond.toml"], &["proxy", "admin"]);
    let mut client = Connection::open(pond.proxy());
    for target in ["/api/a", "/other", "/api/a", "/other"] {
        assert_eq!(client.ask(&Request::get(target)).status(), 200, "{target}");
    }
    let names: Vec<Option<String>> = tls.shaken().into_iter().map(|shaken| shaken.name).collect();
    assert_eq!(names, [Some("a.example".to_owned()), Some("b.example".to_owned())]);
}

#[test]
fn the_plain_proxy_speaks_it_as_well() {
    let (origin, made) = (origin(), Made::for_names(&["127.0.0.1"]));
    let (tls, dir) = (TlsOrigin::before(&origin, &made), folder_with(&made));
    let to = format!("https://{}", tls.address());
    let args = ["proxy", "--listen", "127.0.0.1:0", "--to", &to];
    let pond = Millpond::start_in(dir.path(), &[&args[..], &["--ca", "ca.pem"]].concat(), &["proxy"]);
    assert_eq!(get(pond.proxy(), "/api/a").text(), "a");

    for (args, words) in [
        (&["--to", to.as_str(), "--ca", "missing.pem"][..], "--ca: missing.pem: No such file"),
        (&["--to", "127.0.0.1:9", "--ca", "ca.pem"], "--ca has no effect on 127.0.0.1:9; fix: give --to https://HOST"),
        (&["--to", "https://127.0.0.1/path"], "--to https://127.0.0.1/path: says more than a host and a port; fix: "),
        (&["--to", "https://"], "--to https://: has no host; fix: "),
    ] {
        let finished = finish(&[&["proxy", "--listen", "127.0.0.1:0"], args].concat(), dir.path());
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(finished.stderr.contains(words), "{args:?}: {}", finished.stderr);
    }
}
