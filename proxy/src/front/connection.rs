//! One client's connection: request after request, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::{Framing, Limits, Refusal, RequestHead, request_framing, take_request};
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::reply::Reply;
use crate::gateway::Gateway;
use crate::observe::{Access, Observer};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;

/// How long a connection may be idle between requests; then it is closed without a word.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a head may take from its first byte; then 408.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Room made for each read, in bytes.
const READ_BYTES: usize = 4096;
/// How long, and for how many bytes, a connection that is to be closed is read on, so that the client gets to see
/// the answer instead of a reset.
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 256 * 1024;

pub(super) struct Connection {
    pub stream: Stream,
    /// Bytes read and not yet used.
    pub input: BytesMut,
    /// Bytes to be written.
    pub output: BytesMut,
    pub scheme: &'static str,
}

/// How the loop was left.
pub(super) enum Left {
    Closed,
    /// The client speaks HTTP/2 by prior knowledge. `read`: the bytes of it that were read.
    Http2 {
        stream: Stream,
        read: BytesMut,
    },
}

/// What an HTTP/2 connection begins with, as far as it looks like HTTP/1 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What comes next on a connection.
enum Next {
    Request(Box<RequestHead>),
    Refused(Refusal),
    Closed,
    Http2,
}

/// Serves a client until it leaves, errs, or the proxy drains.
pub(super) async fn run(
    gateway: &Arc<Gateway>,
    observer: &Observer,
    stream: Stream,
    mut shutdown: ShutdownWatch,
) -> Left {
    let (peer, scheme) = (peer_of(&stream), scheme_of(&stream));
    let mut connection = Connection { stream, input: BytesMut::new(), output: BytesMut::new(), scheme };
    let mut may_be_http2 = true;
    loop {
        let (head, framing) = match connection.next(&mut shutdown, may_be_http2).await {
            Next::Closed => return Left::Closed,
            Next::Http2 => return Left::Http2 { stream: connection.stream, read: connection.input },
            Next::Refused(refusal) => {
                connection.refuse(observer, peer, refusal).await;
                return Left::Closed;
            }
            Next::Request(head) => match request_framing(&head.fields, head.minor) {
                Ok(framing) => (head, framing),
                Err(refusal) => {
                    connection.refuse(observer, peer, refusal).await;
                    return Left::Closed;
                }
            },
        };
        may_be_http2 = false;
        let began = clock::monotonic();
        let mut reply = Reply::new(&mut connection, &head, framing, *shutdown.borrow());
        let record = gateway.serve(&head, &mut reply).await;
        let keep = reply.finish().await;
        observer.observe(&Access { head: Some(&head), peer, record: &record, took: began.elapsed() });
        if !keep {
            connection.linger().await;
            return Left::Closed;
        }
    }
}

pub(super) fn peer_of(stream: &Stream) -> Option<SocketAddr> {
    stream.get_socket_digest().and_then(|digest| digest.peer_addr().and_then(|addr| addr.as_inet().copied()))
}

pub(super) fn scheme_of(stream: &Stream) -> &'static str {
    if stream.get_ssl_digest().is_some() { "https" } else { "http" }
}

impl Connection {
    async fn next(&mut self, shutdown: &mut ShutdownWatch, may_be_http2: bool) -> Next {
        let limits = Limits::default();
        let mut deadline = None;
        loop {
            if may_be_http2 && self.input.starts_with(PREFACE) {
                return Next::Http2;
            }
            // A beginning of the preface is no request yet, and none that could be refused.
            if !may_be_http2 || !PREFACE.starts_with(&self.input) {
                match take_request(&mut self.input, &limits) {
                    Ok(Some(head)) => return Next::Request(Box::new(head)),
                    Ok(None) => {}
                    Err(refusal) => return Next::Refused(refusal),
                }
            }
            // One empty line after a body belongs to no request (RFC 9112 §2.2).
            let began = !self.input.is_empty() && self.input != b"\r\n"[..];
            let left = match (began, deadline) {
                (false, _) => IDLE_TIMEOUT,
                (true, None) => {
                    deadline = Some(clock::monotonic() + HEAD_TIMEOUT);
                    HEAD_TIMEOUT
                }
                (true, Some(deadline)) => deadline.saturating_duration_since(clock::monotonic()),
            };
            self.input.reserve(READ_BYTES);
            let read = tokio::select! {
                read = timeout(left, self.stream.read_buf(&mut self.input)) => read,
                // An idle client is let go at once; one that has begun a request gets its answer.
                () = drained(shutdown), if !began => return Next::Closed,
            };
            match read {
                Err(_) if began => return Next::Refused(TOO_SLOW),
                Ok(Ok(0)) if began => return Next::Refused(Refusal { status: StatusCode::BAD_REQUEST, why: CUT }),
                Err(_) | Ok(Err(_) | Ok(0)) => return Next::Closed,
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Answers what can't be read any further, and closes.
    async fn refuse(mut self, observer: &Observer, peer: Option<SocketAddr>, refusal: Refusal) {
        let body = format!(
            "{} {}: {}\n",
            refusal.status.as_str(),
            refusal.status.canonical_reason().unwrap_or(""),
            refusal.why
        );
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nDate: {}\r\nConnection: close\r\nCache-Status: {}\r\n\r\n",
            refusal.status.as_str(),
            refusal.status.canonical_reason().unwrap_or(""),
            body.len(),
            crate::semantics::date::format(clock::wall_secs()),
            crate::semantics::cache_status::value(Outcome::Refused, Some(Reason::BadRequest), None, None, false, false),
        );
        self.output.extend_from_slice(head.as_bytes());
        self.output.extend_from_slice(body.as_bytes());
        let bytes = self.output.len() as u64;
        let broken_off = self.write_output().await.is_err();
        let reason = Some(Reason::BadRequest);
        let record =
            Record { rule: None, outcome: Outcome::Refused, reason, status: refusal.status, bytes, broken_off };
        observer.observe(&Access { head: None, peer, record: &record, took: Duration::ZERO });
        self.linger().await;
    }

    pub async fn write_output(&mut self) -> std::io::Result<()> {
        let written = timeout(super::reply::WRITE_TIMEOUT, async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        });
        let written = written.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        self.output.clear();
        written
    }

    /// Closes, but lets the client read what it was sent.
    async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let rest = async {
            let mut read = 0;
            while read < LINGER_BYTES {
                self.input.clear();
                self.input.reserve(READ_BYTES);
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => read += count,
                }
            }
        };
        let _ = timeout(LINGER_TIMEOUT, rest).await;
    }

    /// Reads at least one byte; 0 at the end.
    pub async fn read_more(&mut self) -> std::io::Result<usize> {
        self.input.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.input).await
    }
}

const CUT: &str = "the connection ended within a head";
const TOO_SLOW: Refusal =
    Refusal { status: StatusCode::REQUEST_TIMEOUT, why: "the head of the request took longer than 10 seconds" };

/// Resolves when the proxy drains.
pub(super) async fn drained(shutdown: &mut ShutdownWatch) {
    while !*shutdown.borrow() {
        if shutdown.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the body is one that a client could have pipelined behind.
pub(super) fn has_body(framing: Framing) -> bool {
    !matches!(framing, Framing::None | Framing::Length(0))
}
