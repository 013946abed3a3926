//! Cache directives for some caches only (RFC 9213): structured dictionaries that take the place of `Cache-Control` and
//! `Expires`.

use millpond_shared::http1::Fields;
use sfv::{BareItem, Dictionary, ListEntry};

use super::cache_control::{self, ResponseDirectives, SECONDS_MAX};
use super::structured;

/// Directives for this cache alone: obeyed, and not sent on.
pub const OWN: &str = "Millpond-Cache-Control";

/// Our target list: the first that is present, valid and not empty counts (RFC 9213 §2.2).
pub const TARGETS: [&str; 2] = [OWN, "CDN-Cache-Control"];

/// What the first usable targeted field says; `None`: there is none, so `Cache-Control` counts.
pub(super) fn directives(fields: &Fields) -> Option<ResponseDirectives> {
    TARGETS.iter().find_map(|name| dictionary(fields, name)).map(|dictionary| read(&dictionary))
}

/// Whether a text can be sent as a targeted field: a dictionary, and not an empty one.
pub fn is_well_formed(text: &str) -> bool {
    structured::text(text).is_some_and(|dictionary: Dictionary| !dictionary.is_empty())
}

/// Whether one of the targeted fields says `no-transform`.
pub(super) fn forbids_transforming(fields: &Fields) -> bool {
    let says = |dictionary: Dictionary| {
        dictionary.get("no-transform").is_some_and(|entry| matches!(item(entry), Some(BareItem::Boolean(true))))
    };
    TARGETS.iter().filter_map(|name| dictionary(fields, name)).any(says)
}

/// `None` if the field is missing, malformed or empty (RFC 9213 §2.1).
fn dictionary(fields: &Fields, name: &str) -> Option<Dictionary> {
    structured::field(fields, name).filter(|dictionary: &Dictionary| !dictionary.is_empty())
}

/// A value of another type than its directive has is not used: a flag is then not set, and a lifetime, which the
/// origin meant to state, has passed already (RFC 9111 §4.2.1).
fn read(dictionary: &Dictionary) -> ResponseDirectives {
    let mut found = ResponseDirectives { targeted: true, ..ResponseDirectives::default() };
    for (name, entry) in dictionary {
        let is_set = || matches!(item(entry), Some(BareItem::Boolean(true)));
        let seconds = || Some(seconds(item(entry)));
        match name.as_str() {
            "no-store" => found.no_store = is_set(),
            "public" => found.public = is_set(),
            "must-revalidate" => found.must_revalidate = is_set(),
            "proxy-revalidate" => found.proxy_revalidate = is_set(),
            "must-understand" => found.must_understand = is_set(),
            "no-cache" => found.no_cache = concerns_all(&mut found, entry),
            "private" => found.private = concerns_all(&mut found, entry),
            "max-age" => found.max_age = seconds(),
            "s-maxage" => found.s_maxage = seconds(),
            "stale-while-revalidate" => found.stale_while_revalidate = seconds(),
            "stale-if-error" => found.stale_if_error = seconds(),
            _ => {}
        }
    }
    found
}

/// Whether `no-cache` or `private` is about the whole response; the fields that it names otherwise are taken in.
fn concerns_all(found: &mut ResponseDirectives, entry: &ListEntry) -> bool {
    match item(entry) {
        Some(BareItem::Boolean(set)) => *set,
        Some(BareItem::String(names)) => !found.withhold(cache_control::field_names(names.as_str().as_bytes())),
        _ => false,
    }
}

fn item(entry: &ListEntry) -> Option<&BareItem> {
    match entry {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

fn seconds(value: Option<&BareItem>) -> u64 {
    let integer = value.and_then(BareItem::as_integer).map_or(0, i64::from);
    u64::try_from(integer).unwrap_or(0).min(SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;

    fn of(lines: &str) -> ResponseDirectives {
        ResponseDirectives::of(&fields(lines))
    }

    fn lifetime(seconds: u64) -> ResponseDirectives {
        ResponseDirectives { targeted: true, max_age: Some(seconds), ..ResponseDirectives::default() }
    }

    #[test]
    fn the_first_usable_field_counts_alone() {
        let cache_control = ResponseDirectives { no_store: true, ..ResponseDirectives::default() };
        for (lines, expected) in [
            ("", cache_control.clone()),
            ("CDN-Cache-Control: max-age=600", lifetime(600)),
            ("cdn-cache-control: max-age=600\nmillpond-cache-control: max-age=5", lifetime(5)),
            ("CDN-Cache-Control: none", ResponseDirectives { targeted: true, ..ResponseDirectives::default() }),
            // Empty or malformed: as if it were not there.
            ("CDN-Cache-Control:", cache_control.clone()),
            ("Millpond-Cache-Control:\nCDN-Cache-Control: max-age=600", lifetime(600)),
            ("Millpond-Cache-Control: max-age=5;;\nCDN-Cache-Control: max-age=600", lifetime(600)),
            ("CDN-Cache-Control: Max-Age=600", cache_control.clone()),
            ("CDN-Cache-Control: max-age=600,", cache_control.clone()),
            ("CDN-Cache-Control: max-age=600,, public", cache_control.clone()),
            ("CDN-Cache-Control: max-age=", cache_control.clone()),
            ("CDN-Cache-Control: max-age =600", cache_control.clone()),
            ("CDN-Cache-Control: ext=\"a, max-age=600", cache_control.clone()),
            // Not on the list.
            ("Surrogate-Control: max-age=600", cache_control.clone()),
            ("Example-Cache-Control: max-age=600", cache_control.clone()),
        ] {
            assert_eq!(of(&format!("Cache-Control: no-store\n{lines}")), expected, "{lines}");
        }
    }

    #[test]
    fn values_have_types() {
        let seconds = |lines: &str| of(&format!("CDN-Cache-Control: {lines}")).max_age;
        for (lines, expected) in [
            ("max-age=60;unknown=1", Some(60)),
            ("a=(1 2), max-age=60, b=?0, c=:AA==:", Some(60)),
            ("max-age=60, max-age=30", Some(30)),
            ("max-age=30\nCDN-Cache-Control: max-age=60", Some(60)),
            ("max-age=999999999999999", Some(SECONDS_MAX)),
            ("max-age=-1", Some(0)),
            ("max-age=60.5", Some(0)),
            ("max-age=\"60\"", Some(0)),
            ("max-age=token", Some(0)),
            ("max-age", Some(0)),
            ("max-age=(60)", Some(0)),
            ("public", None),
        ] {
            assert_eq!(seconds(lines), expected, "{lines}");
        }
        let flags = of("CDN-Cache-Control: no-store=?0, private=1, no-cache=token, must-revalidate=\"\", public=?1");
        let expected = ResponseDirectives { targeted: true, public: true, ..ResponseDirectives::default() };
        assert_eq!(flags, expected);
    }

    #[test]
    fn every_directive_is_known() {
        let found = of(
            "CDN-Cache-Control: no-store, public, must-revalidate, proxy-revalidate, must-understand, private, no-cache
             CDN-Cache-Control: max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4",
        );
        let expected =
            of("Cache-Control: no-store, public, must-revalidate, proxy-revalidate, must-understand, private, no-cache
             Cache-Control: max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4");
        assert_eq!(found, ResponseDirectives { targeted: true, ..expected });
        let named = of("CDN-Cache-Control: private=\"set-cookie\", no-cache=\"A, b\"");
        assert_eq!((named.private, named.no_cache, named.withheld.len()), (false, false, 3));
        assert!(of("CDN-Cache-Control: private=\"\"").private);
    }
}
