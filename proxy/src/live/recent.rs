//! What one shard has announced, and clients were given, of late.

use std::collections::{HashMap, VecDeque};

use millpond_shared::version::{Position, Version};
use xxhash_rust::xxh3::xxh3_128;

use crate::cache::Stamp;

/// Document versions remembered per shard. Of a document that is not among them it is known that it has not changed
/// since the position at which remembering began.
pub(super) const REMEMBERED_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Recent {
    /// Changes at or below this position may have been forgotten.
    floor: Position,
    /// By the 128-bit hash of the tag: a client chooses how long tags are.
    versions: HashMap<u128, Known>,
    order: VecDeque<u128>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    announced: Version,
    served: Version,
}

/// What is remembered against a response.
pub(super) struct Against {
    /// A newer version of the document was given to a client.
    pub newer_was_given: bool,
    /// The position at which the document or one of its parts has changed since, or may have: of several changes the
    /// first that is remembered.
    pub changed_at: Option<Position>,
}

impl Recent {
    /// Remembers nothing, and that there may have been changes up to `floor`.
    pub fn after(floor: Position) -> Recent {
        Recent { floor, ..Recent::default() }
    }

    /// A change of the document or part with this tag was announced.
    pub fn announced(&mut self, tag: &str, version: Version) {
        self.remember(hash(tag), |known| known.announced = known.announced.max(version));
    }

    /// Notes that clients are given this version; whether it is newer than all that was given or announced. Of the parts
    /// nothing is noted: the version of what they are merged into is theirs as well.
    pub fn given(&mut self, stamp: &Stamp) -> bool {
        let mut rose = false;
        self.remember(hash(&stamp.tag), |known| {
            rose = stamp.version > known.served.max(known.announced);
            known.served = known.served.max(stamp.version);
        });
        rose
    }

    pub fn against(&self, stamp: &Stamp) -> Against {
        let own = self.known(&stamp.tag).unwrap_or_default();
        let parts = stamp.parts.iter().map(|tag| self.known(tag).unwrap_or_default());
        let changes = std::iter::once(own).chain(parts).filter_map(|known| self.changed_at(known, stamp));
        Against { newer_was_given: own.served > stamp.version, changed_at: changes.min() }
    }

    /// Whether nobody can have been given a newer version of the document; what is forgotten may have been.
    pub fn none_newer_was_given(&self, stamp: &Stamp) -> bool {
        self.known(&stamp.tag).is_some_and(|known| known.served <= stamp.version)
    }

    fn changed_at(&self, known: Known, stamp: &Stamp) -> Option<Position> {
        // Where the announcements of the time are forgotten, an old response can't be vouched for.
        let may_be_forgotten = known.announced == Version::ZERO && stamp.at < self.floor;
        let is_newer = known.announced > stamp.version;
        if is_newer { Some(known.announced.position) } else { may_be_forgotten.then_some(self.floor) }
    }

    fn known(&self, tag: &str) -> Option<Known> {
        self.versions.get(&hash(tag)).copied()
    }

    fn remember(&mut self, tag: u128, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.versions.get_mut(&tag) {
            return change(known);
        }
        if self.versions.len() >= REMEMBERED_MAX
            && let Some(forgotten) = self.order.pop_front().and_then(|oldest| self.versions.remove(&oldest))
        {
            self.floor = self.floor.max(forgotten.announced.position).max(forgotten.served.position);
        }
        let mut known = Known::default();
        change(&mut known);
        self.versions.insert(tag, known);
        self.order.push_back(tag);
    }
}

fn hash(tag: &str) -> u128 {
    xxh3_128(tag.as_bytes())
}
