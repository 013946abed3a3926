//! The serialised head of a stored response, and the fields read back from it.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use memchr::memchr;
use millpond_shared::http1::{Fields, put_field, put_field_number, put_status_line};

use crate::semantics::coding::{self, Coding};

/// Status line and fields for a body of `length` bytes, without the empty line.
pub fn serialised(status: StatusCode, fields: &Fields, length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(64 + fields.weight());
    put_status_line(&mut head, status);
    for (name, value) in fields.iter() {
        put_field(&mut head, name, value);
    }
    if status != StatusCode::NO_CONTENT {
        put_field_number(&mut head, "Content-Length", length as u64);
    }
    // Of its own size: it is kept for long.
    Bytes::copy_from_slice(&head)
}

/// The head of a response whose head is `of` (made by [`serialised`]), for its body in a coding, of `length` bytes.
pub fn coded(of: &[u8], coding: Coding, length: usize) -> Bytes {
    let (status_line, _) = line_off(of).unwrap_or_default();
    let mut head = BytesMut::with_capacity(of.len() + 64);
    head.extend_from_slice(status_line);
    head.extend_from_slice(b"\r\n");
    let is_kept = |name: &str| !coding::is_lost(name) && !name.eq_ignore_ascii_case("content-length");
    for (name, value) in lines(of).filter(|(name, _)| is_kept(name)) {
        match name.eq_ignore_ascii_case("etag") {
            true => put_field(&mut head, name, coding.tag(value)),
            false => put_field(&mut head, name, value),
        }
    }
    put_field(&mut head, "Content-Encoding", coding.token());
    put_field_number(&mut head, "Content-Length", length as u64);
    Bytes::copy_from_slice(&head)
}

/// Name and value of each field line of a head that [`serialised`] made.
pub fn lines(head: &[u8]) -> Lines<'_> {
    let (_, rest) = line_off(head).unwrap_or_default();
    Lines { rest }
}

/// The same of field lines without a status line before them.
pub fn lines_of(rest: &[u8]) -> Lines<'_> {
    Lines { rest }
}

/// The name on a field line.
pub fn name(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line.get(..memchr(b':', line)?)?).ok()
}

#[derive(Clone)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<(&'a str, &'a [u8])> {
        let (line, rest) = line_off(self.rest)?;
        self.rest = rest;
        let (name, value) = line.split_at_checked(memchr(b':', line)?)?;
        Some((std::str::from_utf8(name).ok()?, value.strip_prefix(b": ")?))
    }
}

/// The first line, without its end, and what follows. No name or value holds a carriage return.
fn line_off(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = text.split_at_checked(memchr(b'\r', text)?)?;
    Some((line, rest.strip_prefix(b"\r\n")?))
}
