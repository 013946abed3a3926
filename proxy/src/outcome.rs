//! The two closed sets of words for what became of a request: its outcome, and the reason behind it. The same strings
//! stand in the `detail` of `Cache-Status` (RFC 9211 §2.8), in metric labels, in the log and on the dashboard.

use std::fmt;

/// Declares an enum together with the word for each of its variants, so that no list can miss one.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* #[doc = concat!("\n\nWord: `", $word, "`.")] $variant,)+
        }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word: lower case and hyphens only.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What became of a request. Every request has exactly one, so the counts sum to all requests.
    Outcome {
        /// Answered from a fresh stored response.
        Hit = "hit",
        /// Answered from a stale stored response: a refresh runs behind it, or the origin failed.
        Stale = "stale",
        /// The origin confirmed the stored response with a 304, and it was sent.
        Revalidated = "revalidated",
        /// Answered by the origin through the cache.
        Miss = "miss",
        /// Answered by a fetch that another request had started.
        Collapsed = "collapsed",
        /// Handed through: a rule or the request forbids caching.
        Pass = "pass",
        /// Not forwarded: our own answer, a 4xx unless the request was for us (`OPTIONS *`).
        Refused = "refused",
        /// Neither the origin nor the cache had an answer: our own 5xx.
        Error = "error",
    }
}

words! {
    /// Why a request was not a hit, or its response not stored.
    Reason {
        // What the request is.
        /// The method is neither GET nor HEAD; for storing: it is not GET (RFC 9111 §3).
        Method = "method",
        /// The request asks to switch protocols (RFC 9110 §7.8).
        Upgrade = "upgrade",
        /// A GET or HEAD with a body, which no cache key covers (RFC 9110 §9.3.1).
        RequestBody = "request-body",
        /// The request asks for a range that the cache has not, and the answer was not stored; or in a unit other than
        /// bytes.
        Range = "range",
        /// `If-Match` or `If-Unmodified-Since`: for the origin to evaluate (RFC 9111 §4.3.2).
        Precondition = "precondition",
        /// `Connection` takes an end-to-end field away: the origin would not see what key and `Vary` see.
        HopByHop = "hop-by-hop",
        /// The request says `no-store` (RFC 9111 §5.2.1.5).
        RequestNoStore = "request-no-store",
        /// The request says `no-cache`, and the stored response was fresh (RFC 9111 §5.2.1.4).
        RequestNoCache = "request-no-cache",
        /// A fresh stored response is older than the `max-age` of the request (RFC 9111 §5.2.1.1).
        RequestMaxAge = "request-max-age",
        /// A fresh stored response stays fresh for less than `min-fresh` (RFC 9111 §5.2.1.3).
        RequestMinFresh = "request-min-fresh",
        /// The request says `only-if-cached` and nothing stored can be used (RFC 9111 §5.2.1.7).
        OnlyIfCached = "only-if-cached",

        // What the rules say.
        /// No rule matches the request.
        NoRule = "no-rule",
        /// The rule says not to cache this request.
        RuleBypass = "bypass",
        /// The last response for this key could not be stored, so nobody waits for this one.
        Remembered = "remembered-uncacheable",

        // What the cache holds.
        /// Nothing is stored for the key.
        NotCached = "not-cached",
        /// Something is stored for the key, but for other selecting fields (RFC 9111 §4.1).
        VaryMiss = "vary",
        /// A part of the response is stored, and not all that the request asks for (RFC 9111 §3.3).
        Partial = "partial",
        /// The stored response is no longer fresh (RFC 9111 §4.2).
        NotFresh = "expired",
        /// The stored response says `no-cache` (RFC 9111 §5.2.2.4).
        NoCache = "no-cache",
        /// The stored response was purged, softly.
        Purged = "purged",
        /// The change stream announced a newer version than the stored one.
        Changed = "changed",
        /// The change stream is silent, so stored responses must be revalidated.
        LiveUnsure = "live-unsure",
        /// The response is older than a version already announced or served.
        OlderVersion = "older-version",

        // What the response is.
        /// The status code can't be stored, or not without an explicit lifetime (RFC 9111 §3).
        StatusNotStorable = "status",
        /// The response says `must-understand`, and its status is not understood (RFC 9111 §5.2.2.3).
        MustUnderstand = "must-understand",
        /// The response says `no-store` (RFC 9111 §5.2.2.5).
        NoStore = "no-store",
        /// The response says `private` (RFC 9111 §5.2.2.7).
        Private = "private",
        /// The request has `Authorization` and the response does not allow sharing (RFC 9111 §3.5).
        Authorization = "authorization",
        /// The request has cookies and the response does not say that it is for all; the rule takes that for private.
        Cookie = "cookie",
        /// The response sets a cookie, and the policy takes that for private (RFC 9111 §7.3).
        SetCookie = "set-cookie",
        /// The response says `Vary: *`: no later request can match (RFC 9111 §4.1).
        VaryAny = "vary-any",
        /// The response has no lifetime and no validator: stored, it could never be used.
        NoExplicitLifetime = "no-lifetime",
        /// It was merged from more parts than a copy of it can hear of, or their tags can't be read.
        TooManyParts = "too-many-parts",
        /// The rule stores other content types only.
        ContentType = "content-type",
        /// The body is larger than the cache accepts.
        BodyTooLarge = "body-too-large",

        // Why there was no answer.
        /// The request is malformed, or not for us.
        BadRequest = "bad-request",
        /// There were more requests than the rule's rate.
        RateLimit = "rate-limit",
        /// As many requests are being answered as the rule lets through at a time.
        ConcurrencyLimit = "concurrency-limit",
        /// The client has as many connections as it may.
        ConnectionLimit = "connection-limit",
        /// The flight has as many waiters as it may.
        FlightFull = "flight-full",
        /// The client read so slowly that the others who share its response would have had to wait for it.
        ClientTooSlow = "client-too-slow",
        /// The proxy is shutting down.
        Shutdown = "shutdown",
        /// No origin is healthy.
        NoOrigin = "no-origin",
        /// The origin could not be reached, broke the protocol, or answered 500, 502, 503 or 504.
        OriginError = "origin-error",
        /// The origin did not answer in time.
        OriginTimeout = "origin-timeout",
        /// The origin closed before the end of the body.
        OriginTruncated = "origin-truncated",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn words_are_kebab_case_and_unique() {
        let outcomes = Outcome::ALL.iter().map(|outcome| outcome.as_str());
        let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
        for word in outcomes.clone().chain(reasons.clone()) {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{word}");
            assert!(word.starts_with(|c: char| c.is_ascii_lowercase()) && !word.ends_with('-'), "{word}");
        }
        assert_eq!(outcomes.collect::<HashSet<_>>().len(), Outcome::ALL.len());
        assert_eq!(reasons.collect::<HashSet<_>>().len(), Reason::ALL.len());
    }

    /// Dashboards and alerts are written against these words.
    #[test]
    fn the_outcomes_are_the_agreed_eight() {
        let words: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        assert_eq!(words, ["hit", "stale", "revalidated", "miss", "collapsed", "pass", "refused", "error"]);
    }
}
