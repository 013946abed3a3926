//! Groups of responses that become invalid together (RFC 9875).
//!
//! In the store a group is a tag: the URI origin and the group's name behind it, each part ended by a blank. Neither
//! scheme nor authority holds a blank, and no tag of a rule, a response field or a document does, so that groups of
//! different origins, and groups and other tags, are never the same.

use millpond_shared::http1::Fields;
use sfv::{List, ListEntry};

use super::structured;

/// Tags of the groups that a response belongs to. `uri_origin`: scheme, a blank, and the authority in its normal form.
pub fn tags(response: &Fields, uri_origin: &str) -> impl Iterator<Item = Box<str>> {
    of(response, "cache-groups", uri_origin)
}

/// Tags of the groups that the response to an unsafe request invalidates (RFC 9875 §3).
pub fn invalidated(response: &Fields, uri_origin: &str) -> impl Iterator<Item = Box<str>> {
    of(response, "cache-group-invalidation", uri_origin)
}

/// Whether a tag is that of a group.
pub fn is_group(tag: &str) -> bool {
    tag.contains(' ')
}

fn of(response: &Fields, name: &str, uri_origin: &str) -> impl Iterator<Item = Box<str>> {
    names(response, name).into_iter().map(move |group| format!("{uri_origin} {group}").into())
}

/// The strings of a list; none if any of it is something else (RFC 9651 §1.2: then the field is ignored).
fn names(fields: &Fields, name: &str) -> Vec<String> {
    let Some(list) = structured::field::<List>(fields, name) else { return Vec::new() };
    let name = |entry: &ListEntry| match entry {
        ListEntry::Item(item) => Some(item.bare_item.as_string()?.as_str().to_owned()),
        ListEntry::InnerList(_) => None,
    };
    list.iter().map(name).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;

    const ORIGIN: &str = "http example.com";

    fn found(lines: &str) -> Vec<String> {
        tags(&fields(lines), ORIGIN).map(String::from).collect()
    }

    #[test]
    fn groups_are_strings_of_a_list() {
        for (lines, expected) in [
            ("", &[][..]),
            (r#"Cache-Groups: "a""#, &["http example.com a"]),
            (
                "Cache-Groups: \"a\";x=1, \"B c\"\ncache-groups: \"a\\\"\"",
                &["http example.com a", "http example.com B c", "http example.com a\""],
            ),
            // Anything else makes the field invalid as a whole.
            (r#"Cache-Groups: "a", b"#, &[]),
            (r#"Cache-Groups: "a", ("b")"#, &[]),
            (r#"Cache-Groups: "a", 1"#, &[]),
            (r#"Cache-Groups: "a"#, &[]),
            ("Cache-Groups: a b", &[]),
            ("Cache-Groups:", &[]),
        ] {
            assert_eq!(found(lines), expected, "{lines}");
        }
        let response = fields("Cache-Groups: \"a\"\nCache-Group-Invalidation: \"b\"");
        assert_eq!(invalidated(&response, ORIGIN).collect::<Vec<_>>(), ["http example.com b".into()]);
    }

    #[test]
    fn thirty_two_groups_of_thirty_two_characters_and_more() {
        let names: Vec<String> = (0..64).map(|index| format!("\"{index:064}\"")).collect();
        assert_eq!(found(&format!("Cache-Groups: {}", names.join(", "))).len(), 64);
    }

    /// What would be the same text if the parts were not told apart.
    #[test]
    fn no_group_is_that_of_another_origin_or_a_tag() {
        let response = fields("Cache-Groups: \"a\", \"\", \" a\", \"80 a\"");
        let mut all: Vec<Box<str>> =
            ["http a", "http a:80", "https a", "http a:8"].iter().flat_map(|origin| tags(&response, origin)).collect();
        assert!(all.iter().all(|tag| is_group(tag)) && !is_group("a") && !is_group("users/7"));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), count), (16, 16));
    }
}
