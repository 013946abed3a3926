//! What a rule says about lifetimes and staleness, where it goes beyond what the origin says (RFC 9111 §4.2.2 and §4.2.4
//! allow both: "configuration in accordance with an out-of-band contract").
//!
//! Seconds that a rule gives count from the moment the response was received here; seconds that the origin gives count
//! from the moment it generated the response, so that an `Age` gathered on the way never uses up a rule's seconds.

use super::failure::Failures;

/// What a rule says. The default is plain HTTP, except that cookies are not shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub ttl: Ttl,
    pub stale: StaleWindows,
    /// Which statuses mean that the origin fails.
    pub failures: Failures,
    /// What the cookies of a request mean for the response to it.
    pub cookies: Cookies,
    /// Whether `Set-Cookie` keeps a response from being stored, whatever else it says. RFC 9111 §7.3 allows storing
    /// it, but then every client gets the cookie of the first.
    pub set_cookie_is_private: bool,
    /// Which of a client's wishes count.
    pub client: ClientDirectives,
    /// What happens to `If-None-Match` and `If-Modified-Since` where nothing stored answers the request. `true`: they
    /// go to the origin, whose answer to them is the client's (RFC 9111 §4.3.2). `false`: the whole response is
    /// fetched, stored and shared, and the condition is compared with that: clients that poll fill the cache, too.
    pub forwards_conditions: bool,
}

/// What `Cookie` in a request means for the response to it. Whatever it is, what is stored answers requests with and
/// without cookies, unless it varies on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cookies {
    /// The response may be for this client alone: it is stored, and shared with those who wait, only if it says that it
    /// is for all ([`super::storability::is_for_all`]).
    #[default]
    Private,
    /// Nothing, as in RFC 9111.
    Shared,
    /// They are taken off a request that may be answered from the store, so that the origin can't make anything of them.
    Ignored,
}

/// The cache directives of requests, each with whether it is heeded. They are wishes, which a cache need not fulfil
/// (RFC 9111 §5.2.1); in front of clients that may send anything, `no-cache` and `max-age=0` let each of them make the
/// origin work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientDirectives {
    /// And with it `Pragma: no-cache`.
    pub no_cache: bool,
    pub no_store: bool,
    pub max_age: bool,
    pub min_fresh: bool,
    pub max_stale: bool,
    pub stale_if_error: bool,
    pub only_if_cached: bool,
}

impl Default for ClientDirectives {
    /// All of them are heeded.
    fn default() -> ClientDirectives {
        ClientDirectives {
            no_cache: true,
            no_store: true,
            max_age: true,
            min_fresh: true,
            max_stale: true,
            stale_if_error: true,
            only_if_cached: true,
        }
    }
}

/// Where the lifetime of a response comes from. None of these overrides `no-store`, `private`, `Authorization` or
/// [`Policy::set_cookie_is_private`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// From the origin (RFC 9111 §4.2.1).
    Origin,
    /// These seconds, whatever the origin says: also over `no-cache`, `max-age=0` and no lifetime at all.
    /// For a status that is not heuristically cacheable (302, 503, …) they only shorten what the origin says:
    /// a lifetime meant for answers must not prolong a failure.
    Fixed(u64),
    /// From the origin, within bounds in seconds; where they contradict each other, `max` wins.
    Bounded {
        /// Used when the origin gives no explicit lifetime, instead of the heuristic.
        default: Option<u64>,
        /// Not for a status that is not heuristically cacheable, as for [`Ttl::Fixed`].
        min: Option<u64>,
        max: Option<u64>,
    },
}

/// How long a stale response may be served, in seconds past its lifetime (RFC 5861). Each applies where the origin
/// names no window of that kind. `must-revalidate` and `proxy-revalidate` forbid both, and so does `s-maxage` unless
/// [`Ttl::Fixed`] overrides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaleWindows {
    /// While a refresh runs behind (`stale-while-revalidate`).
    pub revalidate: Option<u64>,
    /// When the origin fails (`stale-if-error`).
    pub error: Option<u64>,
    /// Whether a response for which nobody names an error window may be served while the origin can't be reached, up
    /// to [`super::freshness::DISCONNECTED_MAX`] past its lifetime (RFC 9111 §4.2.4 allows it to a disconnected cache).
    pub disconnected: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            ttl: Ttl::Origin,
            stale: StaleWindows::default(),
            failures: Failures::USUAL,
            cookies: Cookies::default(),
            set_cookie_is_private: true,
            client: ClientDirectives::default(),
            forwards_conditions: false,
        }
    }
}

impl Policy {
    /// RFC 9111 to the letter: what a proxy without rules does.
    pub fn plain_http() -> Policy {
        Policy {
            failures: Failures::RFC_5861,
            cookies: Cookies::Shared,
            set_cookie_is_private: false,
            forwards_conditions: true,
            ..Policy::default()
        }
    }

    /// The same, serving what is stale while the origin can't be reached, as RFC 9111 §4.2.4 allows.
    pub fn plain_http_when_disconnected() -> Policy {
        Policy { stale: StaleWindows { disconnected: true, ..StaleWindows::default() }, ..Policy::plain_http() }
    }

    /// Whether the rule puts its own lifetime in place of everything the origin says about lifetimes.
    pub fn overrides_lifetime(&self) -> bool {
        matches!(self.ttl, Ttl::Fixed(_))
    }

    /// Whether a response with this `s-maxage` is never used longer than that: only then does `s-maxage` allow
    /// sharing the response to an authorized request (RFC 9111 §5.2.2.10).
    pub fn keeps_within(&self, s_maxage: u64) -> bool {
        match self.ttl {
            Ttl::Origin => true,
            Ttl::Fixed(_) => false,
            Ttl::Bounded { min, .. } => min.unwrap_or(0) <= s_maxage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_shares_no_cookies_and_plain_http_does() {
        assert_eq!(Policy::default().ttl, Ttl::Origin);
        assert_eq!(Policy::default().stale, StaleWindows { revalidate: None, error: None, disconnected: false });
        assert!(Policy::default().set_cookie_is_private && Policy::default().cookies == Cookies::Private);
        assert!(Policy::plain_http().cookies == Cookies::Shared);
        assert_eq!(Policy::default().client, Policy::plain_http().client);
        assert!(!Policy::plain_http().set_cookie_is_private && Policy::plain_http().stale == StaleWindows::default());
    }

    #[test]
    fn s_maxage_is_kept_unless_the_rule_can_exceed_it() {
        let keeps = |ttl| Policy { ttl, ..Policy::default() }.keeps_within(60);
        assert!(keeps(Ttl::Origin));
        assert!(!keeps(Ttl::Fixed(30)), "the stale windows of the rule would apply");
        assert!(keeps(Ttl::Bounded { default: Some(90), min: None, max: None }));
        assert!(keeps(Ttl::Bounded { default: None, min: Some(60), max: None }));
        assert!(!keeps(Ttl::Bounded { default: None, min: Some(61), max: None }));
        assert!(
            Policy { ttl: Ttl::Bounded { default: None, min: None, max: None }, ..Policy::default() }.keeps_within(0)
        );
    }
}
