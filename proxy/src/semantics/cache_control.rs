//! The directives of `Cache-Control` in requests and responses, and `Pragma` in requests (RFC 9111 §5.2, §5.4;
//! RFC 5861 for the two stale windows). Unknown directives are ignored; where a directive is doubled or malformed, the
//! most restrictive reading is taken (RFC 9111 §4.2.1): of two lifetimes the smaller, which is never longer than the
//! first, and otherwise counts the response as stale; the RFC allows both.

use std::borrow::Cow;

use millpond_shared::http1::Fields;

use super::list::{self, Quoted};
use super::policy::ClientDirectives;
use super::targeted;

/// Stands for any number of seconds too large to matter (RFC 9111 §1.2.2).
pub const SECONDS_MAX: u64 = 1 << 31;

/// What a response says, in `Cache-Control` or in the field that takes its place (`targeted`). Seconds are at most
/// [`SECONDS_MAX`]; an invalid number of seconds counts as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// They are from a targeted field: neither `Cache-Control` nor `Expires` counts (RFC 9213 §2.2).
    pub targeted: bool,
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
    /// The fields that `private="..."` and `no-cache="..."` name, in lower case: neither stored nor sent to anybody but
    /// the client whose request brought them (RFC 9111 §3.1, §5.2.2.4, §5.2.2.7).
    pub withheld: Vec<String>,
}

impl ResponseDirectives {
    pub fn of(fields: &Fields) -> ResponseDirectives {
        if let Some(targeted) = targeted::directives(fields) {
            return targeted;
        }
        let mut found = ResponseDirectives::default();
        for directive in directives(fields) {
            let seconds = || directive.seconds().unwrap_or(0);
            match directive.name.as_str() {
                "no-store" => found.no_store = true,
                "no-cache" => found.no_cache |= !found.withhold(directive.field_names()),
                "private" => found.private |= !found.withhold(directive.field_names()),
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

    /// Whether the field may go to nobody but the client whose request brought it.
    pub fn withholds(&self, name: &str) -> bool {
        self.withheld.iter().any(|withheld| withheld.eq_ignore_ascii_case(name))
    }

    /// Takes in the fields that a directive names. `false`: it names none, so it is about the whole response.
    pub(super) fn withhold(&mut self, names: Option<Vec<String>>) -> bool {
        let names = names.unwrap_or_default();
        let qualified = !names.is_empty();
        self.withheld.extend(names);
        qualified
    }
}

/// What a request says. Seconds are at most [`SECONDS_MAX`]; an invalid `max-age` counts as 0, an invalid
/// `min-fresh`, `max-stale` or `stale-if-error` as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub no_transform: bool,
    pub max_age: Option<u64>,
    pub min_fresh: Option<u64>,
    pub max_stale: Option<MaxStale>,
    /// How far past its lifetime the client accepts a response when the origin fails (RFC 5861 §4).
    pub stale_if_error: Option<u64>,
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
                "no-transform" => found.no_transform = true,
                "max-age" => lower(&mut found.max_age, directive.seconds().unwrap_or(0)),
                "stale-if-error" => found.stale_if_error = directive.seconds().or(found.stale_if_error),
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

    /// Without those that are not to be heeded.
    pub fn heeded(&self, heed: &ClientDirectives) -> RequestDirectives {
        RequestDirectives {
            no_store: self.no_store && heed.no_store,
            no_cache: self.no_cache && heed.no_cache,
            only_if_cached: self.only_if_cached && heed.only_if_cached,
            // Not a wish about the cache.
            no_transform: self.no_transform,
            max_age: self.max_age.filter(|_| heed.max_age),
            min_fresh: self.min_fresh.filter(|_| heed.min_fresh),
            max_stale: self.max_stale.filter(|_| heed.max_stale),
            stale_if_error: self.stale_if_error.filter(|_| heed.stale_if_error),
        }
    }
}

/// Whether a text is a list of directives as their grammar has it (RFC 9111 §5.2), the lifetimes among them numbers of
/// seconds: what is to be sent must not leave room for interpretation.
pub fn is_well_formed(text: &str) -> bool {
    let is_token = |text: &[u8]| !text.is_empty() && text.iter().all(is_token_byte);
    let is_directive = |member: &[u8]| {
        let directive = Directive::parse(member);
        let name = directive.name.as_str();
        let is_lifetime = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"].contains(&name);
        // Unlike a quoted string, a token begins with no quote.
        let argument_is_well_formed = match member.iter().position(|&b| b == b'=').map(|at| member.split_at(at + 1).1) {
            None => !is_lifetime,
            Some([b'"', ..]) => directive.argument != Argument::Malformed && !is_lifetime,
            Some(token) => is_token(token) && (!is_lifetime || delta_seconds(token).is_some()),
        };
        is_token(name.as_bytes()) && argument_is_well_formed
    };
    let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    printable && !text.is_empty() && list::raw_members(text.as_bytes(), Quoted::Strings).all(is_directive)
}

/// Whether a message says `no-transform`, to all caches or to this one: it binds every intermediary (RFC 9111 §5.2.2.6), so
/// that a targeted field does not lift it.
pub fn forbids_transforming(fields: &Fields) -> bool {
    directives(fields).any(|directive| directive.name == "no-transform") || targeted::forbids_transforming(fields)
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

    /// The fields that the argument names.
    fn field_names(&self) -> Option<Vec<String>> {
        match &self.argument {
            Argument::Text(text) => field_names(text),
            Argument::None | Argument::Malformed => None,
        }
    }
}

fn is_token_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// `#field-name`, in lower case; `None` where it names nothing, or anything that is no name.
pub(super) fn field_names(text: &[u8]) -> Option<Vec<String>> {
    let name = |member: &[u8]| {
        let text = std::str::from_utf8(member).ok().filter(|_| member.iter().all(is_token_byte));
        text.map(str::to_ascii_lowercase)
    };
    let names: Vec<String> = list::members(text, Quoted::Strings).map(name).collect::<Option<_>>()?;
    (!names.is_empty()).then_some(names)
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
            ..ResponseDirectives::default()
        };
        assert_eq!(found, expected);
        assert_eq!(response("X: no-store"), ResponseDirectives::default());
    }

