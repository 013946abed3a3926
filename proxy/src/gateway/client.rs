//! The client's side of a request, whatever protocol it speaks.

use std::future::Future;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::http1::{Fields, Framing};

use super::forward;
use crate::semantics::hop::{ConnectionOptions, is_hop_by_hop};
use crate::upstreams::Inbound;

/// The client is gone: nothing more can be sent.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

/// Fields that are added to an answer's own.
pub type Added = Vec<(&'static str, String)>;

/// Head of an answer.
pub struct ReplyHead<'a> {
    pub status: StatusCode,
    pub fields: ReplyFields<'a>,
    /// Status line and fields (with `Content-Length`) as HTTP/1.1 bytes, where they were serialised before.
    pub prepared: Option<&'a Bytes>,
    pub added: Added,
}

/// Fields of an answer: neither `Content-Length` nor anything hop-by-hop.
#[derive(Clone, Copy)]
pub enum ReplyFields<'a> {
    /// All of these.
    All(&'a Fields),
    /// Those of a response as it came which may be handed through.
    Relayed(&'a Fields),
}

impl<'a> ReplyFields<'a> {
    /// As many as there are, or a few more.
    pub fn len_max(&self) -> usize {
        let (ReplyFields::All(fields) | ReplyFields::Relayed(fields)) = self;
        fields.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let (fields, hop) = match *self {
            ReplyFields::All(fields) => (fields, None),
            ReplyFields::Relayed(fields) => (fields, Some(ConnectionOptions::of(fields))),
        };
        fields.iter().filter(move |(name, _)| match &hop {
            None => true,
            Some(hop) => !is_hop_by_hop(name, hop) && forward::is_relayed(name),
        })
    }
}

/// Sends one answer. Framing is the implementation's business.
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
