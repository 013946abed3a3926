//! The state of one shard: the documents in memory, the position they reflect, and what is not on disk yet.
//!
//! No lock, no I/O: the shard keeps it behind one lock. Only the apply loop changes documents and drops them; readers
//! may bring clean ones back.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_shared::projection::{Kind, Projection, document_tag, part_tag};
use millpond_shared::version::{Offset, Position, QueueId, ShardId, Version};
use millpond_shared::wire::Change;

use super::held::{Cell, CellId, Held, Stage};
use super::prepare::{Arrived, Prepared, TakenIn};
use super::tellings::Telling;
use super::unwritten::{Frame, Unwritten};
use crate::projection::{Applied, Arrival, Document, is_part};
use crate::store::shard_file::{Opened, Row, Taking, Write};

/// Documents, position, marks; and what the next commits have to write.
pub struct State {
    kinds: Vec<Kind>,
    held: Held,
    /// Whether the file may hold documents that are not in memory.
    cold: bool,
    applied: Position,
    marks: BTreeMap<QueueId, Offset>,
    /// What the current batch changed.
    changed: Vec<CellId>,
    unwritten: Unwritten,
    /// Which slots of others have been taken in.
    taking: Taking,
}

/// A document that was looked for in memory.
pub enum Looked {
    Here(Arc<Document>),
    /// No event has reached it.
    Nothing,
    /// The file may hold it; the number of commits so far, for [`State::bring_back`].
    MayBeCold(u64),
}

/// A document that a batch changed, with its last version.
pub type Changed = (u16, Arc<str>, Version);

impl State {
    /// The state of a shard whose file was `opened`; nothing of it is in memory yet.
    pub fn restored(projections: &[Projection], opened: Opened) -> State {
        State {
            kinds: projections.iter().map(|projection| projection.kind.clone()).collect(),
            held: Held::default(),
            cold: !opened.is_empty,
            applied: opened.committed,
            marks: opened.marks.clone(),
            changed: Vec::new(),
            taking: opened.taking,
            unwritten: Unwritten::behind(opened),
        }
    }

    /// Everything up to this position has been applied.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// Everything up to this position is on disk once the slices taken so far are.
    pub fn reached(&self) -> Position {
        self.unwritten.reached()
    }

    /// Of the versions that documents get now.
    pub fn epoch(&self) -> u32 {
        self.taking.epoch
    }

    /// Highest offset of `queue` that has been applied.
    pub fn mark(&self, queue: QueueId) -> Offset {
        self.marks.get(&queue).copied().unwrap_or(0)
    }

    /// Whether the file may hold documents that are not in memory.
    pub fn is_cold(&self) -> bool {
        self.cold
    }

    pub fn look(&self, projection: u16, key: &str) -> Looked {
        match self.held.find(projection, key).and_then(|id| self.held.get(id)) {
            // An event came for it, and had no effect.
            Some(cell) if cell.document.version == Version::ZERO => Looked::Nothing,
            Some(cell) => Looked::Here(cell.document.clone()),
            None if self.cold => Looked::MayBeCold(self.commits()),
            None => Looked::Nothing,
        }
    }

    /// Number of commits so far, for [`State::bring_back`].
    pub fn commits(&self) -> u64 {
        self.unwritten.commits()
    }

    /// Takes in what a reader found in the file after [`State::look`] told it `commits`, if it is still what the file
    /// holds, and there is room in `bytes_max`.
    pub fn bring_back(&mut self, row: Row, commits: u64, bytes_max: u64) {
        let (projection, key, document) = row;
        // A commit in between may have written a later one, which may have been dropped from memory since.
        if commits == self.commits() && self.held.bytes() < bytes_max && self.held.find(projection, &key).is_none() {
            self.held.insert(projection, key, document);
        }
    }

    /// Number of documents in memory.
    pub fn documents(&self) -> usize {
        self.held.len()
    }

    /// What the documents in memory take of it, in bytes.
    pub fn bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// What the documents that wait for a slice take in memory, in bytes.
    pub fn dirty_bytes(&self) -> u64 {
        self.unwritten.dirty_bytes()
    }

