//! May a stored response be sent now (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861)? Works on times alone: whether key and
//! `Vary` match was decided before.

use http::StatusCode;

use super::cache_control::{MaxStale, RequestDirectives};
use super::freshness::{self, DISCONNECTED_MAX, Times};
use super::request::Ask;
use crate::outcome::Reason;

/// What may be done with a stored response. Ages in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Send it.
    Fresh { age: u64 },
    /// Send it, and refresh it behind.
    StaleRevalidate { age: u64 },
    /// Ask the origin first.
    Validate {
        age: u64,
        reason: Reason,
        /// Until when, in seconds since the Unix epoch, it may be sent if the origin fails; `None`: it may not.
        error_until: Option<u64>,
    },
}

/// Judges a stored response. `invalidated` names what made it invalid before its time: [`Reason::Purged`] (softly),
/// [`Reason::Changed`], [`Reason::LiveUnsure`]. Such a response is only ever sent after validation, or, within its
/// error window, when the origin fails. After an unsafe request not even that is allowed (RFC 9111 §4.4): remove it.
pub fn judge(times: &Times, ask: &Ask, now: u64, invalidated: Option<Reason>) -> Reuse {
    let age = freshness::age(times, now);
    let directives = &ask.directives;
    let reason = if let Some(invalidated) = invalidated {
        invalidated
    } else if times.no_cache {
        Reason::NoCache
    } else if times.lifetime <= age {
        if may_be_sent_stale(times, directives, age) {
            return Reuse::StaleRevalidate { age };
        }
        Reason::NotFresh
    } else if directives.no_cache {
        Reason::RequestNoCache
    } else if directives.max_age.is_some_and(|most| exceeds(age, most)) {
        Reason::RequestMaxAge
    } else if directives.min_fresh.is_some_and(|least| times.lifetime - age < least) {
        Reason::RequestMinFresh
    } else {
        return Reuse::Fresh { age };
    };
    Reuse::Validate { age, reason, error_until: error_until(times, directives, now, invalidated) }
}

/// Whether a response of this age may be sent because the origin failed: it could not be reached, broke off, or
/// answered 500, 502, 503 or 504 (RFC 5861 §4). Also for one that is fresh but had to be validated.
///
/// `accepted`: the window of the client that asks; it may only widen that of the origin, and is nothing to a response
/// that was made invalid.
pub fn may_serve_on_error(times: &Times, accepted: Option<u64>, age: u64) -> bool {
    !times.must_revalidate && !times.no_cache && within(times, times.stale_error.max(accepted.unwrap_or(0)), age)
}

/// Whether a response of this age may be sent because the origin can't be reached, though nobody named a window for
/// that (RFC 9111 §4.2.4). Not for one that was made invalid.
pub fn may_serve_disconnected(times: &Times, age: u64) -> bool {
    !times.must_revalidate && !times.no_cache && times.stale_disconnected && within(times, DISCONNECTED_MAX, age)
}

/// The answer to a request with `only-if-cached` for which nothing stored can be sent (RFC 9111 §5.2.1.7);
/// `found` is the verdict on what is stored. `None`: go on.
pub fn only_if_cached(ask: &Ask, found: Option<&Reuse>) -> Option<(StatusCode, Reason)> {
    let sendable = matches!(found, Some(Reuse::Fresh { .. } | Reuse::StaleRevalidate { .. }));
    (ask.directives.only_if_cached && !sendable).then_some((StatusCode::GATEWAY_TIMEOUT, Reason::OnlyIfCached))
}

/// A client that bounds the age, or wants freshness to last, does not want a stale response unless it says so with
/// `max-stale` (RFC 9111 §5.2.1.1); the window of the origin or the rule is not asked then.
fn may_be_sent_stale(times: &Times, directives: &RequestDirectives, age: u64) -> bool {
    if times.must_revalidate || directives.no_cache || directives.min_fresh.is_some() {
        return false;
    }
    if directives.max_age.is_some_and(|most| exceeds(age, most)) {
        return false;
    }
    let staleness = age.saturating_sub(times.lifetime);
    match directives.max_stale {
        Some(MaxStale::Any) => true,
        Some(MaxStale::Seconds(most)) if staleness <= most => true,
        _ => directives.max_age.is_none() && within(times, times.stale_revalidate, age),
    }
}

/// Whether a stored response is older than a client wants. Ages are whole seconds rounded down: what is stored is always
/// some part of a second older than 0.
fn exceeds(age: u64, most: u64) -> bool {
    age > most || most == 0
}

/// Whether the age is within a window past the lifetime, its last second included (RFC 5861 §4.1); a window of 0 is
/// none.
fn within(times: &Times, window: u64, age: u64) -> bool {
    window > 0 && age <= times.lifetime.saturating_add(window)
}

