//! The directives of `Cache-Control` in requests and responses, and `Pragma` in requests (RFC 9111 §5.2, §5.4;
//! RFC 5861 for the two stale windows). Unknown directives are ignored; where a directive is doubled or malformed, the
//! most restrictive reading is taken (RFC 9111 §4.2.1).

use std::borrow::Cow;

use millpond_shared::http1::Fields;

use super::list::{self, Quoted};

/// Stands for any number of seconds too large to matter (RFC 9111 §1.2.2).
pub const SECONDS_MAX: u64 = 1 << 31;

/// What a response says. Seconds are at most [`SECONDS_MAX`]; an invalid number of seconds counts as 0.
///
/// `no-cache="field"` and `private="field"` count as `no-cache` and `private`, which is stricter than they say and
/// what most caches do (RFC 9111 §5.2.2.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
}

impl ResponseDirectives {
    pub fn of(fields: &Fields) -> ResponseDirectives {
        let mut found = ResponseDirectives::default();
        for directive in directives(fields) {
            let seconds = || directive.seconds().unwrap_or(0);
            match directive.name.as_str() {
                "no-store" => found.no_store = true,
                "no-cache" => found.no_cache = true,
                "private" => found.private = true,
                "must-revalidate" => found.must_revalidate = true,
                "proxy-revalidate" => found.proxy_revalidate = true,
                // These two widen what may be stored: with an argument, which neither has, they are not taken.
                "public" => found.public |= directive.argument == Argument::None,
                "must-understand" => found.must_understand |= directive.argument == Argument::None,
                "max-age" => lower(&mut found.max_age, seconds()),
                "s-maxage" => lower(&mut found.s_maxage, seconds()),
                "stale-while-revalidate" => lower(&mut found.stale_while_revalidate, seconds()),
                "stale-if-error" => lower(&mut found.stale_if_error, seconds()),
                _ => {}
            }
        }
        found
    }
}

/// What a request says. Seconds are at most [`SECONDS_MAX`]; an invalid `max-age` counts as 0, an invalid
/// `min-fresh` or `max-stale` as absent. `stale-if-error` in a request is ignored: the rule and the origin say that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u64>,
    pub min_fresh: Option<u64>,
    pub max_stale: Option<MaxStale>,
}

/// How stale a response the client accepts (RFC 9111 §5.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MaxStale {
    /// By at most these seconds.
    Seconds(u64),
    /// `max-stale` without a value: however stale.
    Any,
}

impl RequestDirectives {
    pub fn of(fields: &Fields) -> RequestDirectives {
        let mut found = RequestDirectives::default();
        for directive in directives(fields) {
            match directive.name.as_str() {
                "no-store" => found.no_store = true,
                "no-cache" => found.no_cache = true,
                "only-if-cached" => found.only_if_cached = true,
                "max-age" => lower(&mut found.max_age, directive.seconds().unwrap_or(0)),
                "min-fresh" => found.min_fresh = found.min_fresh.max(directive.seconds()),
                "max-stale" if directive.argument == Argument::None => lower(&mut found.max_stale, MaxStale::Any),
                "max-stale" => {
                    if let Some(seconds) = directive.seconds() {
                        lower(&mut found.max_stale, MaxStale::Seconds(seconds));
                    }
                }
                _ => {}
            }
        }
        // Only a client that does not know Cache-Control is understood through Pragma.
        if !fields.contains("cache-control") {
            found.no_cache = fields.list("pragma").any(|member| member.eq_ignore_ascii_case("no-cache"));
        }
        found
    }
}

/// `delta-seconds`: digits only, at most [`SECONDS_MAX`] (RFC 9111 §1.2.2).
pub(super) fn delta_seconds(text: &[u8]) -> Option<u64> {
    let digit = |b: &u8| b.is_ascii_digit().then(|| u64::from(b - b'0'));
    let add = |sum: u64, b: &u8| Some((sum * 10 + digit(b)?).min(SECONDS_MAX));
    if text.is_empty() { None } else { text.iter().try_fold(0, add) }
}

/// One `token [ "=" ( token / quoted-string ) ]`, the name in lower case.
struct Directive<'a> {
    name: String,
    argument: Argument<'a>,
}

#[derive(PartialEq, Eq)]
enum Argument<'a> {
    None,
    /// The token, or the content of the quoted string: for a directive's own argument both forms mean the same.
    Text(Cow<'a, [u8]>),
    /// An unclosed quote, or blanks around the `=`.
    Malformed,
}

fn directives(fields: &Fields) -> impl Iterator<Item = Directive<'_>> {
    let lines = fields.get_all("cache-control");
    lines.flat_map(|line| list::members(line, Quoted::Strings)).map(Directive::parse)
}

impl<'a> Directive<'a> {
    fn parse(member: &'a [u8]) -> Directive<'a> {
        let mut parts = member.splitn(2, |&b| b == b'=');
        let name = parts.next().unwrap_or(member);
        let argument = match parts.next() {
            None => Argument::None,
            Some(text) if list::trim(name) != name || list::trim(text) != text => Argument::Malformed,
            Some([b'"', rest @ ..]) => unquoted(rest).map_or(Argument::Malformed, Argument::Text),
            Some(token) => Argument::Text(Cow::Borrowed(token)),
        };
        Directive { name: String::from_utf8_lossy(list::trim(name)).to_ascii_lowercase(), argument }
    }

    fn seconds(&self) -> Option<u64> {
        match &self.argument {
            Argument::Text(text) => delta_seconds(text),
            Argument::None | Argument::Malformed => None,
        }
    }
}

/// Content of a quoted string, given what follows its opening quote; the closing one must be the last byte.
fn unquoted(rest: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (&last, content) = rest.split_last()?;
    if !content.contains(&b'\\') {
        return (last == b'"' && !content.contains(&b'"')).then_some(Cow::Borrowed(content));
    }
    let mut text = Vec::with_capacity(content.len());
    let mut bytes = rest.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.as_slice().is_empty().then_some(Cow::Owned(text)),
            b'\\' => text.push(*bytes.next()?),
            &other => text.push(other),
        }
    }
}

