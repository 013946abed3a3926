//! Purges: what a command or an event removes or marks.

use std::sync::Arc;

use millpond_shared::version::Version;

use super::shard::Shard;
use super::slot::Slot;
use super::{Entry, Mark, Purge, PurgeSeq, Store};
use crate::key::{Key, KeyHash};

/// How to purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Mark stale: validated before the next use, served if the origin fails within its window.
    Stale,
    Delete,
}

/// What a purge found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub objects: u64,
    pub bytes: u64,
}

impl Store {
    pub fn purge_key(&self, key: &Key, mode: Mode) -> Purged {
        self.purges.add(Purge::Key(key.hash()), mode);
        self.purge_slot(key.hash(), mode, |_| true)
    }

    /// Tags of the responses under a key.
    pub fn tags_of(&self, key: &Key) -> Vec<Box<str>> {
        let shard = self.shard(key.hash()).read();
        let slot = shard.find(key.borrowed());
        slot.map_or_else(Vec::new, |slot| slot.variants().iter().flat_map(|entry| entry.tags()).cloned().collect())
    }

    pub fn purge_tag(&self, tag: &str, mode: Mode) -> Purged {
        self.purges.add(Purge::Tag(tag.into()), mode);
        let keys = self.tags.keys(self.tags.hash(tag));
        let carries_it = |entry: &Entry| entry.tags().iter().any(|own| **own == *tag);
        keys.into_iter().map(|hash| self.purge_slot(hash, mode, carries_it)).sum()
    }

    pub fn purge_all(&self, mode: Mode) -> Purged {
        self.purges.add(Purge::All, mode);
        self.shards()
            .iter()
            .map(|shard| match mode {
                Mode::Stale => shard.0.read().slots().iter().map(|slot| self.mark(slot, Mark::Purged, |_| true)).sum(),
                Mode::Delete => {
                    let mut shard = shard.0.write();
                    let (slots, purged) = self.empty(&mut shard);
                    drop(shard);
                    drop(slots);
                    purged
                }
            })
            .sum()
    }

    /// The document with this tag is at `version`: marks its older copies, and those of what was merged from it.
    pub fn document_changed(&self, tag: &str, version: Version) {
        let is_older = |entry: &Entry| entry.stamp().is_some_and(|stamp| stamp.version < version && stamp.names(tag));
        for hash in self.tags.keys(self.tags.hash(tag)) {
            let shard = self.shard(hash).read();
            if let Some(slot) = shard.find_hash(hash).and_then(|at| shard.slots().get(at)) {
                self.mark(slot, Mark::Changed, is_older);
            }
        }
    }

    /// What the purges after `since` up to `until` ask for this key and these tags.
    pub fn purged_between(&self, since: PurgeSeq, until: PurgeSeq, key: &Key, tags: &[Box<str>]) -> Option<Mode> {
        self.purges.asked_between(since, until, key.hash(), tags)
    }

    fn purge_slot(&self, hash: KeyHash, mode: Mode, concerned: impl Fn(&Entry) -> bool) -> Purged {
        match mode {
            Mode::Stale => {
                let shard = self.shard(hash).read();
                let slot = shard.find_hash(hash).and_then(|at| shard.slots().get(at));
                slot.map(|slot| self.mark(slot, Mark::Purged, concerned)).unwrap_or_default()
            }
            Mode::Delete => {
                let mut shard = self.shard(hash).write();
                let Some(at) = shard.find_hash(hash) else { return Purged::default() };
                let before = shard.charged.total();
                let gone = self.take(&mut shard, at, hash, |entry| concerned(entry));
                let bytes = before.saturating_sub(shard.charged.total());
                drop(shard);
                Purged { objects: gone.len() as u64, bytes }
            }
        }
    }

    fn mark(&self, slot: &Slot, mark: Mark, concerned: impl Fn(&Entry) -> bool) -> Purged {
        let marked: Vec<&Arc<Entry>> = slot.variants().iter().filter(|entry| concerned(entry)).collect();
        if marked.is_empty() {
            return Purged::default();
        }
        marked.iter().for_each(|entry| entry.set_mark(mark));
        slot.marked(self.now());
        Purged { objects: marked.len() as u64, bytes: marked.iter().map(|entry| entry.charge().total()).sum() }
    }

    /// Takes everything out of a shard. Tags go while it is locked: whoever admits one of them next adds it anew.
    fn empty(&self, shard: &mut Shard) -> (Vec<Slot>, Purged) {
        let purged = Purged { objects: shard.objects, bytes: shard.charged.total() };
        let slots = shard.take_all();
        for slot in &slots {
            let hash = KeyHash::of(&slot.key);
            self.eviction().removed(hash);
            self.untag(slot, hash);
        }
        self.budget().give_back(purged.bytes);
        (slots, purged)
    }
}
