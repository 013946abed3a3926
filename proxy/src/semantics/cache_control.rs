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
mod tests;