fn lower<T: Ord + Copy>(slot: &mut Option<T>, value: T) {
    *slot = Some(slot.map_or(value, |before| before.min(value)));
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;

    fn response(value: &str) -> ResponseDirectives {
        ResponseDirectives::of(&fields(value))
    }

    #[test]
    fn numbers_of_seconds() {
        for (value, max_age) in [
            ("Cache-Control: max-age=3600", Some(3600)),
            ("Cache-Control: MaX-aGe=3600", Some(3600)),
            ("cache-control: foobar, max-age=003600", Some(3600)),
            (r#"Cache-Control: max-age="3600""#, Some(3600)),
            (r#"Cache-Control: max-age="36\00""#, Some(3600)),
            ("Cache-Control: max-age=0", Some(0)),
            ("Cache-Control: max-age=2147483647", Some(2_147_483_647)),
            ("Cache-Control: max-age=2147483649", Some(SECONDS_MAX)),
            ("Cache-Control: max-age=99999999999999999999999999", Some(SECONDS_MAX)),
            // Invalid: stale.
            ("Cache-Control: max-age", Some(0)),
            ("Cache-Control: max-age=", Some(0)),
            ("Cache-Control: max-age=-1", Some(0)),
            ("Cache-Control: max-age=+1", Some(0)),
            ("Cache-Control: max-age=3600.0", Some(0)),
            ("Cache-Control: max-age=a3600", Some(0)),
            ("Cache-Control: max-age=3600a", Some(0)),
            ("Cache-Control: max-age='3600'", Some(0)),
            ("Cache-Control: max-age =3600", Some(0)),
            ("Cache-Control: max-age= 3600", Some(0)),
            (r#"Cache-Control: max-age="3600"#, Some(0)),
            (r#"Cache-Control: max-age="36"00""#, Some(0)),
            // Doubled: the smaller.
            ("Cache-Control: max-age=1800, max-age=1", Some(1)),
            ("Cache-Control: max-age=1\nCache-Control: max-age=1800", Some(1)),
            ("Cache-Control: max-age=1800, max-age=x", Some(0)),
            // Not directives.
            (r#"Cache-Control: extension="max-age=3600""#, None),
            (r#"Cache-Control: extension="a, max-age=3600""#, None),
            ("Cache-Control: x-max-age=3600; max-age=1", None),
            ("Expires: max-age=3600", None),
        ] {
            assert_eq!(response(value).max_age, max_age, "{value}");
        }
    }

    #[test]
    fn every_response_directive_is_found_over_all_lines() {
        let found = response(
            "Cache-Control: No-Store, no-cache, private,, public
             Cache-Control: must-revalidate, proxy-revalidate, must-understand
             Cache-Control: max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4",
        );
        let expected = ResponseDirectives {
            no_store: true,
            no_cache: true,
            private: true,
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            max_age: Some(1),
            s_maxage: Some(2),
            stale_while_revalidate: Some(3),
            stale_if_error: Some(4),
        };
        assert_eq!(found, expected);
        assert_eq!(response("X: no-store"), ResponseDirectives::default());
    }

    #[test]
    fn malformed_directives_are_read_strictly() {
        assert!(response(r#"Cache-Control: private="set-cookie", max-age=9"#).private);
        assert!(response(r#"Cache-Control: no-cache="a, b""#).no_cache);
        assert!(response("Cache-Control: no-store=0").no_store);
        assert!(response(r#"Cache-Control: ext="a, no-store"#).no_store, "an unclosed quote hides nothing");
        assert!(!response(r#"Cache-Control: ext="a, no-store""#).no_store);
        assert!(!response("Cache-Control: public=x").public);
        assert_eq!(response("Cache-Control: stale-if-error=soon").stale_if_error, Some(0));
    }

    #[test]
    fn request_directives() {
        let none = RequestDirectives::default();
        for (lines, expected) in [
            ("", none.clone()),
            ("Cache-Control: no-store", RequestDirectives { no_store: true, ..none.clone() }),
            ("Cache-Control: NO-CACHE", RequestDirectives { no_cache: true, ..none.clone() }),
            ("Cache-Control: only-if-cached", RequestDirectives { only_if_cached: true, ..none.clone() }),
            ("Cache-Control: max-age=5, max-age=x", RequestDirectives { max_age: Some(0), ..none.clone() }),
            ("Cache-Control: min-fresh=5, min-fresh=7", RequestDirectives { min_fresh: Some(7), ..none.clone() }),
            ("Cache-Control: min-fresh=x", none.clone()),
            ("Cache-Control: max-stale", RequestDirectives { max_stale: Some(MaxStale::Any), ..none.clone() }),
            (
                "Cache-Control: max-stale, max-stale=9, max-stale=10",
                RequestDirectives { max_stale: Some(MaxStale::Seconds(9)), ..none.clone() },
            ),
            ("Cache-Control: max-stale=x", none.clone()),
            ("Pragma: x, No-Cache", RequestDirectives { no_cache: true, ..none.clone() }),
            ("Pragma: unrecognised-extension", none.clone()),
            ("Pragma: no-cache\nCache-Control: max-age=9", RequestDirectives { max_age: Some(9), ..none.clone() }),
        ] {
            assert_eq!(RequestDirectives::of(&fields(lines)), expected, "{lines}");
        }
    }
}
