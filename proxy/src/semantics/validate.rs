//! Validation in both directions (RFC 9111 §4.3, RFC 9110 §13): our conditions to the origin and what its 304 means for
//! the stored response; a client's conditions against the stored response.

use http::StatusCode;
use millpond_shared::http1::{Fields, FieldsBuilder};
use millpond_shared::wire::headers;

use super::coding::Coding;
use super::entity_tag::EntityTag;
use super::hop;
use super::{date, list};

/// The validators of a stored response (RFC 9110 §8.8), as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validators<'a> {
    pub etag: Option<&'a [u8]>,
    /// Only if it is a date: to any other text an origin could only answer 200.
    pub last_modified: Option<&'a [u8]>,
}

impl<'a> Validators<'a> {
    pub fn of(fields: &'a Fields) -> Validators<'a> {
        Validators {
            etag: fields.get("etag").filter(|tag| !tag.is_empty()),
            last_modified: fields.get("last-modified").filter(|text| date::parse(text).is_some()),
        }
    }

    /// Whether there is one to validate with.
    pub fn any(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    fn tag(&self) -> Option<EntityTag<'a>> {
        self.etag.and_then(EntityTag::parse)
    }

    fn modified(&self) -> Option<u64> {
        self.last_modified.and_then(date::parse)
    }
}

/// Puts the conditions for validating a stored response onto a request to the origin (RFC 9111 §4.3.1). The client's
/// own conditions must not go there too ([`is_condition`]): its 304 has to be about our stored response.
pub fn put_conditions(validators: &Validators<'_>, request: &mut FieldsBuilder) {
    if let Some(etag) = validators.etag {
        request.push("If-None-Match", etag);
    }
    if let Some(last_modified) = validators.last_modified {
        request.push("If-Modified-Since", last_modified);
    }
}

/// Whether a request field is a precondition (RFC 9110 §13.1).
pub fn is_condition(name: &str) -> bool {
    let conditions = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"];
    conditions.iter().any(|condition| name.eq_ignore_ascii_case(condition))
}

/// Whether a client's conditions make the answer to its GET or HEAD a 304 when this stored response may be sent
/// (RFC 9111 §4.3.2, RFC 9110 §13.2.2). Only a 200 is ever not modified.
///
/// `stored`: the field lines of the stored response, looked at only if there is a condition.
pub fn not_modified<'a>(
    request: &Fields,
    status: StatusCode,
    stored: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> bool {
    if status != StatusCode::OK {
        return false;
    }
    if request.contains("if-none-match") {
        return none_match_fails(request, &StoredValidators::of(stored));
    }
    not_modified_since(request, stored)
}

fn not_modified_since<'a>(request: &Fields, stored: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> bool {
    let mut since = request.get_all("if-modified-since");
    let (Some(since), None) = (since.next(), since.next()) else { return false };
    let Some(since) = date::parse(since) else { return false };
    StoredValidators::of(stored).modified().is_some_and(|modified| modified <= since)
}

/// The same for a response that is sent in codings as well, in each with a tag of its own: as which of its forms the
/// client has it, so that the 304 can name that one (RFC 9110 §8.8.3.3, §15.4.5). `None`: it has none of them. `next`: the
/// form that it would be sent now, which is also the one where its condition names no tag.
pub fn not_modified_in<'a>(
    request: &Fields,
    status: StatusCode,
    stored: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    next: Option<Coding>,
) -> Option<Option<Coding>> {
    if status != StatusCode::OK {
        return None;
    }
    if !request.contains("if-none-match") {
        return not_modified_since(request, stored).then_some(next);
    }
    let stored = StoredValidators::of(stored);
    if is_any(request) {
        return Some(next);
    }
    let current = stored.etag.and_then(EntityTag::parse)?;
    let has = |form: &Option<Coding>| {
        EntityTag::list(request, "if-none-match").any(|tag| match form {
            None => tag.matches_weakly(&current),
            Some(coding) => tag.matches_in(*coding, &current),
        })
    };
    let forms = [next, None].into_iter().chain(Coding::ALL.map(Some));
    forms.into_iter().find(has)
}

/// What of a stored response a client's conditions are compared with: the first line of each name.
#[derive(Default)]
struct StoredValidators<'a> {
    etag: Option<&'a [u8]>,
    last_modified: Option<&'a [u8]>,
    date: Option<&'a [u8]>,
}

