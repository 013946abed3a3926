//! What a client is told of how the cache handled its request: our member of `Cache-Status` (RFC 9211). It is appended
//! after the members of caches nearer to the origin, and left out of answers that no cache was asked for (§2).

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use http::StatusCode;

use crate::outcome::{Outcome, Reason};

/// Our name in the list (a Token, RFC 9651 §3.3.4).
const CACHE: &str = "Millpond";
/// The largest Integer of a structured field (RFC 9651 §3.3.1).
const INTEGER_MAX: i64 = 999_999_999_999_999;

/// What [`member`] gives where the reason tells all about why the request went forward, if it did.
pub fn value(
    outcome: Outcome,
    reason: Option<Reason>,
    ttl: Option<i64>,
    fwd_status: Option<StatusCode>,
    stored: bool,
    collapsed: bool,
) -> String {
    member(outcome, reason, None, ttl, fwd_status, stored, collapsed)
}

/// One list member, for example `Millpond; hit; ttl=29; detail=hit`.
///
/// `went_for`: what the cache had when the request went forward, where `reason` does not tell it; a stale response is
/// taken for a hit unless this says that the origin was asked first (§2.1).
/// `ttl`: seconds of freshness left, negative once stale. `fwd_status`: what the origin answered. `fwd_status`,
/// `stored` and `collapsed` are left out where they mean nothing: without `fwd` (§2.3, §2.5, §2.6). `detail` is the
/// outcome, and after a slash the reason, if there is one: `detail=pass/authorization` is one Token.
pub fn member(
    outcome: Outcome,
    reason: Option<Reason>,
    went_for: Option<Reason>,
    ttl: Option<i64>,
    fwd_status: Option<StatusCode>,
    stored: bool,
    collapsed: bool,
) -> String {
    let mut value = String::with_capacity(96);
    let handled = handling(outcome, reason, went_for);
    value.push_str(CACHE);
    match handled {
        Handling::Hit => value.push_str("; hit"),
        Handling::Forwarded(why) => {
            value.push_str("; fwd=");
            value.push_str(why);
        }
        Handling::Neither => {}
    }
    let forwarded = matches!(handled, Handling::Forwarded(_));
    if let Some(status) = fwd_status.filter(|_| forwarded) {
        value.push_str("; fwd-status=");
        value.push_str(status.as_str());
    }
    if let Some(ttl) = ttl.filter(|_| handled != Handling::Neither) {
        push(&mut value, format_args!("; ttl={}", ttl.clamp(-INTEGER_MAX, INTEGER_MAX)));
    }
    if forwarded && stored {
        value.push_str("; stored");
    }
    if forwarded && (collapsed || outcome == Outcome::Collapsed) {
        value.push_str("; collapsed");
    }
    value.push_str("; detail=");
    value.push_str(outcome.as_str());
    if let Some(reason) = reason {
        value.push('/');
        value.push_str(reason.as_str());
    }
    value
}

