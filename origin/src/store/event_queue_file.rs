//! The file of one event queue: frames, the ids of the window, and how far it got.
//!
//! | table | key | value |
//! |---|---|---|
//! | `frames` | offset of its first event | an encoded `EventFrame` |
//! | `ids` | (when it ends, in ms; offset of the first event of its group) | hashes of ids, 16 bytes each |
//! | `counters` | `last` | the last offset ever given, whether or not its event is still here |
//! | `secrets` | `ids` | what the hashes are keyed with, so that nobody can aim at a collision |

use bytes::Bytes;
use millpond_shared::version::{Offset, QueueId};
use millpond_shared::wire::EventFrame;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Place, StoreError, begin, open};

const FRAMES: TableDefinition<u64, &[u8]> = TableDefinition::new("frames");
const IDS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("ids");
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const SECRETS: TableDefinition<&str, &[u8]> = TableDefinition::new("secrets");

/// Bytes of a hash of an id.
pub const ID_BYTES: usize = 16;
/// Bytes of the secret: as many as XXH3 takes.
pub const SECRET_BYTES: usize = 192;

/// The open file of one event queue.
#[derive(Debug)]
pub struct EventQueueFile {
    database: Database,
    name: String,
}

/// What an opened file held.
#[derive(Debug)]
pub struct Loaded {
    pub last: Offset,
    pub frames: Vec<FrameInfo>,
    pub ids: Vec<u128>,
    pub secret: [u8; SECRET_BYTES],
}

/// A frame without its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    pub first: Offset,
    pub last: Offset,
    pub bytes: u64,
    /// When ingest took its first event: milliseconds since the Unix epoch.
    pub received: u64,
}

/// Changes that are committed together.
pub struct Transaction {
    write: WriteTransaction,
}

impl EventQueueFile {
    pub fn open(place: Place, queue: QueueId, cache_bytes: usize) -> Result<(EventQueueFile, Loaded), StoreError> {
        let database = open(place, &format!("event-queue {queue}"), cache_bytes)?;
        let file = EventQueueFile { database, name: format!("event queue {queue}") };
        let secret = file.prepare()?;
        let (last, frames, ids) = file.load()?;
        Ok((file, Loaded { last, frames, ids, secret }))
    }

    /// `bytes_held` is about what the file holds now.
    pub fn begin(&self, bytes_held: u64) -> Result<Transaction, StoreError> {
        Ok(Transaction { write: begin(&self.database, bytes_held)? })
    }

    /// Frames from the one that holds `from` on, until they hold `max_events` from there or reach `max_bytes`, and
    /// the offset of their last event. At least one frame if there is one.
    pub fn read(&self, from: Offset, max_events: u64, max_bytes: usize) -> Result<(Vec<Bytes>, Offset), StoreError> {
        let read = self.database.begin_read()?;
        let frames = read.open_table(FRAMES)?;
        let start = match frames.range(..=from)?.next_back() {
            Some(row) => row?.0.value(),
            None => from,
        };
        let end = from.saturating_add(max_events);
        let (mut found, mut bytes, mut stopped) = (Vec::new(), 0, None);
        for row in frames.range(start..)? {
            let (first, frame) = row?;
            if !found.is_empty() && (first.value() >= end || bytes >= max_bytes) {
                stopped = Some(first.value() - 1);
                break;
            }
            bytes += frame.value().len();
            found.push(Bytes::copy_from_slice(frame.value()));
        }
        let last = match stopped {
            Some(last) => last,
            None => read.open_table(COUNTERS)?.get("last")?.map_or(0, |last| last.value()),
        };
        Ok((found, last))
    }