    /// Whether something is on its way to the file, or has to go there.
    pub fn is_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Events applied behind the position of the last slice.
    pub fn events_since_slice(&self) -> u64 {
        self.unwritten.events_since_slice()
    }

    /// Events that a restart would have to replay.
    pub fn uncommitted_events(&self) -> u64 {
        self.unwritten.events()
    }

    /// Whether the file need not be asked for any of a frame's documents.
    pub fn has_all(&self, Prepared { arrived, keys, .. }: &Prepared) -> bool {
        let is_here = |arrived: &Arrived| self.held.find(arrived.projection, keys.get(arrived.key)).is_some();
        !self.cold || arrived.iter().all(is_here)
    }

    /// Finds the documents of a frame in memory; gives back those that must be looked for in the file before the frame
    /// can be merged, each once, in the order of the file.
    pub fn find(&self, Prepared { arrived, keys, .. }: &mut Prepared) -> Vec<(u16, Arc<str>)> {
        let mut missing = Vec::new();
        for arrived in arrived {
            let key = keys.get(arrived.key);
            arrived.cell = self.held.find(arrived.projection, key);
            if arrived.cell.is_none() && self.cold {
                missing.push((arrived.projection, Arc::from(key)));
            }
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Takes in what the file holds of the documents that [`State::find`] missed.
    pub fn bring(&mut self, rows: Vec<Row>) {
        for (projection, key, document) in rows {
            // A reader may have brought it back meanwhile.
            if self.held.find(projection, &key).is_none() {
                self.held.insert(projection, key, document);
            }
        }
    }

    /// Applies a frame's effects to their documents. The frame's position and mark count even if it changes nothing.
    ///
    /// [`State::find`] has seen the frame, nothing was dropped since, and what it missed was brought; what was filed twice is
    /// not in it any more. Gives back what the documents have to tell others.
    pub fn merge(&mut self, prepared: Prepared) -> Vec<Telling> {
        let (mut hops, mut tellings) = (Vec::new(), Vec::new());
        let Prepared { position, queue, last, events, arrived, keys, .. } = prepared;
        let version = Version::new(self.epoch(), position);
        for arrived in arrived {
            let projection = usize::from(arrived.projection);
            let Some(kind) = self.kinds.get(projection) else { continue };
            let key = keys.get(arrived.key);
            let found = arrived.cell.or_else(|| self.held.find(arrived.projection, key));
            let cell = found.or_else(|| {
                let document = Arc::new(Document::empty(kind));
                self.held.insert(arrived.projection, key.into(), document)
            });
            let Some(id) = cell else { continue };
            let arrival = Arrival { version, place: (queue, arrived.offset), received: arrived.received };
            let before = self.held.get(id).map_or(0, Cell::weight);
            let outcome = self.held.change(id, |cell| {
                let document = &mut cell.document;
                let applied = Document::apply_and_tell(document, kind, arrived.effect, arrival, &cell.key, &mut hops);
                let (projection, received) = (arrived.projection, arrival.received);
                let telling = |hop| Telling { projection, key: cell.key.clone(), hop, received };
                tellings.extend(hops.drain(..).map(telling));
                let was = cell.stage;
                if applied == Applied::Changed {
                    cell.stage = Stage::Dirty;
                }
                // What the document has already is announced again: who followed the shard before it was started
                // again may not have heard of it.
                let announce = applied != Applied::Nothing && !std::mem::replace(&mut cell.announced, true);
                (applied, was, announce, cell.weight())
            });
            let Some((applied, was, announce, weight)) = outcome else { continue };
            if announce {
                self.changed.push(id);
            }
            if applied == Applied::Changed {
                self.unwritten.changed(id, position, was, (before, weight));
            }
        }
        self.applied = position;
        let mark = self.marks.entry(queue).or_default();
        *mark = last.max(*mark);
        self.unwritten.applied(Frame { position, round: Some((queue, last)), events, taking: self.taking });
        tellings
    }

    /// Those of the documents that are not in memory, but may be in the file; each once, in the order of the file.
    pub fn missing(&self, rows: &[Row]) -> Vec<(u16, Arc<str>)> {
        let is_missing = |row: &&Row| self.cold && self.held.find(row.0, &row.1).is_none();
        let mut missing: Vec<_> = rows.iter().filter(is_missing).map(|row| (row.0, row.1.clone())).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Takes in documents that another shard has handed over, in place of what is here of them, unless that is later: a
    /// replay comes by documents that are on disk ahead of it. Nobody is told: as long as the slots are the other's,
    /// nobody reads them here. Excerpts are joined, and that is told: documents of this shard are merged with them.
    ///
    /// What [`State::missing`] told was brought.
    pub fn take_in(&mut self, taken: TakenIn) {
        if self.taking.takes(taken.taking.epoch) {
            self.taking = taken.taking;
            for (projection, key, document) in taken.documents {
                let Some(kind) = self.kinds.get(usize::from(projection)) else { continue };
                let found = self.held.find(projection, &key);
                let cell = found.or_else(|| self.held.insert(projection, key, Arc::new(Document::empty(kind))));
                let Some(id) = cell else { continue };
                let before = self.held.get(id).map_or(0, Cell::weight);
                let mut is_joined = false;
                let replaced = self.held.change(id, |cell| {
                    let is_later = document.version > cell.document.version;
                    let changed = if is_part(&cell.key) {
                        is_joined = is_later && Document::join(&mut cell.document, kind, &cell.key, &document);
                        is_joined
                    } else {
                        is_later.then(|| cell.document = document).is_some()
                    };
                    // One that was joined before a restart is announced again: it may not have been.
                    let is_told = is_part(&cell.key) && (is_joined || !is_later);
                    let is_new = is_told && !std::mem::replace(&mut cell.announced, true);
                    (is_new, changed.then(|| (std::mem::replace(&mut cell.stage, Stage::Dirty), cell.weight())))
                });
                if replaced.as_ref().is_some_and(|(is_new, _)| *is_new) {
                    self.changed.push(id);
                }
                if let Some((was, weight)) = replaced.and_then(|(_, replaced)| replaced) {
                    self.unwritten.changed(id, taken.position, was, (before, weight));
                }
            }
        }
        self.applied = taken.position;
        self.unwritten.applied(Frame { position: taken.position, round: None, events: 0, taking: self.taking });
    }

    /// What changed since this was asked last.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        let mut changed = Vec::with_capacity(self.changed.len());
        for id in std::mem::take(&mut self.changed) {
            changed.extend(self.held.change(id, |cell| {
                cell.announced = false;
                (cell.projection, cell.key.clone(), cell.document.version)
            }));
        }
        changed
    }

    /// The oldest of what has to be written, about `bytes_max` bytes of it and at least one document; `None` if the file
    /// will hold everything applied so far once the last slice is on disk.
    ///
    /// The documents are shared, not copied: applying goes on while they are written. The next slice is not taken before
    /// this one is [`committed`](State::committed).
    pub fn slice(&mut self, bytes_max: u64) -> Option<Write> {
        self.unwritten.slice(&mut self.held, self.applied, bytes_max)
    }

    /// The last slice is on disk.
    pub fn committed(&mut self) {
        self.unwritten.committed(&mut self.held);
    }

    /// Drops documents that were not used of late and are on disk, until the others take at most `bytes_max` bytes. Gives
    /// them back, to be freed without the lock. To be called between frames, by the apply loop alone.
    pub fn shrink(&mut self, bytes_max: u64) -> Vec<Cell> {
        let dropped = self.held.shrink(bytes_max, SWEEP_STEPS_MAX);
        self.cold |= !dropped.is_empty();
        dropped
    }
}

/// Documents that one sweep passes at most, so that readers are not held up: some milliseconds.
const SWEEP_STEPS_MAX: usize = 65_536;

/// One change for each document, in the order in which they changed first.
pub fn announcements(shard: ShardId, changed: Vec<Changed>, projections: &[Projection]) -> Vec<Change> {
    let change = |(projection, key, version): Changed| {
        let name = &projections.get(usize::from(projection))?.name;
        let tag = if is_part(&key) { part_tag(shard, name, &key) } else { document_tag(name, &key) };
        Some(Change { tag, version })
    };
    changed.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::testing::declared;
    use crate::projection::{Effect, Item};
    use crate::shard::held::CELL_BYTES;

    fn projections() -> Vec<Projection> {
        declared("name = \"p\"\nkind = \"feed\"\nkeep = 2\nkey = \"{data.user}\"\nitem = { id = \"{id}\" }")
    }

    fn state(is_empty: bool) -> State {
        State::restored(&projections(), Opened { is_empty, ..Opened::default() })
    }

    fn frame(position: Position, last: Offset, items: &[(&str, i64)]) -> Prepared {
        let mut frame = Prepared { position, last, events: items.len() as u64, ..Prepared::default() };
        for (place, (key, order)) in (0..).zip(items) {
            frame.arrive(0, key, Effect::Item(Item::new(*order, "x", "{}")), (last * 10 + place, 0));
        }
        frame
    }

    fn merge(state: &mut State, mut frame: Prepared) {
        assert!(state.find(&mut frame).is_empty(), "nothing is cold");
        state.merge(frame);
    }

    fn keys(write: &Write) -> Vec<&str> {
        write.documents.iter().map(|(_, key, _)| &**key).collect()
    }

    fn here(state: &State, key: &str) -> Arc<Document> {
        let Looked::Here(document) = state.look(0, key) else { panic!("{key} is not there") };
        document
    }

    const ALL: u64 = u64::MAX;

    #[test]
    fn a_slice_holds_what_changed_since_it_was_written() {
        let mut state = state(true);
        assert!(state.slice(ALL).is_none());
        merge(&mut state, frame(1, 10, &[("a", 1), ("b", 1)]));
        merge(&mut state, frame(2, 11, &[("a", 2)]));
        let changes = announcements(3, state.take_changed(), &projections());
        let listed: Vec<_> = changes.iter().map(|change| (change.tag.as_str(), change.version.position)).collect();
        assert_eq!(listed, [("p/a", 2), ("p/b", 1)]);
        assert!(state.take_changed().is_empty());

        let write = state.slice(ALL).expect("something to write");
        assert_eq!((write.committed, write.marks.get(&0), keys(&write)), (2, Some(&11), vec!["a", "b"]));
        assert_eq!((state.dirty_bytes(), state.events_since_slice(), state.uncommitted_events()), (0, 0, 3));

        let written = write.documents[1].2.clone();
        merge(&mut state, frame(3, 12, &[("b", 2), ("b", 3)]));
        assert_eq!(written.version.position, 1, "what is being written does not change");
        state.committed();
        assert_eq!(state.uncommitted_events(), 2);
        let write = state.slice(ALL).expect("something to write");
        assert_eq!((write.committed, keys(&write)), (3, vec!["b"]));
        assert!(state.slice(ALL).is_none());
        state.committed();
        assert!(!state.is_unwritten());
    }

    /// The position of a slice is the last before the first change of what is still dirty, with the marks of that time.
    #[test]
    fn a_slice_reaches_to_the_first_change_of_the_oldest_that_is_left() {
        let mut state = state(true);
        let frames: [&[(&str, i64)]; 5] = [&[("a", 1)], &[("b", 1), ("c", 1)], &[("a", 2)], &[("d", 1)], &[("b", 2)]];
        for (position, items) in (1..).zip(frames) {
            merge(&mut state, frame(position, position * 10, items));
        }
        let mut slices = Vec::new();
        while let Some(write) = state.slice(1) {
            let marks = write.marks.get(&0).copied();
            slices.push((keys(&write).concat(), write.committed, marks, state.uncommitted_events()));
            state.committed();
        }
        let expected = [("a", 1, Some(10), 6), ("b", 1, Some(10), 5), ("c", 3, Some(30), 5), ("d", 5, Some(50), 2)];
        assert_eq!(slices, expected.map(|(keys, reached, marks, events)| (keys.to_owned(), reached, marks, events)));
        assert_eq!(state.uncommitted_events(), 0);
    }

    #[test]
    fn what_changes_while_it_is_written_is_written_again() {
        let mut state = state(true);
        merge(&mut state, frame(1, 1, &[("a", 1), ("b", 1)]));
        assert_eq!(keys(&state.slice(1).expect("a slice")), ["a"]);
        merge(&mut state, frame(2, 2, &[("a", 2)]));
        state.committed();
        let write = state.slice(1).expect("a slice");
        assert_eq!((keys(&write), write.committed), (vec!["b"], 1), "a is dirty since frame 2");
        state.committed();
        let write = state.slice(1).expect("a slice");
        assert_eq!((keys(&write), write.committed), (vec!["a"], 2));
    }

    #[test]
    fn dirty_bytes_are_those_of_the_dirty_documents() {
        let mut state = state(true);
        for (position, order) in (1..).zip([5, 6, 7, 1, 7]) {
            merge(&mut state, frame(position, position, &[("a", order), ("b", 1)]));
        }
        let expected: u64 = ["a", "b"].map(|key| CELL_BYTES + 1 + here(&state, key).weight() as u64).iter().sum();
        assert_eq!((state.dirty_bytes(), state.bytes()), (expected, expected));
        state.slice(1);
        assert!(state.dirty_bytes() < expected);
        assert_eq!(state.bytes(), expected);
    }

    #[test]
    fn a_frame_that_changes_nothing_moves_position_and_mark() {
        let mut state = state(true);
        merge(&mut state, frame(1, 10, &[]));
        assert_eq!((state.applied(), state.mark(0), state.mark(1)), (1, 10, 0));
        merge(&mut state, frame(2, 4, &[]));
        assert_eq!(state.mark(0), 10, "a mark never goes back");
        assert_eq!(state.slice(ALL).expect("a position to write").committed, 2);
    }

    #[test]
    fn what_is_on_disk_is_dropped_and_has_to_be_brought_before_it_changes() {
        let mut state = state(true);
        merge(&mut state, frame(1, 1, &[("a", 1), ("b", 1)]));
        state.take_changed();
        assert!(state.shrink(0).is_empty(), "not on disk yet");
        let row = state.slice(1).expect("a slice").documents.remove(0);
        assert!(state.shrink(0).is_empty(), "not known to be on disk yet");
        state.committed();
        assert_eq!(state.shrink(0).len(), 1);
        assert!(matches!(state.look(0, "a"), Looked::MayBeCold(1)) && matches!(state.look(0, "b"), Looked::Here(_)));

        let mut next = frame(2, 2, &[("a", 2), ("b", 2), ("a", 3)]);
        assert!(!state.has_all(&next) && state.has_all(&frame(2, 2, &[("b", 2)])));
        assert_eq!(state.find(&mut next), [(0, "a".into())]);
        state.bring(vec![row]);
        assert!(state.has_all(&next));
        state.merge(next);
        assert_eq!(here(&state, "a").items().map(|item| item.order).collect::<Vec<_>>(), [3, 2]);
    }

    #[test]
    fn what_a_reader_brings_back_late_or_without_room_is_not_kept() {
        let mut state = state(false);
        let Looked::MayBeCold(commits) = state.look(0, "a") else { panic!("nothing is in memory") };
        let row: Row = (0, "a".into(), Arc::new(Document::empty(&projections()[0].kind)));
        state.bring_back(row.clone(), commits, 0);
        assert_eq!(state.documents(), 0, "no room");
        merge_cold(&mut state, frame(1, 1, &[("b", 1)]));
        state.slice(ALL);
        state.committed();
        state.bring_back(row.clone(), commits, ALL);
        assert_eq!(state.documents(), 1, "a commit may have written another since");
        state.bring_back(row, commits + 1, ALL);
        assert_eq!(state.documents(), 2);
    }

    /// What is missing is in the file neither.
    fn merge_cold(state: &mut State, mut frame: Prepared) {
        state.find(&mut frame);
        state.merge(frame);
    }
}