    #[test]
    fn malformed_directives_are_read_strictly() {
        for whole in [r#"="""#, r#"=", ,""#, r#"="a"#, r#"="a b""#, r#"="a", private"#, "=", r#"="a/b""#] {
            assert!(response(&format!("Cache-Control: private{whole}, max-age=9")).private, "{whole}");
        }
        assert!(response("Cache-Control: no-store=0").no_store);
        assert!(response(r#"Cache-Control: ext="a, no-store"#).no_store, "an unclosed quote hides nothing");
        assert!(!response(r#"Cache-Control: ext="a, no-store""#).no_store);
        assert!(!response("Cache-Control: public=x").public);
        assert_eq!(response("Cache-Control: stale-if-error=soon").stale_if_error, Some(0));
    }

    #[test]
    fn a_directive_that_names_fields_is_about_those() {
        for (value, withheld) in [
            (r#"private="set-cookie", max-age=9"#, &["set-cookie"][..]),
            (r#"no-cache="A, b ,,c""#, &["a", "b", "c"]),
            (r#"no-cache="a", private=B"#, &["a", "b"]),
            (r#"private="a", private="b""#, &["a", "b"]),
        ] {
            let found = response(&format!("Cache-Control: {value}"));
            assert_eq!(
                (found.withheld.as_slice(), found.private, found.no_cache),
                (&withheld.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..], false, false),
                "{value}"
            );
        }
        let both = response(r#"Cache-Control: no-cache="a", no-cache"#);
        assert!(both.no_cache && both.withholds("A") && !both.withholds("b"));
    }

    #[test]
    fn what_is_sent_is_well_formed() {
        for (text, expected) in [
            ("public, max-age=5", true),
            ("no-store", true),
            ("private=\"set-cookie\", X-Own=a+b", true),
            ("max-age=3600, content=\"ESI/1.0\"", true),
            ("", false),
            ("public,, max-age=5", false),
            ("public, ", false),
            ("max-age", false),
            ("max-age=", false),
            ("max-age=5s", false),
            ("max-age=\"5\"", false),
            ("s-maxage=-1", false),
            ("max-age = 5", false),
            ("max age=5", false),
            ("public; max-age=5", false),
            ("x=\"open", false),
            ("x=a b", false),
            ("x=\u{e4}", false),
            ("public\r\nX: y", false),
        ] {
            assert_eq!(is_well_formed(text), expected, "{text}");
        }
    }

    #[test]
    fn each_wish_of_a_client_can_be_left_unheeded() {
        let all = RequestDirectives::of(&fields(
            "Cache-Control: no-store, no-cache, only-if-cached, max-age=1, min-fresh=2, max-stale=3, stale-if-error=4",
        ));
        assert_eq!(all.heeded(&ClientDirectives::default()), all);
        let none = ClientDirectives {
            no_store: false,
            no_cache: false,
            only_if_cached: false,
            max_age: false,
            min_fresh: false,
            max_stale: false,
            stale_if_error: false,
        };
        assert_eq!(all.heeded(&none), RequestDirectives::default());
        let reload = ClientDirectives { no_cache: false, max_age: false, ..ClientDirectives::default() };
        let expected = RequestDirectives { no_cache: false, max_age: None, ..all.clone() };
        assert_eq!(all.heeded(&reload), expected);
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
            ("Cache-Control: No-Transform", RequestDirectives { no_transform: true, ..none.clone() }),
            ("Cache-Control: stale-if-error=7", RequestDirectives { stale_if_error: Some(7), ..none.clone() }),
            ("Cache-Control: stale-if-error, stale-if-error=x", none.clone()),
            ("Pragma: x, No-Cache", RequestDirectives { no_cache: true, ..none.clone() }),
            ("Pragma: unrecognised-extension", none.clone()),
            ("Pragma: no-cache\nCache-Control: max-age=9", RequestDirectives { max_age: Some(9), ..none.clone() }),
        ] {
            assert_eq!(RequestDirectives::of(&fields(lines)), expected, "{lines}");
        }
    }
}
