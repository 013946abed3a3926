//! The file of all shard queues: one, so that a dispatch round is one commit however many shards it concerns.
//!
//! | table | key | value |
//! |---|---|---|
//! | `frames` | (shard, position) | (events filed before it, an encoded `ShardFrame`) |
//! | `ends` | shard | (last position ever given, last position trimmed, bytes between, events ever filed) |
//! | `cursors` | event queue | last offset that was filed |
//! | `committed` | (shard, consumer) | the position it has committed |
//! | `dead` | (event queue, offset, 0 or the shard + 1) | an encoded dead letter: see `dead_letters` |
//! | `leases` | event queue | (token, when it ends in ms, whether its holder shares this process, holder) |

use std::collections::BTreeMap;

use bytes::Bytes;
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::dead_letters::{DEAD, Dead};
use super::{Place, StoreError, begin, open};

const FRAMES: TableDefinition<(u16, u64), (u64, &[u8])> = TableDefinition::new("frames");
const ENDS: TableDefinition<u16, EndsRow> = TableDefinition::new("ends");
const CURSORS: TableDefinition<u16, u64> = TableDefinition::new("cursors");
const COMMITTED: TableDefinition<(u16, &str), u64> = TableDefinition::new("committed");
const LEASES: TableDefinition<u16, (u64, u64, bool, &str)> = TableDefinition::new("leases");

/// The open file.
#[derive(Debug)]
pub struct ShardQueueFile {
    pub(super) database: Database,
}

type EndsRow = (u64, u64, u64, u64);

/// Where a shard queue begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The last position ever given; 0: none.
    pub last: Position,
    /// Everything up to here was trimmed.
    pub trimmed: Position,
    /// Bytes of the frames between the two.
    pub bytes: u64,
    /// Events of all frames that were ever filed, trimmed or not.
    pub events: u64,
}

/// A run of frames, as they are stored.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub frames: Vec<(Position, Bytes)>,
    /// Events that were filed before the first of them, as [`Ends::events`] counts; 0 if there is none.
    pub events_before: u64,
}

/// The claim on an event queue, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub holder: String,
    pub token: u64,
    /// Milliseconds since the Unix epoch.
    pub ends_ms: u64,
    /// Its holder runs in the process that has this file open, and is gone when the file is opened again.
    pub in_process: bool,
}

/// What an opened file held.
#[derive(Debug, Default)]
pub struct Loaded {
    pub ends: BTreeMap<ShardId, Ends>,
    pub cursors: BTreeMap<QueueId, Offset>,
    pub committed: BTreeMap<(ShardId, String), Position>,
    pub claims: BTreeMap<QueueId, Claim>,
    pub dead: Dead,
}

/// Changes that are committed together.
pub struct Transaction {
    pub(super) write: WriteTransaction,
}

impl ShardQueueFile {
    pub fn open(place: Place, cache_bytes: usize) -> Result<(ShardQueueFile, Loaded), StoreError> {
        let database = open(place, "shard-queues", cache_bytes)?;
        let file = ShardQueueFile { database };
        let transaction = file.begin(0)?;
        {
            transaction.write.open_table(FRAMES)?;
            transaction.write.open_table(ENDS)?;
            transaction.write.open_table(CURSORS)?;
            transaction.write.open_table(COMMITTED)?;
            transaction.write.open_table(LEASES)?;
            transaction.write.open_table(DEAD)?;
        }
        transaction.end_claims_of_this_process()?;
        transaction.commit()?;
        let loaded = file.load()?;
        Ok((file, loaded))
    }

    /// `bytes_held` is about what the file holds now.
    pub fn begin(&self, bytes_held: u64) -> Result<Transaction, StoreError> {
        Ok(Transaction { write: begin(&self.database, bytes_held)? })
    }

    /// Frames after `after`, at least one if there is one, until they reach `max_bytes`.
    pub fn read(&self, shard: ShardId, after: Position, max_bytes: usize) -> Result<(Run, Ends), StoreError> {
        let read = self.database.begin_read()?;
        let ends = read.open_table(ENDS)?.get(shard)?.map(|row| row.value()).map(Ends::from).unwrap_or_default();
        let (mut run, mut bytes) = (Run::default(), 0);
        for row in read.open_table(FRAMES)?.range((shard, after.saturating_add(1))..=(shard, u64::MAX))? {
            let (key, value) = row?;
            let (events_before, frame) = value.value();
            if run.frames.is_empty() {
                run.events_before = events_before;
            } else if bytes + frame.len() > max_bytes {
                break;
            }
            bytes += frame.len();
            run.frames.push((key.value().1, Bytes::copy_from_slice(frame)));
        }
        Ok((run, ends))
    }

