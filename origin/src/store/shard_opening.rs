//! What is checked and found when the file of a shard is opened.

use std::collections::BTreeMap;

use millpond_shared::projection::Projection;
use millpond_shared::shard_map::MapState;
use millpond_shared::version::{Offset, Position, QueueId};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::shard_file::{DOCUMENTS, Identity, MARKS, META, PROJECTIONS, ShardFile, ShardFileError, Taking};

/// What a file held when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Everything up to this position is in the file. Documents may be ahead of it, each as far as its version says.
    pub committed: Position,
    /// Those of the committed position.
    pub marks: BTreeMap<QueueId, Offset>,
    /// Likewise.
    pub taking: Taking,
    /// The shard map as it was last heard of.
    pub map: Option<MapState>,
    /// Whether there is no document in it.
    pub is_empty: bool,
    /// Projections that are no longer declared: their documents stay in the file.
    pub undeclared: Vec<String>,
}

impl ShardFile {
    /// Checks whose file this is and what its documents were declared as; records both where nothing is recorded.
    pub(super) fn prepare(&self, identity: Identity, projections: &[Projection]) -> Result<(), ShardFileError> {
        let transaction = self.database.begin_write()?;
        let mut changed = false;
        {
            let mut meta = transaction.open_table(META)?;
            let numbers = [("shard", u64::from(identity.shard)), ("map_version", identity.map_version.into())];
            if meta.get("shard")?.is_none() {
                for (name, number) in numbers {
                    meta.insert(name, number.to_string().as_str())?;
                }
                meta.insert("committed", "0")?;
                changed = true;
            }
            self.check_identity(&meta, identity)?;

            let mut recorded = transaction.open_table(PROJECTIONS)?;
            for projection in projections {
                let fingerprint = format!("{:016x}", projection.state_fingerprint());
                let before = recorded.get(projection.name.as_str())?.map(|before| before.value().to_owned());
                match before {
                    Some(before) if before == fingerprint => {}
                    Some(_) => {
                        let projection = projection.name.clone();
                        return Err(ShardFileError::Declaration { file: self.name.clone(), projection });
                    }
                    None => {
                        recorded.insert(projection.name.as_str(), fingerprint.as_str())?;
                        changed = true;
                    }
                }
            }
            transaction.open_table(MARKS)?;
            transaction.open_table(DOCUMENTS)?;
        }
        if changed {
            let mut transaction = transaction;
            transaction.set_quick_repair(true);
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(())
    }

    fn check_identity(
        &self,
        meta: &impl ReadableTable<&'static str, &'static str>,
        expected: Identity,
    ) -> Result<(), ShardFileError> {
        let found = Identity { shard: self.number(meta, "shard")?, map_version: self.number(meta, "map_version")? };
        if found == expected {
            Ok(())
        } else {
            Err(ShardFileError::Identity { file: self.name.clone(), found, expected })
        }
    }

    /// What the file holds, beside the documents.
    pub(super) fn look(&self) -> Result<Opened, ShardFileError> {
        let read = self.database.begin_read()?;
        let meta = read.open_table(META)?;
        let mut opened = Opened {
            committed: self.number(&meta, "committed")?,
            taking: self.taking(&meta)?,
            map: self.json(&meta, "map")?,
            ..Opened::default()
        };
        for row in read.open_table(MARKS)?.iter()? {
            let (queue, offset) = row?;
            opened.marks.insert(queue.value(), offset.value());
        }
        let documents = read.open_table(DOCUMENTS)?;
        opened.is_empty = documents.is_empty()?;
        for row in read.open_table(PROJECTIONS)?.iter()? {
            let (name, _) = row?;
            let (name, declared) = (name.value(), |name: &str| self.projections.iter().any(|(other, _)| other == name));
            if !declared(name) && has_documents(&documents, name)? {
                opened.undeclared.push(name.to_owned());
            }
        }
        Ok(opened)
    }
}

/// Whether the file holds a document of this projection.
fn has_documents(
    documents: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    projection: &str,
) -> Result<bool, ShardFileError> {
    let first = documents.range((projection, "")..)?.next().transpose()?;
    Ok(first.is_some_and(|(place, _)| place.value().0 == projection))
}
