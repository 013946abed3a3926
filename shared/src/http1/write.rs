//! The serialiser: heads and chunks onto the end of a buffer.

use bytes::{BufMut, BytesMut};
use http::StatusCode;

/// The last chunk, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// `GET /path HTTP/1.1`
pub fn put_request_line(out: &mut BytesMut, method: &str, target: &str) {
    out.reserve(method.len() + target.len() + 16);
    out.put_slice(method.as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
}

/// `HTTP/1.1 200 OK`
pub fn put_status_line(out: &mut BytesMut, status: StatusCode) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(reason_phrase(status).as_bytes());
    out.put_slice(b"\r\n");
}

/// The registered reason phrase, or an empty one.
pub fn reason_phrase(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("")
}

/// One field line. The caller vouches for name and value: they come from a parsed head or from our own words.
pub fn put_field(out: &mut BytesMut, name: &str, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// One field line with a decimal number.
pub fn put_field_number(out: &mut BytesMut, name: &str, value: u64) {
    put_field(out, name, itoa::Buffer::new().format(value));
}

/// One chunk; nothing for no data, since an empty chunk would end the body.
pub fn put_chunk(out: &mut BytesMut, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.put_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.put_slice(data);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_chunk_is_never_written() {
        let mut out = BytesMut::new();
        put_chunk(&mut out, b"");
        assert!(out.is_empty());
        put_chunk(&mut out, &[b'a'; 300]);
        assert!(out.starts_with(b"12c\r\naaa") && out.ends_with(b"a\r\n"));
    }
}
