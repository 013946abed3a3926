//! What is stored and no longer true: by a purge of a URL, or by an unsafe request that succeeded.

use http::Method;
use millpond_shared::http1::{Authority, RequestHead, ResponseHead};

use super::{Gateway, Snapshot};
use crate::cache::{Mode, Purged};
use crate::key::{Key, scheme_of};
use crate::rules::path_of;
use crate::semantics::{groups, invalidation};

impl Gateway {
    /// Purges what `url` names: `http://host/path?query`, or a path with the host beside it.
    pub fn purge_url(&self, scheme: &str, host: &str, path: &str, mode: Mode) -> Option<Purged> {
        let snapshot = self.snapshot();
        let (bare, path) = (Authority::parse(host)?, snapshot.rules.path(path).ok()?);
        let (_, rule) = snapshot.rules.find_for(&Method::GET, bare.host(), path_of(&path))?;
        Some(self.store.purge_key(&Key::build(rule, scheme, bare.normal(scheme), &path), mode))
    }

    /// An unsafe request succeeded: what it named is gone (RFC 9111 §4.4), with the groups of that, and the groups that
    /// the response names (RFC 9875).
    pub(super) fn invalidate(&self, snapshot: &Snapshot, request: &RequestHead, scheme: &str, head: &ResponseHead) {
        let uris = invalidation::invalidated(request, scheme, head);
        if uris.is_empty() {
            return;
        }
        let scheme = scheme_of(request, scheme);
        let host = request.authority.normal(scheme);
        let mut invalid: Vec<Box<str>> = groups::invalidated(&head.fields, &format!("{scheme} {host}")).collect();
        for path in uris {
            let Ok(path) = snapshot.rules.path(&path) else { continue };
            if let Some((_, rule)) = snapshot.rules.find_for(&Method::GET, request.authority.host(), path_of(&path)) {
                let key = Key::build(rule, scheme, host, &path);
                invalid.extend(self.store.tags_of(&key).into_iter().filter(|tag| groups::is_group(tag)));
                self.store.purge_key(&key, Mode::Delete);
            }
        }
        invalid.sort();
        invalid.dedup();
        for group in invalid {
            self.store.purge_tag(&group, Mode::Delete);
        }
    }
}