    fn load(&self) -> Result<Loaded, StoreError> {
        let read = self.database.begin_read()?;
        let mut loaded = Loaded { dead: self.count_dead()?, ..Loaded::default() };
        for row in read.open_table(ENDS)?.iter()? {
            let (shard, ends) = row?;
            loaded.ends.insert(shard.value(), Ends::from(ends.value()));
        }
        for row in read.open_table(CURSORS)?.iter()? {
            let (queue, cursor) = row?;
            loaded.cursors.insert(queue.value(), cursor.value());
        }
        for row in read.open_table(COMMITTED)?.iter()? {
            let (key, position) = row?;
            let (shard, consumer) = key.value();
            loaded.committed.insert((shard, consumer.to_owned()), position.value());
        }
        for row in read.open_table(LEASES)?.iter()? {
            let (queue, claim) = row?;
            loaded.claims.insert(queue.value(), Claim::from(claim.value()));
        }
        Ok(loaded)
    }
}

impl Transaction {
    pub fn claim(&self, queue: QueueId) -> Result<Option<Claim>, StoreError> {
        let leases = self.write.open_table(LEASES)?;
        let row = leases.get(queue)?;
        Ok(row.map(|row| Claim::from(row.value())))
    }

    pub fn set_claim(&self, queue: QueueId, claim: &Claim) -> Result<(), StoreError> {
        let row = (claim.token, claim.ends_ms, claim.in_process, claim.holder.as_str());
        self.write.open_table(LEASES)?.insert(queue, row)?;
        Ok(())
    }

    pub fn cursor(&self, queue: QueueId) -> Result<Offset, StoreError> {
        Ok(self.write.open_table(CURSORS)?.get(queue)?.map_or(0, |row| row.value()))
    }

    pub fn set_cursor(&self, queue: QueueId, cursor: Offset) -> Result<(), StoreError> {
        self.write.open_table(CURSORS)?.insert(queue, cursor)?;
        Ok(())
    }

    /// Appends a frame of so many events at the shard's next position; where the queue ends then.
    pub fn append(&self, shard: ShardId, events: u64, frame: &[u8]) -> Result<Ends, StoreError> {
        let mut table = self.write.open_table(ENDS)?;
        let mut ends = table.get(shard)?.map(|row| row.value()).map(Ends::from).unwrap_or_default();
        ends.last += 1;
        ends.bytes += frame.len() as u64;
        self.write.open_table(FRAMES)?.insert((shard, ends.last), (ends.events, frame))?;
        ends.events = ends.events.saturating_add(events);
        table.insert(shard, ends.row())?;
        Ok(ends)
    }

    /// Removes the frames up to `upto`; where the queue begins and ends then.
    pub fn trim(&self, shard: ShardId, upto: Position) -> Result<Ends, StoreError> {
        let mut table = self.write.open_table(ENDS)?;
        let mut ends = table.get(shard)?.map(|row| row.value()).map(Ends::from).unwrap_or_default();
        let mut bytes = 0;
        self.write.open_table(FRAMES)?.retain_in((shard, 0)..=(shard, upto), |_, (_, frame)| {
            bytes += frame.len() as u64;
            false
        })?;
        ends.trimmed = ends.trimmed.max(upto.min(ends.last));
        ends.bytes = ends.bytes.saturating_sub(bytes);
        table.insert(shard, ends.row())?;
        Ok(ends)
    }

    /// Records what a consumer has committed; `None` forgets the consumer.
    pub fn set_committed(&self, shard: ShardId, consumer: &str, at: Option<Position>) -> Result<(), StoreError> {
        let mut table = self.write.open_table(COMMITTED)?;
        match at {
            Some(position) => table.insert((shard, consumer), position)?,
            None => table.remove((shard, consumer))?,
        };
        Ok(())
    }

    /// Returns once everything is on disk.
    pub fn commit(self) -> Result<(), StoreError> {
        self.write.commit()?;
        Ok(())
    }

    /// Their holders died with the process that had this file open before: nobody needs to wait for their end.
    fn end_claims_of_this_process(&self) -> Result<(), StoreError> {
        let queues: Vec<QueueId> = {
            let leases = self.write.open_table(LEASES)?;
            leases.iter()?.map(|row| row.map(|(queue, _)| queue.value())).collect::<Result<_, _>>()?
        };
        for queue in queues {
            if let Some(claim) = self.claim(queue)?.filter(|claim| claim.in_process) {
                self.set_claim(queue, &Claim { ends_ms: 0, ..claim })?;
            }
        }
        Ok(())
    }
}

