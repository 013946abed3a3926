//! A disk for tests that keeps what was synced apart from what was only written.
//!
//! A process that dies loses nothing it has written: the kernel still has it. A machine that loses power does. Only
//! such a disk can show that an acknowledgement waits for the sync.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// A handle to the disk; clones share it. Give a clone to redb, keep one to pull the plug.
#[derive(Clone, Debug, Default)]
pub struct Forgetful {
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
}

/// Closed while syncs are held.
#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

/// Holds every sync until it is dropped.
#[derive(Debug)]
pub struct HeldSyncs(Arc<Gate>);

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        *self.0.closed.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.opened.notify_all();
    }
}

#[derive(Debug, Default)]
struct State {
    synced: Vec<u8>,
    written: Vec<u8>,
    syncs: u64,
    fails: bool,
}

impl Forgetful {
    pub fn new() -> Forgetful {
        Forgetful::default()
    }

    /// The power is cut: a disk that holds what this one had synced by now, and nothing else.
    pub fn crash(&self) -> Forgetful {
        let synced = self.state().synced.clone();
        let state = State { written: synced.clone(), synced, syncs: 0, fails: false };
        Forgetful { state: Arc::new(Mutex::new(state)), gate: Arc::default() }
    }

    /// Syncs wait until what is returned is dropped.
    pub fn hold_syncs(&self) -> HeldSyncs {
        *self.gate.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        HeldSyncs(self.gate.clone())
    }

    /// How often it was synced so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// From now on every write and sync fails.
    pub fn fail(&self) {
        self.state().fails = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.fails { Err(io::Error::other("the disk was told to fail")) } else { Ok(()) }
    }

    fn range(&self, offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + length;
        if end <= self.written.len() { Ok(start..end) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl StorageBackend for Forgetful {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let range = state.range(offset, out.len())?;
        out.copy_from_slice(&state.written[range]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        state.written.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let closed = self.gate.closed.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.gate.opened.wait_while(closed, |closed| *closed));
        let mut state = self.state();
        state.check()?;
        let State { synced, written, syncs, .. } = &mut *state;
        synced.clone_from(written);
        *syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        let range = state.range(offset, data.len())?;
        state.written[range].copy_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use redb::{Database, Durability, ReadableDatabase, ReadableTableMetadata, TableDefinition};

    use super::*;
    use crate::store::{Place, open};

    const ROWS: TableDefinition<u64, u64> = TableDefinition::new("rows");

    fn put(database: &Database, key: u64, durability: Durability) {
        let mut write = database.begin_write().unwrap();
        write.set_durability(durability).unwrap();
        write.open_table(ROWS).unwrap().insert(key, key).unwrap();
        write.commit().unwrap();
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_only_that() {
        let disk = Forgetful::new();
        let database = open(Place::Backend(Box::new(disk.clone())), "test", 1 << 20).unwrap();
        put(&database, 1, Durability::Immediate);
        put(&database, 2, Durability::None);
        assert_eq!(rows(&database), 2, "readers see both before the cut");

        let after = open(Place::Backend(Box::new(disk.crash())), "test", 1 << 20).unwrap();
        assert_eq!(rows(&after), 1, "the un-synced row is gone, the synced one is there");
    }

    fn rows(database: &Database) -> u64 {
        database.begin_read().unwrap().open_table(ROWS).unwrap().len().unwrap()
    }
}
