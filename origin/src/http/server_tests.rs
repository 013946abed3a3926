//! The server, spoken to byte by byte.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response, StatusCode};
use millpond_shared::http1::{Limits, RequestHead};
use millpond_shared::wire::{Intake, Taker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::{Answer, Handler, ServerLimits, serve_within};

/// Answers with what was asked; `/gate` waits to be opened, `/stream` sends what the test feeds it.
struct Echo {
    gate: Arc<Notify>,
    entered: mpsc::UnboundedSender<()>,
    refused: mpsc::UnboundedSender<&'static str>,
    feed: tokio::sync::Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>,
}

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, request: Request<Bytes>) -> Answer {
        if request.uri().path() == "/gate" {
            let _ = self.entered.send(());
            self.gate.notified().await;
        }
        if request.uri().path() == "/stream" {
            let feed = self.feed.lock().await.take().unwrap();
            let pieces = stream::unfold(feed, |mut feed| async { feed.recv().await.map(|piece| (piece, feed)) });
            return Answer::Stream(Response::new(()).into_parts().0, pieces.boxed());
        }
        let body = String::from_utf8_lossy(request.body()).into_owned();
        let mut response = Response::new(Bytes::from(format!("{} {} {body}", request.method(), request.uri())));
        if request.uri().path() == "/none" {
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        response.headers_mut().insert("x-answer", "1".parse().unwrap());
        response.into()
    }

    fn body_limit(&self, target: &str) -> u64 {
        if target.starts_with("/small") { 4 } else { 1 << 20 }
    }

    fn intake(&self, head: &RequestHead, length: Option<u64>) -> Intake<'_> {
        match head.target.path_and_query() {
            "/nothing" => Intake::Nothing(Box::new(Response::new(Bytes::from(format!("nothing of {length:?}"))))),
            "/pieces" => Intake::Pieces(Box::new(Pieces(String::new()))),
            target => Intake::Whole { max_bytes: self.body_limit(target) },
        }
    }

    fn refused(&self, reason: &'static str) {
        let _ = self.refused.send(reason);
    }
}

/// Tells the pieces that it was given; takes none that says `no`.
struct Pieces(String);

#[async_trait]
impl Taker for Pieces {
    async fn take(&mut self, piece: Bytes) -> Result<(), Box<Response<Bytes>>> {
        if piece.as_ref() == b"no" {
            return Err(Box::new(Response::new(Bytes::from_static(b"not this"))));
        }
        self.0 += &format!("{}|", String::from_utf8_lossy(&piece));
        Ok(())
    }

    async fn end(self: Box<Self>) -> Response<Bytes> {
        Response::new(Bytes::from(self.0))
    }
}

struct Server {
    address: std::net::SocketAddr,
    gate: Arc<Notify>,
    entered: mpsc::UnboundedReceiver<()>,
    refused: mpsc::UnboundedReceiver<&'static str>,
    feed: mpsc::UnboundedSender<Bytes>,
    down: watch::Sender<bool>,
    served: JoinHandle<()>,
}

async fn start(limits: ServerLimits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (down, shutdown) = watch::channel(false);
    let (sender, entered) = mpsc::unbounded_channel();
    let (feed, fed) = mpsc::unbounded_channel();
    let (refuse, refused) = mpsc::unbounded_channel();
    let gate = Arc::new(Notify::new());
    let echo = Echo { gate: gate.clone(), entered: sender, refused: refuse, feed: tokio::sync::Mutex::new(Some(fed)) };
    let served = tokio::spawn(serve_within(limits, listener, Arc::new(echo), shutdown));
    Server { address, gate, entered, refused, feed, down, served }
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Everything up to the end of the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    String::from_utf8(all).unwrap()
}

/// Reads until the text ends in `end`.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let byte = stream.read_u8().await;
        text.push(byte.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&text))));
    }
    String::from_utf8(text).unwrap()
}

