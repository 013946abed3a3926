//! The authority a request is for: `Host`, or the target's own (RFC 9110 §7.2, RFC 9112 §3.2).

use super::{Fields, Minor, Refusal, Target};

/// A host and an optional port, in lower case, without user-info.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    text: String,
    host_length: usize,
}

impl Authority {
    /// An empty one: what an HTTP/1.0 request without `Host` is for.
    pub fn unknown() -> Authority {
        Authority { text: String::new(), host_length: 0 }
    }

    /// Accepts a registered name, an IPv4 address or an IPv6 literal, with an optional port from 0 to 65535.
    pub fn parse(text: &str) -> Option<Authority> {
        let host_length = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']')?;
                rest.get(..end)?.parse::<std::net::Ipv6Addr>().ok()?;
                end + 2
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                let name = text.get(..end)?;
                let valid = !name.is_empty() && name.len() <= 253 && registered_name(name);
                valid.then_some(end)?
            }
        };
        let port = text.get(host_length..)?;
        let port_is_valid = match port.strip_prefix(':') {
            Some(digits) => {
                (1..=5).contains(&digits.len())
                    && digits.bytes().all(|b| b.is_ascii_digit())
                    && digits.parse::<u16>().is_ok()
            }
            None => port.is_empty(),
        };
        port_is_valid.then(|| Authority { text: text.to_ascii_lowercase(), host_length })
    }

    /// Host and port as written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn host(&self) -> &str {
        self.text.get(..self.host_length).unwrap_or("")
    }

    pub fn port(&self) -> Option<u16> {
        self.text.get(self.host_length + 1..).and_then(|digits| digits.parse().ok())
    }

    /// Host, and port unless it is the scheme's own (RFC 9110 §4.2.3).
    pub fn normal(&self, scheme: &str) -> &str {
        match (scheme, self.port()) {
            ("http", Some(80)) | ("https", Some(443)) => self.host(),
            _ => self.as_str(),
        }
    }
}

/// Unreserved, percent-encoded and sub-delimiter bytes (RFC 3986 §3.2.2) without those that no host name holds and
/// that other parsers take for delimiters.
fn registered_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&b))
}

/// The authority of a request; refuses every request whose authority two readers could see differently.
pub(super) fn authority(target: &Target, fields: &Fields, minor: Minor) -> Result<Authority, Refusal> {
    let mut hosts = fields.get_all("host");
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::bad("there is more than one Host field"));
    }
    let host = host
        .map(|value| {
            std::str::from_utf8(value)
                .ok()
                .and_then(Authority::parse)
                .ok_or(Refusal::bad("the Host field is not a valid host and port"))
        })
        .transpose()?;
    let told = match target {
        Target::Absolute { scheme, authority, .. } => {
            Some((authority, host.as_ref().is_none_or(|host| host.normal(scheme) == authority.normal(scheme))))
        }
        // The scheme, and with it the port that Host may leave out, is known to the client alone (RFC 9110 §9.3.6).
        Target::Authority(authority) => {
            Some((authority, host.as_ref().is_none_or(|host| host == authority || host.as_str() == authority.host())))
        }
        Target::Origin(_) | Target::Asterisk => None,
    };
    match (told, host, minor) {
        (Some((_, false)), _, _) => {
            Err(Refusal::bad("the Host field differs from the authority of the request target"))
        }
        (_, None, Minor::One) => Err(Refusal::bad("the Host field is missing")),
        (Some((authority, true)), _, _) => Ok(authority.clone()),
        (None, Some(host), _) => Ok(host),
        (None, None, Minor::Zero) => Ok(Authority::unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for (text, host, port) in [
            ("Example.COM", "example.com", None),
            ("a:80", "a", Some(80)),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080)),
            ("[::1]:65535", "[::1]", Some(65535)),
            ("[2001:DB8::1]", "[2001:db8::1]", None),
            ("a_b.example", "a_b.example", None),
        ] {
            let authority = Authority::parse(text).expect(text);
            assert_eq!((authority.host(), authority.port()), (host, port), "{text}");
        }
        for wrong in [
            "", ":80", "a:", "a:65536", "a:+1", "a:1:2", "user@a", "a b", "a/b", "a?b", "a#b", "[::1", "[zz]", "::1",
            "a\\b", "a,b", "a%20b", "ä", "[::1]x", "[::1]:", "a:123456",
        ] {
            assert_eq!(Authority::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_default_port_is_not_part_of_the_name() {
        let normal = |text, scheme| Authority::parse(text).expect("valid").normal(scheme).to_owned();
        assert_eq!(normal("a:80", "http"), "a");
        assert_eq!(normal("a:443", "https"), "a");
        assert_eq!(normal("a:443", "http"), "a:443");
    }
}
