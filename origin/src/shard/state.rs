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
mod tests;
