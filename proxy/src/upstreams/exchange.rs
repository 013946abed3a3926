//! One HTTP/1.1 request and response on a connection of the pool, with our own codec on it.
//!
//! A connection goes back to the pool only after a complete exchange that left no byte over; after anything else it
//! is dropped, so that no answer is ever taken for another's.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use millpond_shared::http1::{
    BodyReader, Framing, LAST_CHUNK, Minor, ResponseHead, Step, put_chunk, put_field, put_field_number,
    put_request_line, response_framing,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use super::OriginError;
use super::answer::{Answer, Payload, Ready};
use super::buffers;
use super::connection::{Connection, head_in};
use super::endpoint::{Endpoint, Place};
use super::outgoing::Outgoing;
use super::pool::Pool;

/// The body of a client's request, as the exchange reads it.
#[async_trait]
pub trait Inbound: Send {
    /// The next piece; `None`: complete. A client that waits for leave to send its body (100) gets it here at last.
    async fn next(&mut self) -> Result<Option<Bytes>, InboundError>;

    /// The origin sent an interim answer (1xx): passed on if the client may get it (RFC 9110 §15.2).
    async fn interim(&mut self, head: &ResponseHead);

    /// All of it, at most `max` bytes.
    async fn read_all(&mut self, max: usize) -> Result<Bytes, OriginError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len() + piece.len() > max {
                return Err(OriginError::RequestTooLarge);
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

/// Why a client's body did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundError {
    /// It broke off or was malformed.
    Malformed,
    /// The client paused for too long.
    TooSlow,
}

impl From<InboundError> for OriginError {
    fn from(error: InboundError) -> OriginError {
        match error {
            InboundError::Malformed => OriginError::RequestBody,
            InboundError::TooSlow => OriginError::RequestTooSlow,
        }
    }
}

/// How long the body of a client that expects `100 Continue` is held back for the origin's word (RFC 9110 §10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// How sending failed.
pub(super) enum Failure {
    /// Nothing was sent: another server may be asked.
    NotConnected(String),
    /// A reused connection was closed before the first byte of an answer, and nothing of a body was sent.
    ReusedWasClosed,
    Other(OriginError),
}

impl Pool {
    /// Sends a request to `server` and reads the head of its answer; `anew`: on a connection of its own.
    pub(super) async fn exchange(
        self: &Arc<Pool>,
        server: &Endpoint,
        outgoing: &Outgoing<'_>,
        payload: &mut Payload<'_>,
        anew: bool,
    ) -> Result<Answer, Failure> {
        let (mut connection, reused) = self.connection(server, anew).await.map_err(Failure::NotConnected)?;
        connection.patience = outgoing.timeout();
        let bodiless = payload.framing == Framing::None;
        let sent = send(&mut connection, outgoing, payload).await;
        // After an early answer the rest of the request was not sent.
        let whole = bodiless || matches!(sent, Ok(None));
        let head = match sent {
            Ok(Some(head)) => Ok(head),
            // A write that fails may hide an answer that came first.
            Ok(None) | Err(OriginError::Closed) => connection.final_head(&mut payload.client).await,
            Err(error) => Err(error),
        };
        let head = head.map_err(|error| match error {
            OriginError::Closed if reused && bodiless && connection.buf.is_empty() => Failure::ReusedWasClosed,
            error => Failure::Other(error),
        })?;
        let framing = response_framing(outgoing.method(), head.status, &head.fields, head.minor)
            .map_err(|refusal| Failure::Other(OriginError::Malformed(refusal.why)))?;
        let keep = framing != Framing::UntilClose && head.minor == Minor::One && !says_close(&head);
        let mut body = UpstreamBody {
            connection: Some(connection),
            reader: BodyReader::new(framing),
            release: (keep && whole).then(|| (Arc::clone(self), server.place())),
        };
        if body.reader.is_done() {
            body.finish();
        }
        Ok(Answer::streamed(outgoing.method(), head, framing, body))
    }
}

fn says_close(head: &ResponseHead) -> bool {
    head.fields.list("connection").any(|option| option.eq_ignore_ascii_case("close"))
}

/// Sends head and body. `Some`: the origin answered before the body was sent to its end.
async fn send(
    connection: &mut Connection,
    outgoing: &Outgoing<'_>,
    payload: &mut Payload<'_>,
) -> Result<Option<ResponseHead>, OriginError> {
    let mut head = buffers::take();
    put_request_line(&mut head, outgoing.method().as_str(), outgoing.target());
    outgoing.put_fields(|name, value| put_field(&mut head, name, value));
    match payload.framing {
        Framing::None => {}
        Framing::Length(length) => put_field_number(&mut head, "Content-Length", length),
        Framing::Chunked | Framing::UntilClose => put_field(&mut head, "Transfer-Encoding", "chunked"),
    }
    let expects = outgoing.expects_continue() && !matches!(payload.framing, Framing::None | Framing::Length(0));
    if expects {
        put_field(&mut head, "Expect", "100-continue");
    }
    head.extend_from_slice(b"\r\n");
    connection.write(&head).await?;
    buffers::give_back(head);
    match &mut payload.client {
        Some(client) if payload.framing != Framing::None => {
            let chunked = !matches!(payload.framing, Framing::Length(_));
            let form = BodyForm { chunked, max: payload.body_max, expects };
            Box::pin(send_body(connection, *client, form)).await
        }
        _ => Ok(None),
    }
}

/// How a request's body is sent.
struct BodyForm {
    chunked: bool,
    /// Most bytes of it.
    max: u64,
    /// It is held back until the origin says 100, or for [`CONTINUE_TIMEOUT`].
    expects: bool,
}

/// Sends the body as it comes. `Some`: the origin answered before its end.
async fn send_body(
    connection: &mut Connection,
    inbound: &mut dyn Inbound,
    form: BodyForm,
) -> Result<Option<ResponseHead>, OriginError> {
    let Connection { stream, buf, patience, .. } = connection;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut out = BytesMut::new();
    let (mut ended, mut sent, mut holds) = (false, 0, form.expects);
    // What encrypts may keep the end of what it was given until it is flushed.
    let mut flushed = true;
    let mut held = pin!(sleep(CONTINUE_TIMEOUT));
    loop {
        // An answer that comes before the body is through ends the sending of it, unless it is an interim one.
        let pause = sleep(*patience);
        tokio::select! {
            read = reading.read_buf(buf) => match read {
                Ok(0) | Err(_) => return Err(OriginError::Closed),
                Ok(_) => {
                    while let Some(head) = head_in(buf)? {
                        if !head.status.is_informational() {
                            return Ok(Some(head));
                        }
                        holds &= head.status != StatusCode::CONTINUE;
                        inbound.interim(&head).await;
                    }
                }
            },
            pushed = push(&mut writing, &mut out), if !out.is_empty() || !flushed => {
                flushed = pushed.map_err(|_| OriginError::Closed)?;
            }
            () = held.as_mut(), if holds => holds = false,
            piece = inbound.next(), if out.is_empty() && !ended && !holds => match piece? {
                Some(piece) => {
                    sent += piece.len() as u64;
                    if sent > form.max {
                        return Err(OriginError::RequestTooLarge);
                    }
                    if form.chunked { put_chunk(&mut out, &piece) } else { out.extend_from_slice(&piece) }
                }
                None => {
                    ended = true;
                    if form.chunked {
                        out.extend_from_slice(LAST_CHUNK);
                    }
                }
            },
            () = pause, if !out.is_empty() || !flushed => return Err(OriginError::Timeout),
        }
        if ended && out.is_empty() && flushed {
            return Ok(None);
        }
    }
}

/// Writes some of `out`, or flushes where there is nothing more to write; whether it did the latter.
async fn push(writing: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<bool> {
    if out.is_empty() {
        return writing.flush().await.map(|()| true);
    }
    match writing.write_buf(out).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(false),
    }
}

/// The rest of an answer on its connection.
#[derive(Debug)]
pub(super) struct UpstreamBody {
    connection: Option<Connection>,
    reader: BodyReader,
    release: Option<(Arc<Pool>, Place)>,
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
        let Some(mut connection) = self.connection.take() else { return };
        if let Some((pool, place)) = self.release.take().filter(|_| connection.buf.is_empty()) {
            buffers::give_back(std::mem::take(&mut connection.buf));
            pool.keep(place, connection);
        }
    }
}

/// Methods whose requests may be sent twice without harm (RFC 9110 §9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}
