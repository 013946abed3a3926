//! Heads of answers as HTTP/2 has them: names in lower case, no start line, nothing of the connection.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::gateway::ReplyHead;

/// The head of an answer whose body has `length` bytes, if that is known; and its size, before compression.
pub(super) fn response(head: &ReplyHead<'_>, length: Option<u64>) -> (Response<()>, u64) {
    let mut fields = HeaderMap::with_capacity(head.fields.len_max() + head.added.len() + 1);
    match head.prepared {
        Some(prepared) => put_prepared(&mut fields, prepared),
        None => {
            for (name, value) in head.fields.iter() {
                put(&mut fields, name.as_bytes(), HeaderValue::from_bytes(value).ok());
            }
            let has_length = !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            if let Some(length) = length.filter(|_| has_length) {
                fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
    }
    for (name, value) in &head.added {
        put(&mut fields, name.as_bytes(), HeaderValue::from_str(value).ok());
    }
    with_size(head.status, fields)
}

/// The same for a head that was serialised for HTTP/1.1: it is cut up, and the values stay where they are.
pub(super) fn prepared(status: StatusCode, head: &Bytes) -> (Response<()>, u64) {
    let mut fields = HeaderMap::with_capacity(FIELDS_EXPECTED);
    put_prepared(&mut fields, head);
    with_size(status, fields)
}

/// Fields that room is made for at once.
const FIELDS_EXPECTED: usize = 12;

fn with_size(status: StatusCode, fields: HeaderMap) -> (Response<()>, u64) {
    let size = fields.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum();
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    (response, size)
}

/// The field lines behind a status line, up to the empty line, if there is one.
fn put_prepared(fields: &mut HeaderMap, prepared: &Bytes) {
    let mut ends = memchr::memchr_iter(b'\n', prepared);
    let Some(mut start) = ends.next().map(|end| end + 1) else { return };
    for end in ends {
        let line = prepared.get(start..end).unwrap_or_default();
        // They were written by us: `Name: value`, CR LF.
        if let Some(colon) = memchr::memchr(b':', line) {
            let value_end = end.saturating_sub(1);
            let value_start = (start + colon + 2).min(value_end);
            let value = HeaderValue::from_maybe_shared(prepared.slice(value_start..value_end));
            put(fields, line.get(..colon).unwrap_or_default(), value.ok());
        }
        start = end + 1;
    }
}

/// A value that HTTP/2 can't carry is left out.
fn put(fields: &mut HeaderMap, name: &[u8], value: Option<HeaderValue>) {
    if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name), value) {
        fields.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use millpond_shared::http1::Fields;

    use super::*;
    use crate::gateway::ReplyFields;

    fn pairs(response: &Response<()>) -> Vec<(&str, &[u8])> {
        response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn a_prepared_head_gives_the_same_as_its_fields() {
        let fields: Fields =
            [("X-Odd", &b"One  Two"[..]), ("Set-Cookie", b"a=1"), ("set-cookie", b"b: 2"), ("X-Empty", b"")]
                .into_iter()
                .collect();
        let prepared =
            Bytes::from_static(b"HTTP/1.1 200 OK\r\nX-Odd: One  Two\r\nSet-Cookie: a=1\r\nset-cookie: b: 2\r\nX-Empty: \r\nContent-Length: 7\r\n");
        let added = || vec![("Cache-Status", "Millpond; hit".to_owned())];
        let head = |prepared| ReplyHead {
            status: StatusCode::OK,
            fields: ReplyFields::All(&fields),
            prepared,
            added: added(),
        };
        let (one, one_size) = response(&head(Some(&prepared)), Some(7));
        let expected: Vec<(&str, &[u8])> = vec![
            ("x-odd", b"One  Two"),
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b: 2"),
            ("x-empty", b""),
            ("content-length", b"7"),
            ("cache-status", b"Millpond; hit"),
        ];
        assert_eq!(pairs(&one), expected);
        let (other, other_size) = response(&head(None), Some(7));
        assert_eq!((pairs(&other), other_size), (expected, one_size));
    }

    #[test]
    fn a_304_tells_no_length() {
        let fields = Fields::default();
        let head = ReplyHead {
            status: StatusCode::NOT_MODIFIED,
            fields: ReplyFields::All(&fields),
            prepared: None,
            added: Vec::new(),
        };
        assert!(response(&head, Some(0)).0.headers().is_empty());
    }
}
