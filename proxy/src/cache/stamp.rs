//! Which document a stored response is, and what it was rendered from.

use millpond_shared::version::{Position, ShardId, Version};

use super::charge;

/// Which document of which shard, at which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub shard: ShardId,
    /// The document's own.
    pub tag: Box<str>,
    /// Those of what it was merged from.
    pub parts: PartTags,
    /// The greatest of the document and its parts: all are positions in one shard's queue.
    pub version: Version,
    /// Position the shard had applied when it rendered the document.
    pub at: Position,
    /// Generation of the shard's change stream under which it was admitted.
    pub generation: u64,
    /// Until when it may be used though its document has changed, in milliseconds since the Unix epoch.
    pub lags_until: u64,
}

/// Tags of parts, in one text with commas between them: there may be a million documents with some dozens of parts each,
/// and most documents have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartTags(Option<Box<str>>);

impl Stamp {
    /// All tags by which a change of it is announced, the document's own first.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.tag).chain(self.parts.iter())
    }

    /// Whether a change of the document or part with this tag is one of it.
    pub fn names(&self, tag: &str) -> bool {
        self.tags().any(|own| own == tag)
    }

    /// Bytes of memory beside its own.
    pub(super) fn charge(&self) -> u64 {
        let parts = self.parts.0.as_ref().map_or(0, |parts| charge::allocated(parts.len()));
        charge::allocated(self.tag.len()) + parts
    }
}

impl PartTags {
    pub const NONE: PartTags = PartTags(None);

    /// Of members of a comma-separated list, none of which is empty.
    pub fn of<'a>(tags: impl Iterator<Item = &'a str>) -> PartTags {
        let list = tags.fold(String::new(), |mut list, tag| {
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(tag);
            list
        });
        PartTags(Some(list.into_boxed_str()).filter(|list| !list.is_empty()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|list| list.split(','))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_names_its_document_and_every_part_of_it() {
        let stamp = |parts: &[&str]| Stamp {
            shard: 0,
            tag: "home/ann".into(),
            parts: PartTags::of(parts.iter().copied()),
            version: Version::ZERO,
            at: 0,
            generation: 0,
            lags_until: 0,
        };
        let alone = stamp(&[]);
        assert_eq!((alone.tags().collect::<Vec<_>>(), &alone.parts), (vec!["home/ann"], &PartTags::NONE));
        assert!(!alone.names(""));
        let merged = stamp(&["posts/3*", "posts/3*bob"]);
        assert_eq!(merged.tags().collect::<Vec<_>>(), ["home/ann", "posts/3*", "posts/3*bob"]);
        for (tag, named) in [
            ("home/ann", true),
            ("posts/3*", true),
            ("posts/3*bob", true),
            ("posts/3", false),
            ("posts/3*bo", false),
            ("posts/3*,posts/3*bob", false),
            ("", false),
        ] {
            assert_eq!(merged.names(tag), named, "{tag}");
        }
        assert!(merged.charge() > alone.charge(), "it is counted");
    }
}
