//! Hits before anything is waited for: what the hot loop of a connection asks before it takes the gateway's way.
//!
//! The same rules, key, store and decisions as in [`Gateway::serve`]; whatever is not a plain fresh hit is left to it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use millpond_shared::clock;
use millpond_shared::http1::{RequestHead, put_field, put_field_number, put_status_line};

use super::Gateway;
use super::forms::Choice;
use crate::cache::{Entry, Form};
use crate::key::{self, KeyRef};
use crate::limits::ClientId;
use crate::rules::{Rule, path_of};
use crate::semantics::coding::Coding;
use crate::semantics::request::Ask;
use crate::semantics::reuse::{self, Reuse};
use crate::semantics::{cache_status, date, freshness};

/// A request that may be answered from the store: a GET or HEAD that [`crate::semantics::request::judge`] lets look.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Its target may be another request's: `target` counts.
    pub head: &'a RequestHead,
    /// Path and query.
    pub target: &'a str,
    pub ask: &'a Ask,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Address of the client, if it has one.
    pub peer: Option<IpAddr>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Memory that look-ups use one after another.
#[derive(Debug, Default)]
pub struct Scratch {
    key: String,
}

/// A fresh stored response that answers a request.
pub struct Hit<'a> {
    pub rule: &'a Arc<Rule>,
    entry: &'a Arc<Entry>,
    form: Option<&'a Form>,
    /// The form in which the client has it already: then the answer is a 304.
    not_modified: Option<Option<Coding>>,
    /// Seconds since the Unix epoch.
    now: u64,
    age: u64,
    ttl: i64,
}

impl Gateway {
    /// Hands the hit for a request to `use_it`; `None`: it is no hit, or not one to be had at once.
    pub fn early_hit<R>(
        &self,
        asked: &Asked<'_>,
        scratch: &mut Scratch,
        use_it: impl FnOnce(Hit<'_>) -> R,
    ) -> Option<R> {
        let Asked { head, target, ask, scheme, peer, now_ms } = *asked;
        let snapshot = self.snapshot.load();
        // A path that is refused is for the gateway to refuse.
        let path = snapshot.rules.path(target).ok()?;
        let target = path.as_ref();
        let (_, rule) = snapshot.rules.find_for(&head.method, head.authority.host(), path_of(target))?;
        if rule.bypasses(&head.fields, target) || rule.reduces(&head.fields) {
            return None;
        }
        let ask = ask.heeded(&rule.policy.client);
        scratch.key.clear();
        key::put_key(&mut scratch.key, rule, scheme, head.authority.normal(scheme), target);
        let mut to_make = None;
        let found = self.store.read(KeyRef::new(&scratch.key), &head.fields, |entry| {
            let now = now_ms / 1000;
            match reuse::judge(&entry.times, &ask, now, self.live.invalidated(entry, now_ms)) {
                Reuse::Fresh { age } => {
                    // What is held back is for the gateway to refuse.
                    let limiter = rule.limit.as_ref().filter(|limiter| limiter.limit().hits);
                    let whose = || ClientId::of(snapshot.rules.forwarding.client(peer, &head.fields));
                    if limiter.is_some_and(|limiter| !limiter.admits_hit(whose(), clock::monotonic_ns())) {
                        return None;
                    }
                    let choice = Choice::of(rule, &ask, &head.fields, entry);
                    to_make = choice.wanted.map(|coding| (Arc::clone(entry), coding));
                    let not_modified = choice.not_modified(&head.fields, entry.status, entry.lines());
                    let form = choice.form.map(|(_, form)| form);
                    let ttl = freshness::ttl(&entry.times, now);
                    Some(use_it(Hit { rule, entry, form, not_modified, now, age, ttl }))
                }
                Reuse::StaleRevalidate { .. } | Reuse::Validate { .. } => None,
            }
        });
        // Not under the lock of the store.
        if let Some((entry, coding)) = to_make {
            self.compressor.make(&scratch.key, &entry, coding);
        }
        found.flatten()
    }
}

impl Hit<'_> {
    /// Status that the client is sent.
    pub fn status(&self) -> StatusCode {
        if self.not_modified.is_some() { StatusCode::NOT_MODIFIED } else { self.entry.status }
    }

    /// The body, if it follows its head.
    pub fn body(&self, method: &Method) -> Option<&Bytes> {
        let body = self.form.map_or(&self.entry.body, |form| &form.body);
        Some(body).filter(|body| self.not_modified.is_none() && *method != Method::HEAD && !body.is_empty())
    }

    /// Appends the head as HTTP/1.1, its empty line included.
    pub fn put_head(&self, out: &mut BytesMut) {
        if let Some(coding) = self.not_modified {
            put_status_line(out, StatusCode::NOT_MODIFIED);
            self.entry.put_fields_of_304(out, coding);
        } else {
            out.extend_from_slice(self.stored_head());
        }
        out.extend_from_slice(b"Cache-Status: ");
        cache_status::put_hit(out, self.ttl);
        out.extend_from_slice(b"\r\n");
        if self.entry.is_restated() {
            put_field(out, "Date", date::format(self.now));
            put_field_number(out, "Age", 0);
        } else {
            put_field_number(out, "Age", self.age);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Bytes of the head, but for a few lines that come to it.
    pub fn head_bytes(&self) -> usize {
        self.stored_head().len()
    }

    fn stored_head(&self) -> &Bytes {
        self.form.map_or(&self.entry.head, |form| &form.head)
    }
}
