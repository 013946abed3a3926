//! Entity tags and their two comparisons (RFC 9110 §8.8.3).

use millpond_shared::http1::Fields;

use super::coding::Coding;
use super::list::{self, Quoted};

/// A tag as it was written; one that is not quoted is kept, compares by its text, and counts as strong.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntityTag<'a> {
    pub weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// `None` for an empty text.
    pub fn parse(text: &'a [u8]) -> Option<EntityTag<'a>> {
        match text {
            [] => None,
            [b'W', b'/', opaque @ ..] if opaque.first() == Some(&b'"') => Some(EntityTag { weak: true, opaque }),
            opaque => Some(EntityTag { weak: false, opaque }),
        }
    }

    /// The tags of a list field, in their order, over all lines. A comma inside a tag is part of it.
    pub fn list(fields: &'a Fields, name: &'a str) -> impl Iterator<Item = EntityTag<'a>> {
        let members = fields.get_all(name).flat_map(|line| list::members(line, Quoted::Tags));
        members.filter_map(EntityTag::parse)
    }

    pub fn matches_weakly(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// Whether this is what the tag `plain` becomes in a coding of ours, compared weakly.
    pub fn matches_in(&self, coding: Coding, plain: &EntityTag<'_>) -> bool {
        coding.is_tag(plain.opaque, self.opaque)
    }

    pub fn matches_strongly(&self, other: &EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::fields;
    use super::*;

    /// Table 3 of RFC 9110 §8.8.3.2, and what is not in it.
    #[test]
    fn comparisons() {
        for (one, other, strongly, weakly) in [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
            (r#""a""#, r#""A""#, false, false),
            (r#""""#, r#""""#, true, true),
            ("a", "a", true, true),
            ("a", r#""a""#, false, false),
            (r#"w/"1""#, r#""1""#, false, false),
            ("W/1", "1", false, false),
        ] {
            let tag = |text: &'static str| EntityTag::parse(text.as_bytes()).expect("not empty");
            let (one, other) = (tag(one), tag(other));
            assert_eq!(one.matches_strongly(&other), strongly, "{one:?} {other:?}");
            assert_eq!(one.matches_weakly(&other), weakly, "{one:?} {other:?}");
        }
        assert!(EntityTag::parse(b"").is_none());
    }

    #[test]
    fn commas_and_backslashes_inside_tags() {
        let request = fields("If-None-Match: \"a,b\", W/\"c\\\"\nIf-None-Match: \"d\"");
        let found: Vec<_> =
            EntityTag::list(&request, "if-none-match").map(|tag| String::from_utf8_lossy(tag.opaque)).collect();
        assert_eq!(found, [r#""a,b""#, r#""c\""#, r#""d""#]);
    }
}
