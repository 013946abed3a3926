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
mod tests;
