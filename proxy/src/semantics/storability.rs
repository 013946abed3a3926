//! May a response be stored in this shared cache (RFC 9111 §3, §3.5)? Every refusal names its reason.

use http::{Method, StatusCode};
use millpond_shared::http1::ResponseHead;

use super::cache_control::ResponseDirectives;
use super::freshness::{explicit_lifetime, forbids_stale, may_be_assigned};
use super::policy::{Cookies, Policy, Ttl};
use super::request::Ask;
use super::status;
use super::validate::Validators;
use super::vary::Vary;
use crate::outcome::Reason;

/// Whether the `response` to a request with `method`, made for a client that asked `ask`, may be stored.
///
/// `method` is that of the request to the origin: a HEAD may be answered by fetching and storing a GET. Whoever
/// updates a stored response from a 304 judges the updated head again, since a 304 may say `no-store` or set a cookie.
/// That the body arrived whole is for the caller to see.
///
/// The RFC allows storing more than is useful. A response that could never be used (its lifetime is zero or missing,
/// no stale window applies, and it can't be validated) is not stored: [`Reason::NoExplicitLifetime`].
pub fn judge(method: &Method, ask: &Ask, response: &ResponseHead, policy: &Policy) -> Result<(), Reason> {
    let fields = &response.fields;
    let directives = ResponseDirectives::of(fields);
    if *method != Method::GET {
        return Err(Reason::Method);
    }
    if ask.directives.no_store {
        return Err(Reason::RequestNoStore);
    }
    status(response.status, &directives)?;
    if directives.private {
        return Err(Reason::Private);
    }
    if ask.authorized && !may_be_shared(&directives, policy) {
        return Err(Reason::Authorization);
    }
    if ask.cookies && policy.cookies == Cookies::Private && !is_for_all(&directives) {
        return Err(Reason::Cookie);
    }
    let sets = |name| fields.contains(name) && !directives.withholds(name);
    if policy.set_cookie_is_private && (sets("set-cookie") || sets("set-cookie2")) {
        return Err(Reason::SetCookie);
    }
    if Vary::of(fields) == Vary::Any {
        return Err(Reason::VaryAny);
    }
    usable_later(response, &directives, policy)
}

/// The status, and `no-store`, which `must-understand` lifts for a status that is understood (§5.2.2.3).
fn status(status: StatusCode, directives: &ResponseDirectives) -> Result<(), Reason> {
    if !status::storable(status) {
        return Err(Reason::StatusNotStorable);
    }
    if directives.must_understand && !status::understood(status) {
        return Err(Reason::MustUnderstand);
    }
    if directives.no_store && !directives.must_understand {
        return Err(Reason::NoStore);
    }
    Ok(())
}

/// Whether the response to an authorized request may be sent to others (§3.5). `s-maxage` allows it only as long as
/// its own requirements are kept (§5.2.2.10).
fn may_be_shared(directives: &ResponseDirectives, policy: &Policy) -> bool {
    directives.public
        || directives.must_revalidate
        || directives.s_maxage.is_some_and(|seconds| policy.keeps_within(seconds))
}

/// Whether a response says in words that it is for all who ask, whatever cookies they send: `public`, `s-maxage`, or
/// anything that is meant for shared caches alone (RFC 9213).
pub fn is_for_all(directives: &ResponseDirectives) -> bool {
    directives.public || directives.s_maxage.is_some() || directives.targeted
}

/// Whether anything could ever be done with it: sent while fresh, sent stale, or validated.
fn usable_later(response: &ResponseHead, directives: &ResponseDirectives, policy: &Policy) -> Result<(), Reason> {
    // Without a Date, Expires counts from receipt. Which instant that is does not matter here, so it is taken for
    // the earliest: such an Expires then states some lifetime.
    let stated = explicit_lifetime(directives, &response.fields, 0);
    let assignable = may_be_assigned(response, directives);
    if stated.is_none() && !assignable {
        return Err(Reason::StatusNotStorable);
    }
    let lifetime = match policy.ttl {
        Ttl::Fixed(seconds) if assignable => Some(seconds),
        Ttl::Bounded { default, min, .. } if assignable => stated.or(default).max(min),
        _ => stated,
    };
    let must_validate = directives.no_cache && !policy.overrides_lifetime();
    // A window follows a lifetime, if only one of zero seconds.
    let may_be_sent = lifetime.is_some_and(|seconds| seconds > 0 || has_window(directives, policy)) && !must_validate;
    let usable = may_be_sent || Validators::of(&response.fields).any();
    if usable { Ok(()) } else { Err(Reason::NoExplicitLifetime) }
}

