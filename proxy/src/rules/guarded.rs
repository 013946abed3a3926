//! Fields by which a client could make an origin see another client, or another request than the one that was judged
//! and keyed (pure).

use super::{Rule, Sender};

pub const FOR: &str = "X-Forwarded-For";
pub const PROTO: &str = "X-Forwarded-Proto";
pub const HOST: &str = "X-Forwarded-Host";
pub const FORWARDED: &str = "Forwarded";

/// Written by us for every origin.
pub const WRITTEN: [&str; 4] = [FOR, PROTO, HOST, FORWARDED];

/// By which proxies tell of the client; `X-Forwarded-*` is as well. From others they are lies.
const TOLD: [&str; 12] = [
    "cf-connecting-ip",
    "fastly-client-ip",
    "front-end-https",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-original-host",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-ip",
    "x-url-scheme",
];

/// By which a request asks to be taken for another one: another path, method or host, or (`Proxy`, CVE-2016-5385)
/// another proxy for what its script asks.
const OVERRIDES: [&str; 8] = [
    "proxy",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

const PREFIX: &str = "x-forwarded-";

/// Whether a rule has to name the field before a client can send it to an origin.
pub fn is_guarded(name: &str) -> bool {
    // Most names are through here.
    let begins = name.bytes().next().is_some_and(|first| b"cfptx".contains(&first.to_ascii_lowercase()));
    begins && (is_told(name) || is_one_of(name, &OVERRIDES))
}

impl Rule {
    /// Whether the field of a client stays here.
    pub fn holds_back(&self, name: &str, sender: &Sender) -> bool {
        is_guarded(name)
            && !self.forward.iter().any(|forwarded| forwarded.eq_ignore_ascii_case(name))
            && (is_one_of(name, &WRITTEN) || !(sender.trusted && is_told(name)))
    }
}

fn is_told(name: &str) -> bool {
    let begins = name.get(..PREFIX.len()).is_some_and(|start| is_same(start, PREFIX));
    begins || is_one_of(name, &TOLD) || is_one_of(name, &WRITTEN)
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| is_same(name, known))
}

/// Many servers hand `_` and `-` to what runs behind them as one character.
fn is_same(name: &str, known: &str) -> bool {
    let plain = |b: u8| if b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    name.len() == known.len() && name.bytes().map(plain).eq(known.bytes().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarded_names() {
        for name in [
            "X-Forwarded-For",
            "x-forwarded-anything",
            "Forwarded",
            "X-Real-IP",
            "X_Forwarded_Host",
            "X-Original-URL",
            "x_rewrite-url",
            "X-HTTP-Method-Override",
            "Proxy",
            "True-Client-IP",
        ] {
            assert!(is_guarded(name), "{name}");
        }
        for name in ["Accept", "X-Forward", "X-Request-Id", "Content-Type", "Cookie", "Proxy-Status", "TE", "From"] {
            assert!(!is_guarded(name), "{name}");
        }
    }
}
