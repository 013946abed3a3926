//! Heads on their way into the store and to the client (pure).

use http::Method;
use millpond_shared::http1::{Fields, FieldsBuilder, Minor, RequestHead};
use millpond_shared::wire::headers;

use crate::rules::Rule;
use crate::semantics::cache_control::ResponseDirectives;
use crate::semantics::{date, groups, hop, targeted};

/// The request by which a stored response is refreshed behind a client: a plain GET, without what was that client's
/// own affair.
pub fn refreshing(request: &RequestHead) -> RequestHead {
    let own = ["authorization", "cache-control", "pragma"];
    let kept = request.fields.iter().filter(|(name, _)| !own.iter().any(|other| name.eq_ignore_ascii_case(other)));
    RequestHead { method: Method::GET, fields: kept.collect(), ..request.clone() }
}

/// The fields of a response that are stored: end to end, without framing, `Age` (it is counted anew), what was meant
/// for us alone, and what is for the client alone whose request brought it; with `Date`, if there was none
/// (RFC 9110 §6.6.1). `through`: the version in which it was received, to be told in `Via`, unless that was told of it
/// before.
pub fn stored_fields(response: &Fields, now: u64, through: Option<Minor>) -> Fields {
    let directives = ResponseDirectives::of(response);
    let mut fields = FieldsBuilder::new();
    let is_date = |(name, value): (&str, &[u8])| name.eq_ignore_ascii_case("date") && date::parse(value).is_some();
    // One that `Connection` names ends here, like any other.
    let has_date = hop::end_to_end(response).any(is_date);
    for (name, value) in hop::end_to_end(response) {
        let left_out = [
            "content-length",
            "age",
            headers::POSITION,
            headers::NEWEST,
            headers::MAP_VERSION,
            headers::REFRESH,
            targeted::OWN,
            if has_date { "age" } else { "date" },
        ];
        if !left_out.iter().any(|other| name.eq_ignore_ascii_case(other)) && !directives.withholds(name) {
            fields.push(name, value);
        }
    }
    if !has_date {
        fields.push("Date", date::format(now));
    }
    if let Some(minor) = through {
        fields.push("Via", via(minor));
    }
    fields.build()
}

/// Our entry in the `Via` of a response (RFC 9110 §7.6.3).
pub fn via(minor: Minor) -> &'static str {
    if minor == Minor::Zero { "1.0 millpond" } else { "1.1 millpond" }
}

/// The fields of a response that are for the client alone whose request brought it (RFC 9111 §5.2.2.4, §5.2.2.7).
pub fn withheld_fields(response: &Fields) -> Fields {
    let directives = ResponseDirectives::of(response);
    if directives.withheld.is_empty() {
        return Fields::default();
    }
    let is_withheld = |name: &str| directives.withholds(name) && is_relayed(name);
    hop::end_to_end(response).filter(|(name, _)| is_withheld(name)).collect()
}

/// Whether an end-to-end field of a response is handed through with it.
pub fn is_relayed(name: &str) -> bool {
    let ours =
        ["content-length", headers::POSITION, headers::NEWEST, headers::MAP_VERSION, headers::REFRESH, targeted::OWN];
    !ours.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Tags of a response: those of the rule, those its header lists, those of the document and its parts, and its groups,
/// which are those of `uri_origin`.
pub fn tags<'a>(
    rule: &'a Rule,
    response: &'a Fields,
    document: impl Iterator<Item = &'a str>,
    uri_origin: &str,
) -> Vec<Box<str>> {
    let listed = rule.tags.header.as_deref().into_iter().flat_map(|name| response.get_all(name));
    let listed = listed
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split([',', ' ', '\t']))
        .filter(|tag| !tag.is_empty());
    let told = rule.tags.add.iter().map(String::as_str).chain(document).chain(listed).map(Box::from);
    let mut tags: Vec<Box<str>> = told.chain(groups::tags(response, uri_origin)).collect();
    tags.sort();
    tags.dedup();
    tags
}