fn has_window(directives: &ResponseDirectives, policy: &Policy) -> bool {
    let revalidate = directives.stale_while_revalidate.or(policy.stale.revalidate);
    let error = directives.stale_if_error.or(policy.stale.error);
    !forbids_stale(directives, policy) && revalidate.max(error).unwrap_or(0) > 0
}

#[cfg(test)]
mod tests {
    use super::super::cache_control::RequestDirectives;
    use super::super::policy::StaleWindows;
    use super::super::sample::response;
    use super::*;

    const LATER: &str = "Expires: Sun, 06 Nov 1994 08:50:00 GMT";
    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT";

    fn get(status: u16, lines: &str, policy: &Policy) -> Result<(), Reason> {
        judge(&Method::GET, &Ask::plain(), &response(status, lines), policy)
    }

    fn plain(status: u16, lines: &str) -> Result<(), Reason> {
        get(status, lines, &Policy::plain_http())
    }

    #[test]
    fn lifetimes_and_validators() {
        let no_use = Err(Reason::NoExplicitLifetime);
        for (lines, verdict) in [
            ("Cache-Control: max-age=60", Ok(())),
            ("Cache-Control: s-maxage=60", Ok(())),
            (LATER, Ok(())),
            (&format!("{LATER}\n{DATE}"), Ok(())),
            ("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", Ok(())),
            ("ETag: \"a\"", Ok(())),
            ("ETag: W/\"a\"\nCache-Control: no-cache", Ok(())),
            ("ETag: \"a\"\nCache-Control: max-age=0, must-revalidate", Ok(())),
            ("Cache-Control: max-age=0, stale-while-revalidate=9", Ok(())),
            ("Cache-Control: max-age=0, stale-if-error=9", Ok(())),
            ("", no_use),
            ("Cache-Control: public", no_use),
            ("Cache-Control: max-age=0", no_use),
            ("Cache-Control: max-age=x", no_use),
            ("Cache-Control: max-age=60, s-maxage=0, stale-if-error=9", no_use),
            ("Cache-Control: max-age=0, stale-if-error=9, must-revalidate", no_use),
            ("Cache-Control: max-age=60, no-cache", no_use),
            ("Expires: 0", no_use),
            ("Expires: -1\nPragma: no-cache", no_use),
            ("Expires: Sun, 06 Nov 1994 08:49:37 GMT\nDate: Sun, 06 Nov 1994 08:49:37 GMT", no_use),
            ("Last-Modified: yesterday", no_use),
            ("ETag:", no_use),
        ] {
            assert_eq!(plain(200, lines), verdict, "{lines}");
        }
    }

