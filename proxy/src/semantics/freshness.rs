//! How old a response is, how long it is fresh, and how long it may be served stale (RFC 9111 §4.2, RFC 5861), with the
//! policy of the rule applied. All times are seconds; instants are seconds since the Unix epoch.

use http::StatusCode;
use millpond_shared::http1::{Fields, ResponseHead};

use super::cache_control::{self, ResponseDirectives};
use super::list::{self, Quoted};
use super::policy::{Policy, Ttl};
use super::{date, status};

/// Longest heuristic lifetime: a day.
const HEURISTIC_MAX: u64 = 24 * 3600;
/// The share of its age at receipt for which an unmarked response is taken to be fresh (RFC 9111 §4.2.2).
const HEURISTIC_PART: u64 = 10;

/// How far past its lifetime, in seconds, a response may be served while the origin can't be reached and nobody names a
/// window: a week, after which even an outage is no reason to believe it.
pub const DISCONNECTED_MAX: u64 = 7 * 24 * 3600;

/// The times of a stored response: all that is needed to judge it later without its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When the response, or the 304 that last confirmed it, was received (`response_time`).
    pub received: u64,
    /// Its age then (`corrected_initial_age`).
    pub initial_age: u64,
    /// The age up to which it is fresh (`freshness_lifetime`). A rule's seconds count from receipt, so they come on
    /// top of `initial_age`: what came through another cache keeps its honest `Age` and still lives as long as the
    /// rule says.
    pub lifetime: u64,
    /// How far past its lifetime it may be served while a refresh runs; 0: not at all.
    pub stale_revalidate: u64,
    /// How far past its lifetime it may be served when the origin fails; 0: not at all.
    pub stale_error: u64,
    /// Neither origin nor rule name an error window, and the rule lets a disconnected cache go on without.
    pub stale_disconnected: bool,
    /// Must not be served stale, whatever the windows and the client say.
    pub must_revalidate: bool,
    /// Must be validated before every use.
    pub no_cache: bool,
}

/// The times of a response, or of a stored one whose fields were updated from a 304. `request_time` is when the
/// request that led to it was sent, `response_time` when its head was received.
pub fn times(response: &ResponseHead, policy: &Policy, request_time: u64, response_time: u64) -> Times {
    let directives = ResponseDirectives::of(&response.fields);
    let initial_age = initial_age(&response.fields, request_time, response_time);
    let window = |origin: Option<u64>, rule: Option<u64>| origin.or(rule).unwrap_or(0);
    Times {
        received: response_time,
        initial_age,
        lifetime: lifetime(response, &directives, policy, initial_age, response_time),
        stale_revalidate: window(directives.stale_while_revalidate, policy.stale.revalidate),
        stale_error: window(directives.stale_if_error, policy.stale.error),
        stale_disconnected: policy.stale.disconnected && directives.stale_if_error.or(policy.stale.error).is_none(),
        must_revalidate: forbids_stale(&directives, policy),
        no_cache: directives.no_cache && !policy.overrides_lifetime(),
    }
}

/// Seconds since the origin generated or validated the response (`current_age`, RFC 9111 §4.2.3): the `Age` to send.
pub fn age(times: &Times, now: u64) -> u64 {
    times.initial_age.saturating_add(now.saturating_sub(times.received))
}

/// Seconds of freshness left, negative once stale: the `ttl` of `Cache-Status` (RFC 9211 §2.4).
pub fn ttl(times: &Times, now: u64) -> i64 {
    let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    signed(times.lifetime).saturating_sub(signed(age(times, now)))
}

/// Whether a directive forbids serving the response stale (RFC 9111 §4.2.4). `s-maxage` does so as part of the
/// origin's lifetime (§5.2.2.10), and goes where a rule overrides that.
pub(super) fn forbids_stale(directives: &ResponseDirectives, policy: &Policy) -> bool {
    let by_s_maxage = directives.s_maxage.is_some() && !policy.overrides_lifetime();
    directives.must_revalidate || directives.proxy_revalidate || by_s_maxage
}

/// The lifetime that the origin states (RFC 9111 §4.2.1), measured like an age. `None`: it states none.
///
/// An invalid `Expires` lies in the past (§5.3); of several the earliest counts. Where a targeted field is obeyed,
/// `Expires` is not there (RFC 9213 §2.2).
pub(super) fn explicit_lifetime(directives: &ResponseDirectives, fields: &Fields, response_time: u64) -> Option<u64> {
    let stated = directives.s_maxage.or(directives.max_age);
    if stated.is_some() || directives.targeted {
        return stated;
    }
    let expires = fields.get_all("expires").map(|value| date::parse(value).unwrap_or(0)).min()?;
    Some(expires.saturating_sub(date_of(fields, response_time)))
}