impl<'a> StoredValidators<'a> {
    fn of(lines: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> StoredValidators<'a> {
        let mut found = StoredValidators::default();
        for (name, value) in lines {
            let place = match name.len() {
                4 if is(name, "etag") => &mut found.etag,
                4 if is(name, "date") => &mut found.date,
                13 if is(name, "last-modified") => &mut found.last_modified,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        found
    }

    /// RFC 9111 §4.3.2: without a Last-Modified, the Date stands in for it.
    fn modified(&self) -> Option<u64> {
        self.last_modified.or(self.date).and_then(date::parse)
    }
}

fn none_match_fails(request: &Fields, stored: &StoredValidators<'_>) -> bool {
    if is_any(request) {
        return true;
    }
    let Some(current) = stored.etag.and_then(EntityTag::parse) else { return false };
    EntityTag::list(request, "if-none-match").any(|tag| tag.matches_weakly(&current))
}

/// `If-None-Match: *`.
fn is_any(request: &Fields) -> bool {
    let mut lines = request.get_all("if-none-match");
    matches!((lines.next(), lines.next()), (Some(value), None) if list::trim(value) == b"*")
}

/// Whether a 304 from the origin confirms the stored response that our conditions named (RFC 9111 §4.3.4). If not,
/// fetch again without conditions.
///
/// A 304 without any validator confirms: it answers a request that named one stored response. The RFC lists that case
/// only where the stored response has none either, but origins that leave the `ETag` out of a 304 are common, and
/// nothing else can be meant.
pub fn confirms(stored: &Fields, not_modified: &Fields) -> bool {
    let (ours, theirs) = (Validators::of(stored), Validators::of(not_modified));
    let same_date = || ours.modified() == theirs.modified();
    match (theirs.tag(), ours.tag()) {
        // A strong validator identifies exactly the stored responses that have it.
        (Some(tag), own) if !tag.weak => own.is_some_and(|own| own.matches_strongly(&tag)),
        // A last-modified date is weak too (RFC 9110 §8.8.2.2): each weak validator given has to correspond.
        (Some(tag), own) => {
            let dates_agree = theirs.last_modified.is_none() || ours.last_modified.is_none() || same_date();
            own.is_some_and(|own| own.matches_weakly(&tag)) && dates_agree
        }
        (None, _) => theirs.last_modified.is_none() || same_date(),
    }
}

/// Whether the 200 answer to a HEAD is about the stored response, whose body has so many bytes (RFC 9111 §4.3.5): every
/// validator and the length that it has are those of the stored response.
pub fn head_confirms(stored: &Fields, length: u64, head: &Fields) -> bool {
    let (ours, theirs) = (Validators::of(stored), Validators::of(head));
    let same_tag = theirs.etag.is_none() || ours.etag == theirs.etag;
    let same_date = theirs.last_modified.is_none() || ours.modified() == theirs.modified();
    let mut lengths = head.get_all("content-length").map(|text| std::str::from_utf8(text).ok()?.parse().ok());
    same_tag && same_date && lengths.all(|declared: Option<u64>| declared == Some(length))
}

/// The stored fields as updated from a 304, or the answer to a HEAD, that confirms them (RFC 9111 §3.2): each field of it
/// replaces all stored lines of its name.
///
/// Not updated: `Content-Length`, and what describes the stored bytes as they were transferred (`Content-Encoding`,
/// `Content-Range`), since the bytes stay; nor anything that ends at this hop. `Age` and `Date` go even if the 304 has
/// none: they would tell of the old response, and whoever stores a response without a `Date` adds the time of receipt.
pub fn updated(stored: &Fields, from: &Fields) -> Fields {
    let news = || hop::end_to_end(from).filter(|(name, _)| !is_one_of(name, &BOUND_TO_THE_BODY));
    let replaced = |name: &str| is_one_of(name, &OF_THE_OLD_RESPONSE) || news().any(|(new, _)| is(new, name));
    let mut fields = FieldsBuilder::new();
    for (name, value) in stored.iter().filter(|(name, _)| !replaced(name)).chain(news()) {
        fields.push(name, value);
    }
    fields.build()
}

/// Whether a 304 made from a stored response carries its field called `name` (RFC 9110 §15.4.5).
pub fn belongs_in_304(name: &str) -> bool {
    let kept = [
        "cache-control",
        "cache-status",
        "cdn-cache-control",
        "content-location",
        "date",
        "etag",
        "expires",
        "last-modified",
        "surrogate-control",
        "vary",
        headers::VERSION,
    ];
    is_one_of(name, &kept)
}

const BOUND_TO_THE_BODY: [&str; 3] = ["content-length", "content-encoding", "content-range"];
const OF_THE_OLD_RESPONSE: [&str; 2] = ["age", "date"];

fn is(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| is(name, known))
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;

    const LM: &str = "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT";
    const LM_850: &str = "Last-Modified: Sunday, 06-Nov-94 08:00:00 GMT";
    const LM_LATER: &str = "Last-Modified: Sun, 06 Nov 1994 08:00:01 GMT";

    fn lines(fields: &Fields) -> Vec<String> {
        fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
    }

    #[test]
    fn conditions_for_the_origin() {
        let since = "If-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT";
        for (stored, expected) in [
            (String::new(), &[][..]),
            (format!("ETag: \"a\"\n{LM}"), &["If-None-Match: \"a\"", since]),
            ("ETag: W/\"a,b\"".to_owned(), &["If-None-Match: W/\"a,b\""]),
            ("ETag: unquoted".to_owned(), &["If-None-Match: unquoted"]),
            (LM.to_owned(), &[since]),
            ("ETag:\nLast-Modified: yesterday".to_owned(), &[]),
        ] {
            let stored = fields(&stored);
            let validators = Validators::of(&stored);
            let mut request = FieldsBuilder::new();
            put_conditions(&validators, &mut request);
            assert_eq!(lines(&request.build()), expected, "{stored:?}");
            assert_eq!(validators.any(), !expected.is_empty(), "{stored:?}");
        }
        assert!(is_condition("If-None-Match") && is_condition("if-range") && !is_condition("Range"));
    }

    #[test]
    fn a_client_may_have_any_form() {
        use Coding::{Brotli, Gzip};
        let stored = fields(&format!("ETag: \"a\"\n{LM}"));
        for (request, next, expected) in [
            ("If-None-Match: \"a\"", None, Some(None)),
            ("If-None-Match: \"a\"", Some(Gzip), Some(None)),
            ("If-None-Match: \"a-gzip\"", None, Some(Some(Gzip))),
            ("If-None-Match: W/\"a-br\"", Some(Gzip), Some(Some(Brotli))),
            ("If-None-Match: \"a-br\", \"a-gzip\"", Some(Gzip), Some(Some(Gzip))),
            ("If-None-Match: \"a-gzip\", \"a\"", Some(Brotli), Some(None)),
            ("If-None-Match: \"b\", \"b-gzip\"", Some(Gzip), None),
            ("If-None-Match: \"a-deflate\"", Some(Gzip), None),
            ("If-None-Match: \"a-\", \"a-gzip-gzip\"", Some(Gzip), None),
            ("If-None-Match: *", Some(Gzip), Some(Some(Gzip))),
            ("If-Modified-Since: Sun, 06 Nov 1994 08:00:00 GMT", Some(Gzip), Some(Some(Gzip))),
            ("If-Modified-Since: Sun, 06 Nov 1994 07:00:00 GMT", Some(Gzip), None),
            ("", Some(Gzip), None),
        ] {
            let request = fields(request);
            let found = not_modified_in(&request, StatusCode::OK, stored.iter(), next);
            assert_eq!(found, expected, "{request:?} {next:?}");
            assert_eq!(not_modified_in(&request, StatusCode::NOT_FOUND, stored.iter(), next), None);
        }
        let weak = fields("ETag: W/\"a\"");
        let request = fields("If-None-Match: W/\"a-gzip\"");
        assert_eq!(not_modified_in(&request, StatusCode::OK, weak.iter(), None), Some(Some(Gzip)));
        assert_eq!(not_modified_in(&request, StatusCode::OK, fields("").iter(), None), None);
    }

    #[test]
    fn a_clients_conditions() {
        let since = |time| format!("If-Modified-Since: Sun, 06 Nov 1994 {time} GMT");
        for (request, stored, expected) in [
            ("If-None-Match: \"a\"", "ETag: \"a\"", true),
            ("If-None-Match: W/\"a\"", "ETag: \"a\"", true),
            ("If-None-Match: \"a\"", "ETag: W/\"a\"", true),
            ("If-None-Match: \"a\", \"b\", \"c\"", "ETag: \"c\"", true),
            ("If-None-Match: \"a\"\nIf-None-Match: \"b\"", "ETag: \"b\"", true),
            ("If-None-Match: \"x,y\"", "ETag: \"x,y\"", true),
            ("If-None-Match: \"x,y\"", "ETag: \"y\"", false),
            ("If-None-Match: a", "ETag: \"a\"", false),
            ("If-None-Match: \"a\"", "ETag: \"b\"", false),
            ("If-None-Match: \"a\"", "", false),
            ("If-None-Match:", "", false),
            ("If-None-Match: *", "", true),
            ("If-None-Match: *, \"b\"", "ETag: \"a\"", false),
            // If-None-Match decides alone.
            (&format!("If-None-Match: \"b\"\n{}", since("09:00:00")), &format!("ETag: \"a\"\n{LM}"), false),
            (&format!("If-None-Match: \"a\"\n{}", since("07:00:00")), &format!("ETag: \"a\"\n{LM}"), true),
            (&since("08:00:00"), LM, true),
            (&since("08:00:01"), LM, true),
            (&since("07:59:59"), LM, false),
            ("If-Modified-Since: Sunday, 06-Nov-94 08:00:00 GMT", LM, true),
            (&since("08:00:00"), "Date: Sun, 06 Nov 1994 08:00:00 GMT", true),
            (&since("08:00:00"), "Date: Sun, 06 Nov 1994 08:00:01 GMT", false),
            (&since("08:00:00"), "", false),
            (&since("09:00:00"), "Last-Modified: x\nDate: Sun, 06 Nov 1994 08:00:00 GMT", false),
            ("If-Modified-Since: yesterday", LM, false),
            (&format!("{}\n{}", since("09:00:00"), since("09:00:00")), LM, false),
            ("", LM, false),
        ] {
            let (request, stored) = (fields(request), fields(stored));
            assert_eq!(not_modified(&request, StatusCode::OK, stored.iter()), expected, "{request:?} {stored:?}");
            for status in [StatusCode::NOT_FOUND, StatusCode::NO_CONTENT, StatusCode::MOVED_PERMANENTLY] {
                assert!(!not_modified(&request, status, stored.iter()), "{status} is sent as it is");
            }
        }
    }

    #[test]
    fn which_304_confirms() {
        let both = |etag: &str, date: &str| format!("ETag: {etag}\n{date}");
        for (stored, not_modified, expected) in [
            ("ETag: \"a\"", "ETag: \"a\"", true),
            ("ETag: \"a\"", "ETag: \"b\"", false),
            ("ETag: W/\"a\"", "ETag: \"a\"", false),
            (LM, "ETag: \"a\"", false),
            (LM, &both("\"a\"", LM), false),
            (&both("\"a\"", LM), &both("\"a\"", LM_LATER), true),
            ("ETag: W/\"a\"", "ETag: W/\"a\"", true),
            ("ETag: \"a\"", "ETag: W/\"a\"", true),
            ("ETag: W/\"a\"", "ETag: W/\"b\"", false),
            (LM, "ETag: W/\"a\"", false),
            (&both("W/\"a\"", LM), &both("W/\"a\"", LM_LATER), false),
            (&both("W/\"a\"", LM), &both("W/\"b\"", LM), false),
            ("ETag: W/\"a\"", &both("W/\"a\"", LM), true),
            (LM, LM, true),
            (LM, LM_850, true),
            (LM, LM_LATER, false),
            (&both("\"a\"", LM), LM, true),
            ("ETag: \"a\"", LM, false),
            ("", "", true),
            ("ETag: \"a\"", "Date: Sun, 06 Nov 1994 08:49:37 GMT", true),
            (LM, "", true),
        ] {
            assert_eq!(confirms(&fields(stored), &fields(not_modified)), expected, "{stored} / {not_modified}");
        }
    }

    #[test]
    fn which_head_confirms() {
        let both = format!("ETag: \"a\"\n{LM}");
        for (stored, head, expected) in [
            ("", "", true),
            (&both, "", true),
            (&both, "ETag: \"a\"", true),
            (&both, "ETag: W/\"a\"", false),
            (&both, "ETag: \"b\"", false),
            (&both, LM_850, true),
            (&both, &format!("ETag: \"a\"\n{LM_LATER}"), false),
            ("", "ETag: \"a\"", false),
            ("", LM, false),
            (&both, "Content-Length: 5", true),
            (&both, "Content-Length: 005", true),
            (&both, "Content-Length: 6", false),
            (&both, "Content-Length: 5\nContent-Length: 6", false),
            (&both, "Content-Length: x", false),
            (&both, "ETag: \"b\"\nContent-Length: 5", false),
        ] {
            assert_eq!(head_confirms(&fields(stored), 5, &fields(head)), expected, "{stored} / {head}");
        }
    }

    #[test]
    fn a_304_replaces_fields_and_leaves_the_body_its_own() {
        let stored = fields(
            "Date: Sun, 06 Nov 1994 08:00:00 GMT
             Age: 500
             Content-Type: text/plain
             Content-Length: 5
             Content-Encoding: gzip
             X-Kept: 1
             Link: </a>
             Link: </b>
             Cache-Control: max-age=1",
        );
        let from = fields(
            "Date: Sun, 06 Nov 1994 08:49:37 GMT
             content-type: text/html
             Content-Length: 0
             Content-Encoding: br
             Content-Range: bytes 0-1/2
             Content-Foo: 2
             link: </c>
             CACHE-CONTROL: max-age=9
             Connection: X-Kept, close
             X-Kept: 2
             Keep-Alive: 5",
        );
        assert_eq!(
            lines(&updated(&stored, &from)),
            [
                "Content-Length: 5",
                "Content-Encoding: gzip",
                "X-Kept: 1",
                "Date: Sun, 06 Nov 1994 08:49:37 GMT",
                "content-type: text/html",
                "Content-Foo: 2",
                "link: </c>",
                "CACHE-CONTROL: max-age=9",
            ]
        );
        let bare = updated(&stored, &fields("ETag: \"a\""));
        assert!(!bare.contains("age") && !bare.contains("date") && bare.get_all("link").count() == 2);
    }
}
