//! The cache key, and what of a request is forwarded (pure). One function builds both, for every way in.

use std::borrow::Cow;
use std::fmt;

use millpond_shared::http1::{RequestHead, Target};
use xxhash_rust::xxh3::xxh3_128;

use crate::rules::{Query, Rule, parameters, path_of};

/// Identity of a stored response: origin, scheme, host, path and query.
///
/// Its text is injective: the parts are joined by blanks, which none of them can hold.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    text: Box<str>,
}

/// 128-bit XXH3 of a key: what indexes are built over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub u128);

impl KeyHash {
    pub fn of(text: &str) -> KeyHash {
        KeyHash(xxh3_128(text.as_bytes()))
    }
}

/// The text of a key that somebody else holds, with its hash: what a look-up takes.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    pub text: &'a str,
    pub hash: KeyHash,
}

impl<'a> KeyRef<'a> {
    pub fn new(text: &'a str) -> KeyRef<'a> {
        KeyRef { text, hash: KeyHash::of(text) }
    }
}

impl Key {
    /// Key of a request under the rule that matched it.
    pub fn of(rule: &Rule, request: &RequestHead, scheme: &str) -> Key {
        let scheme = scheme_of(request, scheme);
        Key::build(rule, scheme, request.authority.normal(scheme), request.target.path_and_query())
    }

    /// `path` with query, `host` in its normal form.
    pub fn build(rule: &Rule, scheme: &str, host: &str, path: &str) -> Key {
        let mut text = String::new();
        put_key(&mut text, rule, scheme, host, path);
        Key { text: text.into() }
    }

    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.text)
    }

    pub fn borrowed(&self) -> KeyRef<'_> {
        KeyRef::new(&self.text)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URI's own origin (RFC 9110 §4.3.1) within the text: scheme, a blank, and the authority in its normal form.
    pub fn uri_origin(&self) -> &str {
        let behind = |text: &str, blanks: usize| text.match_indices(' ').nth(blanks).map_or(text.len(), |(at, _)| at);
        let (start, end) = (behind(&self.text, 0), behind(&self.text, 2));
        self.text.get(start + 1..end).unwrap_or_default()
    }
}

/// Appends the text of a key to `text`: the one place where keys are made, for every way in.
pub fn put_key(text: &mut String, rule: &Rule, scheme: &str, host: &str, path_and_query: &str) {
    for part in [rule.origin.as_str(), scheme, host] {
        text.push_str(part);
        text.push(' ');
    }
    put_forwarded_target(text, rule, path_and_query);
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Scheme a request is for: that of an absolute target, else that of the listener.
pub(crate) fn scheme_of<'a>(request: &'a RequestHead, listener: &'a str) -> &'a str {
    match &request.target {
        Target::Absolute { scheme, .. } => scheme,
        _ => listener,
    }
}

/// Path and query as the origin is asked: what is not in the key is not forwarded.
pub fn forwarded_target<'a>(rule: &Rule, path_and_query: &'a str) -> Cow<'a, str> {
    if matches!(rule.query, Query::AsItCame) {
        return Cow::Borrowed(path_and_query);
    }
    let mut target = String::with_capacity(path_and_query.len());
    put_forwarded_target(&mut target, rule, path_and_query);
    Cow::Owned(target)
}

fn put_forwarded_target(target: &mut String, rule: &Rule, path_and_query: &str) {
    let names = match &rule.query {
        Query::AsItCame => return target.push_str(path_and_query),
        Query::Only(names) => names,
    };
    let mut kept: Vec<(&str, &str)> =
        parameters(path_and_query).filter(|(name, _)| names.iter().any(|kept| kept == name)).collect();
    // Stable: the same name given twice keeps its order.
    kept.sort_by_key(|(name, _)| *name);
    target.push_str(path_of(path_and_query));
    for (index, (_, text)) in kept.iter().enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use millpond_shared::http1::{Limits, take_request};

    use super::*;

    fn rule(query: Query) -> Rule {
        Rule { query, ..Rule::everything("r", "api") }
    }

    #[test]
    fn only_named_parameters_count_and_are_forwarded() {
        let only = rule(Query::Only(vec!["page".to_owned(), "size".to_owned()]));
        let target = |path| forwarded_target(&only, path);
        assert_eq!(target("/a?utm_source=x&size=5&page=2"), "/a?page=2&size=5");
        assert_eq!(target("/a?page=2&page=1"), "/a?page=2&page=1");
        assert_eq!(target("/a?utm_source=x"), "/a");
        assert_eq!(target("/a?"), "/a");
        assert_eq!(forwarded_target(&rule(Query::AsItCame), "/a?b=1&a=2&"), "/a?b=1&a=2&");
    }

    #[test]
    fn the_uri_origin_is_scheme_and_authority() {
        let rule = rule(Query::AsItCame);
        assert_eq!(Key::build(&rule, "https", "a:81", "/x?y z").uri_origin(), "https a:81");
    }

    /// A target may name another scheme than the listener's, and then also the port that is the usual one is its own.
    #[test]
    fn the_usual_port_is_that_of_the_target() {
        let rule = rule(Query::AsItCame);
        let key = |target: &str| {
            let head = format!("GET {target} HTTP/1.0\r\n\r\n");
            let head =
                take_request(&mut BytesMut::from(head.as_str()), &Limits::default()).expect("valid").expect("whole");
            Key::of(&rule, &head, "http")
        };
        assert_eq!(key("https://a:443/x").as_str(), "api https a /x");
        assert_eq!(key("https://a:80/x").as_str(), "api https a:80 /x");
        assert_eq!(key("http://a:80/x").as_str(), "api http a /x");
    }

    #[test]
    fn keys_differ_where_anything_differs() {
        let rule = rule(Query::AsItCame);
        let keys = [
            Key::build(&rule, "http", "a", "/x"),
            Key::build(&rule, "https", "a", "/x"),
            Key::build(&rule, "http", "b", "/x"),
            Key::build(&rule, "http", "a:81", "/x"),
            Key::build(&rule, "http", "a", "/x?"),
            Key::build(&rule, "http", "a", "/x?y"),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(keys.iter().skip(index + 1).all(|other| other != key && other.hash() != key.hash()), "{key:?}");
        }
    }
}
