//! May the cache look at this request, and what does the client ask of it (RFC 9111 §4, §5.2.1)? Whatever the cache does
//! not implement is passed to the origin, which is always correct.

use std::borrow::Cow;

use http::Method;
use millpond_shared::http1::{Fields, Minor, RequestHead};

use super::cache_control::RequestDirectives;
use super::hop::ConnectionOptions;
use super::list::{self, Quoted};
use super::policy::ClientDirectives;
use super::range::{Ranges, Wanted};
use crate::outcome::Reason;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestVerdict {
    /// Look it up; on a miss the response may be stored, if `storability` agrees.
    Lookup(Ask),
    /// Hand it through: neither look up nor store.
    Pass(Reason),
}

/// What the client asks of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// HEAD: a stored GET response answers it without its body (RFC 9110 §9.3.1).
    pub head_only: bool,
    pub directives: RequestDirectives,
    /// The parts it asks for, if not the whole.
    pub range: Option<Ranges>,
    /// The request has `Authorization`: its response is shared only if it says so (RFC 9111 §3.5).
    pub authorized: bool,
    /// The request has `Cookie`, of which the rule says what it means ([`super::policy::Cookies`]).
    pub cookies: bool,
    /// Whether the request may wait for another one's fetch. Not if its response is likely to be for it alone:
    /// everyone behind it would have waited for nothing.
    pub collapse: bool,
}

impl Ask {
    /// What a GET without any directive asks; also what a refresh behind a stale answer asks.
    pub fn plain() -> Ask {
        let directives = RequestDirectives::default();
        Ask { head_only: false, directives, range: None, authorized: false, cookies: false, collapse: true }
    }

    /// The same without the wishes that are not heeded.
    pub fn heeded(&self, heed: &ClientDirectives) -> Cow<'_, Ask> {
        if *heed == ClientDirectives::default() {
            return Cow::Borrowed(self);
        }
        let directives = self.directives.heeded(heed);
        let collapse = !self.authorized && !directives.no_store;
        Cow::Owned(Ask { directives, collapse, ..self.clone() })
    }
}

/// Judges a request. A request with `no-store` is looked up (RFC 9111 §5.2.1.5) but its response is not stored.
///
/// `If-Range` says something of a `Range` only, and is ignored without one (RFC 9110 §13.1.5).
///
/// Two requests are read more narrowly than their fields: an `Upgrade` counts only where `Connection` names it and it
/// asks for more than `h2c`, which is obsolete (RFC 9113 §3.1) and yet sent by default by common clients; and a
/// request whose `Connection` takes an end-to-end field away passes, since the origin would answer a request that key
/// and `Vary` do not describe, and the wrong answer would be stored for everyone.
pub fn judge(request: &RequestHead) -> RequestVerdict {
    let head_only = request.method == Method::HEAD;
    // One pass: this runs for every request, hits included.
    let mut seen = Seen::default();
    for (name, value) in request.fields.iter() {
        seen.note(name, value);
    }
    // Only a GET has ranges (RFC 9110 §14.2).
    let wanted = if seen.range && !head_only { Ranges::of(&request.fields) } else { Wanted::Whole };
    let refusals = [
        (seen.upgrade && seen.connection && wants_upgrade(request), Reason::Upgrade),
        (!head_only && request.method != Method::GET, Reason::Method),
        (seen.body, Reason::RequestBody),
        (seen.connection && strips_a_field(&request.fields), Reason::HopByHop),
        (wanted == Wanted::Unknown, Reason::Range),
        (seen.precondition, Reason::Precondition),
    ];
    if let Some((_, reason)) = refusals.into_iter().find(|(applies, _)| *applies) {
        return RequestVerdict::Pass(reason);
    }
    let directives =
        if seen.directives { RequestDirectives::of(&request.fields) } else { RequestDirectives::default() };
    let collapse = !seen.authorized && !directives.no_store;
    let range = if let Wanted::Parts(ranges) = wanted { Some(ranges) } else { None };
    let Seen { authorized, cookies, .. } = seen;
    RequestVerdict::Lookup(Ask { head_only, directives, range, authorized, cookies, collapse })
}

/// Which fields of interest the request has.
#[derive(Default)]
struct Seen {
    upgrade: bool,
    connection: bool,
    body: bool,
    range: bool,
    precondition: bool,
    authorized: bool,
    cookies: bool,
    directives: bool,
}

