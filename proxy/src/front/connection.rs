//! One client's connection: request after request, in order.
//!
//! The hot loop (`hot`) answers what it can; anything else is handed to the gateway here, and the loop goes on after.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use filedescriptor::FileDescriptor;
use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::{Framing, Refusal, RequestHead};
use pingora_core::protocols::Stream;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::deadline::{Deadline, Waits};
use super::familiar::Familiar;
use super::hot::Next;
use super::reply::{After, Reply};
use super::send::poll_send;
use crate::gateway::Gateway;
use crate::limits::Connections;
use crate::observe::{Access, Observer};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::Network;

/// Room made for each read, in bytes.
const READ_BYTES: usize = 4096;
/// How long, and for how many bytes, a connection that is to be closed is read on, so that the client gets to see
/// the answer instead of a reset.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_millis(500);
pub(super) const LINGER_BYTES: usize = 256 * 1024;

pub(super) struct Connection {
    pub stream: Stream,
    /// Bytes read and not yet used.
    pub input: BytesMut,
    /// Bytes to be written.
    pub output: BytesMut,
    /// The body to be written after `output`.
    pub body: Bytes,
    /// The last request that the hot loop answered.
    pub familiar: Option<Box<Familiar>>,
    /// What the hot loop could not deal with, while answers before it are still to be sent.
    pub next: Option<Next>,
    /// Whether `input` is known to hold no whole head.
    pub partial: bool,
    /// Whether `output`, `body` or what the stream itself holds is still to be sent.
    pub unsent: bool,
    /// What it waited for when it was last polled.
    pub waits: Option<Waits>,
    pub deadline: Deadline,
    /// When the connection last got on: a request was read, or bytes were written; by [`clock::coarse_ms`].
    pub since: u64,
    /// Whether no request was read yet.
    pub fresh: bool,
    pub arrival: Arrival,
}

/// What is known of a connection before its first request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Address of the client.
    pub peer: Option<SocketAddr>,
}

/// What every connection of a front uses.
pub(super) struct Around {
    pub gateway: Arc<Gateway>,
    pub observer: Arc<Observer>,
    /// Networks of balancers, whose connections begin with a PROXY head.
    pub balancers: Vec<Network>,
    /// How many connections a client may have, if there is a limit.
    pub connections: Option<Arc<Connections>>,
    pub drain: Drain,
}

impl Around {
    /// Whether connections from this address begin with a PROXY head.
    pub fn is_balancer(&self, address: IpAddr) -> bool {
        // On a socket for both families, IPv4 peers have mapped addresses.
        let address = address.to_canonical();
        self.balancers.iter().any(|network| network.contains(address))
    }
}

/// Tells all connections that no further request is wanted.
#[derive(Default)]
pub(super) struct Drain {
    begun: AtomicBool,
    told: Notify,
}

impl Drain {
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits until it has begun.
    pub async fn wait(&self) {
        let mut told = pin!(self.told.notified());
        told.as_mut().enable();
        if !self.has_begun() {
            told.await;
        }
    }
}

/// Serves a client until it leaves, errs, or the proxy drains. An HTTP/2 client is given back, with what was read of it.
pub(super) async fn run(around: &Around, stream: Stream, arrival: Arrival) -> Option<(Stream, BytesMut)> {
    let mut connection = Connection::new(stream, arrival);
    let told = around.drain.told.notified();
    let mut told = pin!(told);
    told.as_mut().enable();
    loop {
        match poll_fn(|cx| connection.poll_next(around, told.as_mut(), cx)).await {
            Next::Closed => return None,
            Next::Http2 => return Some((connection.stream, connection.input)),
            Next::Refused(refusal) => {
                Box::pin(connection.refuse(&around.observer, refusal, Reason::BadRequest)).await;
                return None;
            }
            Next::Request(head, framing) => {
                // Boxed: what a connection keeps while it is idle should not have room for the whole gateway.
                match Box::pin(connection.answer(around, &head, framing)).await {
                    After::Keep => {}
                    After::Close => {
                        Box::pin(connection.linger()).await;
                        return None;
                    }
                    After::Reset => {
                        connection.reset();
                        return None;
                    }
                }
            }
        }
    }
}

/// Tells a client that it has as many connections as it may, whatever it asks for.
pub(super) async fn refuse(around: &Around, stream: Stream, arrival: Arrival) {
    Connection::new(stream, arrival).refuse(&around.observer, TOO_MANY_CONNECTIONS, Reason::ConnectionLimit).await;
}

