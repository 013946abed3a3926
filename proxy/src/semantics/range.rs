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
mod tests {
    use proptest::prelude::*;

    use super::super::sample::fields;
    use super::*;

    fn wanted(range: &str) -> Wanted {
        Ranges::of(&fields(&format!("Range: {range}")))
    }

    /// What a `Range` asks of 1000 bytes, last bytes named as on the wire.
    fn of_thousand(range: &str) -> String {
        let Wanted::Parts(ranges) = wanted(range) else { panic!("{range}: {:?}", wanted(range)) };
        match ranges.resolve(1000) {
            Resolved::Whole => "whole".to_owned(),
            Resolved::Unsatisfiable => "416".to_owned(),
            Resolved::Parts(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| format!("{}-{}", part.start, part.end - 1)).collect();
                parts.join(",")
            }
        }
    }

    #[test]
    fn ranges_of_a_known_length() {
        for (range, expected) in [
            ("bytes=0-0", "0-0"),
            ("bytes=0-499", "0-499"),
            ("Bytes=0-499", "0-499"),
            ("bytes=500-", "500-999"),
            ("bytes=0-", "0-999"),
            ("bytes=-1", "999-999"),
            ("bytes=-1000", "0-999"),
            ("bytes=-5000", "0-999"),
            ("bytes=990-2000", "990-999"),
            ("bytes=999-999", "999-999"),
            ("bytes=1000-", "416"),
            ("bytes=1000-2000,5000-", "416"),
            ("bytes=-0", "416"),
            ("bytes=-0, 5-6", "5-6"),
            ("bytes=5000-,5-6", "5-6"),
            ("bytes=00001-002", "1-2"),
            ("bytes=0-99999999999999999999999999", "0-999"),
            ("bytes=99999999999999999999999999-", "416"),
            ("bytes=-99999999999999999999999999", "0-999"),
            ("bytes=0-0,-1", "0-0,999-999"),
            ("bytes= 0-9, ,45-54,\t-10", "0-9,45-54,990-999"),
            ("bytes=900-,0-99", "900-999,0-99"),
            ("bytes=500-600,601-999", "500-999"),
            ("bytes=500-700,601-999", "500-999"),
            ("bytes=0-1,10-11,5-6,0-9", "0-11"),
            ("bytes=20-21,0-1,2-3", "20-21,0-3"),
        ] {
            assert_eq!(of_thousand(range), expected, "{range}");
        }
    }

    #[test]
    fn ranges_of_nothing() {
        let Wanted::Parts(suffix) = wanted("bytes=-5") else { panic!("a suffix is a range") };
        assert_eq!(suffix.resolve(0), Resolved::Whole);
        let Wanted::Parts(all) = wanted("bytes=0-") else { panic!("from the start is a range") };
        assert_eq!(all.resolve(0), Resolved::Unsatisfiable);
    }

    #[test]
    fn what_is_no_range_is_ignored() {
        for range in [
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1,5-4",
            "bytes=0-1-2",
            "bytes=0 - 1",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=0-1;2-3",
            "bytes=5",
            "bytes=0x1-2",
            "bytes=\"0-1\"",
        ] {
            assert_eq!(wanted(range), Wanted::Whole, "{range}");
        }
        assert_eq!(Ranges::of(&fields("")), Wanted::Whole);
        for range in ["", "bytes", "0-24", "items=0-5", "bytes =0-1", "=0-1"] {
            assert_eq!(wanted(range), Wanted::Unknown, "{range}");
        }
        assert_eq!(Ranges::of(&fields("Range: bytes=0-1\nRange: bytes=2-3")), Wanted::Unknown);
    }

    #[test]
    fn too_many_ranges_get_the_whole() {
        let many = |count: usize| (0..count).map(|at| format!("{}-{}", at * 10, at * 10)).collect::<Vec<_>>().join(",");
        assert_eq!(of_thousand(&format!("bytes={}", many(RANGES_MAX))).split(',').count(), RANGES_MAX);
        assert_eq!(wanted(&format!("bytes={}", many(RANGES_MAX + 1))), Wanted::Whole);
        assert_eq!(wanted(&format!("bytes={}", many(100_000))), Wanted::Whole);
    }

    #[test]
    fn if_range() {
        const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const NEXT: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
        for (condition, stored, holds) in [
            ("\"a\"", "ETag: \"a\"", true),
            ("\"b\"", "ETag: \"a\"", false),
            ("W/\"a\"", "ETag: W/\"a\"", false),
            ("\"a\"", "ETag: W/\"a\"", false),
            ("W/\"a\"", "ETag: \"a\"", false),
            ("\"a\"", "Last-Modified: \"a\"", false),
            ("\"a\"", "", false),
            ("a", "ETag: a", false),
            (OLD, &format!("Last-Modified: {OLD}\nDate: {NEXT}"), true),
            (OLD, &format!("Last-Modified: {OLD}\nDate: {OLD}"), false),
            (OLD, &format!("Last-Modified: {OLD}"), false),
            (NEXT, &format!("Last-Modified: {OLD}\nDate: {NEXT}"), false),
            ("Sunday, 06-Nov-94 08:49:37 GMT", &format!("Last-Modified: {OLD}\nDate: {NEXT}"), false),
            (OLD, &format!("ETag: \"a\"\nDate: {NEXT}"), false),
            ("never", &format!("Last-Modified: never\nDate: {NEXT}"), false),
            ("", "ETag: \"a\"", false),
        ] {
            let request = fields(&format!("If-Range: {condition}"));
            assert_eq!(if_range_holds(&request, fields(stored).iter()), holds, "{condition} for {stored}");
        }
        assert!(if_range_holds(&fields(""), fields("").iter()));
        let twice = fields("If-Range: \"a\"\nIf-Range: \"a\"");
        assert!(!if_range_holds(&twice, fields("ETag: \"a\"").iter()));
    }

    #[test]
    fn content_range_is_read() {
        let read = |value: &str| ContentRange::of(&fields(&format!("Content-Range: {value}")));
        let range = |span: Span, complete: Option<u64>| Some(ContentRange { span, complete });
        for (value, expected) in [
            ("bytes 0-499/1234", range(0..500, Some(1234))),
            ("BYTES 42-1233/1234", range(42..1234, Some(1234))),
            ("bytes 42-1233/*", range(42..1234, None)),
            ("bytes 0-0/1", range(0..1, Some(1))),
            ("bytes */1234", None),
            ("bytes 5-4/10", None),
            ("bytes 0-10/10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 0-9/99999999999999999999", None),
            ("bytes 0-9", None),
            ("bytes=0-9/10", None),
            ("bytes +0-9/10", None),
            ("bytes  0-9/10", None),
            ("items 0-9/10", None),
            ("bytes -9/10", None),
            ("", None),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
        assert_eq!(ContentRange::of(&fields("Content-Range: bytes 0-1/9\nContent-Range: bytes 2-3/9")), None);
        assert_eq!(unsatisfied(47022), "bytes */47022");
    }

    #[test]
    fn only_a_strong_tag_joins_parts() {
        assert_eq!(strong_tag(&fields("ETag: \"a\"")), Some(&b"\"a\""[..]));
        assert_eq!(strong_tag(&fields("ETag: W/\"a\"")), None);
        assert_eq!(strong_tag(&fields("ETag:")), None);
        assert_eq!(strong_tag(&fields("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")), None);
    }

    proptest! {
        /// Against a set of bytes, made one by one.
        #[test]
        fn parts_are_the_bytes_that_were_asked_for(
            specs in prop::collection::vec((0u64..60, prop::option::of(0u64..60), any::<bool>()), 1..16),
            length in 0u64..50,
        ) {
            let written = |(first, more, is_suffix): &(u64, Option<u64>, bool)| match (is_suffix, more) {
                (true, _) => format!("-{first}"),
                (false, None) => format!("{first}-"),
                (false, Some(more)) => format!("{first}-{}", first + more),
            };
            let set: Vec<String> = specs.iter().map(written).collect();
            let asks = |at: u64| specs.iter().any(|(first, more, is_suffix)| match is_suffix {
                true => at + first >= length,
                false => *first <= at && more.is_none_or(|more| at <= first + more),
            });
            let asked: Vec<u64> = (0..length).filter(|at| asks(*at)).collect();
            let Wanted::Parts(ranges) = wanted(&format!("bytes={}", set.join(","))) else { panic!("{set:?}") };
            let given = match ranges.resolve(length) {
                Resolved::Parts(parts) => {
                    prop_assert!(parts.iter().all(|part| part.start < part.end));
                    let mut given: Vec<u64> = parts.into_iter().flatten().collect();
                    given.sort_unstable();
                    given
                }
                Resolved::Whole => { prop_assert_eq!(length, 0); Vec::new() }
                Resolved::Unsatisfiable => Vec::new(),
            };
            prop_assert_eq!(given, asked);
        }

        #[test]
        fn content_range_is_read_as_it_is_written(first in 0u64..1 << 40, count in 1u64..1 << 40, more: Option<u32>) {
            let end = first + count;
            let range = ContentRange { span: first..end, complete: more.map(|more| end + u64::from(more)) };
            let read = ContentRange::of(&fields(&format!("Content-Range: {range}")));
            prop_assert_eq!(read, Some(range));
        }

        #[test]
        fn no_text_is_too_odd(range in "(bytes=)?[-0-9, a=]{0,40}", length: u64) {
            if let Wanted::Parts(ranges) = wanted(&range)
                && let Resolved::Parts(parts) = ranges.resolve(length)
            {
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            }
        }
    }
}
