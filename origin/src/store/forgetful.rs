//! A disk for tests that keeps what was synced apart from what was only written, and fails when it is told to.
//!
//! A process that dies loses nothing it has written: the kernel still has it. A machine that loses power does. Only
//! such a disk can show that an acknowledgement waits for the sync.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::simulation::{Befell, Simulation};

/// A handle to the disk; clones share it. Give a clone to redb, keep one to pull the plug.
#[derive(Clone, Debug, Default)]
pub struct Forgetful {
    state: Arc<Mutex<State>>,
    gate: Arc<Gate>,
    power: Power,
}

/// What syncs have to pass.
#[derive(Debug, Default)]
struct Gate {
    passage: Mutex<Passage>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Passage {
    /// While syncs are held.
    closed: bool,
    /// Syncs before the closed gate.
    waiting: usize,
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut Passage)) {
        change(&mut self.passage());
        self.changed.notify_all();
    }

    fn wait_while(&self, unwanted: impl Fn(&Passage) -> bool) {
        let waited = self.changed.wait_while(self.passage(), |passage| unwanted(passage));
        drop(waited);
    }

    fn pass(&self) {
        if self.passage().closed {
            self.change(|passage| passage.waiting += 1);
            self.wait_while(|passage| passage.closed);
            self.change(|passage| passage.waiting -= 1);
        }
    }

    fn passage(&self) -> MutexGuard<'_, Passage> {
        self.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds every sync until it is dropped.
#[derive(Debug)]
pub struct HeldSyncs(Arc<Gate>);

impl HeldSyncs {
    /// Waits until it holds one. Blocks.
    pub fn until_one_waits(&self) {
        self.0.wait_while(|passage| passage.waiting == 0);
    }
}

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        self.0.change(|passage| passage.closed = false);
    }
}

/// What the disks of one machine run on.
#[derive(Clone, Debug)]
pub struct Power(Arc<AtomicU64>);

