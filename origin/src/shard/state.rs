//! The state of one shard, in memory: its documents, the position they reflect, and what is not on disk yet.
//!
//! No lock, no I/O: the shard keeps it behind one lock, and only the apply loop changes documents.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millpond_shared::projection::{Kind, Projection, document_tag};
use millpond_shared::version::{Offset, Position, QueueId, Version};
use millpond_shared::wire::Change;

use super::prepare::Prepared;
use crate::projection::Document;
use crate::store::shard_file::{Loaded, Row, Write};

/// Documents, position, marks; and what the next commit has to write.
pub struct State {
    projections: Vec<Documents>,
    applied: Position,
    marks: BTreeMap<QueueId, Offset>,
    dirty: Vec<(u16, Arc<str>)>,
    dirty_bytes: u64,
    /// Position of the last snapshot.
    snapshot: Position,
    /// Events applied since the last snapshot, and those of a snapshot that is being committed.
    events_since: u64,
    events_under_way: u64,
}

struct Documents {
    kind: Kind,
    by_key: HashMap<Arc<str>, Held>,
}

struct Held {
    /// The key again, to be shared by whoever lists documents.
    key: Arc<str>,
    document: Arc<Document>,
    /// Whether it changed since the last snapshot.
    dirty: bool,
}

/// Documents that a batch changed, with their last versions.
#[derive(Debug, Default)]
pub struct Changed(HashMap<(u16, Arc<str>), Version>);

impl State {
    pub fn restored(projections: &[Projection], loaded: Loaded) -> State {
        let mut state = State {
            projections: projections
                .iter()
                .map(|projection| Documents { kind: projection.kind, by_key: HashMap::new() })
                .collect(),
            applied: loaded.committed,
            marks: loaded.marks,
            dirty: Vec::new(),
            dirty_bytes: 0,
            snapshot: loaded.committed,
            events_since: 0,
            events_under_way: 0,
        };
        for (projection, key, document) in loaded.documents {
            if let Some(documents) = state.projections.get_mut(usize::from(projection)) {
                documents.by_key.insert(key.clone(), Held { key, document, dirty: false });
            }
        }
        state
    }

    /// Everything up to this position has been applied.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// Highest offset of `queue` that has been applied.
    pub fn mark(&self, queue: QueueId) -> Offset {
        self.marks.get(&queue).copied().unwrap_or(0)
    }

    pub fn document(&self, projection: usize, key: &str) -> Option<Arc<Document>> {
        Some(self.projections.get(projection)?.by_key.get(key)?.document.clone())
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.projections.iter().map(|documents| documents.by_key.len()).sum()
    }

    /// What the documents that the next commit writes take in memory, in bytes.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// Events applied since the last snapshot.
    pub fn events_since_snapshot(&self) -> u64 {
        self.events_since
    }

    /// Events that are applied and not on disk yet.
    pub fn uncommitted_events(&self) -> u64 {
        self.events_since + self.events_under_way
    }

    /// Applies a frame's effects to their documents. The frame's position and mark count even if it changes nothing.
    pub fn merge(&mut self, prepared: Prepared, changed: &mut Changed) {
        for arrived in prepared.arrived {
            let Some(documents) = self.projections.get_mut(usize::from(arrived.projection)) else { continue };
            let held = match documents.by_key.get_mut(arrived.key.as_str()) {
                Some(held) => held,
                None => {
                    let key: Arc<str> = arrived.key.into();
                    let document = Arc::new(Document::empty(&documents.kind));
                    let held = Held { key: key.clone(), document, dirty: false };
                    documents.by_key.entry(key).or_insert(held)
                }
            };
            let before = if held.dirty { held.document.weight() } else { 0 };
            if !Document::apply(&mut held.document, &documents.kind, arrived.effect, arrived.arrival) {
                continue;
            }
            self.dirty_bytes = self.dirty_bytes.saturating_sub(before as u64) + held.document.weight() as u64;
            if !std::mem::replace(&mut held.dirty, true) {
                self.dirty.push((arrived.projection, held.key.clone()));
            }
            changed.0.insert((arrived.projection, held.key.clone()), held.document.version);
        }
        self.applied = prepared.position;
        let mark = self.marks.entry(prepared.queue).or_default();
        *mark = prepared.last.max(*mark);
        self.events_since += prepared.events;
    }

