//! What is decided of a request and its answer: one verdict, and no arithmetic that runs over.

use http::Method;
use millpond_proxy::semantics::cache_control::ResponseDirectives;
use millpond_proxy::semantics::policy::Policy;
use millpond_proxy::semantics::request::{self, RequestVerdict};
use millpond_proxy::semantics::reuse::{self, Reuse};
use millpond_proxy::semantics::{freshness, invalidation, storability};
use millpond_shared::http1::normal;

use super::input;

/// Some moment, in seconds since the Unix epoch.
const NOW: u64 = 784_111_777;

/// How much later the stored response is asked for, in seconds; the head of a request; the head of its answer.
pub fn verdicts(data: &[u8]) {
    let [later, asked, answered] = input::parts(data);
    let (Some(request), Some(response)) = (input::request(asked), input::response(answered)) else { return };
    let policy = Policy::plain_http();
    let said = ResponseDirectives::of(&response.fields);
    if let RequestVerdict::Lookup(ask) = request::judge(&request) {
        assert!([Method::GET, Method::HEAD].contains(&request.method));
        let stored = storability::judge(&Method::GET, &ask, &response, &policy);
        if stored.is_ok() {
            assert!(!said.private && !ask.directives.no_store && (!said.no_store || said.must_understand));
            assert!(!ask.authorized || said.public || said.must_revalidate || said.s_maxage.is_some());
        }
        let later = std::str::from_utf8(later).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let times = freshness::times(&response, &policy, NOW, NOW);
        let now = NOW.saturating_add(later);
        let (age, ttl) = (freshness::age(&times, now), freshness::ttl(&times, now));
        assert!(age >= later.min(now - NOW));
        match reuse::judge(&times, &ask, now, None) {
            Reuse::Fresh { .. } => assert!(ttl > 0 && !said.no_cache),
            Reuse::StaleRevalidate { .. } => {
                assert!(ttl <= 0 && !said.no_cache && !said.must_revalidate && !said.proxy_revalidate);
            }
            Reuse::Validate { error_until, .. } => {
                assert!(error_until.is_none() || !(said.must_revalidate || said.no_cache));
            }
        }
    }
    let gone = invalidation::invalidated(&request, "http", &response);
    assert!(gone.is_empty() || (invalidation::is_unsafe(&request.method) && response.status.as_u16() < 400));
    for uri in gone.iter().skip(1) {
        assert!(uri.starts_with('/') && uri.is_ascii(), "{uri}");
        // What can't be asked for was never stored.
        let _ = normal(uri);
    }
}
