//! Several parts in one body: `multipart/byteranges` (RFC 9110 §14.6, RFC 2046 §5.1.1).

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use millpond_shared::http1::put_field;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::semantics::range::{ContentRange, Span};

/// Boundaries that are tried, lest one stands in a part by chance or by design.
const BOUNDARIES_MAX: u64 = 16;

/// The body, in pieces that share the memory of the parts.
pub struct Multipart {
    pub content_type: String,
    pub pieces: Vec<Bytes>,
}

impl Multipart {
    /// `content_type` is that of the whole, of `complete` bytes. `None`: no boundary was found that stands in no part.
    pub fn of(parts: &[(Span, Bytes)], complete: u64, content_type: Option<&[u8]>) -> Option<Multipart> {
        let boundary = boundary(parts)?;
        let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
        for (at, (span, bytes)) in parts.iter().enumerate() {
            let mut head = BytesMut::new();
            head.extend_from_slice(if at == 0 { b"--" } else { b"\r\n--" });
            head.extend_from_slice(boundary.as_bytes());
            head.extend_from_slice(b"\r\n");
            if let Some(content_type) = content_type {
                put_field(&mut head, "Content-Type", content_type);
            }
            let range = ContentRange { span: span.clone(), complete: Some(complete) };
            put_field(&mut head, "Content-Range", range.to_string());
            head.extend_from_slice(b"\r\n");
            pieces.extend([head.freeze(), bytes.clone()]);
        }
        pieces.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
        Some(Multipart { content_type: format!("multipart/byteranges; boundary={boundary}"), pieces })
    }

    /// Bytes of the body.
    pub fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

fn boundary(parts: &[(Span, Bytes)]) -> Option<String> {
    let candidates = (0..BOUNDARIES_MAX).map(|seed| format!("millpond-{:016x}", xxh3_64_with_seed(b"boundary", seed)));
    let mut free = candidates
        .filter(|candidate| parts.iter().all(|(_, bytes)| memmem::find(bytes, candidate.as_bytes()).is_none()));
    free.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(multipart: &Multipart) -> String {
        multipart.pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect()
    }

    #[test]
    fn the_parts_stand_between_boundaries() {
        let parts = [(0..3, Bytes::from_static(b"abc")), (7..9, Bytes::from_static(b"\r\n"))];
        let made = Multipart::of(&parts, 20, Some(b"text/plain")).expect("a boundary");
        let boundary = made.content_type.strip_prefix("multipart/byteranges; boundary=").expect("the type");
        let expected = format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-2/20\r\n\r\nabc\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-8/20\r\n\r\n\r\n\r\n\
             --{boundary}--\r\n"
        );
        assert_eq!((text(&made), made.length()), (expected.clone(), expected.len() as u64));
        assert!(!text(&Multipart::of(&parts, 20, None).expect("a boundary")).contains("Content-Type"));
    }

    #[test]
    fn the_boundary_stands_in_no_part() {
        let boundary_of = |body: &str| boundary(&[(0..1, Bytes::from(body.to_owned()))]);
        let mut body = String::new();
        for _ in 0..BOUNDARIES_MAX {
            let found = boundary_of(&body).expect("one is left");
            assert!(!body.contains(&found));
            body += &found;
        }
        assert_eq!(boundary_of(&body), None);
    }
}