    /// Makes the tables and the secret where they are not there yet.
    fn prepare(&self) -> Result<[u8; SECRET_BYTES], StoreError> {
        let transaction = self.begin(0)?;
        let mut secret = [0; SECRET_BYTES];
        {
            transaction.write.open_table(FRAMES)?;
            transaction.write.open_table(IDS)?;
            transaction.write.open_table(COUNTERS)?;
            let mut secrets = transaction.write.open_table(SECRETS)?;
            let recorded = secrets.get("ids")?.map(|value| value.value().to_vec());
            match recorded {
                Some(bytes) => {
                    secret = bytes.try_into().map_err(|_| self.damaged("the secret has the wrong length"))?;
                }
                None => {
                    SystemRandom::new().fill(&mut secret).map_err(|_| self.damaged("the system has no randomness"))?;
                    secrets.insert("ids", secret.as_slice())?;
                }
            }
        }
        transaction.commit()?;
        Ok(secret)
    }

    fn load(&self) -> Result<(Offset, Vec<FrameInfo>, Vec<u128>), StoreError> {
        let read = self.database.begin_read()?;
        let last = read.open_table(COUNTERS)?.get("last")?.map_or(0, |last| last.value());
        let mut frames: Vec<FrameInfo> = Vec::new();
        for row in read.open_table(FRAMES)?.iter()? {
            let (first, bytes) = row?;
            let frame = EventFrame::decode(bytes.value())
                .map_err(|error| self.damaged(&format!("frame {}: {error}", first.value())))?;
            let follows = frames.last().is_none_or(|before| before.last + 1 == frame.first);
            if frame.first != first.value() || frame.events.is_empty() || !follows {
                return Err(self.damaged(&format!("frame {} does not follow the one before it", first.value())));
            }
            frames.push(FrameInfo {
                first: frame.first,
                last: frame.last(),
                bytes: bytes.value().len() as u64,
                received: frame.events.first().map_or(0, |event| event.received),
            });
        }
        if frames.last().is_some_and(|frame| frame.last != last) {
            return Err(self.damaged("its last frame is not the last one that was written"));
        }
        let mut ids = Vec::new();
        for row in read.open_table(IDS)?.iter()? {
            ids.extend(unpacked(row?.1.value()));
        }
        Ok((last, frames, ids))
    }

    fn damaged(&self, problem: &str) -> StoreError {
        StoreError::Damaged { file: self.name.clone(), problem: problem.to_owned() }
    }
}

impl Transaction {
    /// Removes the ids whose window ended at or before `now_ms`; their hashes.
    pub fn forget_ended(&self, now_ms: u64) -> Result<Vec<u128>, StoreError> {
        let mut forgotten = Vec::new();
        self.write.open_table(IDS)?.retain_in(..=(now_ms, u64::MAX), |_, packed| {
            forgotten.extend(unpacked(packed));
            false
        })?;
        Ok(forgotten)
    }

    /// Removes the ids whose window ends first, although it has not ended; their hashes. Empty if there are none.
    pub fn forget_oldest(&self) -> Result<Vec<u128>, StoreError> {
        let mut ids = self.write.open_table(IDS)?;
        let row = ids.pop_first()?;
        Ok(row.map(|(_, packed)| unpacked(packed.value()).collect()).unwrap_or_default())
    }

    /// Remembers ids until `ends_ms`; `first` is the offset of the first event of their group.
    pub fn remember(&self, ends_ms: u64, first: Offset, hashes: &[u128]) -> Result<(), StoreError> {
        let packed: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        self.write.open_table(IDS)?.insert((ends_ms, first), packed.as_slice())?;
        Ok(())
    }

    /// Removes the frames that start before `before`.
    pub fn trim(&self, before: Offset) -> Result<(), StoreError> {
        Ok(self.write.open_table(FRAMES)?.retain_in(..before, |_, _| false)?)
    }

    /// Appends a frame that ends at `last`.
    pub fn append(&self, first: Offset, last: Offset, frame: &[u8]) -> Result<(), StoreError> {
        self.write.open_table(FRAMES)?.insert(first, frame)?;
        self.write.open_table(COUNTERS)?.insert("last", last)?;
        Ok(())
    }

