//! Behind a balancer that passes connections on with a PROXY head.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::e2e::{in_front_of, plain_proxy, proxy_before};
use crate::harness::certificates::{Made, TlsClient};
use crate::harness::client::{Connection, Response};
use crate::harness::eventually;
use crate::harness::http2::Http2;
use crate::harness::metrics::Metrics;
use crate::harness::origin::{Answer, ScriptedOrigin};
use crate::harness::process::Millpond;

const LISTEN: &str = "proxy = { listen = [\"127.0.0.1:0\"] }";
const BEHIND: &str = "proxy = { listen = [\"127.0.0.1:0\"], proxy_protocol = [\"127.0.0.0/8\"] }";
const GET: &str = "GET /api/a HTTP/1.1\r\nHost: a\r\n\r\n";

fn origin() -> ScriptedOrigin {
    let origin = ScriptedOrigin::start();
    origin.answer("/api/a", Answer::ok("a").field("Cache-Control", "no-store"));
    origin
}

fn behind_a_balancer(origin: &ScriptedOrigin, settings: &str) -> Millpond {
    Millpond::run(&in_front_of(&[origin], settings).replace(LISTEN, BEHIND), &["proxy", "admin"])
}

/// Version 2: PROXY, TCP over IPv4 from 192.0.2.2:1000, and something more.
fn version_2() -> Vec<u8> {
    let block = [&[192, 0, 2, 2, 127, 0, 0, 1][..], &1000_u16.to_be_bytes(), &443_u16.to_be_bytes(), &[4, 0, 1, 0]];
    let block = block.concat();
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, &block].concat()
}

fn ask(pond: &Millpond, bytes: &[u8]) -> Response {
    let mut client = Connection::open(pond.proxy());
    client.send(bytes);
    client.receive("GET")
}

/// Whom the origin was told of last.
fn told(origin: &ScriptedOrigin) -> Option<String> {
    origin.requests("/api/a").last().and_then(|seen| seen.field("x-forwarded-for").map(str::to_owned))
}

fn is_logged(pond: &Millpond, client: &str) {
    pond.wait_for_access(1, |line| line.get("client").and_then(Value::as_str) == Some(client));
}

#[test]
fn the_client_is_whom_the_head_tells_of() {
    let origin = origin();
    let pond = behind_a_balancer(&origin, "");
    let head = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
    assert_eq!(ask(&pond, format!("{head}{GET}").as_bytes()).status(), 200);
    assert_eq!(told(&origin).as_deref(), Some("192.0.2.1"));
    is_logged(&pond, "192.0.2.1:56324");
    assert_eq!(ask(&pond, &[&version_2(), GET.as_bytes()].concat()).status(), 200);
    assert_eq!(told(&origin).as_deref(), Some("192.0.2.2"));
    is_logged(&pond, "192.0.2.2:1000");
    let six = "PROXY TCP6 2001:db8::1 ::1 7 443\r\n";
    assert_eq!(ask(&pond, format!("{six}{GET}").as_bytes()).status(), 200);
    assert_eq!(told(&origin).as_deref(), Some("2001:db8::1"));
    is_logged(&pond, "[2001:db8::1]:7");
}

