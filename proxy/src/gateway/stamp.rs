//! Which document a shard's answer is, so that its copies hear of changes and no client sees it go back.

use millpond_shared::clock;
use millpond_shared::http1::{Fields, RequestHead, ResponseHead};
use millpond_shared::version::{Position, ShardId, Version};
use millpond_shared::wire::headers;

use super::{Gateway, Snapshot};
use crate::cache::{PartTags, Stamp};
use crate::live::Verdict;
use crate::rules::Rule;

impl Gateway {
    /// Which document this is, by the fields of a shard's answer. It names no more parts than a stamp may: an answer that
    /// names more must not be stored ([`names_all_parts`]).
    pub(super) fn stamp(&self, shard: ShardId, fields: &Fields) -> Option<Stamp> {
        let version: Version = fields.get_str(headers::VERSION)?.parse().ok()?;
        let at: Position = fields.get_str(headers::POSITION)?.parse().ok()?;
        let mut tags = fields.list(headers::CACHE_TAG);
        let tag = tags.next().filter(|_| tags_can_be_read(fields))?.into();
        let parts = PartTags::of(tags.take(headers::PARTS_MAX));
        // Where the document has moved while it was asked for, another shard has answered.
        let shard = fields.get_str(headers::SHARD).and_then(|shard| shard.parse().ok()).unwrap_or(shard);
        let refresh = fields.get_str(headers::REFRESH).and_then(|milliseconds| milliseconds.parse::<u64>().ok());
        let lags_until = refresh.map_or(0, |refresh| clock::wall_ms().saturating_add(refresh));
        Some(Stamp { shard, tag, parts, version, at, generation: self.live.generation(shard), lags_until })
    }

    /// Whether a newer version than this was given to somebody, or announced before the client asked: then it must not be
    /// given to that client. If not, nobody gets an older one after it.
    pub(super) fn is_older(&self, stamp: Option<&Stamp>, asked_at: Position) -> bool {
        stamp.is_some_and(|stamp| self.live.judge(stamp, asked_at) == Verdict::Older)
    }

    /// A document went to a client without passing the store: nobody gets an older one after it.
    pub(super) fn note_version(&self, snapshot: &Snapshot, rule: &Rule, request: &RequestHead, head: &ResponseHead) {
        let shard = self.shard(snapshot, rule, request);
        if let Some(stamp) = shard.and_then(|shard| self.stamp(shard, &head.fields)) {
            self.live.given(&stamp);
        }
    }
}

/// Whether a copy of a shard's answer would hear of every change of it: all tags by which they are announced can be read,
/// and are no more than a stamp may hold.
pub(super) fn names_all_parts(fields: &Fields) -> bool {
    tags_can_be_read(fields) && fields.list(headers::CACHE_TAG).count() <= 1 + headers::PARTS_MAX
}

fn tags_can_be_read(fields: &Fields) -> bool {
    fields.get_all(headers::CACHE_TAG).all(|line| std::str::from_utf8(line).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_all_its_parts_unless_they_are_too_many_or_garbled() {
        let list = |parts: usize| (0..=parts).map(|part| format!("p/{part}")).collect::<Vec<_>>().join(", ");
        let (most, too_many) = (list(headers::PARTS_MAX), list(headers::PARTS_MAX + 1));
        for (lines, named) in [
            (vec![], true),
            (vec!["home/ann".as_bytes()], true),
            (vec![most.as_bytes()], true),
            (vec![too_many.as_bytes()], false),
            (vec![most.as_bytes(), b", ,"], true),
            (vec![most.as_bytes(), b"p/more"], false),
            (vec![b"home/ann, posts/\xff"], false),
            (vec![b"home/ann", b"posts/\xff"], false),
        ] {
            let fields: Fields = lines.iter().map(|line| ("Cache-Tag", *line)).collect();
            assert_eq!(names_all_parts(&fields), named, "{fields:?}");
        }
    }
}