fn lifetime(
    response: &ResponseHead,
    directives: &ResponseDirectives,
    policy: &Policy,
    initial_age: u64,
    response_time: u64,
) -> u64 {
    let stated = explicit_lifetime(directives, &response.fields, response_time);
    let here = |seconds: u64| initial_age.saturating_add(seconds);
    if !may_be_assigned(response, directives) {
        let stated = stated.unwrap_or(0);
        return match policy.ttl {
            Ttl::Origin => stated,
            Ttl::Fixed(seconds) => stated.min(here(seconds)),
            Ttl::Bounded { max, .. } => stated.min(max.map_or(u64::MAX, here)),
        };
    }
    let heuristic = || heuristic_lifetime(&response.fields, response_time);
    match policy.ttl {
        Ttl::Origin => stated.unwrap_or_else(heuristic),
        Ttl::Fixed(seconds) => here(seconds),
        Ttl::Bounded { default, min, max } => {
            let lifetime = stated.or(default.map(here)).unwrap_or_else(heuristic);
            lifetime.max(min.map_or(0, here)).min(max.map_or(u64::MAX, here))
        }
    }
}

/// Whether we or the rule may give the response a lifetime of our own (RFC 9111 §4.2.2).
pub(super) fn may_be_assigned(response: &ResponseHead, directives: &ResponseDirectives) -> bool {
    status::heuristically_cacheable(response.status) || directives.public
}

/// Whether a lifetime that a rule states for answers may be told of a response with this status: not for one that would be
/// prolonged by it, as a failure.
pub fn is_for_answers(status: StatusCode) -> bool {
    status::heuristically_cacheable(status)
}

fn heuristic_lifetime(fields: &Fields, response_time: u64) -> u64 {
    let modified = fields.get("last-modified").and_then(date::parse);
    let unchanged_for = modified.map_or(0, |modified| date_of(fields, response_time).saturating_sub(modified));
    (unchanged_for / HEURISTIC_PART).min(HEURISTIC_MAX)
}

/// `corrected_initial_age`, the conservative form: the greater of what the clocks say and what `Age` says.
fn initial_age(fields: &Fields, request_time: u64, response_time: u64) -> u64 {
    let apparent = response_time.saturating_sub(date_of(fields, response_time));
    let delay = response_time.saturating_sub(request_time);
    apparent.max(age_value(fields).saturating_add(delay))
}

/// The first member of `Age`; 0 if that is no number (RFC 9111 §5.1).
fn age_value(fields: &Fields) -> u64 {
    let first = fields.get_all("age").flat_map(|value| list::members(value, Quoted::Strings)).next();
    first.and_then(cache_control::delta_seconds).unwrap_or(0)
}

/// `Date`, or the time of receipt where it is missing or invalid (RFC 9110 §6.6.1).
fn date_of(fields: &Fields, response_time: u64) -> u64 {
    fields.get("date").and_then(date::parse).unwrap_or(response_time)
}

#[cfg(test)]
mod tests {
    use super::super::policy::StaleWindows;
    use super::super::sample::{NOW, response};
    use super::*;

    /// A header line with a date so many seconds from `NOW`.
    fn at(name: &str, offset: i64) -> String {
        format!("{name}: {}", date::format(NOW.saturating_add_signed(offset)))
    }

    fn plain(status: u16, lines: &str) -> Times {
        times(&response(status, lines), &Policy::default(), NOW, NOW)
    }

