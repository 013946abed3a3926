//! Ranges and their conditions against representations of a known length.

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