    #[test]
    fn statuses() {
        let explicit = "Cache-Control: max-age=60";
        let validator = "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT";
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(plain(status, explicit), Ok(()), "{status}");
            assert_eq!(plain(status, validator), Ok(()), "{status}");
        }
        for status in [201, 202, 299, 302, 303, 307, 400, 403, 499, 500, 502, 503, 504, 599] {
            assert_eq!(plain(status, explicit), Ok(()), "{status}");
            assert_eq!(plain(status, validator), Err(Reason::StatusNotStorable), "{status}");
        }
        assert_eq!(plain(599, &format!("{validator}\nCache-Control: public")), Ok(()));
        for status in [100, 101, 103, 206, 304, 600, 999] {
            assert_eq!(plain(status, explicit), Err(Reason::StatusNotStorable), "{status}");
        }
    }

    #[test]
    fn prohibitions() {
        for (status, lines, verdict) in [
            (200, "no-store", Err(Reason::NoStore)),
            (200, "No-StOrE, public", Err(Reason::NoStore)),
            (200, "private", Err(Reason::Private)),
            (200, "private=\"\"", Err(Reason::Private)),
            (200, "private=\"set-cookie\"", Ok(())),
            (200, "private=\"set-cookie\", private", Err(Reason::Private)),
            (200, "private, public", Err(Reason::Private)),
            (200, "no-store, must-understand", Ok(())),
            (404, "no-store, must-understand", Ok(())),
            (200, "no-store, must-understand=x", Err(Reason::NoStore)),
            (200, "no-store, must-understand, private", Err(Reason::Private)),
            (299, "must-understand", Err(Reason::MustUnderstand)),
            (299, "no-store, must-understand", Err(Reason::MustUnderstand)),
            (206, "no-store, must-understand", Err(Reason::StatusNotStorable)),
        ] {
            let lines = format!("Cache-Control: max-age=60, {lines}");
            // No rule's ttl lifts any of them.
            for ttl in [Ttl::Origin, Ttl::Fixed(30)] {
                let policy = Policy { ttl, ..Policy::default() };
                assert_eq!(get(status, &lines, &policy), verdict, "{status} {lines} {ttl:?}");
            }
        }
        for vary in ["Vary: *", "Vary: a, *", "Vary: a\nVary: *"] {
            let lines = format!("Cache-Control: max-age=60\n{vary}");
            assert_eq!(plain(200, &lines), Err(Reason::VaryAny), "{lines}");
        }
    }

    #[test]
    fn a_targeted_field_decides_alone() {
        for (lines, verdict) in [
            ("CDN-Cache-Control: max-age=60\nCache-Control: no-store, private", Ok(())),
            ("CDN-Cache-Control: no-store\nCache-Control: max-age=60", Err(Reason::NoStore)),
            ("CDN-Cache-Control: private\nCache-Control: public, max-age=60", Err(Reason::Private)),
            (&format!("CDN-Cache-Control: none\n{LATER}"), Err(Reason::NoExplicitLifetime)),
            ("CDN-Cache-Control: max-age=x\nCache-Control: max-age=60", Err(Reason::NoExplicitLifetime)),
            ("CDN-Cache-Control: ;\nCache-Control: max-age=60", Ok(())),
            ("Millpond-Cache-Control: no-store\nCDN-Cache-Control: max-age=60", Err(Reason::NoStore)),
        ] {
            assert_eq!(plain(200, lines), verdict, "{lines}");
        }
        let authorized = Ask { authorized: true, collapse: false, ..Ask::plain() };
        let shared = response(200, "CDN-Cache-Control: s-maxage=60\nCache-Control: max-age=60");
        assert_eq!(judge(&Method::GET, &authorized, &shared, &Policy::default()), Ok(()));
        let unshared = response(200, "CDN-Cache-Control: max-age=60\nCache-Control: public");
        assert_eq!(judge(&Method::GET, &authorized, &unshared, &Policy::default()), Err(Reason::Authorization));
    }

    #[test]
    fn what_the_request_forbids() {
        let fresh = response(200, "Cache-Control: max-age=60");
        let policy = Policy::default();
        for method in [Method::HEAD, Method::POST, Method::OPTIONS] {
            assert_eq!(judge(&method, &Ask::plain(), &fresh, &policy), Err(Reason::Method), "{method}");
        }
        let no_store = RequestDirectives { no_store: true, ..RequestDirectives::default() };
        let no_store = Ask { directives: no_store, ..Ask::plain() };
        assert_eq!(judge(&Method::GET, &no_store, &fresh, &policy), Err(Reason::RequestNoStore));
        let head = Ask { head_only: true, ..Ask::plain() };
        assert_eq!(judge(&Method::GET, &head, &fresh, &policy), Ok(()), "a GET made for a HEAD");
    }

    #[test]
    fn authorized_responses_are_shared_only_if_they_say_so() {
        let bounded = |min| Ttl::Bounded { default: None, min, max: None };
        for (directives, ttl, storable) in [
            ("max-age=60", Ttl::Origin, false),
            ("max-age=60", Ttl::Fixed(30), false),
            ("max-age=60, proxy-revalidate", Ttl::Origin, false),
            ("max-age=60, public", Ttl::Origin, true),
            ("max-age=60, must-revalidate", Ttl::Origin, true),
            ("max-age=60, must-revalidate", Ttl::Fixed(30), true),
            ("s-maxage=60", Ttl::Origin, true),
            ("s-maxage=60", Ttl::Fixed(90), false),
            ("s-maxage=60", bounded(Some(60)), true),
            ("s-maxage=60", bounded(Some(90)), false),
        ] {
            let ask = Ask { authorized: true, collapse: false, ..Ask::plain() };
            let response = response(200, &format!("Cache-Control: {directives}"));
            let expected = if storable { Ok(()) } else { Err(Reason::Authorization) };
            let policy = Policy { ttl, ..Policy::default() };
            assert_eq!(judge(&Method::GET, &ask, &response, &policy), expected, "{directives} {ttl:?}");
        }
    }

    #[test]
    fn what_a_request_with_cookies_brought_is_for_all_only_if_it_says_so() {
        let asked = Ask { cookies: true, ..Ask::plain() };
        for (lines, storable) in [
            ("Cache-Control: max-age=60", false),
            ("Cache-Control: max-age=60, must-revalidate", false),
            ("Cache-Control: max-age=60, public", true),
            ("Cache-Control: s-maxage=60", true),
            ("CDN-Cache-Control: max-age=60", true),
            ("Millpond-Cache-Control: max-age=60", true),
            ("CDN-Cache-Control: ;\nCache-Control: max-age=60", false),
            ("ETag: \"a\"\nVary: Cookie", false),
        ] {
            let response = response(200, lines);
            for cookies in [Cookies::Private, Cookies::Shared, Cookies::Ignored] {
                let expected = if storable || cookies != Cookies::Private { Ok(()) } else { Err(Reason::Cookie) };
                let policy = Policy { cookies, ..Policy::default() };
                assert_eq!(judge(&Method::GET, &asked, &response, &policy), expected, "{lines} {cookies:?}");
                assert_eq!(judge(&Method::GET, &Ask::plain(), &response, &policy), Ok(()), "{lines} {cookies:?}");
            }
        }
    }

    #[test]
    fn cookies_are_private_unless_the_policy_is_plain_http() {
        for name in ["Set-Cookie", "set-cookie", "Set-Cookie2"] {
            let lines = format!("Cache-Control: max-age=60, public\n{name}: a=b");
            assert_eq!(get(200, &lines, &Policy::default()), Err(Reason::SetCookie), "{name}");
            assert_eq!(plain(200, &lines), Ok(()), "{name}");
            // What is not stored is shared with nobody.
            let withheld = format!("Cache-Control: max-age=60, private=\"{name}\"\n{name}: a=b");
            assert_eq!(get(200, &withheld, &Policy::default()), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_rule_gives_lifetimes_to_answers_not_to_failures() {
        let stale = StaleWindows { revalidate: Some(9), ..StaleWindows::default() };
        let bounded = |default, min| Ttl::Bounded { default, min, max: None };
        let no_use = Err(Reason::NoExplicitLifetime);
        for (ttl, status, lines, verdict) in [
            (Ttl::Fixed(30), 200, "", Ok(())),
            (Ttl::Fixed(30), 404, "", Ok(())),
            (Ttl::Fixed(30), 200, "Cache-Control: no-cache, max-age=0", Ok(())),
            (Ttl::Fixed(30), 302, "", Err(Reason::StatusNotStorable)),
            (Ttl::Fixed(30), 503, "ETag: \"a\"", Err(Reason::StatusNotStorable)),
            (Ttl::Fixed(30), 503, "Cache-Control: max-age=5", Ok(())),
            (Ttl::Fixed(0), 200, "", Ok(())),
            (bounded(Some(30), None), 200, "", Ok(())),
            (bounded(None, Some(30)), 200, "Cache-Control: max-age=0", Ok(())),
            (bounded(Some(30), None), 200, "Cache-Control: no-cache", no_use),
            (bounded(Some(30), None), 500, "", Err(Reason::StatusNotStorable)),
            (Ttl::Origin, 200, "", no_use),
            (Ttl::Origin, 200, "Cache-Control: max-age=0", Ok(())),
        ] {
            let policy = Policy { ttl, stale, ..Policy::default() };
            assert_eq!(get(status, lines, &policy), verdict, "{ttl:?} {status} {lines}");
        }
        let strict = Policy { ttl: Ttl::Fixed(0), ..Policy::default() };
        assert_eq!(get(200, "Cache-Control: max-age=60", &strict), no_use, "ttl = 0 and no window");
    }
}
