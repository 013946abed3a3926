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
}

/// What comes next on a connection.
enum Next {
    Request(Box<RequestHead>),
    Refused(Refusal),
    Closed,
}

/// Serves a client until it leaves, errs, or the proxy drains.
pub(super) async fn run(gateway: &Arc<Gateway>, observer: &Observer, stream: Stream, mut shutdown: ShutdownWatch) {
    let peer =
        stream.get_socket_digest().and_then(|digest| digest.peer_addr().and_then(|addr| addr.as_inet().copied()));
    let mut connection = Connection { stream, input: BytesMut::new(), output: BytesMut::new() };
    loop {
        let (head, framing) = match connection.next(&mut shutdown).await {
            Next::Closed => return,
            Next::Refused(refusal) => return connection.refuse(observer, peer, refusal).await,
            Next::Request(head) => match request_framing(&head.fields, head.minor) {
                Ok(framing) => (head, framing),
                Err(refusal) => return connection.refuse(observer, peer, refusal).await,
            },
        };
        let began = clock::monotonic();
        let mut reply = Reply::new(&mut connection, &head, framing, *shutdown.borrow());
        let record = gateway.serve(&head, &mut reply).await;
        let keep = reply.finish().await;
        observer.observe(&Access { head: Some(&head), peer, record: &record, took: began.elapsed() });
        if !keep {
            return connection.linger().await;
        }
    }
}

impl Connection {
    async fn next(&mut self, shutdown: &mut ShutdownWatch) -> Next {
        let limits = Limits::default();
        let mut deadline = None;
        loop {
            match take_request(&mut self.input, &limits) {
                Ok(Some(head)) => return Next::Request(Box::new(head)),
                Ok(None) => {}
                Err(refusal) => return Next::Refused(refusal),
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
async fn drained(shutdown: &mut ShutdownWatch) {
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
