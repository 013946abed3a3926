//! The answer to one HTTP/1 request: framing, persistence, and the request's own body.

use std::io::IoSlice;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use http::{Method, StatusCode};
use millpond_shared::http1::{
    BodyReader, Framing, LAST_CHUNK, Minor, RequestHead, ResponseHead, Step, put_chunk, put_field, put_field_number,
    put_status_line,
};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::connection::{Connection, has_body};
use super::send::COPY_MAX;
use crate::gateway::{Client, Gone, ReplyHead};
use crate::semantics::expectation::Expectation;
use crate::semantics::hop;
use crate::upstreams::{Inbound, InboundError};

/// How long one write may take; a client that reads slower is cut off.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may pause within its body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Room made for a head at first, in bytes.
const HEAD_BYTES: usize = 1024;
/// Rest of a request's body, in bytes, that is read and thrown away to keep the connection.
const DRAIN_MAX: usize = 64 * 1024;

pub(super) struct Reply<'a> {
    connection: &'a mut Connection,
    method: Method,
    minor: Minor,
    framing: Framing,
    body: BodyReader,
    /// The client waits for a 100 before it sends its body.
    expects: bool,
    keep: bool,
    mode: Mode,
    /// The answer broke off where its end is that of the connection: nothing but a reset tells.
    looks_whole: bool,
    sent: u64,
}

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It can carry another request.
    Keep,
    Close,
    /// It must not look as if the answer had come to its end.
    Reset,
}

/// How the body of the answer is framed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing was sent yet.
    Head,
    None,
    /// This many bytes are still to come.
    Length(u64),
    Chunked,
    UntilClose,
    /// The answer broke off.
    Broken,
}

