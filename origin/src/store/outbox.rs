//! What of a shard's file is still to be sent to another database.
//!
//! | table | key | value |
//! |---|---|---|
//! | `databases` | projection | name of the database that its documents are sent to |
//! | `outbox` | (projection, key) | position of the version that is to be sent; 0: whichever there is |
//!
//! A document and its place in the outbox are written in one transaction, so that none is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_shared::version::Position;
use redb::{Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::shard_file::{DOCUMENTS, Row, ShardFile, ShardFileError};
use crate::projection::is_part;

const DATABASES: TableDefinition<&str, &str> = TableDefinition::new("databases");
pub(super) const OUTBOX: TableDefinition<(&str, &str), u64> = TableDefinition::new("outbox");

/// A document that was sent: index of its projection, key, and the position of its version.
pub type Sent = (u16, Arc<str>, Position);

impl ShardFile {
    /// From now on, documents of these projections are to be sent to the databases of these names; all of them, where
    /// that is new. What waits for others is forgotten. Blocks.
    pub fn attach(&mut self, databases: &BTreeMap<u16, String>) -> Result<(), ShardFileError> {
        self.attached = (0..).zip(&self.projections).map(|(index, _)| databases.contains_key(&index)).collect();
        let wanted: BTreeMap<&str, &str> =
            databases.iter().map(|(projection, database)| (self.projection(*projection), database.as_str())).collect();
        let mut transaction = self.database.begin_write()?;
        let mut changed = false;
        {
            let (mut known, mut outbox) = (transaction.open_table(DATABASES)?, transaction.open_table(OUTBOX)?);
            let documents = transaction.open_table(DOCUMENTS)?;
            let mut before = BTreeMap::new();
            for row in known.iter()? {
                let (projection, database) = row?;
                before.insert(projection.value().to_owned(), database.value().to_owned());
            }
            for (projection, database) in &before {
                if wanted.get(projection.as_str()) != Some(&database.as_str()) {
                    // What stands right behind all keys of the projection.
                    let end = format!("{projection}\0");
                    outbox.retain_in((projection.as_str(), "")..(end.as_str(), ""), |_, _| false)?;
                    known.remove(projection.as_str())?;
                    changed = true;
                }
            }
            for (projection, database) in wanted {
                if before.get(projection).map(String::as_str) == Some(database) {
                    continue;
                }
                for row in documents.range((projection, "")..)? {
                    let (place, _) = row?;
                    let (of, key) = place.value();
                    if of != projection {
                        break;
                    }
                    if !is_part(key) {
                        outbox.insert((projection, key), 0)?;
                    }
                }
                known.insert(projection, database)?;
                changed = true;
            }
        }
        if changed {
            transaction.set_quick_repair(true);
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(())
    }

    /// Documents of these projections that are to be sent, at most `max` of them and about `max_bytes` bytes as they
    /// are stored, without those that `has_to_wait` says of. Blocks.
    pub fn outbox(
        &self,
        projections: &[u16],
        has_to_wait: impl Fn(u16, &str) -> bool,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, ShardFileError> {
        let read = self.database.begin_read()?;
        let (outbox, documents) = (read.open_table(OUTBOX)?, read.open_table(DOCUMENTS)?);
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        for projection in projections {
            let name = self.projection(*projection);
            for row in outbox.range((name, "")..)? {
                let (place, _) = row?;
                let (of, key) = place.value();
                if of != name || wanted.len() >= max || bytes >= max_bytes {
                    break;
                }
                if has_to_wait(*projection, key) {
                    continue;
                }
                bytes += documents.get((name, key))?.map_or(0, |blob| blob.value().len());
                wanted.push((*projection, Arc::from(key)));
            }
        }
        drop((outbox, documents, read));
        self.read(&wanted)
    }

    /// Number of documents that are to be sent. Blocks.
    pub fn outbox_len(&self) -> Result<u64, ShardFileError> {
        Ok(self.database.begin_read()?.open_table(OUTBOX)?.len()?)
    }

    /// These were sent: they leave the outbox, but for those that have changed since. A crash may forget that. Blocks.
    pub fn sent(&self, sent: &[Sent]) -> Result<(), ShardFileError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        {
            let mut outbox = transaction.open_table(OUTBOX)?;
            for (projection, key, position) in sent {
                let place = (self.projection(*projection), key.as_ref());
                let waits = outbox.get(place)?.is_some_and(|waiting| waiting.value() <= *position);
                if waits {
                    outbox.remove(place)?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use millpond_shared::projection::{Kind, Projection};
    use millpond_shared::version::Version;

    use super::*;
    use crate::projection::testing::declared;
    use crate::projection::{Arrival, Document, Effect, Item};
    use crate::store::Place;
    use crate::store::forgetful::Forgetful;
    use crate::store::shard_file::{Identity, Write};

    fn projections() -> Vec<Projection> {
        let one = |name| {
            format!(
                "[[projection]]\nname = \"{name}\"\nkind = \"latest\"\nkey = \"{{data.user}}\"\nitem = {{ id = \"{{id}}\" }}\n\
                 [[projection.output]]\npath = \"/{name}/{{key}}\"\nformat = \"json\"\n"
            )
        };
        // One name begins with the other.
        declared(&format!("{}{}", one("p"), one("p0")))
    }

    fn open(disk: &Forgetful, databases: &[(u16, &str)]) -> ShardFile {
        let identity = Identity { shard: 0, map_version: 1 };
        let (mut file, _) =
            ShardFile::open(Place::Backend(Box::new(disk.clone())), 1 << 20, identity, &projections()).unwrap();
        let databases = databases.iter().map(|(projection, name)| (*projection, (*name).to_owned()));
        file.attach(&databases.collect()).unwrap();
        file
    }

    fn row(projection: u16, key: &str, position: Position) -> Row {
        let mut document = Arc::new(Document::empty(&Kind::Latest));
        let item = Item::new(-1, "x", "{}");
        let arrival = Arrival { version: Version::new(1, position), place: (0, position), received: 1 };
        Document::apply(&mut document, &Kind::Latest, Effect::Item(item), arrival);
        (projection, key.into(), document)
    }

    fn commit(file: &ShardFile, committed: Position, documents: &[Row]) {
        file.commit(Write { committed, documents: documents.to_vec(), ..Write::default() }).unwrap();
    }

    /// Keys that wait, by projection.
    fn waiting(file: &ShardFile) -> Vec<(u16, String)> {
        let rows = file.outbox(&[0, 1], |_, _| false, 99, usize::MAX).unwrap();
        rows.into_iter().map(|(projection, key, _)| (projection, key.to_string())).collect()
    }

    fn places(of: &[(u16, &str)]) -> Vec<(u16, String)> {
        of.iter().map(|(projection, key)| (*projection, (*key).to_owned())).collect()
    }

    #[test]
    fn what_is_committed_waits_until_that_version_was_sent() {
        let disk = Forgetful::new();
        let file = open(&disk, &[(0, "reports")]);
        commit(&file, 2, &[row(0, "a", 1), row(0, "b", 2), row(1, "c", 2)]);
        assert_eq!(waiting(&file), places(&[(0, "a"), (0, "b")]), "the other projection is not sent");
        let count = |max, max_bytes| file.outbox(&[0], |_, _| false, max, max_bytes).unwrap().len();
        assert_eq!((count(9, usize::MAX), count(1, usize::MAX), count(9, 1)), (2, 1, 1), "one at least");
        let others = file.outbox(&[0], |_, key| key == "a", 1, usize::MAX).unwrap();
        assert_eq!(&*others[0].1, "b", "who has to wait is in nobody's way");
        // While `a` was on its way, it changed again.
        commit(&file, 3, &[row(0, "a", 3)]);
        file.sent(&[(0, "a".into(), 1), (0, "b".into(), 2)]).unwrap();
        assert_eq!((waiting(&file), file.outbox_len().unwrap()), (places(&[(0, "a")]), 1));
        commit(&file, 4, &[]);
        drop(file);
        let file = open(&disk.crash(), &[(0, "reports")]);
        assert_eq!(waiting(&file), places(&[(0, "a")]));
        file.sent(&[(0, "a".into(), 3)]).unwrap();
        assert_eq!(waiting(&file), []);
        drop(file);
        let file = open(&disk.crash(), &[(0, "reports")]);
        assert_eq!(waiting(&file), places(&[(0, "a")]), "what no commit followed is repeated after a crash");
    }

    #[test]
    fn another_database_gets_everything_and_none_gets_nothing() {
        let disk = Forgetful::new();
        let file = open(&disk, &[]);
        commit(&file, 2, &[row(0, "a", 1), row(1, "a", 1), row(1, "b", 2)]);
        drop(file);
        let file = open(&disk, &[(0, "reports")]);
        assert_eq!(waiting(&file), places(&[(0, "a")]));
        drop(file);
        let file = open(&disk, &[(0, "reports"), (1, "reports")]);
        assert_eq!(waiting(&file), places(&[(0, "a"), (1, "a"), (1, "b")]));
        file.sent(&[(0, "a".into(), 1), (1, "a".into(), 1), (1, "b".into(), 2)]).unwrap();
        commit(&file, 3, &[]);
        drop(file);
        let file = open(&disk, &[(0, "reports"), (1, "billing")]);
        assert_eq!(waiting(&file), places(&[(1, "a"), (1, "b")]));
        drop(file);
        let file = open(&disk, &[(1, "billing")]);
        assert_eq!(waiting(&file), places(&[(1, "a"), (1, "b")]));
        drop(file);
        assert_eq!(waiting(&open(&disk, &[(0, "reports")])), places(&[(0, "a")]));
    }
}
