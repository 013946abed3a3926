//! Parts of a representation, in bytes (RFC 9110 §14): what `Range` asks for, whether `If-Range` lets it count, what
//! `Content-Range` says. Positions count from 0; a [`Span`] ends before its `end`, while on the wire the last byte is
//! named.

use std::fmt;
use std::ops::Range;

use millpond_shared::http1::Fields;

use super::date;
use super::entity_tag::EntityTag;
use super::list::{self, Quoted};

/// Bytes of a representation.
pub type Span = Range<u64>;

/// Ranges that one request may name; one that names more is answered with the whole (RFC 9110 §14.2 lets a server
/// ignore a set of many small ranges).
const RANGES_MAX: usize = 16;

/// What the `Range` of a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole: there is no `Range`, or it is none (§14.1.1), or names too many ranges.
    Whole,
    Parts(Ranges),
    /// A unit other than bytes, or several lines: for the origin to understand.
    Unknown,
}

/// The ranges of a request, in its order; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Box<[Spec]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    /// From the first byte to the last, or to the end.
    From(u64, Option<u64>),
    /// The last so many bytes.
    Suffix(u64),
}

/// Ranges of a representation whose length is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// There is no part to be told apart: the representation is empty.
    Whole,
    /// At least one, none empty; no two overlap or touch.
    Parts(Vec<Span>),
    /// None of them lies in the representation: 416.
    Unsatisfiable,
}

impl Ranges {
    pub fn of(request: &Fields) -> Wanted {
        let mut lines = request.get_all("range");
        let Some(line) = lines.next() else { return Wanted::Whole };
        let unit = line.split(|&b| b == b'=').next().unwrap_or_default();
        let (true, None, Some(set)) = (unit.eq_ignore_ascii_case(b"bytes"), lines.next(), line.get(unit.len() + 1..))
        else {
            return Wanted::Unknown;
        };
        let specs: Option<Box<[Spec]>> =
            list::members(set, Quoted::Tags).take(RANGES_MAX + 1).map(Spec::parse).collect();
        match specs {
            Some(specs) if (1..=RANGES_MAX).contains(&specs.len()) => Wanted::Parts(Ranges(specs)),
            _ => Wanted::Whole,
        }
    }

    /// The spans they mean in a representation of `length` bytes (§14.1.2).
    ///
    /// Those that overlap or touch are made one, in the place of the first (§15.3.7.2): so the parts together are
    /// never longer than the whole, whatever is asked for.
    pub fn resolve(&self, length: u64) -> Resolved {
        let mut parts = Vec::new();
        for span in self.0.iter().filter_map(|spec| spec.within(length)) {
            add(&mut parts, span);
        }
        match parts.first() {
            None => Resolved::Unsatisfiable,
            Some(_) if length == 0 => Resolved::Whole,
            Some(_) => Resolved::Parts(parts),
        }
    }
}

impl Spec {
    fn parse(text: &[u8]) -> Option<Spec> {
        let dash = text.iter().position(|&b| b == b'-')?;
        let (first, last) = (text.get(..dash)?, text.get(dash + 1..)?);
        match (first, last) {
            ([], suffix) => Some(Spec::Suffix(position(suffix)?)),
            (first, []) => Some(Spec::From(position(first)?, None)),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Spec::From(first, Some(last)))
            }
        }
    }

    /// `None`: not satisfiable.
    fn within(self, length: u64) -> Option<Span> {
        match self {
            Spec::From(first, last) => {
                let end = last.map_or(length, |last| last.saturating_add(1).min(length));
                (first < length).then_some(first..end)
            }
            Spec::Suffix(count) => (count > 0).then(|| length.saturating_sub(count)..length),
        }
    }
}

/// Digits of any number; one beyond what can be told is beyond every representation.
fn position(text: &[u8]) -> Option<u64> {
    let digit = |b: &u8| b.is_ascii_digit().then(|| u64::from(b - b'0'));
    let add = |sum: u64, b: &u8| Some(sum.saturating_mul(10).saturating_add(digit(b)?));
    if text.is_empty() { None } else { text.iter().try_fold(0, add) }
}

/// Adds a span; those that it overlaps or touches become one with it, in the place of the first of them.
fn add(parts: &mut Vec<Span>, mut span: Span) {
    let mut place = parts.len();
    while let Some(at) = parts.iter().position(|part| part.start <= span.end && span.start <= part.end) {
        let part = parts.remove(at);
        span = part.start.min(span.start)..part.end.max(span.end);
        place = place.min(at);
    }
    parts.insert(place.min(parts.len()), span);
}

/// Whether `If-Range` lets the `Range` of a request count, given the field lines of the stored response (§13.1.5). A
/// request without it is free to ask.
///
/// A tag has to be the same and strong. A date has to be the same text, and old enough when the response was made to
/// be a strong validator (§8.8.2.2).
pub fn if_range_holds<'a>(request: &Fields, stored: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> bool {
    let mut lines = request.get_all("if-range");
    let (condition, more) = (lines.next(), lines.next());
    let Some(condition) = condition else { return true };
    let first =
        |wanted: &str| stored.clone().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
    if more.is_some() {
        return false;
    }
    if condition.iter().take(3).any(|&b| b == b'"') {
        let (asked, own) = (EntityTag::parse(condition), first("etag").and_then(EntityTag::parse));
        return asked.zip(own).is_some_and(|(asked, own)| asked.matches_strongly(&own));
    }
    let Some(modified) = first("last-modified").filter(|modified| *modified == condition) else { return false };
    let (modified, made) = (date::parse(modified), first("date").and_then(date::parse));
    modified.zip(made).is_some_and(|(modified, made)| made > modified)
}

/// The strong entity tag of a response, as it was written: what lets parts of it be put together (§15.3.7.3).
pub fn strong_tag(response: &Fields) -> Option<&[u8]> {
    response.get("etag").filter(|tag| EntityTag::parse(tag).is_some_and(|tag| !tag.weak))
}

/// What `Content-Range` says of the one part that a 206 holds (§14.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Not empty.
    pub span: Span,
    /// Bytes of the whole representation, if they were told.
    pub complete: Option<u64>,
}

impl ContentRange {
    /// `None`: none, an invalid one, or one in another unit.
    pub fn of(response: &Fields) -> Option<ContentRange> {
        let mut lines = response.get_all("content-range");
        let (line, None) = (lines.next()?, lines.next()) else { return None };
        let (unit, rest) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let (span, complete) = rest.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let (first, end) = (exact(first)?, exact(last)?.checked_add(1)?);
        let complete = if complete == "*" { None } else { Some(exact(complete)?) };
        let valid =
            unit.eq_ignore_ascii_case("bytes") && first < end && complete.is_none_or(|complete| end <= complete);
        valid.then_some(ContentRange { span: first..end, complete })
    }
}

/// As it is written: `bytes 0-499/1234`.
impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/", self.span.start, self.span.end.saturating_sub(1))?;
        match self.complete {
            Some(complete) => write!(f, "{complete}"),
            None => f.write_str("*"),
        }
    }
}

/// The `Content-Range` of a 416: `bytes */1234`.
pub fn unsatisfied(length: u64) -> String {
    format!("bytes */{length}")
}

fn exact(digits: &str) -> Option<u64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