async fn send(server: &Server, bytes: &str) -> String {
    let mut stream = connect(server).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_their_order() {
    let server = start(ServerLimits::default()).await;
    let text = send(
        &server,
        "GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n\
         POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi\
         POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n1\r\n!\r\n0\r\n\r\n\
         HEAD /d HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /none HTTP/1.1\r\nHost: x\r\n\r\n\
         GET http://x/e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\nx-answer: 1\r\ncontent-length: 11\r\n\r\nGET /a?b=c \
         HTTP/1.1 200 OK\r\nx-answer: 1\r\ncontent-length: 10\r\n\r\nPOST /b hi\
         HTTP/1.1 200 OK\r\nx-answer: 1\r\ncontent-length: 11\r\n\r\nPOST /c yo!\
         HTTP/1.1 200 OK\r\nx-answer: 1\r\ncontent-length: 8\r\n\r\n\
         HTTP/1.1 204 No Content\r\nx-answer: 1\r\n\r\n\
         HTTP/1.1 200 OK\r\nx-answer: 1\r\nconnection: close\r\ncontent-length: 7\r\n\r\nGET /e "
    );
}

#[tokio::test]
async fn an_http_1_0_client_gets_one_answer() {
    let server = start(ServerLimits::default()).await;
    let text = send(&server, "GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.0\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("GET /a "), "{text}");
}

#[tokio::test]
async fn what_can_not_be_trusted_is_refused_in_json_and_the_connection_closed() {
    let limits = ServerLimits { head: Limits { head_bytes: 300, fields: 4, target_bytes: 20 }, ..Default::default() };
    let server = start(limits).await;
    let long = "x".repeat(30);
    let many = "a: b\r\n".repeat(5);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), 501),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n".to_owned(), 501),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), 505),
        ("POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345".to_owned(), 413),
        (
            "POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n".to_owned(),
            413,
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n1".to_owned(), 417),
    ] {
        let text = send(&server, &format!("{request}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {text}");
        assert!(text.contains("connection: close\r\n") && !text.contains("smuggled"), "{request}: {text}");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["error"].is_string() && body["fix"].is_string(), "{body}");
        assert!(status != 413 || body["error"].as_str().unwrap().contains("4 bytes"), "it names the limit: {body}");
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken() {
    let server = start(ServerLimits::default()).await;
    let request = "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\n1234";
    assert!(send(&server, request).await.ends_with("POST /small 1234"));
}

#[tokio::test]
async fn a_client_that_asks_for_leave_gets_it_before_its_body_is_there() {
    let server = start(ServerLimits::default()).await;
    let mut stream = connect(&server).await;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    assert!(rest(&mut stream).await.ends_with("POST / hi"));
    let mut stream = connect(&server).await;
    stream.write_all(head.replace("POST /", "POST /small").replace(": 2", ": 9").as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 413 "), "refused before the body is sent");
}

#[tokio::test]
async fn slow_heads_and_bodies_are_answered_408_and_idle_connections_closed() {
    let short = Duration::from_millis(30);
    let limits =
        ServerLimits { head_time: short, body_time: short, piece_time: short, idle_time: short, ..Default::default() };
    let server = start(limits).await;
    let body = "HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab";
    for slow in ["GET / HT", &format!("POST / {body}"), &format!("POST /pieces {body}")] {
        let text = send(&server, slow).await;
        assert!(text.starts_with("HTTP/1.1 408 "), "{slow}: {text}");
    }
    assert_eq!(send(&server, "").await, "", "nobody is told about an idle connection");
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away() {
    let mut server = start(ServerLimits { connections: 1, ..Default::default() }).await;
    let mut first = connect(&server).await;
    first.write_all(b"GET /gate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    server.entered.recv().await.unwrap();
    let text = rest(&mut connect(&server).await).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("has 1 connections"), "{text}");
    assert_eq!(server.refused.recv().await, Some("connections"));
    server.gate.notify_one();
    assert!(rest(&mut first).await.ends_with("GET /gate "));
}

#[tokio::test]
async fn a_body_of_any_length_is_whole_and_what_follows_is_another_request() {
    let server = start(ServerLimits::default()).await;
    for bytes in [0, 1, 16 << 10, 21 << 10, 64 << 10, (64 << 10) + 1, 200 << 10] {
        let body: String =
            (0..).flat_map(|number: u32| format!("{number} ").into_bytes()).take(bytes).map(char::from).collect();
        let text = send(
            &server,
            &format!(
                "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n\r\n{body}\
                 GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            ),
        )
        .await;
        let answers: Vec<&str> = text.split("HTTP/1.1 200 OK").collect();
        assert_eq!(answers.len(), 3, "{bytes} bytes");
        assert!(answers[1].ends_with(&format!("\r\n\r\nPOST /a {body}")), "{bytes} bytes");
        assert!(answers[2].ends_with("GET /b "), "{bytes} bytes");
    }
}

/// A client that promises a body is not taken at its word: what it holds is what it has sent.
#[tokio::test]
async fn bodies_that_have_come_and_do_not_fit_beside_others_are_refused() {
    let mut server = start(ServerLimits { bodies: 64 << 10, ..Default::default() }).await;
    let post = |path: &str, bytes: usize| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n");
        head + &"x".repeat(bytes)
    };
    let mut promising = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&server).await;
        let (head, _) = post("/", 1 << 20).split_once("xx").map(|(head, rest)| (head.to_owned(), rest.len())).unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        promising.push(stream);
    }
    let mut first = connect(&server).await;
    first.write_all(post("/gate", 48 << 10).as_bytes()).await.unwrap();
    server.entered.recv().await.unwrap();
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{chunked}{:x}\r\n{}\r\n0\r\n\r\n", 48 << 10, "x".repeat(48 << 10));
    for second in [post("/", 48 << 10), chunked] {
        let text = send(&server, &second).await;
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("retry-after: 1\r\n"), "{text}");
        assert_eq!(server.refused.recv().await, Some("no_room"));
    }
    let small = send(&server, &post("/", 1 << 10)).await;
    assert!(small.starts_with("HTTP/1.1 200 "), "what comes with its head needs no room: {small}");
    server.gate.notify_one();
    assert!(rest(&mut first).await.ends_with("x"));
    let again = send(&server, &post("/", 48 << 10)).await;
    assert!(again.starts_with("HTTP/1.1 200 "), "there is room again");
}

#[tokio::test]
async fn a_body_that_is_not_wanted_ends_the_connection_unless_it_is_there() {
    let mut server = start(ServerLimits::default()).await;
    let text = send(
        &server,
        "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi\
         POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
         POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhi",
    )
    .await;
    let told: Vec<&str> = text.split("nothing of ").skip(1).map(|rest| rest.split("HTTP").next().unwrap()).collect();
    assert_eq!(told, ["Some(2)", "None", "Some(9)"]);
    assert_eq!(text.matches("connection: close\r\n").count(), 1, "{text}");
    assert!(server.refused.try_recv().is_err(), "the handler counts what it refuses");
}

#[tokio::test]
async fn a_body_is_handed_on_piece_by_piece() {
    let server = start(ServerLimits { bodies: 4, ..Default::default() }).await;
    let chunked = "POST /pieces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let close = chunked.replace("Host: x", "Host: x\r\nConnection: close");
    let text = send(&server, &format!("{chunked}2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n{close}0\r\n\r\n")).await;
    assert!(text.contains("\r\n\r\nab|cde|HTTP/1.1 200 OK") && text.ends_with("\r\n\r\n"), "{text}");
    let text = send(&server, &format!("{chunked}1\r\na\r\n2\r\nno\r\n9\r\n")).await;
    assert!(text.ends_with("not this") && text.contains("connection: close"), "{text}");
    let broken = send(&server, &format!("{chunked}1\r\na\r\nx\r\n")).await;
    assert!(broken.starts_with("HTTP/1.1 400 "), "{broken}");
}

#[tokio::test]
async fn a_streamed_answer_arrives_piece_by_piece() {
    let server = start(ServerLimits::default()).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let head = until(&mut stream, "\r\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    for piece in ["one\n", "two\n"] {
        server.feed.send(Bytes::from_static(piece.as_bytes())).unwrap();
        assert_eq!(until(&mut stream, "\n\r\n").await, format!("4\r\n{piece}\r\n"));
    }
    stream.write_all(b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    drop(server.feed);
    assert_eq!(until(&mut stream, "0\r\n\r\n").await, "0\r\n\r\n");
    assert!(rest(&mut stream).await.ends_with("GET /next "), "the connection goes on behind it");
}

#[tokio::test]
async fn a_stream_ends_when_its_client_leaves() {
    let server = start(ServerLimits::default()).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut stream, "\r\n\r\n").await;
    drop(stream);
    // Nothing was fed: only noticing that the client is gone drops the receiver.
    server.feed.closed().await;
}

#[tokio::test]
async fn shutting_down_ends_idle_connections_and_streams_and_lets_requests_finish() {
    let mut server = start(ServerLimits::default()).await;
    let mut idle = connect(&server).await;
    idle.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut idle, "GET /a ").await;
    let mut streaming = connect(&server).await;
    streaming.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(&mut streaming, "\r\n\r\n").await;
    let mut busy = connect(&server).await;
    busy.write_all(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.entered.recv().await.unwrap();

    server.down.send(true).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut streaming).await, "", "a stream that is cut does not look complete");
    assert!(!server.served.is_finished());
    server.gate.notify_one();
    let text = rest(&mut busy).await;
    assert!(text.contains("connection: close\r\n") && text.ends_with("GET /gate "), "{text}");
    server.served.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody is accepted any more");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_when_draining_takes_too_long() {
    let mut server = start(ServerLimits { drain_time: Duration::from_millis(20), ..Default::default() }).await;
    let mut busy = connect(&server).await;
    busy.write_all(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    server.entered.recv().await.unwrap();
    server.down.send(true).unwrap();
    server.served.await.unwrap();
    assert_eq!(rest(&mut busy).await, "");
}