    #[test]
    fn the_first_of_s_maxage_max_age_expires_heuristic() {
        let date = at("Date", 0);
        for (lines, lifetime) in [
            ("Cache-Control: max-age=60, s-maxage=30".to_owned(), 30),
            ("Cache-Control: s-maxage=0, max-age=60".to_owned(), 0),
            (format!("Cache-Control: max-age=60\nExpires: 0\n{date}"), 60),
            (format!("Cache-Control: max-age=0\n{}\n{date}", at("Expires", 90)), 0),
            (format!("Cache-Control: max-age=x\n{}\n{date}", at("Expires", 90)), 0),
            (format!("{}\n{date}", at("Expires", 90)), 90),
            (format!("{}\n{}", at("Expires", 90), at("Date", -10)), 100),
            (format!("{}\n{}", at("Expires", 300), at("Date", 400)), 0),
            (at("Expires", 90), 90),
            (format!("{}\nDate: foo", at("Expires", 90)), 90),
            (format!("Expires: 0\n{}\n{date}", at("Last-Modified", -1000)), 0),
            (format!("{}\n{}\n{date}", at("Expires", 90), at("Expires", 30)), 30),
            (format!("{}\nExpires: x\n{date}", at("Expires", 90)), 0),
            // A targeted field takes the place of both.
            (format!("CDN-Cache-Control: max-age=5\nCache-Control: s-maxage=60\n{}\n{date}", at("Expires", 90)), 5),
            (format!("CDN-Cache-Control: none\nCache-Control: max-age=60\n{}\n{date}", at("Expires", 90)), 0),
            (format!("CDN-Cache-Control: none\n{}\n{date}", at("Last-Modified", -1000)), 100),
            (format!("CDN-Cache-Control:\n{}\n{date}", at("Expires", 90)), 90),
            (format!("{}\n{date}", at("Last-Modified", -1000)), 100),
            (format!("{}\n{}", at("Last-Modified", -1000), at("Date", -500)), 50),
            (at("Last-Modified", -1000), 100),
            (format!("{}\n{date}", at("Last-Modified", 1000)), 0),
            (format!("{}\n{date}", at("Last-Modified", -365 * 24 * 3600)), HEURISTIC_MAX),
            ("Last-Modified: x".to_owned(), 0),
            ("ETag: \"a\"".to_owned(), 0),
        ] {
            assert_eq!(plain(200, &lines).lifetime, lifetime, "{lines}");
        }
    }

    #[test]
    fn the_heuristic_is_for_cacheable_statuses_and_public() {
        let modified = at("Last-Modified", -1000);
        for (status, lines, lifetime) in [
            (404, String::new(), 100),
            (501, String::new(), 100),
            (302, String::new(), 0),
            (503, String::new(), 0),
            (599, String::new(), 0),
            (599, "Cache-Control: public".to_owned(), 100),
            (302, "Cache-Control: max-age=7".to_owned(), 7),
        ] {
            assert_eq!(plain(status, &format!("{modified}\n{lines}")).lifetime, lifetime, "{status} {lines}");
        }
    }

