//! Requests that go to the origin without their cookies.

use millpond_shared::http1::RequestHead;

use super::Visit;
use crate::cache::Entry;
use crate::semantics::cache_control::ResponseDirectives;
use crate::semantics::policy::Cookies;
use crate::semantics::storability::is_for_all;

impl Visit<'_> {
    /// Whether the response may be for this client alone because of its cookies.
    pub fn has_own_cookies(&self) -> bool {
        self.ask.cookies && self.rule.policy.cookies == Cookies::Private
    }

    /// Whether what takes the place of a stored response is asked for without cookies. It was stored since it was fetched
    /// without any, it is sent to clients with cookies while it is fresh, and what takes its place must be for all again.
    pub fn goes_without_cookies(&self, stored: &Entry) -> bool {
        self.has_own_cookies() && !is_for_all(&ResponseDirectives::of(&stored.original_fields()))
    }
}

pub(super) fn without_cookies(request: &RequestHead) -> RequestHead {
    let kept = request.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("cookie"));
    RequestHead { fields: kept.collect(), ..request.clone() }
}