impl<'a> Reply<'a> {
    pub fn new(connection: &'a mut Connection, head: &RequestHead, framing: Framing, draining: bool) -> Reply<'a> {
        let option = |wanted: &str| head.fields.list("connection").any(|option| option.eq_ignore_ascii_case(wanted));
        let keep = !draining
            && match head.minor {
                Minor::One => !option("close"),
                Minor::Zero => option("keep-alive") && !option("close"),
            };
        let expects =
            head.minor == Minor::One && has_body(framing) && Expectation::of(&head.fields) == Expectation::Continue;
        Reply {
            connection,
            method: head.method.clone(),
            minor: head.minor,
            framing,
            body: BodyReader::new(framing),
            expects,
            keep,
            mode: Mode::Head,
            looks_whole: false,
            sent: 0,
        }
    }

    /// Ends the exchange.
    pub async fn finish(mut self) -> After {
        let whole = matches!(self.mode, Mode::None | Mode::Length(0) | Mode::Chunked);
        match () {
            () if self.looks_whole => After::Reset,
            () if self.keep && whole && self.drain().await => After::Keep,
            () => After::Close,
        }
    }

    /// Reads what is left of the request's body, if that is worth it.
    async fn drain(&mut self) -> bool {
        // A client that still waits for its 100 may or may not send the body: that can't be told apart.
        if self.expects && !self.body.is_done() {
            return false;
        }
        let mut drained = 0;
        while let Ok(Some(piece)) = self.next().await {
            drained += piece.len();
            if drained > DRAIN_MAX {
                return false;
            }
        }
        self.body.is_done()
    }

    /// Puts the head into the output buffer and settles how the body is framed.
    fn put_head(&mut self, head: &ReplyHead<'_>, length: Option<u64>) {
        let out = &mut self.connection.output;
        // Once for the head and a body that will stand behind it, instead of growing line by line.
        let body = length.map_or(0, |length| usize::try_from(length).unwrap_or(COPY_MAX).min(COPY_MAX));
        out.reserve(HEAD_BYTES + body);
        match head.prepared {
            Some(prepared) => out.extend_from_slice(prepared),
            None => {
                put_status_line(out, head.status);
                head.fields.iter().for_each(|(name, value)| put_field(out, name, value));
            }
        }
        head.added.iter().for_each(|(name, value)| put_field(out, name, value));
        let bodiless = self.method == Method::HEAD
            || head.status == StatusCode::NO_CONTENT
            || head.status == StatusCode::NOT_MODIFIED;
        self.mode = match length {
            _ if bodiless => Mode::None,
            Some(length) => Mode::Length(length),
            None if self.minor == Minor::One => Mode::Chunked,
            None => Mode::UntilClose,
        };
        let tells_length =
            head.prepared.is_none() && head.status != StatusCode::NO_CONTENT && head.status != StatusCode::NOT_MODIFIED;
        match (length, self.mode) {
            (Some(length), _) if tells_length => put_field_number(out, "Content-Length", length),
            (_, Mode::Chunked) => put_field(out, "Transfer-Encoding", "chunked"),
            _ => {}
        }
        // A request body that won't be read to its end can't be followed by another request.
        let rest_is_large = matches!(self.framing, Framing::Length(length) if length > DRAIN_MAX as u64);
        let is_read = self.body.is_done() || !(self.expects || rest_is_large);
        self.keep &= self.mode != Mode::UntilClose && is_read;
        match (self.keep, self.minor) {
            (false, _) => put_field(out, "Connection", "close"),
            (true, Minor::Zero) => put_field(out, "Connection", "keep-alive"),
            (true, Minor::One) => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    async fn write(&mut self) -> Result<(), Gone> {
        if self.connection.output.is_empty() {
            return Ok(());
        }
        self.sent += self.connection.output.len() as u64;
        self.connection.write_output().await.map_err(|_| self.broken())
    }

    /// Writes the output buffer and then `body`, without copying it.
    async fn write_with(&mut self, mut body: Bytes) -> Result<(), Gone> {
        if body.len() <= COPY_MAX {
            self.connection.output.extend_from_slice(&body);
            return self.write().await;
        }
        self.sent += (self.connection.output.len() + body.len()) as u64;
        let Connection { stream, output, .. } = &mut *self.connection;
        while !output.is_empty() || !body.is_empty() {
            // Each write has its time, not the body: a large one to a slow client may take long.
            let slices = [IoSlice::new(output), IoSlice::new(&body)];
            let Ok(Ok(written @ 1..)) = timeout(WRITE_TIMEOUT, stream.write_vectored(&slices)).await else {
                return Err(self.broken());
            };
            let of_head = written.min(output.len());
            output.advance(of_head);
            body.advance(written - of_head);
        }
        match timeout(WRITE_TIMEOUT, stream.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.broken()),
        }
    }

    fn broken(&mut self) -> Gone {
        self.mode = Mode::Broken;
        Gone
    }
}

impl Client for Reply<'_> {
    fn scheme(&self) -> &'static str {
        self.connection.arrival.scheme
    }

    fn peer(&self) -> Option<IpAddr> {
        self.connection.arrival.peer.map(|peer| peer.ip())
    }

    fn abandon_body(&mut self) {
        self.keep = false;
    }

    fn inbound(&mut self) -> (Framing, &mut dyn Inbound) {
        (self.framing, self)
    }

    async fn whole(&mut self, head: ReplyHead<'_>, body: Bytes) -> Result<(), Gone> {
        self.put_head(&head, Some(body.len() as u64));
        if self.mode == Mode::None {
            return self.write().await;
        }
        self.mode = Mode::Length(0);
        self.write_with(body).await
    }

    fn begin(&mut self, head: ReplyHead<'_>, length: Option<u64>) {
        self.put_head(&head, length);
    }

    async fn piece(&mut self, piece: Bytes) -> Result<(), Gone> {
        match self.mode {
            Mode::None => return Ok(()),
            Mode::Length(left) => {
                let Some(left) = left.checked_sub(piece.len() as u64) else { return Err(self.broken()) };
                self.mode = Mode::Length(left);
            }
            Mode::Chunked => {
                put_chunk(&mut self.connection.output, &piece);
                return if self.connection.output.len() > COPY_MAX { self.write().await } else { Ok(()) };
            }
            Mode::UntilClose => {}
            Mode::Head | Mode::Broken => return Err(self.broken()),
        }
        if self.connection.output.len() + piece.len() > COPY_MAX {
            return self.write_with(piece).await;
        }
        self.connection.output.extend_from_slice(&piece);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.write().await
    }