    #[test]
    fn initial_age() {
        // (lines, request sent this long before receipt, age)
        for (lines, delay, age) in [
            (String::new(), 0, 0),
            (String::new(), 3, 3),
            (at("Date", 0), 0, 0),
            (at("Date", -10), 0, 10),
            (at("Date", 10), 0, 0),
            (at("Date", -10), 3, 10),
            ("Date: foo".to_owned(), 0, 0),
            ("Age: 15".to_owned(), 0, 15),
            ("Age: 15".to_owned(), 3, 18),
            (format!("Age: 15\n{}", at("Date", -20)), 3, 20),
            ("Age: 7200, 0".to_owned(), 0, 7200),
            ("Age: 7200\nAge: 0".to_owned(), 0, 7200),
            ("Age: 0, 7200".to_owned(), 0, 0),
            ("Age:\nAge: 7200".to_owned(), 0, 7200),
            ("Age: x, 7200".to_owned(), 0, 0),
            ("Age: \"7200\"".to_owned(), 0, 0),
            ("Age: abc".to_owned(), 0, 0),
            ("Age: -7200".to_owned(), 0, 0),
            ("Age: 7200.0".to_owned(), 0, 0),
            ("Age: 99999999999999999999".to_owned(), 0, cache_control::SECONDS_MAX),
        ] {
            let times = times(&response(200, &lines), &Policy::default(), NOW - delay, NOW);
            assert_eq!(times.initial_age, age, "{lines}");
            assert_eq!(super::age(&times, NOW + 5), age + 5, "{lines}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_negative() {
        let times = times(&response(200, "Cache-Control: max-age=9"), &Policy::default(), NOW + 50, NOW);
        assert_eq!((times.initial_age, age(&times, NOW - 100)), (0, 0));
        assert_eq!((ttl(&times, NOW + 4), ttl(&times, NOW + 9), ttl(&times, NOW + 21)), (5, 0, -12));
        let endless = Times { lifetime: u64::MAX, initial_age: u64::MAX, ..times };
        assert_eq!((age(&endless, u64::MAX), ttl(&endless, NOW)), (u64::MAX, 0));
    }

    #[test]
    fn a_rules_seconds_count_from_receipt() {
        let bounded = |default, min, max| Ttl::Bounded { default, min, max };
        for (ttl, status, lines, left) in [
            (Ttl::Fixed(30), 200, "", 30),
            (Ttl::Fixed(30), 200, "Age: 500", 30),
            (Ttl::Fixed(30), 200, "Cache-Control: no-cache, max-age=0", 30),
            (Ttl::Fixed(30), 200, "Cache-Control: max-age=900", 30),
            (Ttl::Fixed(0), 200, "Cache-Control: max-age=900", 0),
            (Ttl::Fixed(30), 404, "Expires: 0", 30),
            (Ttl::Fixed(30), 302, "Cache-Control: public", 30),
            // Not for answers that nobody said may be kept so long.
            (Ttl::Fixed(30), 503, "Cache-Control: max-age=5", 5),
            (Ttl::Fixed(30), 503, "Cache-Control: max-age=90", 30),
            (Ttl::Fixed(30), 503, "", 0),
            (bounded(Some(30), None, None), 200, "Age: 500", 30),
            (bounded(Some(30), None, None), 200, "Cache-Control: max-age=5", 5),
            (bounded(Some(30), None, None), 200, "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT", 30),
            (bounded(Some(30), None, None), 503, "", 0),
            (bounded(None, Some(10), Some(60)), 200, "Cache-Control: max-age=5", 10),
            (bounded(None, Some(10), Some(60)), 200, "Cache-Control: max-age=0", 10),
            (bounded(None, Some(10), Some(60)), 200, "Cache-Control: max-age=50", 50),
            (bounded(None, Some(10), Some(60)), 200, "Cache-Control: max-age=90", 60),
            (bounded(None, Some(10), Some(60)), 200, "Cache-Control: max-age=90\nAge: 500", 10),
            (bounded(None, Some(10), Some(60)), 200, "Cache-Control: max-age=900\nAge: 500", 60),
            (bounded(None, Some(10), Some(60)), 503, "Cache-Control: max-age=5", 5),
            (bounded(None, Some(10), Some(60)), 503, "Cache-Control: max-age=90", 60),
            (bounded(None, Some(60), Some(10)), 200, "Cache-Control: max-age=30", 10),
            (Ttl::Fixed(u64::MAX), 200, "Age: 500", i64::MAX - 500),
        ] {
            let policy = Policy { ttl, ..Policy::default() };
            let times = times(&response(status, lines), &policy, NOW, NOW);
            assert_eq!(super::ttl(&times, NOW), left, "{ttl:?} {status} {lines}");
        }
    }

    #[test]
    fn a_window_that_somebody_names_also_counts_when_disconnected() {
        let plain = Policy::plain_http_when_disconnected();
        let named = Policy { stale: StaleWindows { error: Some(9), ..plain.stale }, ..plain };
        for (policy, lines, disconnected) in [
            (plain, "", true),
            (plain, "Cache-Control: stale-while-revalidate=9", true),
            (plain, "Cache-Control: stale-if-error=0", false),
            (named, "", false),
            (Policy::default(), "", false),
        ] {
            let times = times(&response(200, lines), &policy, NOW, NOW);
            assert_eq!(times.stale_disconnected, disconnected, "{lines}");
        }
    }

    #[test]
    fn windows_and_prohibitions() {
        let stale = StaleWindows { revalidate: Some(100), error: Some(200), disconnected: true };
        let origin = Policy { stale, ..Policy::default() };
        let fixed = Policy { ttl: Ttl::Fixed(30), ..origin };
        for (policy, lines, windows, must_revalidate, no_cache) in [
            (Policy::default(), "max-age=1", (0, 0), false, false),
            (Policy::default(), "max-age=1, stale-while-revalidate=3, stale-if-error=4", (3, 4), false, false),
            (origin, "max-age=1", (100, 200), false, false),
            (origin, "max-age=1, stale-while-revalidate=3", (3, 200), false, false),
            (origin, "max-age=1, stale-if-error=0", (100, 0), false, false),
            (origin, "max-age=1, stale-if-error=x", (100, 0), false, false),
            (origin, "must-revalidate", (100, 200), true, false),
            (origin, "proxy-revalidate", (100, 200), true, false),
            (origin, "s-maxage=5", (100, 200), true, false),
            (origin, "no-cache", (100, 200), false, true),
            (fixed, "no-cache, s-maxage=5", (100, 200), false, false),
            (fixed, "must-revalidate", (100, 200), true, false),
            (fixed, "proxy-revalidate", (100, 200), true, false),
        ] {
            let times = times(&response(200, &format!("Cache-Control: {lines}")), &policy, NOW, NOW);
            assert_eq!((times.stale_revalidate, times.stale_error), windows, "{lines}");
            assert_eq!((times.must_revalidate, times.no_cache), (must_revalidate, no_cache), "{lines}");
        }
    }
}
