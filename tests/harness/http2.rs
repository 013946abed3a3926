//! HTTP/2 clients: one on the `h2` crate, and one that writes any frame it is told to, right or wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;
use super::client::Head;

/// A connection over which requests are sent side by side.
pub struct Http2 {
    requests: SendRequest<Bytes>,
    base: String,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// An answer, as far as it came.
#[derive(Debug)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
    /// Why it is not whole.
    pub broken: Option<h2::Error>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Http2 {
    /// Over cleartext, by prior knowledge.
    pub async fn open(to: SocketAddr) -> Http2 {
        Http2::open_with(to, &Builder::new()).await
    }

    pub async fn open_with(to: SocketAddr, settings: &Builder) -> Http2 {
        let stream = tokio::net::TcpStream::connect(to).await.expect("somebody listens");
        stream.set_nodelay(true).expect("a socket option");
        Http2::over(stream, &format!("http://{to}"), settings).await
    }

    /// Over a stream that is there; `base`: scheme and authority of all requests.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        base: &str,
        settings: &Builder,
    ) -> Http2 {
        let (requests, connection) = settings.handshake(stream).await.expect("HTTP/2 is spoken");
        Http2 { requests, base: base.to_owned(), connection: tokio::spawn(connection) }
    }

    /// A request to be sent by [`Http2::send`].
    pub fn request(&self, method: &str, target: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("{}{target}", self.base))
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.ask(self.request("GET", target), None).await
    }

    pub async fn ask(&self, request: http::request::Builder, body: Option<&[u8]>) -> Answer {
        self.send(request, body).await.whole().await
    }

    /// Sends a request, body and all, and does not wait for the answer.
    pub async fn send(&self, request: http::request::Builder, body: Option<&[u8]>) -> Asked {
        let mut requests = self.requests.clone().ready().await.expect("the connection takes requests");
        let request = request.body(()).expect("a request");
        let (response, mut out) = requests.send_request(request, body.is_none()).expect("the request is sent");
        if let Some(body) = body {
            // The server may have answered and let go of it already: that is for the answer to tell.
            let _ = out.send_data(Bytes::copy_from_slice(body), true);
        }
        Asked { response, out }
    }

    /// How the connection ends, when it does.
    pub async fn end(self) -> Result<(), h2::Error> {
        drop(self.requests);
        let ended = timeout(PATIENCE, self.connection).await.expect("the connection ends");
        ended.expect("the connection does not panic")
    }

    /// Waits until the server takes no more requests on it.
    pub async fn wait_for_goodbye(&self) {
        let gone = async {
            while self.requests.clone().ready().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, gone).await.expect("the server says goodbye");
    }
}

/// A request that was sent.
pub struct Asked {
    response: h2::client::ResponseFuture,
    out: h2::SendStream<Bytes>,
}

impl Asked {
    /// Takes the request back.
    pub fn cancel(mut self) {
        self.out.send_reset(h2::Reason::CANCEL);
    }

    /// The answer, to its end.
    pub async fn whole(self) -> Answer {
        timeout(PATIENCE, self.read(|_| {})).await.expect("the answer comes")
    }

    /// The head, and the body still to be read.
    pub async fn head(self) -> (Head, h2::RecvStream) {
        let response = self.response.await.unwrap_or_else(|error| panic!("no answer: {error}"));
        let (head, body) = response.into_parts();
        (head_of(head.status.as_u16(), &head.headers), body)
    }

    /// The same as `whole`; `told` is called after each part of the body, with all of it so far.
    pub async fn read(self, mut told: impl FnMut(&[u8])) -> Answer {
        let (head, mut body) = self.head().await;
        let mut answer = Answer { head, body: Vec::new(), broken: None };
        while let Some(part) = body.data().await {
            match part {
                Ok(part) => {
                    body.flow_control().release_capacity(part.len()).expect("it was taken");
                    answer.body.extend_from_slice(&part);
                    told(&answer.body);
                }
                Err(error) => {
                    answer.broken = Some(error);
                    break;
                }
            }
        }
        answer
    }
}

