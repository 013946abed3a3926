//! Head of a request on its way to an origin, made from the client's as it is written: nothing is built in between.

use std::borrow::Cow;
use std::time::Duration;

use http::Method;
use millpond_shared::http1::{Fields, FieldsBuilder, Minor, RequestHead};
use millpond_shared::wire::headers;

use super::forwarded;
use crate::key::forwarded_target;
use crate::live::Least;
use crate::rules::{Rule, Sender};
use crate::semantics::coding;
use crate::semantics::expectation::Expectation;
use crate::semantics::hop;
use crate::semantics::validate::{self, Validators};

/// Which conditions go to the origin, and whether a `Range` does.
#[derive(Clone, Copy, Debug)]
pub enum Conditions<'a> {
    /// The client's own, and its `Range`, since the answer is for it alone, or a part.
    Client,
    /// None: the whole response is wanted.
    None,
    /// Those that validate the stored response.
    Stored(&'a Fields),
    /// What comes from byte `from` on is wanted if the origin still has the representation of this strong entity tag,
    /// else the whole (RFC 9110 §13.1.5).
    Rest { from: u64, tag: &'a [u8] },
}

/// A request as it goes to the origin: untouched but for what HTTP demands of a proxy (RFC 9110 §7.6).
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    request: &'a RequestHead,
    rule: &'a Rule,
    sender: Option<&'a Sender>,
    target: Cow<'a, str>,
    conditions: Conditions<'a>,
    least: Least,
    /// Version of the shard map by which a shard is asked; 0 for who is none.
    map_version: u32,
    wants_identity: bool,
}

impl<'a> Outgoing<'a> {
    /// `least`: what a shard's answer must have reached; the default asks for nothing. `sender`: the client, if origins are
    /// told of clients.
    pub fn new(
        request: &'a RequestHead,
        rule: &'a Rule,
        conditions: Conditions<'a>,
        least: Least,
        sender: Option<&'a Sender>,
    ) -> Outgoing<'a> {
        let target = forwarded_target(rule, request.target.path_and_query());
        Outgoing { request, rule, sender, target, conditions, least, map_version: 0, wants_identity: false }
    }

    /// The same to the shard that owns the document by this version of the shard map.
    pub fn to_shard(&self, least: Least, map_version: u32) -> Outgoing<'a> {
        Outgoing { least, map_version, ..self.clone() }
    }

    /// The same for an answer that may be stored: where the rule puts codings on, the origin is asked for none.
    pub fn to_be_stored(self) -> Outgoing<'a> {
        Outgoing { wants_identity: self.rule.compress.is_some(), ..self }
    }

    /// Whether the client waits for leave to send its body: the origin is asked for it (RFC 9110 §10.1.1). What an
    /// HTTP/1.0 client says of it is ignored.
    pub fn expects_continue(&self) -> bool {
        self.request.minor == Minor::One && Expectation::of(&self.request.fields) == Expectation::Continue
    }

    /// Longest that the origin may stay silent.
    pub fn timeout(&self) -> Duration {
        self.rule.timeout
    }

    pub fn method(&self) -> &Method {
        &self.request.method
    }

    /// Path and query, or `*`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Gives each field to `put`, in order: end-to-end fields only, `Host` among them, without the body's framing.
    pub fn put_fields(&self, mut put: impl FnMut(&str, &[u8])) {
        let fields = &self.request.fields;
        // The target decides (RFC 9112 §3.2.2), and Host comes first (RFC 9110 §7.2).
        put("Host", self.request.authority.as_str().as_bytes());
        let client_conditions = matches!(self.conditions, Conditions::Client);
        for (name, value) in hop::end_to_end(fields) {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let made_anew = is("host") || is("content-length") || is("expect") || is("via");
            let of_shards = is(headers::LEAST_POSITION) || is(headers::NEWEST) || is(headers::MAP_VERSION);
            let ours = of_shards || (self.wants_identity && is("accept-encoding"));
            let held_back = || self.sender.is_some_and(|sender| self.rule.holds_back(name, sender));
            let clients_own = validate::is_condition(name) || is("range");
            if made_anew || ours || (!client_conditions && clients_own) || held_back() {
                continue;
            }
            if self.rule.compress.is_some() && is("if-match") {
                put(name, &coding::with_plain_tags(value));
                continue;
            }
            match fewer_forwards(self.request, name) {
                Some(fewer) => put(name, fewer.to_string().as_bytes()),
                None => put(name, value),
            }
        }
        if self.wants_identity {
            // Without the field, any coding would do (RFC 9110 §12.5.3).
            put("Accept-Encoding", b"identity");
        }
        match self.conditions {
            Conditions::Stored(stored) => {
                let mut conditions = FieldsBuilder::new();
                validate::put_conditions(&Validators::of(stored), &mut conditions);
                conditions.build().iter().for_each(|(name, value)| put(name, value));
            }
            Conditions::Rest { from, tag } => {
                put("Range", format!("bytes={from}-").as_bytes());
                put("If-Range", tag);
            }
            Conditions::Client | Conditions::None => {}
        }
        if let Some(sender) = self.sender {
            forwarded::put(self.request, sender, &mut put);
        }
        put("Via", &via(fields, self.request.version));
        if self.least.position > 0 {
            put(headers::LEAST_POSITION, self.least.position.to_string().as_bytes());
        }
        if self.least.newest {
            put(headers::NEWEST, b"?1");
        }
        if self.map_version > 0 {
            put(headers::MAP_VERSION, self.map_version.to_string().as_bytes());
        }
    }
}