    /// What has to be written so that the file holds everything applied so far; `None` if it does already.
    ///
    /// The documents are shared, not copied: applying goes on while they are written.
    pub fn snapshot(&mut self) -> Option<Write> {
        if self.applied == self.snapshot {
            return None;
        }
        let mut documents: Vec<Row> = Vec::with_capacity(self.dirty.len());
        for (projection, key) in self.dirty.drain(..) {
            let held = self.projections.get_mut(usize::from(projection)).and_then(|all| all.by_key.get_mut(&key));
            if let Some(held) = held {
                held.dirty = false;
                documents.push((projection, key, held.document.clone()));
            }
        }
        self.dirty_bytes = 0;
        self.snapshot = self.applied;
        self.events_under_way += std::mem::take(&mut self.events_since);
        Some(Write { committed: self.applied, marks: self.marks.clone(), documents })
    }

    /// The last snapshot is on disk.
    pub fn committed(&mut self) {
        self.events_under_way = 0;
    }
}

impl Changed {
    /// One change for each document, by tag.
    pub fn into_changes(self, projections: &[Projection]) -> Vec<Change> {
        let mut changes: Vec<Change> = self
            .0
            .into_iter()
            .filter_map(|((projection, key), version)| {
                let name = &projections.get(usize::from(projection))?.name;
                Some(Change { tag: document_tag(name, &key), version })
            })
            .collect();
        changes.sort_unstable_by(|a, b| a.tag.cmp(&b.tag));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::testing::declared;
    use crate::projection::{Arrival, Effect, Item};
    use crate::shard::prepare::Arrived;

    fn projections() -> Vec<Projection> {
        declared("name = \"p\"\nkind = \"feed\"\nkeep = 2\nkey = \"{data.user}\"\nitem = { id = \"{id}\" }")
    }

    fn frame(position: Position, last: Offset, items: &[(&str, i64)]) -> Prepared {
        let arrived = |(key, order): &(&str, i64)| Arrived {
            projection: 0,
            key: (*key).to_owned(),
            effect: Effect::Item(Item { order: *order, id: "x".into(), body: "{}".into() }),
            arrival: Arrival { version: Version::new(1, position), place: (0, last), received: 0 },
        };
        let arrived = items.iter().map(arrived).collect();
        Prepared { position, last, events: items.len() as u64, arrived, ..Prepared::default() }
    }

    #[test]
    fn a_snapshot_holds_what_changed_since_the_one_before() {
        let mut state = State::restored(&projections(), Loaded::default());
        let mut changed = Changed::default();
        assert!(state.snapshot().is_none());
        state.merge(frame(1, 10, &[("a", 1), ("b", 1)]), &mut changed);
        state.merge(frame(2, 11, &[("a", 2)]), &mut changed);
        let changes = changed.into_changes(&projections());
        let listed: Vec<_> = changes.iter().map(|change| (change.tag.as_str(), change.version.position)).collect();
        assert_eq!(listed, [("p/a", 2), ("p/b", 1)]);

        let keys = |write: &Write| write.documents.iter().map(|(_, key, _)| key.to_string()).collect::<Vec<_>>();
        let write = state.snapshot().expect("something to write");
        assert_eq!((write.committed, write.marks.get(&0), keys(&write)), (2, Some(&11), vec!["a".into(), "b".into()]));
        assert_eq!((state.dirty_bytes(), state.events_since_snapshot(), state.uncommitted_events()), (0, 0, 3));

        let held = write.documents[1].2.clone();
        state.merge(frame(3, 12, &[("b", 2), ("b", 3)]), &mut Changed::default());
        assert_eq!(held.version.position, 1, "a snapshot does not change");
        state.committed();
        assert_eq!(state.uncommitted_events(), 2);
        let write = state.snapshot().expect("something to write");
        assert_eq!((write.committed, keys(&write)), (3, vec!["b".into()]));
        assert!(state.snapshot().is_none());
    }

    #[test]
    fn dirty_bytes_are_those_of_the_dirty_documents() {
        let mut state = State::restored(&projections(), Loaded::default());
        for (position, order) in (1..).zip([5, 6, 7, 1, 7]) {
            state.merge(frame(position, position, &[("a", order), ("b", 1)]), &mut Changed::default());
        }
        let expected: usize = ["a", "b"].iter().map(|key| state.document(0, key).expect("it").weight()).sum();
        assert_eq!(state.dirty_bytes(), expected as u64);
    }

    #[test]
    fn a_frame_that_changes_nothing_moves_position_and_mark() {
        let mut state = State::restored(&projections(), Loaded::default());
        state.merge(frame(1, 10, &[]), &mut Changed::default());
        assert_eq!((state.applied(), state.mark(0), state.mark(1)), (1, 10, 0));
        state.merge(frame(2, 4, &[]), &mut Changed::default());
        assert_eq!(state.mark(0), 10, "a mark never goes back");
        assert_eq!(state.snapshot().expect("a position to write").committed, 2);
    }
}
