//! Dead letters, in the file of the shard queues: `dead`, (event queue, offset, 0 or the shard + 1) → an encoded letter,
//! and `dead_bytes`, what they take together.

use millpond_shared::version::{Offset, QueueId};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::StoreError;
use super::shard_queue_file::{ShardQueueFile, Transaction};

pub(super) const DEAD: TableDefinition<DeadRow, &[u8]> = TableDefinition::new("dead");

/// The place of a letter.
pub type DeadRow = (QueueId, Offset, u16);

/// How many letters there are, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dead {
    pub letters: usize,
    pub bytes: u64,
}

impl ShardQueueFile {
    /// The first letters, in the order of their places.
    pub fn dead(&self, most: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(DEAD)?;
        let rows = table.iter()?.take(most);
        rows.map(|row| Ok(row?.1.value().to_vec())).collect()
    }

    pub fn dead_letter(&self, row: DeadRow) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.database.begin_read()?;
        Ok(read.open_table(DEAD)?.get(row)?.map(|found| found.value().to_vec()))
    }

    /// How many there are.
    pub(super) fn count_dead(&self) -> Result<Dead, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(DEAD)?;
        let mut dead = Dead { letters: usize::try_from(table.len()?).unwrap_or(usize::MAX), bytes: 0 };
        for row in table.iter()? {
            dead.bytes += row?.1.value().len() as u64;
        }
        Ok(dead)
    }
}

impl Transaction {
    /// Puts a letter in its place, unless there is one; whether it did.
    pub fn bury(&self, row: DeadRow, letter: &[u8]) -> Result<bool, StoreError> {
        let mut table = self.write.open_table(DEAD)?;
        if table.get(row)?.is_some() {
            return Ok(false);
        }
        table.insert(row, letter)?;
        Ok(true)
    }

    /// Removes a letter; what it took, if it was there.
    pub fn unbury(&self, row: DeadRow) -> Result<Option<u64>, StoreError> {
        Ok(self.write.open_table(DEAD)?.remove(row)?.map(|found| found.value().len() as u64))
    }
}
