//! The documents that are in memory: found by projection and key, weighed, and dropped again (no lock, no I/O).
//!
//! What goes when memory runs out is chosen as by a clock's hand (Corbató, "A Paging Experiment with the Multics
//! System", 1968): it goes round the documents, passes those used since it came by last, and drops the others. Being
//! used costs a reader no more than to set a flag. What is not on disk as it stands is never dropped.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashTable;

use crate::projection::Document;

/// Place of a document in memory; it stays the same until the document is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellId(u32);

/// What a document takes in memory beside its key and its state, in bytes: its cell, its index, its version, and the
/// allocator's rounding of three blocks.
pub const CELL_BYTES: u64 = 256;

/// Documents in memory.
#[derive(Default)]
pub struct Held {
    index: HashTable<u32>,
    cells: Vec<Option<Cell>>,
    free: Vec<u32>,
    /// Where the next sweep goes on.
    hand: usize,
    bytes: u64,
    /// Keys come from outside: nobody may know which of them collide.
    hashing: RandomState,
}

/// A document, and what the shard knows of it.
pub struct Cell {
    pub projection: u16,
    /// Shared by whoever lists documents.
    pub key: Arc<str>,
    pub document: Arc<Document>,
    pub stage: Stage,
    /// Whether it stands in the list of what the current batch changed: it stays until that was told.
    pub announced: bool,
    used: AtomicBool,
}

/// How a document in memory relates to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The file holds the same, or nothing if no event has changed it yet.
    Clean,
    /// It changed since it was written last.
    Dirty,
    /// A commit that holds it as it is has begun.
    Writing,
}

impl Cell {
    pub fn weight(&self) -> u64 {
        weight(&self.key, &self.document)
    }
}

fn weight(key: &str, document: &Document) -> u64 {
    CELL_BYTES + key.len() as u64 + document.weight() as u64
}

impl Held {
    /// Number of documents.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// What the documents take in memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the document is, if it is in memory; it counts as used.
    pub fn find(&self, projection: u16, key: &str) -> Option<CellId> {
        let hash = self.hashing.hash_one((projection, key));
        let place = *self.index.find(hash, |&place| {
            self.cell(place).is_some_and(|cell| cell.projection == projection && *cell.key == *key)
        })?;
        self.cell(place)?.used.store(true, Ordering::Relaxed);
        Some(CellId(place))
    }

    pub fn get(&self, id: CellId) -> Option<&Cell> {
        self.cell(id.0)
    }

    /// Takes in a document that is not there yet, clean. `None` if there are as many as can be counted.
    pub fn insert(&mut self, projection: u16, key: Arc<str>, document: Arc<Document>) -> Option<CellId> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.cells.len()).ok()?;
                self.cells.push(None);
                place
            }
        };
        let hash = self.hashing.hash_one((projection, &*key));
        self.bytes += weight(&key, &document);
        let used = AtomicBool::new(true);
        let cell = Cell { projection, key, document, stage: Stage::Clean, announced: false, used };
        *self.cells.get_mut(place as usize)? = Some(cell);
        let (cells, hashing) = (&self.cells, &self.hashing);
        self.index.insert_unique(hash, place, |&place| hash_of(cells, hashing, place));
        Some(CellId(place))
    }

    /// Has `change` work on a document, and weighs it again.
    pub fn change<T>(&mut self, id: CellId, change: impl FnOnce(&mut Cell) -> T) -> Option<T> {
        let cell = self.cells.get_mut(id.0 as usize)?.as_mut()?;
        let before = cell.weight();
        let outcome = change(cell);
        self.bytes = self.bytes - before + cell.weight();
        Some(outcome)
    }

    /// Drops clean documents until all that is left takes at most `bytes_max` bytes, or the hand has passed `steps_max`
    /// cells. What was dropped is given back: freeing it takes longer than this.
    pub fn shrink(&mut self, bytes_max: u64, steps_max: usize) -> Vec<Cell> {
        let mut dropped = Vec::new();
        // Twice round at most: the first time takes the flags away.
        for _ in 0..steps_max.min(2 * self.cells.len()) {
            if self.bytes <= bytes_max {
                break;
            }
            self.hand = if self.hand + 1 < self.cells.len() { self.hand + 1 } else { 0 };
            let Some(cell) = self.cells.get(self.hand).and_then(Option::as_ref) else { continue };
            if cell.stage == Stage::Clean && !cell.announced && !cell.used.swap(false, Ordering::Relaxed) {
                dropped.extend(self.remove(self.hand));
            }
        }
        dropped
    }

    fn remove(&mut self, place: usize) -> Option<Cell> {
        let cell = self.cells.get_mut(place)?.take()?;
        let number = u32::try_from(place).ok()?;
        let hash = self.hashing.hash_one((cell.projection, &*cell.key));
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == number) {
            entry.remove();
        }
        self.free.push(number);
        self.bytes -= cell.weight();
        Some(cell)
    }

    fn cell(&self, place: u32) -> Option<&Cell> {
        self.cells.get(place as usize)?.as_ref()
    }
}

