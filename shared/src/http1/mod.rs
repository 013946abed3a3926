//! The HTTP/1.1 codec: bytes in, verdict out (RFC 9112). Pure: no I/O, no clock, no runtime.
//!
//! One head parser, one body reader and one serialiser serve both sides: the proxy's clients, its origins, and the
//! origin roles' own servers and clients. It is strict: what RFC 9112 lets a recipient forgive is refused, since
//! whatever two parsers read differently can be used to smuggle a request.
//!
//! `head` (start line, fields) → `target`, `host`, `normal` (what was asked for) → `framing` (where the body ends) →
//! `body` and `chunk` (its bytes); `write` is the way back.

mod body;
mod chunk;
mod fields;
mod framing;
mod head;
mod host;
mod normal;
mod target;
#[cfg(test)]
mod tests;
mod write;

pub use body::{BodyReader, Step};
pub use fields::{Fields, FieldsBuilder};
pub use framing::{Framing, request_framing, response_framing};
pub use head::{Limits, RequestHead, ResponseHead, take_request, take_response};
pub use host::Authority;
pub use normal::normal;
pub use target::{Target, origin_form};
pub use write::{LAST_CHUNK, put_chunk, put_field, put_field_number, put_request_line, put_status_line, reason_phrase};

use http::StatusCode;

/// Minor version of HTTP/1: all that is left of the version once the head was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Minor {
    Zero,
    One,
}

/// Why a message was not accepted. A client gets `status`; an origin's message becomes 502 whatever it says.
///
/// The connection that carried the message is closed after the answer: where it ends can't be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    pub status: StatusCode,
    pub why: &'static str,
}

impl Refusal {
    pub(crate) const fn bad(why: &'static str) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, why }
    }
}
