//! What an origin is told of the client (pure).

use std::net::IpAddr;

use millpond_shared::http1::RequestHead;

use crate::rules::Sender;
use crate::rules::guarded::{FOR, FORWARDED, HOST, PROTO};

/// Tells the origin who asked, and for what.
pub(super) fn put(request: &RequestHead, sender: &Sender, put: &mut impl FnMut(&str, &[u8])) {
    let fields = &request.fields;
    let told = |name: &str| if sender.trusted { joined(fields.get_all(name)) } else { Vec::new() };
    if let Some(address) = sender.address {
        put(FOR, &followed_by(told(FOR), &address.to_string()));
        let before = told(FORWARDED);
        // Who does not send it need not be told with it.
        if !before.is_empty() {
            put(FORWARDED, &followed_by(before, &format!("for={};proto={}", node(address), sender.scheme)));
        }
    }
    let or = |told: Vec<u8>, own: &str| if told.is_empty() { own.as_bytes().to_vec() } else { told };
    put(PROTO, &or(told(PROTO), sender.scheme));
    put(HOST, &or(told(HOST), request.authority.as_str()));
}

/// An address as `Forwarded` has it (RFC 7239 §6).
fn node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    }
}

fn joined<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(&b", "[..])
}

fn followed_by(mut list: Vec<u8>, last: &str) -> Vec<u8> {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last.as_bytes());
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_forwarded_has_them() {
        assert_eq!(node("10.0.0.1".parse().expect("an address")), "10.0.0.1");
        assert_eq!(node("fd00::1".parse().expect("an address")), "\"[fd00::1]\"");
    }
}