impl From<(u64, u64, bool, &str)> for Claim {
    fn from((token, ends_ms, in_process, holder): (u64, u64, bool, &str)) -> Claim {
        Claim { holder: holder.to_owned(), token, ends_ms, in_process }
    }
}

impl Ends {
    fn row(self) -> EndsRow {
        (self.last, self.trimmed, self.bytes, self.events)
    }
}

impl From<EndsRow> for Ends {
    fn from((last, trimmed, bytes, events): EndsRow) -> Ends {
        Ends { last, trimmed, bytes, events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::forgetful::Forgetful;

    fn opened(disk: &Forgetful) -> (ShardQueueFile, Loaded) {
        ShardQueueFile::open(Place::Backend(Box::new(disk.clone())), 1 << 20).unwrap()
    }

    #[test]
    fn positions_go_on_after_everything_was_trimmed() {
        let disk = Forgetful::new();
        let (file, _) = opened(&disk);
        let transaction = file.begin(0).unwrap();
        transaction.append(3, 1, b"one").unwrap();
        assert_eq!(transaction.append(3, 2, b"two!").unwrap(), Ends { last: 2, trimmed: 0, bytes: 7, events: 3 });
        assert_eq!(transaction.append(4, 1, b"x").unwrap().last, 1, "every shard has positions of its own");
        assert_eq!(transaction.trim(3, 1).unwrap(), Ends { last: 2, trimmed: 1, bytes: 4, events: 3 });
        assert_eq!(transaction.trim(3, 9).unwrap(), Ends { last: 2, trimmed: 2, bytes: 0, events: 3 });
        transaction.commit().unwrap();

        let (file, loaded) = opened(&disk.crash());
        assert_eq!(loaded.ends[&3], Ends { last: 2, trimmed: 2, bytes: 0, events: 3 });
        let transaction = file.begin(0).unwrap();
        assert_eq!(transaction.append(3, 1, b"three").unwrap().last, 3);
        transaction.commit().unwrap();
        let run = |position, frame, events_before| {
            let frames = vec![(position, Bytes::from_static(frame))];
            Run { frames, events_before }
        };
        assert_eq!(file.read(3, 0, 1).unwrap().0, run(3, b"three", 3));
        assert_eq!(file.read(4, 0, 1).unwrap().0, run(1, b"x", 0));
    }

    #[test]
    fn a_run_knows_how_many_events_came_before_it() {
        let disk = Forgetful::new();
        let (file, _) = opened(&disk);
        let transaction = file.begin(0).unwrap();
        for events in [1, 10, 100] {
            transaction.append(3, events, b"x").unwrap();
        }
        transaction.trim(3, 1).unwrap();
        transaction.commit().unwrap();
        let (file, _) = opened(&disk.crash());
        let read = |after, max_bytes| {
            let (run, ends) = file.read(3, after, max_bytes).unwrap();
            (run.frames.len(), run.events_before, ends.events)
        };
        assert_eq!(read(1, 1 << 20), (2, 1, 111), "what was trimmed counts");
        assert_eq!(read(1, 1), (1, 1, 111), "what does not fit changes nothing before it");
        assert_eq!(read(2, 1), (1, 11, 111));
        assert_eq!(read(3, 1), (0, 0, 111));
    }

    #[test]
    fn what_was_not_committed_is_not_there() {
        let disk = Forgetful::new();
        let (file, _) = opened(&disk);
        let transaction = file.begin(0).unwrap();
        transaction.append(0, 1, b"x").unwrap();
        transaction.set_cursor(1, 5).unwrap();
        drop(transaction);
        let (_, loaded) = opened(&disk.crash());
        assert!(loaded.ends.is_empty() && loaded.cursors.is_empty());
    }

    #[test]
    fn only_claims_of_a_dead_process_end_at_opening() {
        let disk = Forgetful::new();
        let (file, _) = opened(&disk);
        let claim = |in_process| Claim { holder: "a".into(), token: 7, ends_ms: 9, in_process };
        let transaction = file.begin(0).unwrap();
        transaction.set_claim(0, &claim(true)).unwrap();
        transaction.set_claim(1, &claim(false)).unwrap();
        transaction.commit().unwrap();
        let (file, _) = opened(&disk.crash());
        let transaction = file.begin(0).unwrap();
        assert_eq!(transaction.claim(0).unwrap(), Some(Claim { ends_ms: 0, ..claim(true) }), "the token stays");
        assert_eq!(transaction.claim(1).unwrap(), Some(claim(false)));
    }
}