impl Default for Power {
    fn default() -> Power {
        Power(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Power {
    /// It is cut when its disks have written and synced so many times more: from then on nothing is.
    pub fn cut_after(&self, operations: u64) {
        self.0.store(operations, Ordering::SeqCst);
    }

    pub fn is_cut(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    fn use_once(&self) -> io::Result<()> {
        let left = self.0.load(Ordering::SeqCst);
        match left {
            0 => return Err(io::Error::other("there is no power")),
            u64::MAX => {}
            left => {
                self.0.store(left - 1, Ordering::SeqCst);
                if left == 1 {
                    Simulation::befell(Befell::PowerCut);
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct State {
    synced: Image,
    written: Image,
    /// Pages that were written since the last sync.
    unsynced: BTreeSet<usize>,
    syncs: u64,
    fails: bool,
    full: bool,
    /// How the next sync fails.
    fails_once: Option<FailedSync>,
}

/// What a sync has done that says that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSync {
    Nothing,
    Everything,
}

const PAGE: usize = 4096;

/// The bytes of a disk, in pages that images share until they differ. A page that was never written is zero.
#[derive(Clone, Debug, Default)]
struct Image {
    len: usize,
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

impl Forgetful {
    pub fn new() -> Forgetful {
        Forgetful::default()
    }

    /// The power is cut: a disk that holds what this one had synced by now, and nothing else.
    pub fn crash(&self) -> Forgetful {
        self.crash_keeping(|| false)
    }

    /// The same where some of what was not synced got onto the disk: each page for which `kept` says so.
    pub fn crash_keeping(&self, mut kept: impl FnMut() -> bool) -> Forgetful {
        let state = self.state();
        let mut image = state.synced.clone();
        for &page in state.unsynced.iter().filter(|_| kept()) {
            image.set_len(image.len.max(state.written.len));
            image.take(page, &state.written);
        }
        Forgetful::holding(image)
    }

    /// A disk of its own that holds the same.
    pub fn copied(&self) -> Forgetful {
        Forgetful::holding(self.state().written.clone())
    }

    fn holding(image: Image) -> Forgetful {
        let state = State { written: image.clone(), synced: image, ..State::default() };
        Forgetful { state: Arc::new(Mutex::new(state)), ..Forgetful::default() }
    }

    /// The same disk on this power.
    pub fn on(self, power: &Power) -> Forgetful {
        Forgetful { power: power.clone(), ..self }
    }

    /// Syncs wait until what is returned is dropped.
    pub fn hold_syncs(&self) -> HeldSyncs {
        self.gate.change(|passage| passage.closed = true);
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

    /// The next sync fails, and nobody is told what it did.
    pub fn fail_once(&self, how: FailedSync) {
        self.state().fails_once = Some(how);
    }

    pub fn is_full(&self) -> bool {
        self.state().full
    }

    /// Whether there is no room for another page.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        self.power.use_once()?;
        let state = self.state();
        if state.fails { Err(io::Error::other("the disk was told to fail")) } else { Ok(state) }
    }
}

impl State {
    fn sync(&mut self) {
        self.synced.set_len(self.written.len);
        for page in std::mem::take(&mut self.unsynced) {
            self.synced.take(page, &self.written);
        }
        self.syncs += 1;
    }
}

fn no_room() -> io::Error {
    Simulation::befell(Befell::DiskFull);
    io::ErrorKind::StorageFull.into()
}

impl Image {
    fn set_len(&mut self, len: usize) {
        self.pages.resize(len.div_ceil(PAGE), None);
        if len < self.len
            && let Some(Some(last)) = self.pages.last_mut()
            && !len.is_multiple_of(PAGE)
        {
            Arc::make_mut(last)[len % PAGE..].fill(0);
        }
        self.len = len;
    }

    /// Makes a page what it is in another image.
    fn take(&mut self, page: usize, other: &Image) {
        if let (Some(here), Some(there)) = (self.pages.get_mut(page), other.pages.get(page)) {
            here.clone_from(there);
        }
    }

    fn check(&self, offset: u64, length: usize) -> io::Result<usize> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        if start + length <= self.len { Ok(start) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl StorageBackend for Forgetful {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().written.len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let (mut at, mut out) = (state.written.check(offset, out.len())?, out);
        while !out.is_empty() {
            let length = out.len().min(PAGE - at % PAGE);
            let (piece, rest) = out.split_at_mut(length);
            match &state.written.pages[at / PAGE] {
                Some(page) => piece.copy_from_slice(&page[at % PAGE..][..length]),
                None => piece.fill(0),
            }
            (at, out) = (at + length, rest);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.changing()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if state.full && len > state.written.len {
            return Err(no_room());
        }
        state.written.set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        let mut state = self.changing()?;
        let failed = state.fails_once.take();
        match failed {
            None => {}
            Some(FailedSync::Nothing) => Simulation::befell(Befell::SyncFailed),
            Some(FailedSync::Everything) => Simulation::befell(Befell::SyncFailedInVain),
        }
        if failed != Some(FailedSync::Nothing) {
            state.sync();
        }
        if failed.is_some() { Err(io::Error::other("the sync was told to fail")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.changing()?;
        let State { written, unsynced, full, .. } = &mut *state;
        let (mut at, mut data) = (written.check(offset, data.len())?, data);
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(PAGE - at % PAGE));
            let page = &mut written.pages[at / PAGE];
            if *full && page.is_none() {
                return Err(no_room());
            }
            let page = page.get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at % PAGE..][..piece.len()].copy_from_slice(piece);
            unsynced.insert(at / PAGE);
            (at, data) = (at + piece.len(), rest);
        }
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

    #[test]
    fn some_of_what_was_not_synced_may_survive_and_a_failed_sync_may_have_done_its_work() {
        let disk = Forgetful::new();
        disk.set_len(3 * PAGE as u64).unwrap();
        disk.sync_data().unwrap();
        let write = |page: usize, byte| disk.write((page * PAGE) as u64 + 5, &[byte]).unwrap();
        let bytes = |disk: &Forgetful| {
            [0, 1, 2].map(|page| {
                let mut byte = [0];
                disk.read((page * PAGE) as u64 + 5, &mut byte).unwrap();
                byte[0]
            })
        };
        (0..3).for_each(|page| write(page, 1));
        let mut every_other = [true, false, true].into_iter();
        assert_eq!(bytes(&disk.crash_keeping(|| every_other.next().unwrap())), [1, 0, 1]);
        assert_eq!((bytes(&disk), bytes(&disk.crash()), bytes(&disk.copied())), ([1; 3], [0; 3], [1; 3]));
        disk.fail_once(FailedSync::Nothing);
        assert!(disk.sync_data().is_err() && bytes(&disk.crash()) == [0; 3]);
        disk.fail_once(FailedSync::Everything);
        assert!(disk.sync_data().is_err() && bytes(&disk.crash()) == [1; 3]);
    }

    #[test]
    fn a_full_disk_takes_no_new_page_and_one_without_power_nothing() {
        let power = Power::default();
        let disk = Forgetful::new().on(&power);
        disk.set_len(2 * PAGE as u64).unwrap();
        disk.write(0, b"x").unwrap();
        disk.set_full(true);
        let full = |outcome: io::Result<()>| outcome.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull);
        assert!(disk.write(1, b"x").is_ok() && full(disk.write(PAGE as u64, b"x")) && full(disk.set_len(9_000)));
        disk.set_full(false);
        power.cut_after(1);
        assert!(!power.is_cut() && disk.write(PAGE as u64, b"x").is_ok());
        assert!(power.is_cut() && disk.write(0, b"y").is_err() && disk.sync_data().is_err());
    }

    fn rows(database: &Database) -> u64 {
        database.begin_read().unwrap().open_table(ROWS).unwrap().len().unwrap()
    }
}