/// What `Max-Forwards` becomes, where the method gives it a meaning (RFC 9110 §7.6.2). A request with 0 never gets here.
fn fewer_forwards(request: &RequestHead, name: &str) -> Option<u64> {
    let counts = request.method == Method::OPTIONS && name.eq_ignore_ascii_case("max-forwards");
    if counts { hop::max_forwards(request).map(|forwards| forwards.saturating_sub(1)) } else { None }
}

/// `Via` with us appended (RFC 9110 §7.6.3).
fn via(fields: &Fields, version: &str) -> Vec<u8> {
    let mut via = Vec::new();
    for line in fields.get_all("via").filter(|line| !line.is_empty()) {
        via.extend_from_slice(line);
        via.extend_from_slice(b", ");
    }
    via.extend_from_slice(version.as_bytes());
    via.extend_from_slice(b" millpond");
    via
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use millpond_shared::http1::{Limits, take_request};
    use millpond_shared::version::Position;

    use super::*;
    use crate::rules::{Compress, Query};
    use crate::semantics::coding::Coding;

    fn put(head: &str, conditions: Conditions<'_>, least: Position) -> String {
        let head = take_request(&mut BytesMut::from(head), &Limits::default()).unwrap().unwrap();
        let rule = Rule { query: Query::Only(vec!["page".to_owned()]), ..Rule::everything("r", "api") };
        let outgoing = Outgoing::new(&head, &rule, conditions, Least { position: least, newest: false }, None);
        let mut text = format!("{} {}", outgoing.method(), outgoing.target());
        outgoing.put_fields(|name, value| text.push_str(&format!("|{name}: {}", String::from_utf8_lossy(value))));
        text
    }

    #[test]
    fn what_is_for_the_origin_goes_to_it_and_nothing_else() {
        let head = "GET /a?utm=1&page=2 HTTP/1.1\r\nX-A: 1\r\nHost: h\r\nConnection: x-drop\r\nX-Drop: 1\r\n\
                    If-None-Match: \"c\"\r\nRange: bytes=0-1\r\nVia: 1.0 a\r\nVia: 1.1 b\r\nMillpond-Least-Position: 9\r\nMillpond-Newest: ?1\r\n\r\n";
        assert!(head.to_ascii_lowercase().contains(&headers::LEAST_POSITION.to_ascii_lowercase()));
        let rest = "|Via: 1.0 a, 1.1 b, 1.1 millpond";
        let sent = put(head, Conditions::Client, 0);
        assert_eq!(sent, format!("GET /a?page=2|Host: h|X-A: 1|If-None-Match: \"c\"|Range: bytes=0-1{rest}"));
        assert_eq!(put(head, Conditions::None, 0), format!("GET /a?page=2|Host: h|X-A: 1{rest}"));
        let stored: Fields = [("ETag", "\"s\""), ("Last-Modified", "x")].into_iter().collect();
        let sent = put(head, Conditions::Stored(&stored), 7);
        let conditions = "|If-None-Match: \"s\"";
        assert!(sent.starts_with(&format!("GET /a?page=2|Host: h|X-A: 1{conditions}")), "{sent}");
        assert!(sent.ends_with(&format!("{rest}|{}: 7", headers::LEAST_POSITION)), "{sent}");
        let sent = put(head, Conditions::Rest { from: 40, tag: b"\"s\"" }, 0);
        assert_eq!(sent, format!("GET /a?page=2|Host: h|X-A: 1|Range: bytes=40-|If-Range: \"s\"{rest}"));
    }

    #[test]
    fn where_the_rule_compresses_what_may_be_stored_is_asked_for_as_it_is() {
        let head = "GET /a HTTP/1.1\r\nHost: h\r\nAccept-Encoding: br\r\naccept-encoding: gzip\r\n\r\n";
        let head = take_request(&mut BytesMut::from(head), &Limits::default()).unwrap().unwrap();
        let compress = Compress { codings: vec![Coding::Gzip], min_bytes: 0, types: None };
        let compressing = Rule { compress: Some(compress), ..Rule::everything("r", "api") };
        let accepted = |outgoing: Outgoing<'_>| {
            let mut accepted = Vec::new();
            outgoing.put_fields(|name, value| {
                if name.eq_ignore_ascii_case("accept-encoding") {
                    accepted.push(String::from_utf8_lossy(value).into_owned());
                }
            });
            accepted
        };
        let of = |rule| Outgoing::new(&head, rule, Conditions::None, Least::default(), None);
        assert_eq!(accepted(of(&compressing)), ["br", "gzip"], "it passes by");
        assert_eq!(accepted(of(&compressing).to_be_stored()), ["identity"]);
        assert_eq!(accepted(of(&Rule::everything("r", "api")).to_be_stored()), ["br", "gzip"]);
    }

    #[test]
    fn a_shard_is_told_of_who_wants_all_that_its_queue_holds() {
        let head = take_request(&mut BytesMut::from("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"), &Limits::default());
        let (head, rule) = (head.unwrap().unwrap(), Rule::everything("r", "api"));
        let outgoing = Outgoing::new(&head, &rule, Conditions::None, Least { position: 7, newest: true }, None);
        let mut names = Vec::new();
        outgoing.put_fields(|name, _| names.push(name.to_owned()));
        assert_eq!(names, ["Host", "Via", headers::LEAST_POSITION, headers::NEWEST]);
    }

    #[test]
    fn without_a_via_ours_is_the_only_one() {
        assert_eq!(put("GET /a HTTP/1.0\r\n\r\n", Conditions::Client, 0), "GET /a|Host: |Via: 1.0 millpond");
    }
}