fn error_until(times: &Times, directives: &RequestDirectives, now: u64, invalidated: Option<Reason>) -> Option<u64> {
    let accepted = directives.stale_if_error.filter(|_| invalidated.is_none());
    let oldest = times.lifetime.saturating_add(times.stale_error.max(accepted.unwrap_or(0)));
    let until = times.received.saturating_add(oldest.saturating_sub(times.initial_age));
    may_serve_on_error(times, accepted, freshness::age(times, now)).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{NOW, fields};
    use super::*;

    /// Fresh for 600 s, no windows.
    const PLAIN: Times = Times {
        received: NOW,
        initial_age: 0,
        lifetime: 600,
        stale_revalidate: 0,
        stale_error: 0,
        stale_disconnected: false,
        must_revalidate: false,
        no_cache: false,
    };

    fn ask(directives: &str) -> Ask {
        let directives = RequestDirectives::of(&fields(&format!("Cache-Control: {directives}")));
        Ask { directives, ..Ask::plain() }
    }

    /// The verdict in a word, so that tables stay readable.
    fn verdict(times: &Times, directives: &str, age: u64) -> &'static str {
        match judge(times, &ask(directives), NOW + age, None) {
            Reuse::Fresh { age: found } if found == age => "fresh",
            Reuse::StaleRevalidate { age: found } if found == age => "stale",
            Reuse::Validate { reason, age: found, .. } if found == age => reason.as_str(),
            other => panic!("{other:?} has the wrong age"),
        }
    }

    #[test]
    fn fresh_is_a_lifetime_above_the_age() {
        for (age, expected) in [(0, "fresh"), (599, "fresh"), (600, "expired"), (601, "expired")] {
            assert_eq!(verdict(&PLAIN, "", age), expected, "{age}");
        }
        let aged = Times { initial_age: 500, ..PLAIN };
        assert_eq!(judge(&aged, &ask(""), NOW + 99, None), Reuse::Fresh { age: 599 });
        assert!(matches!(judge(&aged, &ask(""), NOW + 100, None), Reuse::Validate { age: 600, .. }));
    }

    #[test]
    fn request_directives() {
        for (directives, age, expected) in [
            ("no-cache", 10, "request-no-cache"),
            ("no-cache", 700, "expired"),
            ("no-store", 10, "fresh"),
            ("max-age=0", 0, "request-max-age"),
            ("max-age=0", 1, "request-max-age"),
            ("max-age=0, max-stale", 700, "expired"),
            ("max-age=1", 1, "fresh"),
            ("max-age=10", 10, "fresh"),
            ("max-age=10", 11, "request-max-age"),
            ("max-age=1000", 700, "expired"),
            ("min-fresh=100", 500, "fresh"),
            ("min-fresh=100", 501, "request-min-fresh"),
            ("max-stale", 100_000, "stale"),
            ("max-stale=100", 700, "stale"),
            ("max-stale=100", 701, "expired"),
            ("max-stale=0", 601, "expired"),
            ("max-stale, no-cache", 700, "expired"),
            ("max-stale, min-fresh=1", 700, "expired"),
            ("max-stale, max-age=700", 700, "stale"),
            ("max-stale, max-age=699", 700, "expired"),
        ] {
            assert_eq!(verdict(&PLAIN, directives, age), expected, "{directives} at {age}");
        }
    }

    /// RFC 5861 §3.1: `max-age=600, stale-while-revalidate=30`.
    #[test]
    fn stale_while_revalidate() {
        let window = Times { stale_revalidate: 30, ..PLAIN };
        for (directives, age, expected) in [
            ("", 599, "fresh"),
            ("", 600, "stale"),
            ("", 630, "stale"),
            ("", 631, "expired"),
            ("max-age=1000", 610, "expired"),
            ("min-fresh=0", 610, "expired"),
            ("no-cache", 610, "expired"),
            ("max-stale=5", 610, "stale"),
        ] {
            assert_eq!(verdict(&window, directives, age), expected, "{directives} at {age}");
        }
    }

    #[test]
    fn must_revalidate_and_no_cache_forbid_staleness() {
        let windows = Times { stale_revalidate: 30, stale_error: 30, ..PLAIN };
        let strict = Times { must_revalidate: true, ..windows };
        let no_cache = Times { no_cache: true, ..windows };
        assert_eq!(verdict(&strict, "", 599), "fresh");
        assert_eq!(verdict(&strict, "max-stale", 601), "expired");
        assert_eq!(verdict(&no_cache, "max-stale", 1), "no-cache");
        for times in [strict, no_cache] {
            assert!(!may_serve_on_error(&times, Some(9999), 601));
            let reuse = judge(&times, &ask(""), NOW + 601, None);
            assert!(matches!(reuse, Reuse::Validate { error_until: None, .. }), "{reuse:?}");
        }
    }

    /// RFC 5861 §4.1: `max-age=600, stale-if-error=1200`.
    #[test]
    fn stale_if_error() {
        let window = Times { stale_error: 1200, ..PLAIN };
        for (age, allowed) in [(0, true), (600, true), (900, true), (1800, true), (1801, false)] {
            assert_eq!(may_serve_on_error(&window, None, age), allowed, "{age}");
            assert!(!may_serve_on_error(&PLAIN, None, age), "no window: {age}");
        }
        let aged = Times { initial_age: 100, ..window };
        for (times, later, error_until) in [
            (window, 900, Some(NOW + 1800)),
            (window, 1800, Some(NOW + 1800)),
            (window, 1801, None),
            (aged, 900, Some(NOW + 1700)),
            (PLAIN, 900, None),
        ] {
            let expected =
                Reuse::Validate { age: freshness::age(&times, NOW + later), reason: Reason::NotFresh, error_until };
            assert_eq!(judge(&times, &ask(""), NOW + later, None), expected, "{later}");
        }
    }

    #[test]
    fn a_client_can_widen_the_error_window() {
        for (window, accepted, age, allowed) in
            [(0, 30, 630, true), (0, 30, 631, false), (100, 30, 700, true), (100, 200, 800, true), (0, 0, 600, false)]
        {
            let times = Times { stale_error: window, ..PLAIN };
            assert_eq!(may_serve_on_error(&times, Some(accepted), age), allowed, "{window} {accepted} {age}");
            let ask = ask(&format!("stale-if-error={accepted}"));
            let reuse = judge(&times, &ask, NOW + age, None);
            assert!(
                matches!(reuse, Reuse::Validate { error_until, .. } if error_until.is_some() == allowed),
                "{reuse:?}"
            );
            let invalid = judge(&times, &ask, NOW + age, Some(Reason::Purged));
            let by_origin = may_serve_on_error(&times, None, age);
            assert!(matches!(invalid, Reuse::Validate { error_until, .. } if error_until.is_some() == by_origin));
        }
    }

    #[test]
    fn a_disconnected_cache_may_go_on_for_a_week() {
        let times = Times { stale_disconnected: true, ..PLAIN };
        let week = 600 + DISCONNECTED_MAX;
        for (times, age, allowed) in [
            (times, 600, true),
            (times, week, true),
            (times, week + 1, false),
            (PLAIN, 601, false),
            (Times { must_revalidate: true, ..times }, 601, false),
            (Times { no_cache: true, ..times }, 1, false),
        ] {
            assert_eq!(may_serve_disconnected(&times, age), allowed, "{times:?} {age}");
            let reuse = judge(&times, &ask(""), NOW + age, None);
            assert!(!matches!(reuse, Reuse::StaleRevalidate { .. }), "only once the origin was asked");
        }
    }

    #[test]
    fn what_was_invalidated_is_validated() {
        let windows = Times { stale_revalidate: 30, stale_error: 30, ..PLAIN };
        for invalidated in [Reason::Purged, Reason::Changed, Reason::LiveUnsure] {
            for age in [0, 610] {
                let validate = |error_until| Reuse::Validate { age, reason: invalidated, error_until };
                let judged = |times| judge(times, &ask("max-stale"), NOW + age, Some(invalidated));
                assert_eq!(judged(&PLAIN), validate(None));
                assert_eq!(judged(&windows), validate(Some(NOW + 630)));
            }
        }
    }

    #[test]
    fn only_if_cached_is_answered_504_when_nothing_can_be_sent() {
        let refused = Some((StatusCode::GATEWAY_TIMEOUT, Reason::OnlyIfCached));
        let validate = Reuse::Validate { age: 1, reason: Reason::NotFresh, error_until: Some(NOW) };
        for (found, answer) in [
            (None, refused),
            (Some(validate), refused),
            (Some(Reuse::Fresh { age: 1 }), None),
            (Some(Reuse::StaleRevalidate { age: 1 }), None),
        ] {
            assert_eq!(only_if_cached(&ask("only-if-cached"), found.as_ref()), answer, "{found:?}");
            assert_eq!(only_if_cached(&ask(""), found.as_ref()), None, "{found:?}");
        }
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let huge = Times {
            received: u64::MAX,
            initial_age: u64::MAX,
            lifetime: u64::MAX,
            stale_revalidate: u64::MAX,
            stale_error: u64::MAX,
            stale_disconnected: false,
            ..PLAIN
        };
        let _ = judge(&huge, &ask("max-stale=99999999999, min-fresh=99999999999"), u64::MAX, None);
        assert_eq!(judge(&huge, &ask(""), 0, None), Reuse::StaleRevalidate { age: u64::MAX });
    }
}
