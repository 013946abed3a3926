//! Variants, ranges and validators: which stored bytes belong to a request.

use bytes::Bytes;
use http::StatusCode;
use millpond_proxy::gateway::Multipart;
use millpond_proxy::semantics::date;
use millpond_proxy::semantics::range::{ContentRange, Ranges, Resolved, Span, Wanted, if_range_holds};
use millpond_proxy::semantics::validate::{confirms, not_modified, updated};
use millpond_proxy::semantics::vary::{Selection, Vary};
use millpond_shared::http1::Fields;

use super::input::{fields, lines, pairs, parts};

/// Lines of `Vary`, fields of a request, fields of another.
pub fn vary(data: &[u8]) {
    let [vary, one, other] = parts(data);
    let (one, other) = (fields(one), fields(other));
    let vary = Vary::of(&lines("Vary", vary));
    let Vary::On(names) = &vary else { return };
    assert!(!names.is_empty() && names.is_sorted());
    let (mine, others) = (Selection::of(names, &one), Selection::of(names, &other));
    assert!(mine.matches(&one), "a request selects its own variant");
    assert_eq!(mine == others, mine.matches(&other), "equal selections match");
    assert_eq!(mine.matches(&other), others.matches(&one));
    let sent: Fields = mine.fields().collect();
    // A name that is no token can't be sent, and no request has it.
    assert!(mine.matches(&sent), "it can be sent again: {:?} is not {:?}", pairs(&sent), pairs(&one));
    assert_eq!(Selection::of(names, &sent), mine, "its normal form is its own");
}

/// A length, and lines of `Range`.
pub fn ranges(data: &[u8]) {
    let [length, lines_of_range @ ..] = data else { return };
    let length = u64::from(*length);
    let request = lines("Range", lines_of_range);
    if let Wanted::Parts(ranges) = Ranges::of(&request) {
        let asked = asked_for(request.get_str("range").expect("text"), length);
        match ranges.resolve(length) {
            Resolved::Whole => assert_eq!(length, 0),
            Resolved::Unsatisfiable => assert!(asked.is_empty()),
            Resolved::Parts(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    assert!(part.start < part.end && part.end <= length);
                    let apart = |other: &Span| other.end < part.start || part.end < other.start;
                    assert!(parts[..at].iter().all(apart), "no two overlap or touch");
                }
                let mut bytes: Vec<u64> = parts.into_iter().flatten().collect();
                bytes.sort_unstable();
                assert_eq!(bytes, asked);
            }
        }
    }
    let answer = lines("Content-Range", lines_of_range);
    if let Some(range) = ContentRange::of(&answer) {
        assert!(range.span.start < range.span.end);
        let again = lines("Content-Range", range.to_string().as_bytes());
        assert_eq!(ContentRange::of(&again), Some(range));
    }
}

/// The positions below `length` that a `Range` names, counted one by one.
fn asked_for(text: &str, length: u64) -> Vec<u64> {
    let (_, set) = text.split_once('=').expect("a unit");
    let number = |digits: &str| digits.parse::<u128>().unwrap_or(u128::MAX);
    let specs: Vec<(&str, &str)> =
        set.split(',').filter_map(|spec| spec.trim_matches([' ', '\t']).split_once('-')).collect();
    let names = |at: u64| {
        specs.iter().any(|(first, last)| match (*first, *last) {
            ("", suffix) => u128::from(length - at) <= number(suffix),
            (first, "") => number(first) <= u128::from(at),
            (first, last) => number(first) <= u128::from(at) && u128::from(at) <= number(last),
        })
    };
    (0..length).filter(|at| names(*at)).collect()
}

/// The first part is the content type, each further one a part of the body.
pub fn multipart(data: &[u8]) {
    let mut pieces = data.split(|b| *b == 0);
    let content_type = pieces.next().filter(|text| !text.is_empty() && text.iter().all(u8::is_ascii_graphic));
    let mut at = 0;
    let sent: Vec<(Span, Bytes)> = pieces
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let span = at..at + piece.len() as u64;
            at = span.end + 1;
            (span, Bytes::copy_from_slice(piece))
        })
        .collect();
    if sent.is_empty() {
        return;
    }
    let Some(made) = Multipart::of(&sent, at, content_type) else { return };
    let body = made.pieces.concat();
    assert_eq!(body.len() as u64, made.length());
    let boundary = made.content_type.strip_prefix("multipart/byteranges; boundary=").expect("the type");

    // Read as RFC 2046 has it: a delimiter is a line of its own.
    let delimiter = format!("\r\n--{boundary}");
    let body = [&b"\r\n"[..], &body].concat();
    let mut rest = body.strip_prefix(delimiter.as_bytes()).expect("the first delimiter");
    for (span, bytes) in &sent {
        let head_end = memchr::memmem::find(rest, b"\r\n\r\n").expect("a head") + 4;
        let head = std::str::from_utf8(&rest[..head_end]).expect("text");
        let range = format!("\r\nContent-Range: bytes {}-{}/{at}\r\n", span.start, span.end - 1);
        assert!(head.contains(&range), "{head}");
        let end = memchr::memmem::find(&rest[head_end..], delimiter.as_bytes()).expect("the next delimiter");
        assert_eq!(rest[head_end..head_end + end], bytes[..]);
        rest = &rest[head_end + end + delimiter.len()..];
    }
    assert_eq!(rest, b"--\r\n");
}

/// Fields of a request, of a stored response, and of a 304.
pub fn validators(data: &[u8]) {
    let [request, stored, answer] = parts(data).map(fields);
    let conditional = ["if-none-match", "if-modified-since"].iter().any(|name| request.contains(name));
    assert!(!not_modified(&request, StatusCode::OK, stored.iter()) || conditional);
    assert!(confirms(&stored, &answer) || !answer.is_empty());
    let _ = if_range_holds(&request, stored.iter());

    let once = updated(&stored, &answer);
    assert_eq!(pairs(&updated(&once, &answer)), pairs(&once), "a second time changes nothing");
    for value in [&request, &stored, &answer].into_iter().flat_map(Fields::iter).map(|(_, value)| value) {
        if let Some(seconds) = date::parse(value) {
            assert_eq!(date::parse(date::format(seconds).as_bytes()), Some(seconds));
        }
    }
}
