//! One HTTP/1.1 request and response on a connection from pingora's pool, with our own codec on it.
//!
//! A connection goes back to the pool only after a complete exchange that left no byte over; after anything else it
//! is dropped, so that no answer is ever taken for another's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::Method;
use millpond_shared::http1::{
    BodyReader, Framing, LAST_CHUNK, Limits, Minor, ResponseHead, Step, put_chunk, put_field, put_field_number,
    put_request_line, response_framing, take_response,
};
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::OriginError;
use super::answer::{Answer, Outgoing, Payload, Ready};

/// Longest that connecting may take; then the server counts as dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest that an origin may stay silent, before its head and between pieces of its body; then 504, or a cut body.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an unused connection is kept.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Unused connections that are kept to all origins together; beyond it the one least recently used is closed.
const POOL_MAX: usize = 1024;
/// Room made for each read, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// The body of a client's request, as the exchange reads it.
#[async_trait]
pub trait Inbound: Send {
    /// The next piece; `None`: complete.
    async fn next(&mut self) -> Result<Option<Bytes>, InboundError>;

    /// All of it, at most `max` bytes.
    async fn read_all(&mut self, max: usize) -> Result<Bytes, OriginError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await.map_err(|InboundError| OriginError::RequestBody)? {
            if all.len() + piece.len() > max {
                return Err(OriginError::RequestTooLarge);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

/// The client's body broke off, was malformed, or took too long.
#[derive(Debug)]
pub struct InboundError;

/// Connections to origins.
pub struct Pool {
    connector: TransportConnector,
}

/// A server as pingora wants it, prepared once.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub address: SocketAddr,
    peer: HttpPeer,
    /// What its pooled connections are found by.
    hash: u64,
}

impl Address {
    pub fn new(address: SocketAddr) -> Address {
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        Address { address, hash: peer.reuse_hash(), peer }
    }
}

/// How sending failed.
pub(super) enum Failure {
    /// Nothing was sent: another server may be asked.
    NotConnected(String),
    /// A reused connection was closed before the first byte of an answer, and nothing of a body was sent.
    ReusedWasClosed,
    Other(OriginError),
}

impl Pool {
    pub fn new() -> Pool {
        Pool { connector: TransportConnector::new(Some(ConnectorOptions::new(POOL_MAX))) }
    }

    /// Sends a request to `server` and reads the head of its answer; `anew`: on a connection of its own.
    pub(super) async fn exchange(
        self: &Arc<Pool>,
        server: &Address,
        outgoing: &Outgoing,
        payload: &mut Payload<'_>,
        anew: bool,
    ) -> Result<Answer, Failure> {
        let connected = match anew {
            true => self.connector.new_stream(&server.peer).await.map(|stream| (stream, false)),
            false => self.connector.get_stream(&server.peer).await,
        };
        let (stream, reused) = connected.map_err(|error| Failure::NotConnected(in_words(server.address, &error)))?;
        let mut connection = Connection { stream, buf: BytesMut::new() };
        let bodiless = matches!(payload, Payload::None);
        let sent = connection.send(outgoing, payload).await;
        let head = match sent {
            Ok(Some(head)) => Ok(head),
            // A write that fails may hide an answer that came first.
            Ok(None) | Err(OriginError::Closed) => connection.final_head().await,
            Err(error) => Err(error),
        };
        let head = head.map_err(|error| match error {
            OriginError::Closed if reused && bodiless && connection.buf.is_empty() => Failure::ReusedWasClosed,
            error => Failure::Other(error),
        })?;
        let framing = response_framing(&outgoing.method, head.status, &head.fields, head.minor)
            .map_err(|refusal| Failure::Other(OriginError::Malformed(refusal.why)))?;
        let keep = framing != Framing::UntilClose && head.minor == Minor::One && !says_close(&head);
        let mut body = UpstreamBody {
            connection: Some(connection),
            reader: BodyReader::new(framing),
            // After an early answer the rest of the request was not sent.
            release: (keep && (bodiless || payload_done(payload))).then(|| (Arc::clone(self), server.hash)),
        };
        if body.reader.is_done() {
            body.finish();
        }
        Ok(Answer::streamed(&outgoing.method, head, framing, body))
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::new()
    }
}

fn payload_done(payload: &Payload<'_>) -> bool {
    // `send` replaces a payload that was sent to its end.
    matches!(payload, Payload::None)
}

fn says_close(head: &ResponseHead) -> bool {
    head.fields.list("connection").any(|option| option.eq_ignore_ascii_case("close"))
}

fn in_words(address: SocketAddr, error: &pingora_core::Error) -> String {
    let cause = error.root_cause().to_string();
    format!("{address}: {}", if cause.is_empty() { error.to_string() } else { cause })
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    buf: BytesMut,
}

impl Connection {
    /// Sends head and body. `Some`: the origin answered before the body was sent to its end.
    async fn send(
        &mut self,
        outgoing: &Outgoing,
        payload: &mut Payload<'_>,
    ) -> Result<Option<ResponseHead>, OriginError> {
        let mut out = BytesMut::with_capacity(1024);
        put_request_line(&mut out, outgoing.method.as_str(), &outgoing.target);
        for (name, value) in outgoing.fields.iter() {
            put_field(&mut out, name, value);
        }
        let Payload::Stream { inbound, framing } = payload else {
            out.extend_from_slice(b"\r\n");
            return self.write(&out).await.map(|()| None);
        };
        match framing {
            Framing::Length(length) => put_field_number(&mut out, "Content-Length", *length),
            _ => put_field(&mut out, "Transfer-Encoding", "chunked"),
        }
        out.extend_from_slice(b"\r\n");
        self.write(&out).await?;
        let chunked = !matches!(framing, Framing::Length(_));
        let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
        out.clear();
        let mut ended = false;
        loop {
            // An answer that comes before the body is through ends the sending of it, unless it is an interim one.
            let pause = sleep(SILENCE_TIMEOUT);
            tokio::select! {
                read = reading.read_buf(&mut self.buf) => match read {
                    Ok(0) | Err(_) => return Err(OriginError::Closed),
                    Ok(_) => {
                        if let Some(head) = final_in(&mut self.buf)? {
                            return Ok(Some(head));
                        }
                    }
                },
                written = writing.write_buf(&mut out), if !out.is_empty() => {
                    if written.map_err(|_| OriginError::Closed)? == 0 {
                        return Err(OriginError::Closed);
                    }
                }
                piece = inbound.next(), if out.is_empty() && !ended => match piece.map_err(|_| OriginError::RequestBody)? {
                    Some(piece) if chunked => put_chunk(&mut out, &piece),
                    Some(piece) => out.extend_from_slice(&piece),
                    None => {
                        ended = true;
                        if chunked {
                            out.extend_from_slice(LAST_CHUNK);
                        }
                    }
                },
                () = pause, if !out.is_empty() => return Err(OriginError::Timeout),
            }
            if ended && out.is_empty() {
                writing.flush().await.map_err(|_| OriginError::Closed)?;
                *payload = Payload::None;
                return Ok(None);
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), OriginError> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(SILENCE_TIMEOUT, write).await {
            Err(_) => Err(OriginError::Timeout),
            Ok(Err(_)) => Err(OriginError::Closed),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// The first head that is not 1xx.
    async fn final_head(&mut self) -> Result<ResponseHead, OriginError> {
        let head = async {
            loop {
                if let Some(head) = final_in(&mut self.buf)? {
                    return Ok(head);
                }
                if self.fill().await? == 0 {
                    let cut = !self.buf.is_empty();
                    return Err(if cut {
                        OriginError::Malformed("it ends within its head")
                    } else {
                        OriginError::Closed
                    });
                }
            }
        };
        // In all: an origin that drips bytes does not keep its waiters for ever.
        timeout(SILENCE_TIMEOUT, head).await.unwrap_or(Err(OriginError::Timeout))
    }

    async fn fill(&mut self) -> Result<usize, OriginError> {
        self.buf.reserve(READ_BYTES);
        match timeout(SILENCE_TIMEOUT, self.stream.read_buf(&mut self.buf)).await {
            Err(_) => Err(OriginError::Timeout),
            // A reset is no end: what came before it may be short.
            Ok(Err(_)) => Err(OriginError::Closed),
            Ok(Ok(read)) => Ok(read),
        }
    }
}

/// Takes heads off the buffer up to the first that is not 1xx.
fn final_in(buf: &mut BytesMut) -> Result<Option<ResponseHead>, OriginError> {
    loop {
        match take_response(buf, &RESPONSE_LIMITS) {
            Err(refusal) => return Err(OriginError::Malformed(refusal.why)),
            Ok(None) => return Ok(None),
            Ok(Some(head)) if head.status.as_u16() == 101 => {
                return Err(OriginError::Malformed("it switches protocols unasked"));
            }
            Ok(Some(head)) if head.status.is_informational() => {}
            Ok(Some(head)) => return Ok(Some(head)),
        }
    }
}

const RESPONSE_LIMITS: Limits = Limits { head_bytes: 64 * 1024, fields: 128, target_bytes: 0 };

/// The rest of an answer on its connection.
#[derive(Debug)]
pub(super) struct UpstreamBody {
    connection: Option<Connection>,
    reader: BodyReader,
    release: Option<(Arc<Pool>, u64)>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl UpstreamBody {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            match self.ready()? {
                Ready::Piece(piece) => return Ok(Some(piece)),
                Ready::End => return Ok(None),
                Ready::NotYet => {}
            }
            let Some(connection) = &mut self.connection else { return Ok(None) };
            let read = connection.fill().await;
            let ended = match read {
                Ok(0) => self.reader.end_of_stream().map_err(|_| OriginError::Truncated),
                Ok(_) => continue,
                Err(OriginError::Closed) => Err(OriginError::Truncated),
                Err(error) => Err(error),
            };
            self.connection = None;
            return ended.map(|()| None);
        }
    }

    pub(super) fn ready(&mut self) -> Result<Ready, OriginError> {
        let Some(connection) = &mut self.connection else { return Ok(Ready::End) };
        match self.reader.step(&mut connection.buf) {
            Ok(Step::Data(piece)) => {
                if self.reader.is_done() {
                    self.finish();
                }
                Ok(Ready::Piece(piece))
            }
            Ok(Step::NeedMore) => Ok(Ready::NotYet),
            // Trailers end at this hop (RFC 9110 §6.5.1 lets a recipient discard them).
            Ok(Step::End { .. }) => {
                self.finish();
                Ok(Ready::End)
            }
            Err(refusal) => {
                self.connection = None;
                Err(OriginError::Malformed(refusal.why))
            }
        }
    }

    /// The answer is complete: gives the connection back, or drops it.
    fn finish(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if let Some((pool, hash)) = self.release.take().filter(|_| connection.buf.is_empty()) {
            pool.connector.release_stream(connection.stream, hash, Some(POOL_IDLE_TIMEOUT));
        }
    }
}

/// Methods whose requests may be sent twice without harm (RFC 9110 §9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}