fn hash_of(cells: &[Option<Cell>], hashing: &RandomState, place: u32) -> u64 {
    let cell = cells.get(place as usize).and_then(Option::as_ref);
    cell.map_or(0, |cell| hashing.hash_one((cell.projection, &*cell.key)))
}

#[cfg(test)]
mod tests {
    use millpond_shared::projection::Kind;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::*;

    fn empty() -> Arc<Document> {
        Arc::new(Document::empty(&Kind::Latest))
    }

    fn keys(cells: &[Cell]) -> Vec<&str> {
        cells.iter().map(|cell| &*cell.key).collect()
    }

    const ONE: u64 = CELL_BYTES + 1;

    #[test]
    fn what_was_not_used_goes_first_and_what_is_not_on_disk_stays() {
        let mut held = Held::default();
        for key in ["a", "b", "c", "d"] {
            held.insert(0, key.into(), empty());
        }
        assert_eq!(held.bytes(), 4 * ONE);
        assert!(held.shrink(4 * ONE, 100).is_empty(), "there is room");
        assert_eq!(held.shrink(3 * ONE, 100).len(), 1, "all were used: the hand takes their flags, then the first");
        let left: Vec<&str> = ["a", "b", "c", "d"].into_iter().filter(|key| held.find(0, key).is_some()).collect();
        let [dirty, writing, clean] = left.as_slice() else { panic!("{left:?}") };
        for (key, stage) in [(dirty, Stage::Dirty), (writing, Stage::Writing)] {
            let id = held.find(0, key).expect("there");
            held.change(id, |cell| cell.stage = stage);
        }
        assert_eq!(keys(&held.shrink(0, 100)), [*clean]);
        assert!(held.shrink(0, 100).is_empty());
        assert_eq!((held.len(), held.bytes()), (2, 2 * ONE));
    }

    #[test]
    fn a_sweep_takes_no_more_steps_than_it_may_and_goes_on_where_it_was() {
        let mut held = Held::default();
        for n in 0..10 {
            held.insert(0, n.to_string().into(), empty());
        }
        for _ in 0..5 {
            assert!(held.shrink(0, 2).is_empty(), "flags only");
        }
        assert_eq!(held.shrink(0, 2).len(), 2);
    }

    #[test]
    fn projections_have_their_own_keys() {
        let mut held = Held::default();
        let one = held.insert(0, "k".into(), empty());
        assert_eq!((held.find(0, "k"), held.find(1, "k")), (one, None));
        let two = held.insert(1, "k".into(), empty());
        assert_eq!((held.find(0, "k"), held.find(1, "k")), (one, two));
    }

    proptest! {
        /// Whatever is inserted and dropped, what is found is what is there.
        #[test]
        fn it_holds_what_was_not_dropped(steps in proptest::collection::vec((0u8..40, any::<bool>()), 0..300)) {
            let (mut held, mut model): (Held, BTreeMap<String, CellId>) = Default::default();
            for (number, shrinks) in steps {
                let key = number.to_string();
                prop_assert_eq!(held.find(0, &key), model.get(&key).copied());
                if shrinks {
                    for cell in held.shrink(u64::from(number) * ONE / 2, 8) {
                        prop_assert!(model.remove(&*cell.key).is_some());
                    }
                } else if let std::collections::btree_map::Entry::Vacant(vacant) = model.entry(key.clone()) {
                    vacant.insert(held.insert(0, key.into(), empty()).expect("room"));
                }
                prop_assert_eq!(held.len(), model.len());
                let bytes: u64 = model.keys().map(|key| CELL_BYTES + key.len() as u64).sum();
                prop_assert_eq!(held.bytes(), bytes);
            }
        }
    }
}
