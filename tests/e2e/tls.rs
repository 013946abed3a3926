//! TLS listeners: versions, protocols, certificates by server name, and their reload.

use std::net::SocketAddr;

use h2::client::Builder;
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::e2e::in_front_of;
use crate::harness::certificates::{Made, TlsClient, shown};
use crate::harness::client::Connection;
use crate::harness::http2::Http2;
use crate::harness::origin::{Answer, ScriptedOrigin};
use crate::harness::process::{Millpond, finish};

fn origin() -> ScriptedOrigin {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("body").field("Cache-Control", "max-age=3600"));
    origin
}

/// `millpond proxy` with one certificate, in a folder where it is `a.pem` and `a.key`.
fn plain_with(origin: &ScriptedOrigin, made: &Made, dir: &std::path::Path) -> Millpond {
    made.write(dir, "a");
    let to = origin.address().to_string();
    let args = ["proxy", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--cert", "a.pem", "--key", "a.key"];
    let args = [&args[..], &["--to", &to, "--access-log", "--log-format", "json"]].concat();
    Millpond::start_in(dir, &args, &["proxy", "proxy over TLS"])
}

/// `millpond run` with these certificates, each in files of its name.
fn run_with(origin: &ScriptedOrigin, made: &[(&str, &Made)], dir: &std::path::Path) -> Millpond {
    std::fs::create_dir_all(dir.join("tls")).expect("the folder can be written");
    made.iter().for_each(|(name, made)| made.write(&dir.join("tls"), name));
    let listed: Vec<String> =
        made.iter().map(|(name, _)| format!("{{ cert = \"tls/{name}.pem\", key = \"tls/{name}.key\" }}")).collect();
    let proxy = format!("proxy = {{ tls_listen = [\"127.0.0.1:0\"], certificate = [{}] }}", listed.join(", "));
    let config = in_front_of(&[origin], "ttl = \"1h\"").replace("proxy = { listen = [\"127.0.0.1:0\"] }", &proxy);
    std::fs::write(dir.join("millpond.toml"), config).expect("the folder can be written");
    Millpond::start_in(dir, &["run", "--config", "millpond.toml"], &["admin", "proxy over TLS"])
}

/// One GET by HTTP/1.1: head and body, as far as they have come once the body is whole.
async fn get(stream: &mut TlsStream<TcpStream>, target: &str) -> String {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nbody") {
        assert_ne!(stream.read_buf(&mut answer).await.expect("an answer"), 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8_lossy(&answer).into_owned()
}

async fn handshake(client: &TlsClient, to: SocketAddr, name: &str) -> TlsStream<TcpStream> {
    client.connect(to, name).await.expect("a handshake")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_http_versions_are_spoken_and_share_a_cache_of_their_own() {
    let (origin, made) = (origin(), Made::for_names(&["a.example"]));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pond = plain_with(&origin, &made, dir.path());
    let old = TlsClient::trusting(&[&made], &["http/1.1"]);
    let mut first = handshake(&old, pond.tls(), "a.example").await;
    assert_eq!(first.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(get(&mut first, "/api/a").await.contains("detail=miss"));
    assert!(get(&mut first, "/api/a").await.contains("detail=hit"));
    // Without ALPN it is HTTP/1.1.
    let mut silent = handshake(&TlsClient::trusting(&[&made], &[]), pond.tls(), "a.example").await;
    assert!(get(&mut silent, "/api/a").await.contains("detail=hit"));

    let new = TlsClient::trusting(&[&made], &["h2", "http/1.1"]);
    let stream = handshake(&new, pond.tls(), "a.example").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let client = Http2::over(stream, "https://a.example", &Builder::new()).await;
    let hit = client.get("/api/a").await;
    assert_eq!((hit.head.detail(), hit.text().as_str()), ("hit", "body"));

    // What was asked for by another scheme is another resource (RFC 9110 §4.2).
    let mut cleartext = Connection::open(pond.proxy());
    cleartext.send("GET /api/a HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(cleartext.receive("GET").outcome(), "miss");
    assert_eq!(origin.count("/api/a"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_with_sessions_resumed() {
    let (origin, made) = (origin(), Made::for_names(&["a.example"]));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pond = plain_with(&origin, &made, dir.path());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = TlsClient::with_versions(&[&made], &["http/1.1"], &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = handshake(&client, pond.tls(), "a.example").await;
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
            get(&mut stream, "/api/a").await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_name_chooses_the_certificate() {
    let origin = origin();
    let (first, wild) = (Made::for_names(&["a.example"]), Made::for_names(&["*.b.example", "b.example"]));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pond = run_with(&origin, &[("first", &first), ("wild", &wild)], dir.path());
    let client = TlsClient::trusting(&[&first, &wild], &["http/1.1"]);
    for (name, made) in [("a.example", &first), ("b.example", &wild), ("x.b.example", &wild)] {
        let mut stream = handshake(&client, pond.tls(), name).await;
        assert!(shown(&stream) == made.der, "{name}");
        get(&mut stream, "/api/a").await;
    }
    // The first is shown to all others, and what they make of it is theirs.
    let error = client.connect(pond.tls(), "c.example").await.expect_err("it is not for this name");
    assert!(error.to_string().contains("a.example"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_shows_another_certificate_and_keeps_connections() {
    let (old, new) = (Made::for_names(&["a.example"]), Made::for_names(&["a.example"]));
    let (old_client, new_client) =
        (TlsClient::trusting(&[&old], &["http/1.1"]), TlsClient::trusting(&[&new], &["http/1.1"]));
    for by_command_line in [true, false] {
        let origin = origin();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (pond, files, done) = if by_command_line {
            (plain_with(&origin, &old, dir.path()), dir.path().to_owned(), "certificates reloaded")
        } else {
            (run_with(&origin, &[("a", &old)], dir.path()), dir.path().join("tls"), "rules reloaded")
        };
        let mut kept = handshake(&old_client, pond.tls(), "a.example").await;
        get(&mut kept, "/api/a").await;

        // A key of another certificate: refused, and the old one is shown.
        std::fs::write(files.join("a.key"), &new.key).expect("the folder can be written");
        pond.signal("HUP");
        let refusal = pond.log().wait_for_line("reload refused");
        assert!(refusal.contains("a.key is not the key of"), "{refusal}");
        assert!(shown(&handshake(&old_client, pond.tls(), "a.example").await) == old.der);

        new.write(&files, "a");
        pond.signal("HUP");
        pond.log().wait_for_line(done);
        assert!(shown(&handshake(&new_client, pond.tls(), "a.example").await) == new.der);
        assert!(get(&mut kept, "/api/a").await.contains("detail=hit"), "a connection from before");
    }
}

/// Scanners and mistaken clients are everyday.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_handshake_is_no_error_of_ours() {
    let (origin, made) = (origin(), Made::for_names(&["a.example"]));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pond = plain_with(&origin, &made, dir.path());
    let mut cleartext = Connection::open(pond.tls());
    cleartext.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    while !cleartext.some().is_empty() {}
    let stranger = TlsClient::trusting(&[&Made::for_names(&["a.example"])], &[]);
    stranger.connect(pond.tls(), "a.example").await.expect_err("it trusts another certificate");
    let mut good = handshake(&TlsClient::trusting(&[&made], &[]), pond.tls(), "a.example").await;
    get(&mut good, "/api/a").await;
    let log = pond.log().text();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_tls_clients_go() {
    let (origin, made) = (origin(), Made::for_names(&["a.example"]));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut pond = plain_with(&origin, &made, dir.path());
    let client = TlsClient::trusting(&[&made], &["h2"]);
    let idle =
        Http2::over(handshake(&client, pond.tls(), "a.example").await, "https://a.example", &Builder::new()).await;
    assert_eq!(idle.get("/api/a").await.status(), 200);
    // One that never shook hands, but is known to be there, since a later one was served.
    let _silent = Connection::open(pond.tls());
    let later =
        Http2::over(handshake(&client, pond.tls(), "a.example").await, "https://a.example", &Builder::new()).await;
    assert_eq!(later.get("/api/a").await.status(), 200);
    pond.signal("TERM");
    assert!(idle.end().await.is_ok() && later.end().await.is_ok());
    assert_eq!(pond.wait(), Some(0));
}

#[test]
fn what_the_command_line_lacks_is_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    Made::for_names(&["a.example"]).write(dir.path(), "a");
    let start = ["proxy", "--to", "127.0.0.1:9"];
    let cases: [(&[&str], &str); 6] = [
        (&[], "--listen <ADDR>"),
        (&["--tls-listen", "127.0.0.1:0"], "--cert <FILE>"),
        (&["--listen", "127.0.0.1:0", "--cert", "a.pem"], "--tls-listen <ADDR>"),
        (&["--tls-listen", "127.0.0.1:0", "--cert", "a.pem"], "--cert is given 1 times and --key 0 times; fix: "),
        (&["--tls-listen", "127.0.0.1:0", "--cert", "b.pem", "--key", "a.key"], "--cert: b.pem: No such file"),
        (
            &["--tls-listen", "127.0.0.1:0", "--cert", "a.pem", "--key", "a.pem"],
            "--key: a.pem holds no private key; fix: ",
        ),
    ];
    for (args, why) in cases {
        let finished = finish(&[&start[..], args].concat(), dir.path());
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(finished.stderr.contains(why), "{args:?}: {}", finished.stderr);
    }
}

/// A certificate that clients will not take is no reason not to start, but a reason to say so.
#[test]
fn an_expired_certificate_is_warned_of() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("names");
    params.not_after = rcgen::date_time_ymd(2001, 2, 3);
    let cert = params.self_signed(&key).expect("a certificate");
    std::fs::write(dir.path().join("a.pem"), cert.pem()).expect("the folder can be written");
    std::fs::write(dir.path().join("a.key"), key.serialize_pem()).expect("the folder can be written");
    let origin = origin();
    let proxy = "[proxy]\ntls_listen = [\"127.0.0.1:0\"]\ncertificate = [{ cert = \"a.pem\", key = \"a.key\" }]\n";
    let config = format!(
        "{proxy}[origin.api]\nservers = [\"{}\"]\n[[rule]]\nmatch = \"/**\"\norigin = \"api\"\n",
        origin.address()
    );
    std::fs::write(dir.path().join("millpond.toml"), config).expect("the folder can be written");
    let words = "certificate a.pem expired on Sat, 03 Feb 2001 00:00:00 GMT";
    let checked = finish(&["check", "millpond.toml"], dir.path());
    assert_eq!((checked.code, checked.stderr), (Some(0), format!("warning: {words}\n")));
    let pond = Millpond::start_in(dir.path(), &["run", "--config", "millpond.toml"], &["proxy over TLS"]);
    pond.log().wait_for_line(words);
}

/// A body whose end is that of the connection: without TLS's own word that it has ended, it was cut.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_does_not_look_whole() {
    let (origin, made) = (origin(), Made::for_names(&["a.example"]));
    origin.answer("/cut", Answer::ok("begun ").chunked().then_dies());
    origin.answer("/whole", Answer::ok("whole").chunked());
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pond = plain_with(&origin, &made, dir.path());
    let client = TlsClient::trusting(&[&made], &["http/1.1"]);
    for (path, is_whole) in [("/cut", false), ("/whole", true)] {
        let mut stream = handshake(&client, pond.tls(), "a.example").await;
        let request = format!("GET {path} HTTP/1.0\r\nHost: a.example\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() && !is_whole || answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        assert_eq!(ended.is_ok(), is_whole, "{path}: {ended:?} after {answer}");
    }
}