#[test]
fn the_balancer_itself_needs_no_address_and_a_head_may_come_in_pieces() {
    let origin = origin();
    let pond = behind_a_balancer(&origin, "");
    assert_eq!(ask(&pond, format!("PROXY UNKNOWN\r\n{GET}").as_bytes()).status(), 200);
    assert_eq!(told(&origin).as_deref(), Some("127.0.0.1"));
    let local = [b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", GET.as_bytes()].concat();
    assert_eq!(ask(&pond, &local).status(), 200);
    assert_eq!(told(&origin).as_deref(), Some("127.0.0.1"));

    let mut client = Connection::open(pond.proxy());
    let (whole, second) = ([&version_2(), GET.as_bytes()].concat(), GET.as_bytes());
    for piece in [&whole[..5], &whole[5..13], &whole[13..20], &whole[20..40], &whole[40..]] {
        client.send(piece);
    }
    assert_eq!(client.receive("GET").status(), 200);
    client.send(second);
    assert_eq!(client.receive("GET").status(), 200, "a head comes once");
    assert_eq!(told(&origin).as_deref(), Some("192.0.2.2"));
}

#[test]
fn without_a_good_head_the_connection_is_closed_and_counted() {
    let origin = origin();
    let pond = behind_a_balancer(&origin, "");
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    for bytes in [GET, "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n", &endless, "PROXY TCP9 a b 1 2\r\n"] {
        let mut client = Connection::open(pond.proxy());
        client.send(bytes);
        assert!(client.is_closed(), "{bytes}");
    }
    let mut cut = Connection::open(pond.proxy());
    cut.send("PROXY TCP4 192.0.2.1");
    cut.close_writing();
    assert!(cut.is_closed());
    // A look whether somebody listens is nothing to be told of.
    let mut silent = Connection::open(pond.proxy());
    silent.close_writing();
    assert!(silent.is_closed());
    eventually("five refusals", || {
        let refused = [("reason", "proxy-protocol")];
        match Metrics::of(pond.admin()).sum("millpond_connections_refused_total", &refused) {
            5.0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    assert_eq!(origin.count("/api/a"), 0);
    pond.log().wait_for_line("a connection without a good PROXY head was closed");
}

#[test]
fn from_others_it_is_a_bad_request() {
    let origin = origin();
    let pond = proxy_before(&[&origin], "");
    for head in [&b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"[..], &version_2()] {
        let refused = ask(&pond, &[head, GET.as_bytes()].concat());
        assert_eq!((refused.status(), refused.detail()), (400, "refused/bad-request"));
    }
    assert_eq!(origin.count("/api/a"), 0);
}

#[test]
fn limits_are_for_the_client_and_not_for_the_balancer() {
    let origin = origin();
    let pond = behind_a_balancer(&origin, "limit = { rate = \"1/h\" }");
    let status = |client: &str| ask(&pond, format!("PROXY TCP4 {client} 127.0.0.1 1 2\r\n{GET}").as_bytes()).status();
    assert_eq!([status("192.0.2.1"), status("192.0.2.2"), status("192.0.2.1")], [200, 200, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_http_2_are_spoken_behind_it() {
    let origin = origin();
    let (made, dir) = (Made::for_names(&["a.example"]), tempfile::tempdir().expect("a temporary folder"));
    made.write(dir.path(), "a");
    let proxy = BEHIND
        .replace(" }", ", tls_listen = [\"127.0.0.1:0\"], certificate = [{ cert = \"a.pem\", key = \"a.key\" }] }");
    let config = in_front_of(&[&origin], "").replace(LISTEN, &proxy);
    std::fs::write(dir.path().join("millpond.toml"), config).expect("the folder can be written");
    let pond = Millpond::start_in(dir.path(), &["run", "--config", "millpond.toml"], &["proxy", "proxy over TLS"]);

    let mut stream = TcpStream::connect(pond.proxy()).await.expect("somebody listens");
    stream.write_all(b"PROXY TCP4 192.0.2.3 127.0.0.1 1 2\r\n").await.expect("sent");
    let client = Http2::over(stream, "http://a", &h2::client::Builder::new()).await;
    assert_eq!(client.get("/api/a").await.status(), 200);
    assert_eq!(told(&origin).as_deref(), Some("192.0.2.3"));

    let mut stream = TcpStream::connect(pond.tls()).await.expect("somebody listens");
    stream.write_all(&version_2()).await.expect("sent");
    let mut tls = TlsClient::trusting(&[&made], &["http/1.1"]).over(stream, "a.example").await.expect("a handshake");
    tls.write_all(GET.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\na") {
        assert_ne!(tls.read_buf(&mut answer).await.expect("an answer"), 0);
    }
    assert_eq!(told(&origin).as_deref(), Some("192.0.2.2"));
}

#[test]
fn the_plain_proxy_can_stand_there_as_well() {
    let origin = origin();
    let pond = plain_proxy::plain(&origin, &["--proxy-protocol", "127.0.0.1"]);
    assert_eq!(ask(&pond, &[&version_2(), GET.as_bytes()].concat()).status(), 200);
    is_logged(&pond, "192.0.2.2:1000");
}
