//! Fields that end at this hop, and the rest, which is forwarded and stored (RFC 9110 §7.6.1, RFC 9111 §3.1).

use millpond_shared::http1::{Fields, RequestHead};

use super::list::{self, Quoted};

/// The fields of a message that may be forwarded or stored, in their order.
///
/// `Host` and `Content-Length` stay in even if `Connection` names them: they are made anew for the next hop, and a
/// peer must not be able to take a message's target or length away.
pub fn end_to_end(fields: &Fields) -> impl Iterator<Item = (&str, &[u8])> {
    let options = ConnectionOptions::of(fields);
    fields.iter().filter(move |(name, _)| !is_hop_by_hop(name, &options))
}

/// Whether the field called `name` ends at this hop.
///
/// The three fields of proxy authentication do, too: they concern the proxy that asked for them (RFC 9110 §11.7) and
/// must not be stored (RFC 9111 §3.1).
pub fn is_hop_by_hop(name: &str, options: &ConnectionOptions<'_>) -> bool {
    is(ALWAYS, name.as_bytes()) || (options.names(name) && !is(NEVER, name.as_bytes()))
}

/// How often the request may still be forwarded (RFC 9110 §7.6.2); `None`: it does not say, or not in a number.
pub fn max_forwards(request: &RequestHead) -> Option<u64> {
    let text = request.fields.get_str("max-forwards")?;
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

const ALWAYS: &[&str] = &[
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const NEVER: &[&str] = &["content-length", "host"];

fn is(names: &[&str], name: &[u8]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// The members of `Connection`.
#[derive(Clone, Debug)]
pub struct ConnectionOptions<'a> {
    options: Vec<&'a [u8]>,
}

impl<'a> ConnectionOptions<'a> {
    pub fn of(fields: &'a Fields) -> ConnectionOptions<'a> {
        let lines = fields.get_all("connection");
        ConnectionOptions { options: lines.flat_map(|line| list::members(line, Quoted::Strings)).collect() }
    }

    /// Whether `option` is listed, in any case.
    pub fn names(&self, option: &str) -> bool {
        self.options.iter().any(|listed| listed.eq_ignore_ascii_case(option.as_bytes()))
    }

    /// The options that take away a field which would otherwise reach the other end.
    pub(super) fn end_to_end(&self) -> impl Iterator<Item = &'a str> {
        let options = self.options.iter().filter(|option| !is(ALWAYS, option) && !is(NEVER, option));
        options.filter_map(|option| std::str::from_utf8(option).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;

    #[test]
    fn what_connection_names_and_what_is_known_goes() {
        let message = fields(
            "Host: a
             Connection: close, X-Drop
             Cache-Control: max-age=1
             connection: x-also, host, content-length
             X-Drop: 1
             x-ALSO: 2
             X-Keep: 3
             Content-Length: 0
             Keep-Alive: timeout=5
             Proxy-Connection: keep-alive
             Proxy-Authenticate: Basic
             Proxy-Authorization: Basic x
             Proxy-Authentication-Info: x
             TE: trailers
             Trailer: X
             Transfer-Encoding: chunked
             Upgrade: h2c
             HTTP2-Settings: x
             Set-Cookie: a=1
             Set-Cookie: b=2",
        );
        let kept: Vec<_> = end_to_end(&message).map(|(name, _)| name).collect();
        assert_eq!(kept, ["Host", "Cache-Control", "X-Keep", "Content-Length", "Set-Cookie", "Set-Cookie"]);
    }

    #[test]
    fn an_odd_byte_does_not_hide_an_option() {
        let message: Fields = [("Connection", &b"\xff, x-drop"[..]), ("X-Drop", b"1")].into_iter().collect();
        assert_eq!(end_to_end(&message).count(), 0);
    }

    #[test]
    fn options_are_tokens_in_any_case() {
        let message = fields("Connection: Close ,, KEEP-alive\nConnection: x");
        let options = ConnectionOptions::of(&message);
        assert!(options.names("close") && options.names("keep-alive") && options.names("X"));
        assert!(!options.names("upgrade") && !options.names(""));
        assert_eq!(options.end_to_end().collect::<Vec<_>>(), ["Close", "x"]);
    }
}
