//! The client's side of a request, whatever protocol it speaks.

use std::future::Future;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::http1::{Fields, Framing};

use crate::upstreams::Inbound;

/// The client is gone: nothing more can be sent.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

/// Fields that are added to an answer's own.
pub type Added = Vec<(&'static str, String)>;

/// Head of an answer.
pub struct ReplyHead<'a> {
    pub status: StatusCode,
    pub fields: &'a Fields,
    /// Status line and fields (with `Content-Length`) as HTTP/1.1 bytes, where they were serialised before.
    pub prepared: Option<&'a Bytes>,
    pub added: Added,
}

/// Sends one answer. Framing is the implementation's business: `fields` hold neither `Content-Length` nor anything
/// hop-by-hop.
pub trait Client: Send {
    /// `http` or `https`.
    fn scheme(&self) -> &'static str;

    /// Framing of the request's body, and the body.
    fn inbound(&mut self) -> (Framing, &mut dyn Inbound);

    /// Sends a whole answer.
    fn whole(&mut self, head: ReplyHead<'_>, body: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Begins an answer whose body follows; `length`: its bytes, if known. Small writes are gathered until
    /// [`Client::flush`] or [`Client::end`].
    fn begin(&mut self, head: ReplyHead<'_>, length: Option<u64>);

    fn piece(&mut self, piece: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Sends what was gathered: to be called before anything is waited for.
    fn flush(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// The body is complete.
    fn end(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// The body broke off: the client must be able to tell.
    fn cut(&mut self);

    /// Bytes sent so far for this answer, head included.
    fn sent(&self) -> u64;
}