impl Seen {
    fn note(&mut self, name: &str, value: &[u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("connection") {
            self.connection = true;
        } else if is("upgrade") {
            self.upgrade = true;
        } else if is("transfer-encoding") {
            self.body = true;
        } else if is("content-length") {
            self.body |= value.iter().any(|&b| b != b'0');
        } else if is("range") {
            self.range = true;
        } else if is("if-match") || is("if-unmodified-since") {
            self.precondition = true;
        } else if is("authorization") {
            self.authorized = true;
        } else if is("cookie") {
            self.cookies = true;
        } else if is("cache-control") || is("pragma") {
            self.directives = true;
        }
    }
}

fn wants_upgrade(request: &RequestHead) -> bool {
    let protocols = || request.fields.get_all("upgrade").flat_map(|line| list::members(line, Quoted::Strings));
    request.minor == Minor::One
        && ConnectionOptions::of(&request.fields).names("upgrade")
        && protocols().any(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
}

fn strips_a_field(fields: &Fields) -> bool {
    let options = ConnectionOptions::of(fields);
    options.end_to_end().any(|option| fields.contains(option))
}

#[cfg(test)]
mod tests {
    use super::super::cache_control::MaxStale;
    use super::super::sample::request;
    use super::*;

    fn ask(line: &str, lines: &str) -> Ask {
        match judge(&request(line, lines)) {
            RequestVerdict::Lookup(ask) => ask,
            RequestVerdict::Pass(reason) => panic!("{line} {lines} passes: {reason}"),
        }
    }

    #[test]
    fn passed() {
        for (line, lines, reason) in [
            ("POST /", "Content-Length: 0", Reason::Method),
            ("PUT /", "", Reason::Method),
            ("OPTIONS *", "", Reason::Method),
            ("FOO /", "", Reason::Method),
            ("get /", "", Reason::Method),
            ("GET /", "Content-Length: 1", Reason::RequestBody),
            ("GET /", "Content-Length: 010", Reason::RequestBody),
            ("HEAD /", "Transfer-Encoding: chunked", Reason::RequestBody),
            ("GET /", "Range: items=0-1", Reason::Range),
            ("GET /", "Range: bytes=0-1\nrange: bytes=2-3", Reason::Range),
            ("GET /", "If-Match: *", Reason::Precondition),
            ("GET /", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", Reason::Precondition),
            ("GET /", "Connection: upgrade\nUpgrade: websocket", Reason::Upgrade),
            ("GET /", "Connection: keep-alive, Upgrade\nUpgrade: h2c, websocket", Reason::Upgrade),
            ("POST /", "Connection: upgrade\nUpgrade: x", Reason::Upgrade),
            ("GET /", "Connection: Cookie\nCookie: a=b", Reason::HopByHop),
            ("GET /", "Connection: close, x-tenant\nX-Tenant: 7", Reason::HopByHop),
            ("GET /", "Connection: authorization\nAuthorization: Basic x", Reason::HopByHop),
        ] {
            assert_eq!(judge(&request(line, lines)), RequestVerdict::Pass(reason), "{line} {lines}");
        }
    }

    #[test]
    fn looked_up() {
        for (line, lines) in [
            ("GET /", ""),
            ("GET /", "Content-Length: 0"),
            ("GET /", "If-None-Match: \"a\""),
            ("GET /", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"),
            ("GET /", "If-Range: \"a\""),
            ("GET /", "Range: bytes=1-0"),
            ("GET /", "Upgrade: websocket"),
            ("GET /", "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk"),
            ("GET /", "Connection: close, keep-alive, te\nTE: trailers\nKeep-Alive: 5"),
            ("GET /", "Connection: x-absent"),
            ("GET /", "Connection: host, content-length\nContent-Length: 0"),
        ] {
            assert_eq!(ask(line, lines), Ask::plain(), "{line} {lines}");
        }
        let head = Ask { head_only: true, ..Ask::plain() };
        for lines in ["", "Range: bytes=0-1", "Range: items=0-1"] {
            assert_eq!(ask("HEAD /", lines), head, "{lines}");
        }
        let part = request("GET /", "range: bytes=0-1\nIf-Range: \"a\"");
        let Wanted::Parts(ranges) = Ranges::of(&part.fields) else { panic!("a range is asked for") };
        assert_eq!(judge(&part), RequestVerdict::Lookup(Ask { range: Some(ranges), ..Ask::plain() }));
    }

    #[test]
    fn directives_and_credentials() {
        let no_store = ask("GET /", "Cache-Control: no-store");
        assert!(no_store.directives.no_store && !no_store.collapse);
        assert_eq!(
            *no_store.heeded(&ClientDirectives { no_store: false, ..ClientDirectives::default() }),
            Ask::plain()
        );
        assert_eq!(*no_store.heeded(&ClientDirectives::default()), no_store);
        let authorized = ask("GET /", "authorization: Bearer x");
        assert!(authorized.authorized && !authorized.collapse);
        assert_eq!(ask("GET /", "cookie: a=b"), Ask { cookies: true, ..Ask::plain() });
        let no_cache = ask("GET /", "Pragma: no-cache");
        assert!(no_cache.directives.no_cache && no_cache.collapse);
        let stale = ask("GET /", "Cache-Control: max-stale=9, max-age=1, min-fresh=2, only-if-cached");
        let expected = RequestDirectives {
            max_stale: Some(MaxStale::Seconds(9)),
            max_age: Some(1),
            min_fresh: Some(2),
            only_if_cached: true,
            ..RequestDirectives::default()
        };
        assert_eq!(stale, Ask { directives: expected, ..Ask::plain() });
    }
}
