//! The codec against RFC 9110 and RFC 9112, written from their text. What is refused although the text would let a
//! recipient take it says so in the table that refuses it.

mod body;
mod chunk;
mod fields;
mod framing;
mod head;
mod host;
mod limits;
mod response;
mod split;
mod target;

use bytes::BytesMut;

use super::*;

/// What became of some bytes: what was made of them, or the status they are refused with; `None`: more are needed.
type Verdict<T> = Result<Option<T>, u16>;

fn refused<T>(result: Result<T, Refusal>) -> Result<T, u16> {
    result.map_err(|refusal| refusal.status.as_u16())
}

/// The verdict on `bytes` that come all at once, as a request.
fn request(bytes: impl AsRef<[u8]>) -> Verdict<RequestHead> {
    refused(take_request(&mut BytesMut::from(bytes.as_ref()), &Limits::default()))
}

/// The same, as a response.
fn response(bytes: impl AsRef<[u8]>) -> Verdict<ResponseHead> {
    refused(take_response(&mut BytesMut::from(bytes.as_ref()), &Limits::default()))
}

fn is_taken<T>(verdict: &Verdict<T>) -> bool {
    matches!(verdict, Ok(Some(_)))
}

/// `before`, `byte`, `after`.
fn around(before: &str, byte: u8, after: &str) -> Vec<u8> {
    [before.as_bytes(), &[byte], after.as_bytes()].concat()
}

/// Bytes as a message of a failed assertion shows them.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// tchar (RFC 9110 §5.6.2), from the text.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field value or a reason phrase is made of (RFC 9110 §5.5, RFC 9112 §4): HTAB, SP, VCHAR, obs-text.
fn is_field_text(byte: u8) -> bool {
    matches!(byte, 0x09 | 0x20..=0x7e | 0x80..=0xff)
}
