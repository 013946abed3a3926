//! Heads on their way into the store and to the client (pure).

use http::{Method, StatusCode};
use millpond_shared::http1::{Fields, FieldsBuilder, RequestHead};
use millpond_shared::wire::headers;

use crate::rules::Rule;
use crate::semantics::{date, hop};

/// The request by which a stored response is refreshed behind a client: a plain GET, without what was that client's
/// own affair.
pub fn refreshing(request: &RequestHead) -> RequestHead {
    let own = ["authorization", "cache-control", "pragma"];
    let kept = request.fields.iter().filter(|(name, _)| !own.iter().any(|other| name.eq_ignore_ascii_case(other)));
    RequestHead { method: Method::GET, fields: kept.collect(), ..request.clone() }
}

/// The fields of a response that are stored: end to end, without framing, `Age` (it is counted anew) and what was
/// meant for us alone; with `Date`, if there was none (RFC 9110 §6.6.1).
pub fn stored_fields(response: &Fields, now: u64) -> Fields {
    let mut fields = FieldsBuilder::new();
    let has_date = response.get("date").is_some_and(|value| date::parse(value).is_some());
    for (name, value) in hop::end_to_end(response) {
        let left_out = ["content-length", "age", headers::POSITION, if has_date { "age" } else { "date" }];
        if !left_out.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            fields.push(name, value);
        }
    }
    if !has_date {
        fields.push("Date", date::format(now));
    }
    fields.build()
}

/// Whether an end-to-end field of a response is handed through with it.
pub fn is_relayed(name: &str) -> bool {
    !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case(headers::POSITION)
}

/// The fields that a 304 made from a stored response carries (RFC 9110 §15.4.5).
pub fn not_modified_fields<'a>(
    stored: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let kept =
        ["cache-control", "content-location", "date", "etag", "expires", "vary", "last-modified", headers::VERSION];
    stored.filter(move |(name, _)| kept.iter().any(|other| name.eq_ignore_ascii_case(other)))
}

/// Tags of a response: those of the rule, those its header lists, and the document's own.
pub fn tags(rule: &Rule, response: &Fields, document: Option<&str>) -> Vec<Box<str>> {
    let listed = rule.tags.header.as_deref().into_iter().flat_map(|name| response.get_all(name));
    let listed = listed
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split([',', ' ', '\t']))
        .filter(|tag| !tag.is_empty());
    let mut tags: Vec<Box<str>> =
        rule.tags.add.iter().map(String::as_str).chain(document).chain(listed).map(Box::from).collect();
    tags.sort();
    tags.dedup();
    tags
}

/// Statuses by which an origin says that it failed (RFC 5861 §4).
pub fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}
