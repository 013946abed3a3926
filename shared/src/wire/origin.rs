//! The trait by which the proxy reaches an origin role of its own process: a call in place of a socket.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

/// An origin role in the same process, called instead of a socket. It answers what its socket would answer.
#[async_trait]
pub trait Origin: Send + Sync {
    /// What it wants of the body of a request, by its head and the length of the body in bytes, if that is known.
    fn intake(&self, _head: &Request<()>, _length: Option<u64>) -> Intake<'_> {
        Intake::Whole { max_bytes: u64::MAX }
    }

    /// Answers a request whose body it wanted whole.
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes>;
}

/// What is to be done with the body of a request.
pub enum Intake<'a> {
    /// It is read to its end; beyond so many bytes the request is answered 413.
    Whole { max_bytes: u64 },
    /// It goes, piece by piece as it arrives, to who takes it, and may have any length.
    Pieces(Box<dyn Taker + 'a>),
    /// It is not read: this is the answer.
    Nothing(Box<Response<Bytes>>),
}

/// Takes a body piece by piece.
#[async_trait]
pub trait Taker: Send {
    /// Takes the next piece. The next one is read when this has returned, so that a sender is never faster than what
    /// becomes of its body. `Err` ends the request with that answer.
    async fn take(&mut self, piece: Bytes) -> Result<(), Box<Response<Bytes>>>;

    /// The body is complete.
    async fn end(self: Box<Self>) -> Response<Bytes>;
}