    /// Returns once everything is on disk.
    pub fn commit(self) -> Result<(), StoreError> {
        self.write.commit()?;
        Ok(())
    }
}

fn unpacked(packed: &[u8]) -> impl Iterator<Item = u128> {
    packed.chunks_exact(ID_BYTES).filter_map(|bytes| bytes.try_into().ok().map(u128::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use millpond_shared::event::Event;

    use super::*;
    use crate::store::forgetful::Forgetful;

    fn frame(first: Offset, events: usize) -> Vec<u8> {
        let event = |at: u64| Event {
            id: at.to_string().into(),
            source: "s".into(),
            kind: "k".into(),
            subject: None,
            time: 0,
            received: first,
            data: "{}".into(),
        };
        let frame = EventFrame { queue: 0, first, events: (0..events as u64).map(|at| event(first + at)).collect() };
        frame.encode()
    }

    fn opened(disk: &Forgetful) -> (EventQueueFile, Loaded) {
        EventQueueFile::open(Place::Backend(Box::new(disk.clone())), 0, 1 << 20).unwrap()
    }

    fn filled(disk: &Forgetful, frames: &[(Offset, usize)]) -> EventQueueFile {
        let (file, _) = opened(disk);
        let transaction = file.begin(0).unwrap();
        for &(first, events) in frames {
            let last = first + events as u64 - 1;
            transaction.append(first, last, &frame(first, events)).unwrap();
        }
        transaction.commit().unwrap();
        file
    }

    #[test]
    fn reading_starts_inside_a_frame_and_ends_at_a_limit() {
        let file = filled(&Forgetful::new(), &[(1, 3), (4, 3), (7, 3)]);
        let firsts = |from, max_events, max_bytes| {
            let (frames, last) = file.read(from, max_events, max_bytes).unwrap();
            let firsts: Vec<u64> = frames.iter().map(|bytes| EventFrame::decode(bytes).unwrap().first).collect();
            (firsts, last)
        };
        assert_eq!(firsts(1, 100, 1 << 20), (vec![1, 4, 7], 9));
        assert_eq!(firsts(5, 1, 1 << 20), (vec![4], 6));
        assert_eq!(firsts(6, 2, 1 << 20), (vec![4, 7], 9));
        assert_eq!(firsts(1, 100, 1), (vec![1], 3), "one frame at least, however small the room");
        assert_eq!(firsts(10, 100, 1 << 20), (vec![7], 9), "nothing from 10 on: `last` says so");
    }

    #[test]
    fn everything_is_there_after_a_power_cut() {
        let disk = Forgetful::new();
        let secret = opened(&disk).1.secret;
        let file = filled(&disk, &[(1, 2), (3, 1)]);
        let transaction = file.begin(0).unwrap();
        transaction.remember(100, 1, &[7]).unwrap();
        transaction.remember(300, 1, &[9, 10]).unwrap();
        transaction.remember(200, 1, &[8]).unwrap();
        transaction.commit().unwrap();
        let transaction = file.begin(0).unwrap();
        assert_eq!(transaction.forget_ended(100).unwrap(), [7]);
        assert_eq!(transaction.forget_oldest().unwrap(), [8]);
        transaction.trim(3).unwrap();
        transaction.commit().unwrap();

        let (_, after) = opened(&disk.crash());
        assert_eq!((after.last, after.ids, after.secret), (3, vec![9, 10], secret));
        assert_eq!(after.frames.iter().map(|f| (f.first, f.last, f.received)).collect::<Vec<_>>(), [(3, 3, 3)]);
    }

    #[test]
    fn a_gap_in_the_frames_is_damage() {
        let disk = Forgetful::new();
        drop(filled(&disk, &[(1, 2), (4, 1)]));
        let error = EventQueueFile::open(Place::Backend(Box::new(disk.crash())), 0, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("frame 4"), "{error}");
    }
}
