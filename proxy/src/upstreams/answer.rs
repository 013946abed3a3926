//! The body of a request on its way to an origin, and the answer whose body is still to be read.

use std::collections::VecDeque;

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
    /// What is given before the rest: it was held already, or brought in before anybody asked for it.
    held: VecDeque<Bytes>,
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
        Answer { head, head_only, body: Body { held: VecDeque::new(), source: Source::Whole(body), length } }
    }

    pub(super) fn streamed(method: &Method, head: ResponseHead, framing: Framing, body: UpstreamBody) -> Answer {
        let length = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let head_only = *method == Method::HEAD;
        Answer { head, head_only, body: Body { held: VecDeque::new(), source: Source::Upstream(body), length } }
    }
}

impl Body {
    /// The same body, with `held` before it.
    pub fn after(mut self, held: Bytes) -> Body {
        self.length = self.length.map(|length| length + held.len() as u64);
        self.held.extend(Some(held).filter(|held| !held.is_empty()));
        self
    }

    /// The next piece, never empty; `None`: the body is complete. After an error there is no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        match self.held.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.source.next().await,
        }
    }

    /// Brings in what comes next, up to the piece with which it is `max` bytes.
    pub async fn hold(&mut self, max: usize) -> Result<(), OriginError> {
        let mut held = 0;
        while held < max
            && let Some(piece) = self.source.next().await?
        {
            held += piece.len();
            self.held.push_back(piece);
        }
        Ok(())
    }

    /// The next piece if it is already here.
    pub fn ready(&mut self) -> Result<Ready, OriginError> {
        match self.held.pop_front() {
            Some(piece) => Ok(Ready::Piece(piece)),
            None => self.source.ready(),
        }
    }
}

impl Source {
    async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        match self {
            Source::Whole(bytes) => Ok(Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())),
            Source::Upstream(body) => body.next().await,
        }
    }

    fn ready(&mut self) -> Result<Ready, OriginError> {
        match self {
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
