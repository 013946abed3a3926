//! The body of a request on its way to an origin, and the answer whose body is still to be read.

use bytes::Bytes;
use http::{Method, StatusCode};
use millpond_shared::http1::{Fields, Framing, Minor, ResponseHead};

use super::OriginError;
use super::exchange::{Inbound, UpstreamBody};

/// The client's part in asking an origin: the body it sends meanwhile, and the interim answers it hears.
pub struct Payload<'a> {
    /// How the body is framed; [`Framing::None`]: none is sent.
    pub framing: Framing,
    /// `None`: nobody waits for this answer.
    pub client: Option<&'a mut dyn Inbound>,
    /// Most bytes of the body; beyond it [`OriginError::RequestTooLarge`].
    pub body_max: u64,
}

impl<'a> Payload<'a> {
    /// Without a body.
    pub fn none(client: Option<&'a mut (dyn Inbound + '_)>) -> Payload<'a> {
        let client = client.map(|client| client as &mut dyn Inbound);
        Payload { framing: Framing::None, client, body_max: 0 }
    }
}

/// Head of an answer, and its body.
#[derive(Debug)]
pub struct Answer {
    pub head: ResponseHead,
    /// Whether it answers a HEAD: `Content-Length` then tells of a body that does not come.
    pub head_only: bool,
    pub body: Body,
}

/// A body that is read piece by piece.
#[derive(Debug)]
pub struct Body {
    /// What is given before the rest; empty unless something was held already.
    held: Bytes,
    source: Source,
    /// Length in bytes if it was declared or is known.
    pub length: Option<u64>,
}

#[derive(Debug)]
enum Source {
    Whole(Bytes),
    Upstream(UpstreamBody),
}

impl Answer {
    /// An answer that is all there.
    pub fn whole(method: &Method, status: StatusCode, fields: Fields, body: Bytes) -> Answer {
        let head_only = *method == Method::HEAD;
        let body = if head_only { Bytes::new() } else { body };
        let length = Some(body.len() as u64);
        let head = ResponseHead { status, minor: Minor::One, fields };
        Answer { head, head_only, body: Body { held: Bytes::new(), source: Source::Whole(body), length } }
    }

    pub(super) fn streamed(method: &Method, head: ResponseHead, framing: Framing, body: UpstreamBody) -> Answer {
        let length = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let head_only = *method == Method::HEAD;
        Answer { head, head_only, body: Body { held: Bytes::new(), source: Source::Upstream(body), length } }
    }
}

impl Body {
    /// The same body, with `held` before it.
    pub fn after(mut self, held: Bytes) -> Body {
        self.length = self.length.map(|length| length + held.len() as u64);
        self.held = held;
        self
    }

    /// The next piece, never empty; `None`: the body is complete. After an error there is no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        if !self.held.is_empty() {
            return Ok(Some(std::mem::take(&mut self.held)));
        }
        match &mut self.source {
            Source::Whole(bytes) => Ok(Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())),
            Source::Upstream(body) => body.next().await,
        }
    }

    /// The next piece if it is already here.
    pub fn ready(&mut self) -> Result<Ready, OriginError> {
        if !self.held.is_empty() {
            return Ok(Ready::Piece(std::mem::take(&mut self.held)));
        }
        match &mut self.source {
            Source::Whole(bytes) if bytes.is_empty() => Ok(Ready::End),
            Source::Whole(bytes) => Ok(Ready::Piece(std::mem::take(bytes))),
            Source::Upstream(body) => body.ready(),
        }
    }
}

/// What there is of a body without waiting.
#[derive(Debug)]
pub enum Ready {
    Piece(Bytes),
    End,
    NotYet,
}
