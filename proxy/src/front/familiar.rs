//! The last request head of a connection. The next one usually differs from it in its target only: then it is
//! recognised by comparing bytes, and neither parsed nor judged anew.

use millpond_shared::http1::{Framing, Limits, Minor, RequestHead, Target, origin_form};

use crate::semantics::request::{self, Ask, RequestVerdict};

/// Largest head that is remembered, in bytes: what an idle connection keeps.
const HEAD_MAX: usize = 1024;

pub(super) struct Familiar {
    head: RequestHead,
    ask: Ask,
    /// Where in the head the target stands.
    target: (usize, usize),
}

/// A request that the hot loop may answer.
pub(super) fn ask_of(head: &RequestHead, framing: Framing) -> Option<Ask> {
    let plain = head.minor == Minor::One
        && framing == Framing::None
        && matches!(head.target, Target::Origin(_))
        && !head.fields.contains("expect")
        && head.fields.list("connection").all(|option| option.eq_ignore_ascii_case("keep-alive"));
    match request::judge(head) {
        RequestVerdict::Lookup(ask) if plain && ask.range.is_none() => Some(ask),
        RequestVerdict::Lookup(_) | RequestVerdict::Pass(_) => None,
    }
}

impl Familiar {
    /// Remembers a head that [`ask_of`] took; `None`: it is too large.
    pub fn new(head: &RequestHead, ask: Ask) -> Option<Box<Familiar>> {
        let raw = head.fields.raw();
        let start = head.method.as_str().len() + 1;
        let end = start + head.target.path_and_query().len();
        let tail = raw.get(end..).filter(|_| raw.len() <= HEAD_MAX)?;
        debug_assert!(tail.starts_with(b" HTTP/1."), "the head is as it came");
        let head = RequestHead { fields: head.fields.detached(), ..head.clone() };
        Some(Box::new(Familiar { head, ask, target: (start, end) }))
    }

    /// The target of the request at the front of `bytes`, and the request's length, if it is this one up to its target.
    pub fn recognise<'a>(&self, bytes: &'a [u8]) -> Option<(&'a str, usize)> {
        let (raw, (start, end)) = (self.head.fields.raw(), self.target);
        let (before, tail) = (raw.get(..start)?, raw.get(end..)?);
        let rest = bytes.strip_prefix(before)?;
        let length = memchr::memchr(b' ', rest)?;
        if length > Limits::default().target_bytes || !rest.get(length..)?.starts_with(tail) {
            return None;
        }
        Some((origin_form(rest.get(..length)?)?, before.len() + length + tail.len()))
    }

    /// The head; its target is that of the request it was remembered from.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    pub fn ask(&self) -> &Ask {
        &self.ask
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use millpond_shared::http1::{request_framing, take_request};

    use super::*;

    fn parsed(bytes: &[u8]) -> Option<RequestHead> {
        take_request(&mut BytesMut::from(bytes), &Limits::default()).ok().flatten()
    }

    fn familiar(bytes: &[u8]) -> Option<Box<Familiar>> {
        let head = parsed(bytes)?;
        let framing = request_framing(&head.fields, head.minor).ok()?;
        Familiar::new(&head, ask_of(&head, framing)?)
    }

    #[test]
    fn only_plain_requests_are_taken() {
        for (request, taken) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("HEAD /a?b HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nX-A: 1\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", false),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ] {
            assert_eq!(familiar(request.as_bytes()).is_some(), taken, "{request}");
        }
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(HEAD_MAX));
        assert!(familiar(large.as_bytes()).is_none());
    }

    /// Whatever is recognised, the parser reads the same way.
    #[test]
    fn recognised_is_what_the_parser_accepts() {
        let known = familiar(b"GET /a HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n").expect("plain");
        let tail = " HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        for target in ["/", "/b", "/b?c=d&e", "/%20", "//x", "/a#b", "/\u{e4}", "*", "", "http://a/b", "/a\tb", "/\x7f"]
        {
            let bytes = format!("GET {target}{tail}GET /next");
            let recognised = known.recognise(bytes.as_bytes());
            let head = parsed(bytes.as_bytes()).filter(|head| matches!(head.target, Target::Origin(_)));
            assert_eq!(recognised.map(|(target, _)| target), head.as_ref().map(|head| head.target.path_and_query()));
            if let Some((_, length)) = recognised {
                assert_eq!(bytes.get(length..), Some("GET /next"), "{target}");
            }
        }
        for other in [
            "GET /b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX: 1\r\n\r\n",
            "GET /b HTTP/1.1\r\nHost: b\r\nAccept: */*\r\n\r\n",
            "GET /b HTTP/1.0\r\nHost: a\r\nAccept: */*\r\n\r\n",
            "HEAD /b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
            "GET  /b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
            "GET /b  HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
            "GET /b HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r",
            "GET /b",
            "",
        ] {
            assert_eq!(known.recognise(other.as_bytes()), None, "{other}");
        }
        let long = format!("GET /{}{tail}", "a".repeat(Limits::default().target_bytes));
        assert_eq!(known.recognise(long.as_bytes()), None, "the parser answers 414");
    }
}
