//! Heads on their way: to the origin, into the store, to the client (pure).

use http::{Method, StatusCode};
use millpond_shared::http1::{Fields, FieldsBuilder, Minor, RequestHead, ResponseHead};
use millpond_shared::wire::headers;

use crate::key::forwarded_target;
use crate::rules::Rule;
use crate::semantics::validate::{self, Validators};
use crate::semantics::{date, hop};
use crate::upstreams::Outgoing;

/// Our name in `Via`.
const PSEUDONYM: &str = "millpond";

/// Which conditions go to the origin, and whether a `Range` does.
pub enum Conditions<'a> {
    /// The client's own, and its `Range`: the answer is for it alone, or a part.
    Client,
    /// None: the whole response is wanted.
    None,
    /// Those that validate the stored response.
    Stored(&'a Fields),
}

/// The request as it goes to the origin: untouched but for what HTTP demands of a proxy (RFC 9110 §7.6).
pub fn outgoing(request: &RequestHead, rule: &Rule, conditions: &Conditions<'_>) -> Outgoing {
    let mut fields = FieldsBuilder::new();
    // The target decides (RFC 9112 §3.2.2), and Host comes first (RFC 9110 §7.2).
    fields.push("Host", request.authority.as_str());
    let client_conditions = matches!(conditions, Conditions::Client);
    for (name, value) in hop::end_to_end(&request.fields) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let made_anew = is("host") || is("content-length") || is("expect") || is("via");
        let ours = is(headers::LEAST_POSITION);
        let clients_own = validate::is_condition(name) || is("range");
        if !made_anew && !ours && (client_conditions || !clients_own) {
            fields.push(name, value);
        }
    }
    if let Conditions::Stored(stored) = conditions {
        validate::put_conditions(&Validators::of(stored), &mut fields);
    }
    fields.push("Via", via(&request.fields, request.minor));
    Outgoing {
        method: request.method.clone(),
        target: forwarded_target(rule, request.target.path_and_query()),
        fields: fields.build(),
    }
}

/// The request by which a stored response is refreshed behind a client: a plain GET, without what was that client's
/// own affair.
pub fn refreshing(request: &RequestHead) -> RequestHead {
    let own = ["authorization", "cache-control", "pragma"];
    let kept = request.fields.iter().filter(|(name, _)| !own.iter().any(|other| name.eq_ignore_ascii_case(other)));
    RequestHead { method: Method::GET, fields: kept.collect(), ..request.clone() }
}

/// `Via` with us appended (RFC 9110 §7.6.3).
fn via(fields: &Fields, minor: Minor) -> String {
    let version = if minor == Minor::Zero { "1.0" } else { "1.1" };
    let mut via = String::new();
    for line in fields.get_all("via") {
        via.push_str(&String::from_utf8_lossy(line));
        via.push_str(", ");
    }
    via.push_str(version);
    via.push(' ');
    via.push_str(PSEUDONYM);
    via
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

/// The fields of a response that is handed through.
pub fn relayed_fields(head: &ResponseHead, now: u64) -> Fields {
    let mut fields = FieldsBuilder::new();
    for (name, value) in hop::end_to_end(&head.fields) {
        if !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case(headers::POSITION) {
            fields.push(name, value);
        }
    }
    if !head.fields.contains("date") {
        fields.push("Date", date::format(now));
    }
    fields.build()
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