    async fn end(&mut self) -> Result<(), Gone> {
        match self.mode {
            Mode::Chunked => self.connection.output.extend_from_slice(LAST_CHUNK),
            // The body was shorter than its head said.
            Mode::Length(1..) => return Err(self.broken()),
            _ => {}
        }
        self.write().await
    }

    fn cut(&mut self) {
        self.looks_whole = self.mode == Mode::UntilClose;
        self.mode = Mode::Broken;
    }

    fn sent(&self) -> u64 {
        self.sent
    }
}

#[async_trait]
impl Inbound for Reply<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, InboundError> {
        if self.expects && !self.body.is_done() {
            self.connection.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.expects = false;
            self.connection.write_output().await.map_err(|_| InboundError::Malformed)?;
        }
        loop {
            match self.body.step(&mut self.connection.input).map_err(|_| InboundError::Malformed)? {
                Step::Data(piece) => return Ok(Some(piece)),
                Step::End { .. } => return Ok(None),
                Step::NeedMore => {}
            }
            match timeout(BODY_TIMEOUT, self.connection.read_more()).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return Err(InboundError::Malformed),
                Err(_) => return Err(InboundError::TooSlow),
            }
        }
    }

    async fn interim(&mut self, head: &ResponseHead) {
        // Version 1.0 has no interim answers, and leave is for who asked for it (RFC 9110 §15.2).
        let is_leave = head.status == StatusCode::CONTINUE;
        if self.minor == Minor::Zero || (is_leave && !std::mem::take(&mut self.expects)) {
            return;
        }
        let out = &mut self.connection.output;
        put_status_line(out, head.status);
        for (name, value) in
            hop::end_to_end(&head.fields).filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"))
        {
            put_field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        // A client that is gone is noticed with the final answer.
        let _ = self.write().await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use millpond_shared::http1::{Limits, request_framing, take_request};
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::front::connection::Arrival;

    const ARRIVAL: Arrival = Arrival { scheme: "http", peer: None };

    fn asked(head: &str) -> (RequestHead, Framing) {
        let head = take_request(&mut BytesMut::from(head), &Limits::default()).expect("valid").expect("whole");
        let framing = request_framing(&head.fields, head.minor).expect("valid");
        (head, framing)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_pauses_within_its_body_is_told_apart_from_one_that_leaves() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut connection = Connection::new(Box::new(ours), ARRIVAL);
        let (head, framing) = asked("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
        theirs.write_all(b"body").await.expect("room");
        let mut reply = Reply::new(&mut connection, &head, framing, false);
        assert_eq!(reply.next().await, Ok(Some(Bytes::from_static(b"body"))));
        let paused = timeout(BODY_TIMEOUT - Duration::from_secs(1), reply.next()).await;
        assert!(paused.is_err(), "it is waited for");
        assert_eq!(reply.next().await, Err(InboundError::TooSlow));
        drop(theirs);
        assert_eq!(reply.next().await, Err(InboundError::Malformed));
    }

    #[tokio::test]
    async fn leave_to_send_a_body_is_given_once() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut connection = Connection::new(Box::new(ours), ARRIVAL);
        let (head, framing) = asked("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
        let mut reply = Reply::new(&mut connection, &head, framing, false);
        let leave = ResponseHead { status: StatusCode::CONTINUE, minor: Minor::One, fields: Default::default() };
        reply.interim(&leave).await;
        reply.interim(&leave).await;
        theirs.write_all(b"body").await.expect("room");
        assert_eq!(reply.next().await, Ok(Some(Bytes::from_static(b"body"))));
        drop(connection);
        let mut told = String::new();
        theirs.read_to_string(&mut told).await.expect("text");
        assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n");
    }
}