const TOO_MANY_CONNECTIONS: Refusal =
    Refusal { status: StatusCode::TOO_MANY_REQUESTS, why: "this client has as many connections as it may" };
/// Seconds after which a client whose connections are too many may try again.
const RETRY_AFTER_SECS: u64 = 1;

pub(super) fn peer_of(stream: &Stream) -> Option<SocketAddr> {
    stream.get_socket_digest().and_then(|digest| digest.peer_addr().and_then(|addr| addr.as_inet().copied()))
}

impl Connection {
    pub fn new(stream: Stream, arrival: Arrival) -> Connection {
        Connection {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            body: Bytes::new(),
            familiar: None,
            next: None,
            partial: false,
            unsent: false,
            waits: None,
            deadline: Deadline::default(),
            since: clock::coarse_ms(),
            fresh: true,
            arrival,
        }
    }

    /// The gateway's way.
    async fn answer(&mut self, around: &Around, head: &RequestHead, framing: Framing) -> After {
        let (began, peer) = (clock::Stopwatch::start(), self.arrival.peer);
        let mut reply = Reply::new(self, head, framing, around.drain.has_begun());
        let record = around.gateway.serve(head, &mut reply).await;
        let after = reply.finish().await;
        self.since = clock::coarse_ms();
        let took = began.elapsed();
        around.observer.observe(&Access { head: Some(head), peer, record: &record, took });
        self.output = BytesMut::new();
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        after
    }

    /// Answers what can't be read any further, and closes.
    async fn refuse(mut self, observer: &Observer, refusal: Refusal, reason: Reason) {
        let body = format!(
            "{} {}: {}\n",
            refusal.status.as_str(),
            refusal.status.canonical_reason().unwrap_or(""),
            refusal.why
        );
        let retry_after = match refusal.status {
            StatusCode::TOO_MANY_REQUESTS => format!("Retry-After: {RETRY_AFTER_SECS}\r\n"),
            _ => String::new(),
        };
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nDate: {}\r\n{retry_after}Connection: close\r\nCache-Status: {}\r\n\r\n",
            refusal.status.as_str(),
            refusal.status.canonical_reason().unwrap_or(""),
            body.len(),
            crate::semantics::date::format(clock::wall_secs()),
            crate::semantics::cache_status::value(Outcome::Refused, Some(reason), None, None, false, false),
        );
        self.output.extend_from_slice(head.as_bytes());
        self.output.extend_from_slice(body.as_bytes());
        let bytes = self.output.len() as u64;
        let broken_off = self.write_output().await.is_err();
        let record = Record {
            rule: None,
            outcome: Outcome::Refused,
            reason: Some(reason),
            status: refusal.status,
            bytes,
            broken_off,
        };
        observer.observe(&Access { head: None, peer: self.arrival.peer, record: &record, took: Duration::ZERO });
        self.linger().await;
    }

    pub async fn write_output(&mut self) -> std::io::Result<()> {
        let Connection { stream, output, .. } = self;
        let mut none = Bytes::new();
        let mut sent = pin!(poll_fn(|cx| poll_send(stream, output, &mut none, cx)));
        // Most answers are taken at once, without a timer.
        let written = match poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx))).await {
            Poll::Ready(written) => written,
            Poll::Pending => timeout(super::reply::WRITE_TIMEOUT, sent)
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())),
        };
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

    /// Closes with a reset, and without TLS's word that this is the end.
    fn reset(self) {
        // The stream tells its number only; another handle of the same socket sets what closing means.
        let socket = FileDescriptor::dup(&self.stream.id()).and_then(|fd| fd.as_file());
        let lingers = socket.map(|socket| SockRef::from(&socket).set_linger(Some(Duration::ZERO)));
        if !matches!(lingers, Ok(Ok(()))) {
            tracing::warn!("a connection could not be reset: a client may take a part of an answer for the whole");
        }
    }

    /// Reads at least one byte; 0 at the end.
    pub async fn read_more(&mut self) -> std::io::Result<usize> {
        self.input.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.input).await
    }
}

/// Whether the body is one that a client could have pipelined behind.
pub(super) fn has_body(framing: Framing) -> bool {
    !matches!(framing, Framing::None | Framing::Length(0))
}
