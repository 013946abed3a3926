//! The body of a request, as its handler wants it.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use millpond_shared::clock;
use millpond_shared::http1::{BodyReader, Framing, Minor, RequestHead, Step};
use millpond_shared::wire::Taker;
use tokio::io::AsyncReadExt;
use tokio::time::{timeout, timeout_at};

use super::connection::{Connection, READ_BYTES};
use super::end::{End, body_too_slow, no_room, too_large, too_slow};
use super::{Answer, Share, refusal};

impl Connection {
    /// The whole of a body. What came with its head is in the connection's buffer and needs no room of its own; beyond
    /// that a body takes as much as has come of it, whatever it promises.
    pub(super) async fn body(
        &mut self,
        head: &RequestHead,
        framing: Framing,
        limit: u64,
        share: &mut Share,
    ) -> Result<Bytes, End> {
        if let Framing::Length(length) = framing
            && length > limit
        {
            return Err(too_large(limit));
        }
        self.expectation(head, framing).await?;
        let began = clock::monotonic();
        if let Framing::Length(length @ ..=IN_BUFFER_MAX_BYTES) = framing {
            self.read_whole(length as usize, began, share).await?;
        }
        let mut reader = BodyReader::new(framing);
        let mut whole = Bytes::new();
        let mut parts = BytesMut::new();
        loop {
            match reader.step(&mut self.buf)? {
                Step::Data(data) if whole.is_empty() && parts.is_empty() => whole = data,
                Step::Data(data) => {
                    parts.extend_from_slice(&std::mem::take(&mut whole));
                    parts.extend_from_slice(&data);
                }
                Step::End { .. } if parts.is_empty() => return Ok(whole),
                Step::End { .. } => return Ok(parts.freeze()),
                Step::NeedMore => {
                    self.more_of_body(whole.len() + parts.len(), READ_BYTES, began, share).await?;
                }
            }
            if (whole.len() + parts.len()) as u64 > limit {
                return Err(too_large(limit));
            }
        }
    }

    /// Reads on until a body of `length` bytes is in the connection's buffer, so that it needs not be put together. Room is
    /// asked for as it comes: 16 KiB, or as much as is here by then. What did not come with the head takes its share.
    async fn read_whole(&mut self, length: usize, began: Instant, share: &mut Share) -> Result<(), End> {
        if self.buf.len() >= length {
            return Ok(());
        }
        self.held_a_body = true;
        while self.buf.len() < length {
            let (come, missing) = (self.buf.len(), length - self.buf.len());
            self.more_of_body(come, missing.min(come.max(READ_BYTES)), began, share).await?;
        }
        share.grow_to(length as u64).map_err(no_room)
    }

    /// Reads on in a body of which `come` bytes are here, into `room` bytes or more.
    async fn more_of_body(&mut self, come: usize, room: usize, began: Instant, share: &mut Share) -> Result<(), End> {
        share.grow_to(come as u64).map_err(no_room)?;
        let due = began + self.shared.limits.body_due(come as u64);
        match timeout_at(due.into(), self.more(room)).await {
            Ok(more) => more,
            Err(_) => Err(body_too_slow(&self.shared.limits)),
        }
    }

    /// Hands a body on as it arrives.
    pub(super) async fn pieces(
        &mut self,
        head: &RequestHead,
        framing: Framing,
        mut taker: Box<dyn Taker + '_>,
    ) -> Result<Response<Bytes>, End> {
        self.expectation(head, framing).await?;
        let mut reader = BodyReader::new(framing);
        let limit = self.shared.limits.piece_time;
        loop {
            match reader.step(&mut self.buf)? {
                Step::Data(piece) => {
                    taker.take(piece).await.map_err(End::Answered)?;
                }
                Step::End { .. } => return Ok(taker.end().await),
                Step::NeedMore => match timeout(limit, self.more(READ_BYTES)).await {
                    Ok(more) => more?,
                    Err(_) => return Err(too_slow("the next piece of the body", limit)),
                },
            }
        }
    }

    /// Answers a request whose body is not wanted: what is here of it is passed over if that is all of it, else the
    /// connection ends.
    pub(super) fn skip(
        &mut self,
        framing: Framing,
        response: Box<Response<Bytes>>,
    ) -> Result<(Answer, Option<Share>), End> {
        let mut reader = BodyReader::new(framing);
        loop {
            match reader.step(&mut self.buf)? {
                Step::Data(_) => {}
                Step::End { .. } => return Ok((Answer::Full(*response), None)),
                Step::NeedMore => return Err(End::Answered(response)),
            }
        }
    }

    /// A client that waits for leave to send its body gets it (RFC 9110 §10.1.1).
    async fn expectation(&mut self, head: &RequestHead, framing: Framing) -> Result<(), End> {
        for expected in head.fields.list("expect") {
            if !expected.eq_ignore_ascii_case("100-continue") {
                let problem = "the Expect field asks for something other than 100-continue";
                let response = refusal(StatusCode::EXPECTATION_FAILED, problem, "leave the field out");
                return Err(End::Refused("expectation", Box::new(response)));
            }
            let body_is_coming = framing != Framing::None && self.buf.is_empty();
            if head.minor == Minor::One && body_is_coming {
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
        }
        Ok(())
    }

    pub(super) async fn more(&mut self, room: usize) -> Result<(), End> {
        self.buf.reserve(room);
        match self.stream.read_buf(&mut self.buf).await {
            Ok(1..) => Ok(()),
            _ => Err(End::Closed),
        }
    }
}

/// Longest body that is put together in the connection's buffer, in bytes. A longer one is put together beside it, as it
/// would be moved time and again in there.
const IN_BUFFER_MAX_BYTES: u64 = 64 * 1024;