/// Appends the member of a plain hit, which is what [`value`] gives for it.
pub fn put_hit(out: &mut BytesMut, ttl: i64) {
    out.put_slice(b"Millpond; hit; ttl=");
    out.put_slice(itoa::Buffer::new().format(ttl.clamp(-INTEGER_MAX, INTEGER_MAX)).as_bytes());
    out.put_slice(b"; detail=hit");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Handling {
    Hit,
    /// Went to the origin; the `fwd` value says why (§2.2).
    Forwarded(&'static str),
    /// Answered by ourselves.
    Neither,
}

fn handling(outcome: Outcome, reason: Option<Reason>, went_for: Option<Reason>) -> Handling {
    let found = || went_for.and_then(why_not_reused).or_else(|| reason.and_then(why_not_reused));
    match outcome {
        Outcome::Hit => Handling::Hit,
        // Sent because the origin failed when asked; otherwise it did not go forward, and is a hit (§2.1).
        Outcome::Stale if went_for.is_some() => Handling::Forwarded(found().unwrap_or("stale")),
        Outcome::Stale => Handling::Hit,
        Outcome::Pass if reason == Some(Reason::Method) => Handling::Forwarded("method"),
        // The request was looked up, but its response is not for sharing.
        Outcome::Pass if went_for.is_some() => Handling::Forwarded(found().unwrap_or("miss")),
        Outcome::Pass => Handling::Forwarded("bypass"),
        Outcome::Revalidated => Handling::Forwarded(found().unwrap_or("stale")),
        Outcome::Miss | Outcome::Collapsed => {
            // A reason that tells of the response leaves open what the cache had: `miss` says just that.
            let unknown = if reason.is_none() { "uri-miss" } else { "miss" };
            Handling::Forwarded(found().unwrap_or(unknown))
        }
        Outcome::Refused | Outcome::Error => Handling::Neither,
    }
}

/// The `fwd` value of a reason that tells what the cache had.
fn why_not_reused(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::NotCached => Some("uri-miss"),
        Reason::VaryMiss => Some("vary-miss"),
        Reason::Partial => Some("partial"),
        Reason::RequestNoCache | Reason::RequestMaxAge | Reason::RequestMinFresh => Some("request"),
        Reason::NotFresh
        | Reason::NoCache
        | Reason::Purged
        | Reason::Changed
        | Reason::LiveUnsure
        | Reason::OlderVersion => Some("stale"),
        Reason::RuleBypass | Reason::NoRule => Some("bypass"),
        _ => None,
    }
}

fn push(value: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = value.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_reads_the_same_both_ways() {
        for ttl in [0, 1, 3600, -5, i64::MAX, i64::MIN] {
            let mut out = BytesMut::new();
            put_hit(&mut out, ttl);
            assert_eq!(out, value(Outcome::Hit, None, Some(ttl), None, false, false).as_bytes());
        }
    }

    #[test]
    fn members() {
        use Outcome::*;
        let status = |code| StatusCode::from_u16(code).ok();
        for (outcome, reason, ttl, fwd_status, stored, expected) in [
            (Hit, None, Some(29), None, false, "hit; ttl=29; detail=hit"),
            (Hit, None, Some(29), status(200), true, "hit; ttl=29; detail=hit"),
            (Stale, None, Some(-5), None, false, "hit; ttl=-5; detail=stale"),
            (Stale, Some(Reason::NoOrigin), Some(-5), None, false, "hit; ttl=-5; detail=stale/no-origin"),
            (
                Stale,
                Some(Reason::OriginError),
                Some(-5),
                status(503),
                false,
                "fwd=stale; fwd-status=503; ttl=-5; detail=stale/origin-error",
            ),
            (Miss, None, None, status(200), true, "fwd=uri-miss; fwd-status=200; stored; detail=miss"),
            (Miss, Some(Reason::NotCached), None, None, false, "fwd=uri-miss; detail=miss/not-cached"),
            (Miss, Some(Reason::VaryMiss), None, None, true, "fwd=vary-miss; stored; detail=miss/vary"),
            (
                Miss,
                Some(Reason::NotFresh),
                None,
                status(200),
                true,
                "fwd=stale; fwd-status=200; stored; detail=miss/expired",
            ),
            (Miss, Some(Reason::NoStore), None, None, false, "fwd=miss; detail=miss/no-store"),
            (Miss, Some(Reason::RequestNoCache), None, None, true, "fwd=request; stored; detail=miss/request-no-cache"),
            (Collapsed, None, None, None, false, "fwd=uri-miss; collapsed; detail=collapsed"),
            (Revalidated, None, None, status(304), false, "fwd=stale; fwd-status=304; detail=revalidated"),
            (
                Revalidated,
                Some(Reason::RequestMaxAge),
                Some(60),
                status(304),
                true,
                "fwd=request; fwd-status=304; ttl=60; stored; detail=revalidated/request-max-age",
            ),
            (Pass, None, None, None, false, "fwd=bypass; detail=pass"),
            (Pass, Some(Reason::Authorization), None, None, false, "fwd=bypass; detail=pass/authorization"),
            (Pass, Some(Reason::Method), None, status(201), false, "fwd=method; fwd-status=201; detail=pass/method"),
            (Pass, Some(Reason::Range), None, status(206), false, "fwd=bypass; fwd-status=206; detail=pass/range"),
            (Error, None, Some(1), status(502), true, "detail=error"),
            (Error, Some(Reason::OriginTimeout), None, None, false, "detail=error/origin-timeout"),
            (Refused, Some(Reason::BadRequest), None, None, false, "detail=refused/bad-request"),
        ] {
            let went_for = (reason == Some(Reason::OriginError)).then_some(Reason::NotFresh);
            let found = member(outcome, reason, went_for, ttl, fwd_status, stored, false);
            assert_eq!(found, format!("Millpond; {expected}"));
        }
        let collapsed = value(Miss, None, None, None, false, true);
        assert_eq!(collapsed, "Millpond; fwd=uri-miss; collapsed; detail=miss");
        assert_eq!(
            value(Hit, None, Some(i64::MIN), None, false, true),
            format!("Millpond; hit; ttl=-{INTEGER_MAX}; detail=hit")
        );
    }

    #[test]
    fn the_most_specific_reason_is_given() {
        use Outcome::*;
        for (outcome, reason, went_for, expected) in [
            (Miss, Reason::NoStore, Some(Reason::NotCached), "fwd=uri-miss; detail=miss/no-store"),
            (Miss, Reason::Private, Some(Reason::VaryMiss), "fwd=vary-miss; detail=miss/private"),
            (Pass, Reason::Authorization, Some(Reason::NotCached), "fwd=uri-miss; detail=pass/authorization"),
            (Pass, Reason::RequestNoStore, Some(Reason::NotFresh), "fwd=stale; detail=pass/request-no-store"),
            (Pass, Reason::Authorization, Some(Reason::Remembered), "fwd=miss; detail=pass/authorization"),
            (Stale, Reason::OriginError, None, "hit; detail=stale/origin-error"),
            (Stale, Reason::OriginTimeout, Some(Reason::RequestNoCache), "fwd=request; detail=stale/origin-timeout"),
        ] {
            let found = member(outcome, Some(reason), went_for, None, None, false, false);
            assert_eq!(found, format!("Millpond; {expected}"));
        }
    }

    /// RFC 9211 §2.1: `hit` and `fwd` are exclusive; §2.2: no other `fwd` values; §2: the type of each parameter.
    #[test]
    fn every_pair_makes_a_valid_member() {
        let forwards = ["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"];
        for outcome in Outcome::ALL {
            for reason in std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some)) {
                let status = StatusCode::from_u16(200).ok();
                let text = super::member(*outcome, reason, reason, Some(1), status, true, true);
                let list: sfv::List = sfv::Parser::new(&text).parse().expect(&text);
                let [sfv::ListEntry::Item(member)] = list.as_slice() else { panic!("{text}: more than one member") };
                assert_eq!(member.bare_item.as_token().map(|name| name.as_str()), Some(CACHE), "{text}");
                let parameter = |name: &str| member.params.get(name);
                for (name, value) in &member.params {
                    let typed = match name.as_str() {
                        "hit" | "stored" | "collapsed" => value.as_boolean() == Some(true),
                        "fwd-status" | "ttl" => value.as_integer().is_some(),
                        "fwd" => value.as_token().is_some_and(|why| forwards.contains(&why.as_str())),
                        "detail" => value.as_token().is_some(),
                        _ => false,
                    };
                    assert!(typed, "{text}: {name}");
                }
                assert!(parameter("hit").is_none() || parameter("fwd").is_none(), "{text}");
                assert_eq!(parameter("stored").is_some(), parameter("fwd").is_some(), "{text}");
                assert_eq!(parameter("fwd-status").is_some(), parameter("fwd").is_some(), "{text}");
                assert!(parameter("detail").is_some(), "{text}");
            }
        }
    }
}