fn head_of(status: u16, fields: &HeaderMap) -> Head {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Head { status, fields: fields.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect() }
}

/// A client that writes frames by hand.
pub struct Frames {
    stream: TcpStream,
}

/// What came of a stream, or of the whole connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// The body of an answer.
    Answer(String),
    /// RST_STREAM, with its code (RFC 9113 §7).
    Reset(u32),
    /// GOAWAY, with its code.
    GoAway(u32),
    Closed,
}

impl Frames {
    /// Connects and sends the preface and empty settings.
    pub fn open(to: SocketAddr) -> Frames {
        let mut frames = Frames::open_without_settings(to);
        frames.send(&frame(SETTINGS, 0, 0, b""));
        frames
    }

    /// Connects and sends the preface alone.
    pub fn open_without_settings(to: SocketAddr) -> Frames {
        let mut stream = TcpStream::connect(to).expect("somebody listens");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
        Frames { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// The same where the other side may have had enough.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame of this kind: its flags, and what it holds.
    pub fn wait_for(&mut self, kind: u8) -> (u8, Vec<u8>) {
        while let Some((other, flags, _, payload)) = self.next() {
            if other == kind {
                return (flags, payload);
            }
        }
        panic!("the connection was closed");
    }

    /// The next frame: its kind, its flags, its stream, and what it holds; `None`: the connection is closed.
    fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).expect("a whole frame");
        Some((kind, flags, u32::from_be_bytes(id), payload))
    }

    /// Waits for a head of a stream that does not end it.
    pub fn wait_for_head(&mut self, stream: u32) {
        while let Some((kind, flags, of, payload)) = self.next() {
            if kind == HEADERS && of == stream && flags & END_STREAM == 0 {
                return;
            }
            assert_ne!(of, stream, "frame of kind {kind}: {payload:?}");
        }
        panic!("the connection was closed");
    }

    /// What becomes of a stream. Everything else that comes is passed over.
    pub fn receive(&mut self, stream: u32) -> Came {
        let mut body = Vec::new();
        loop {
            let Some((kind, flags, of, payload)) = self.next() else { return Came::Closed };
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
            let ours = of == stream;
            match kind {
                GOAWAY if code(4) != 0 => return Came::GoAway(code(4)),
                RST_STREAM if ours => return Came::Reset(code(0)),
                DATA if ours => body.extend_from_slice(&payload),
                _ => {}
            }
            if ours && (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0 {
                return Came::Answer(String::from_utf8_lossy(&body).into_owned());
            }
        }
    }
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// Of SETTINGS and PING; the same bit is [`END_STREAM`] of others.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
/// The most that a frame may hold unless it was agreed otherwise.
const FRAME_MAX: usize = 16 * 1024;

/// One frame (RFC 9113 §4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A head, whatever stands in it, in as many frames as it takes. `flags`: `END_STREAM`, or none.
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    let block = field_block(fields);
    let mut parts = block.chunks(FRAME_MAX).peekable();
    let mut frames = Vec::new();
    let mut kind = HEADERS;
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() { END_HEADERS } else { 0 };
        let flags = if kind == HEADERS { flags | end } else { end };
        frames.extend(frame(kind, flags, stream, part));
        kind = CONTINUATION;
    }
    frames
}

/// Fields as HEADERS and CONTINUATION carry them.
pub fn field_block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect()
}

/// A literal field without indexing, names and values as they are (RFC 7541 §6.2.2).
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        let mut length = text.len();
        if length < 127 {
            field.push(length as u8);
        } else {
            field.push(127);
            length -= 127;
            while length >= 128 {
                field.push((length % 128 + 128) as u8);
                length /= 128;
            }
            field.push(length as u8);
        }
        field.extend_from_slice(text);
    }
    field
}
