//! The file of one shard: documents, and the position and marks that they reflect, always written together.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `shard`, `map_version`, `committed` | the number, in decimal; of the map as it began |
//! | `meta` | `taking`, `map` | [`Taking`] as of `committed`; the shard map as it was last heard of; as JSON |
//! | `marks` | event queue | highest source offset applied |
//! | `projections` | name | fingerprint of its declaration, in hexadecimal |
//! | `documents` | (projection, key) | the document, see [`Document::encode`] |

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_shared::projection::{Kind, Projection};
use millpond_shared::shard_map::MapState;
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::outbox::OUTBOX;
pub use super::shard_opening::Opened;
use super::{Place, StoreError, open};
use crate::projection::{Document, Packer, is_part};

pub(super) const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
pub(super) const MARKS: TableDefinition<u16, u64> = TableDefinition::new("marks");
pub(super) const PROJECTIONS: TableDefinition<&str, &str> = TableDefinition::new("projections");
pub(super) const DOCUMENTS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("documents");

/// Which part of the keys a file holds. A file is never used for another part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub shard: ShardId,
    /// With which the shard map began.
    pub map_version: u32,
}

/// How far a shard is with taking slots of others in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taking {
    /// Of the last attempt that something was handed over in; at first the version with which the map began. The epoch of
    /// all versions from there on.
    pub epoch: u32,
    /// Nothing more of that attempt counts.
    pub closed: bool,
}

impl Taking {
    /// Of a shard that has taken nothing in yet.
    pub fn nothing(map_version: u32) -> Taking {
        Taking { epoch: map_version, closed: true }
    }

    /// Whether what is handed over in an attempt counts.
    pub fn takes(&self, epoch: u32) -> bool {
        epoch > self.epoch || (epoch == self.epoch && !self.closed)
    }
}

/// Why a shard's file was not opened, or not written.
#[derive(Debug, thiserror::Error)]
pub enum ShardFileError {
    #[error(
        "{file}: belongs to shard {} (of a shard map that began with version {}), not to shard {} (version {}): \
         give the shard its own file, or take back the change of [shard_map]",
        found.shard, found.map_version, expected.shard, expected.map_version
    )]
    Identity { file: String, found: Identity, expected: Identity },
    #[error(
        "{file}: holds documents of projection `{projection}` as it was declared before: its kind, where, key, order, \
         keep or item changed; give the changed projection a new name, or delete the files of all shards and queues \
         and send the events again"
    )]
    Declaration { file: String, projection: String },
    #[error("{file}: is damaged: {problem}; restore a copy that is not older than what the shard queue still holds")]
    Damaged { file: String, problem: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<E: Into<redb::Error>> From<E> for ShardFileError {
    fn from(error: E) -> ShardFileError {
        ShardFileError::Store(StoreError::Failed(error.into()))
    }
}

/// An open shard file.
pub struct ShardFile {
    pub(super) database: Database,
    pub(super) name: String,
    /// Names and kinds of the declared projections, in their order.
    pub(super) projections: Vec<(String, Kind)>,
    /// For each of them: whether its documents are sent to another database.
    pub(super) attached: Vec<bool>,
}

/// A document with its place: index into the declared projections, and key.
pub type Row = (u16, Arc<str>, Arc<Document>);

/// What one commit writes.
#[derive(Debug, Default)]
pub struct Write {
    /// Everything up to this position is in the file once the commit is.
    pub committed: Position,
    pub marks: BTreeMap<QueueId, Offset>,
    /// `None`: as it was.
    pub taking: Option<Taking>,
    /// Documents that changed since the last commit.
    pub documents: Vec<Row>,
}

impl ShardFile {
    /// Opens the file, with so many bytes for redb's page cache; no document is read. Blocks.
    pub fn open(
        place: Place,
        cache_bytes: usize,
        identity: Identity,
        projections: &[Projection],
    ) -> Result<(ShardFile, Opened), ShardFileError> {
        let name = match &place {
            Place::File(path) => path.display().to_string(),
            Place::Backend(_) => format!("shard {} in memory", identity.shard),
        };
        let database = open(place, "shard", cache_bytes)?;
        let projection_names =
            projections.iter().map(|projection| (projection.name.clone(), projection.kind.clone())).collect();
        let attached = vec![false; projections.len()];
        let file = ShardFile { database, name, projections: projection_names, attached };
        file.prepare(identity, projections)?;
        let opened = file.look()?;
        Ok((file, opened))
    }

    /// Reads documents, each by the index of its projection and its key; those that the file does not hold are left
    /// out. Blocks.
    pub fn read(&self, wanted: &[(u16, Arc<str>)]) -> Result<Vec<Row>, ShardFileError> {
        let documents = self.database.begin_read()?.open_table(DOCUMENTS)?;
        let mut rows = Vec::with_capacity(wanted.len());
        for (projection, key) in wanted {
            let Some((name, kind)) = self.projections.get(usize::from(*projection)) else { continue };
            let Some(blob) = documents.get((name.as_str(), key.as_ref()))? else { continue };
            let document = Document::decode(kind, blob.value())
                .map_err(|problem| self.damaged(format!("the document `{name}/{key}`: {problem}")))?;
            rows.push((*projection, key.clone(), Arc::new(document)));
        }
        Ok(rows)
    }

    /// Writes documents, position and marks in one transaction. Blocks until they are on disk.
    ///
    /// After an error the outcome is unknown: stop, reopen, and trust the position found.
    pub fn commit(&self, mut write: Write) -> Result<(), ShardFileError> {
        // In the order of the tree, so that each of its pages is visited once.
        write.documents.sort_unstable_by(|(a, a_key, _), (b, b_key, _)| {
            (self.projection(*a), a_key).cmp(&(self.projection(*b), b_key))
        });
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        {
            let mut documents = transaction.open_table(DOCUMENTS)?;
            let (mut blob, mut packer) = (Vec::new(), Packer::default());
            for (projection, key, document) in &write.documents {
                document.encode_into(&mut blob, &mut packer);
                documents.insert((self.projection(*projection), key.as_ref()), blob.as_slice())?;
            }
            if self.attached.contains(&true) {
                let mut outbox = transaction.open_table(OUTBOX)?;
                for (projection, key, document) in &write.documents {
                    if self.attached.get(usize::from(*projection)) == Some(&true) && !is_part(key) {
                        outbox.insert((self.projection(*projection), key.as_ref()), document.version.position)?;
                    }
                }
            }
            let mut marks = transaction.open_table(MARKS)?;
            for (queue, offset) in &write.marks {
                marks.insert(queue, offset)?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert("committed", write.committed.to_string().as_str())?;
            if let Some(taking) = &write.taking {
                meta.insert("taking", json(taking).as_str())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Remembers the shard map, for a start while the queues can't be reached. Blocks until it is on disk.
    pub fn keep_map(&self, state: &MapState) -> Result<(), ShardFileError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        transaction.open_table(META)?.insert("map", json(state).as_str())?;
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn projection(&self, index: u16) -> &str {
        self.projections.get(usize::from(index)).map_or("", |(name, _)| name.as_str())
    }

    pub(super) fn number<T: std::str::FromStr>(
        &self,
        meta: &impl ReadableTable<&'static str, &'static str>,
        name: &str,
    ) -> Result<T, ShardFileError> {
        let text = meta.get(name)?.map(|text| text.value().to_owned()).unwrap_or_default();
        text.parse().map_err(|_| self.damaged(format!("`{name}` is `{text}`, not a number")))
    }

    /// As of the committed position.
    pub(super) fn taking(
        &self,
        meta: &impl ReadableTable<&'static str, &'static str>,
    ) -> Result<Taking, ShardFileError> {
        match self.json(meta, "taking")? {
            Some(taking) => Ok(taking),
            None => Ok(Taking::nothing(self.number(meta, "map_version")?)),
        }
    }

    pub(super) fn json<T: DeserializeOwned>(
        &self,
        meta: &impl ReadableTable<&'static str, &'static str>,
        name: &str,
    ) -> Result<Option<T>, ShardFileError> {
        let Some(text) = meta.get(name)? else { return Ok(None) };
        serde_json::from_str(text.value()).map(Some).map_err(|error| self.damaged(format!("`{name}`: {error}")))
    }

    pub(super) fn damaged(&self, problem: impl Into<String>) -> ShardFileError {
        ShardFileError::Damaged { file: self.name.clone(), problem: problem.into() }
    }
}

/// Numbers, flags and strings: this can't fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use millpond_shared::shard_map::FirstMap;
    use millpond_shared::version::Version;

    use super::*;
    use crate::projection::testing::declared;
    use crate::projection::{Arrival, Effect, Item};
    use crate::store::forgetful::Forgetful;

    const CACHE_BYTES: usize = 1 << 20;
    const IDENTITY: Identity = Identity { shard: 1, map_version: 1 };
    const TAKING: Taking = Taking { epoch: 1, closed: true };

    fn projections(keep: usize, names: &[&str]) -> Vec<Projection> {
        let one = |name: &&str| {
            format!(
                "[[projection]]\nname = \"{name}\"\nkind = \"feed\"\nkeep = {keep}\nkey = \"{{data.user}}\"\n\
                 item = {{ id = \"{{id}}\" }}\n[[projection.output]]\npath = \"/{name}/{{key}}\"\nformat = \"json\"\n"
            )
        };
        declared(&names.iter().map(one).collect::<String>())
    }

    fn document(position: Position, ids: &[&str]) -> Arc<Document> {
        let kind = Kind::Feed { keep: 10, removal: None };
        let mut document = Arc::new(Document::empty(&kind));
        for (order, id) in (1..).zip(ids) {
            let item = Item::new(-order, id, &format!("{{\"id\":\"{id}\"}}"));
            let arrival = Arrival {
                version: Version::new(1, position),
                place: (3, position * 10 + order.unsigned_abs()),
                received: 99,
            };
            Document::apply(&mut document, &kind, Effect::Item(item), arrival);
        }
        document
    }

    fn reopen(disk: &Forgetful, projections: &[Projection]) -> Result<(ShardFile, Opened), ShardFileError> {
        ShardFile::open(Place::Backend(Box::new(disk.crash())), CACHE_BYTES, IDENTITY, projections)
    }

    /// A disk on which a shard of projections `p` and `q` has committed.
    fn written() -> (Forgetful, Write) {
        let disk = Forgetful::new();
        let place = Place::Backend(Box::new(disk.clone()));
        let (file, opened) = ShardFile::open(place, CACHE_BYTES, IDENTITY, &projections(5, &["p", "q"])).unwrap();
        assert_eq!(opened, Opened { is_empty: true, taking: TAKING, ..Opened::default() });
        let write = || Write {
            committed: 7,
            marks: BTreeMap::from([(0, 70), (3, 9)]),
            taking: Some(Taking { epoch: 4, closed: false }),
            documents: vec![(1, "b".into(), document(7, &["x"])), (0, "a".into(), document(6, &["y", "z"]))],
        };
        file.commit(Write { committed: 5, documents: vec![(1, "b".into(), document(5, &["w"]))], ..write() }).unwrap();
        file.commit(write()).unwrap();
        (disk, write())
    }

    #[test]
    fn what_was_committed_is_found_again_after_a_power_cut() {
        let (disk, write) = written();
        let (file, opened) = reopen(&disk, &projections(5, &["p", "q"])).unwrap();
        let taking = Taking { epoch: 4, closed: false };
        let expected =
            Opened { committed: 7, marks: write.marks, taking, map: None, is_empty: false, undeclared: Vec::new() };
        assert_eq!(opened, expected);
        let state = MapState::first(FirstMap { version: 1, shards: 4 });
        file.keep_map(&state).unwrap();
        file.commit(Write { committed: 8, ..Write::default() }).unwrap();
        let looked = file.look().unwrap();
        assert_eq!((looked.map, looked.taking), (Some(state), taking));
        let wanted: [(u16, Arc<str>); 4] = [(1, "b".into()), (1, "a".into()), (0, "a".into()), (9, "a".into())];
        assert_eq!(file.read(&wanted).unwrap(), write.documents);
    }

    #[test]
    fn a_changed_declaration_is_refused_by_name() {
        let (disk, _) = written();
        let error = reopen(&disk, &projections(6, &["q"])).map(|_| ()).unwrap_err();
        assert!(matches!(&error, ShardFileError::Declaration { projection, .. } if projection == "q"), "{error}");
        assert!(error.to_string().contains("new name"), "{error}");
    }

    #[test]
    fn what_is_no_longer_declared_stays_in_the_file() {
        let (disk, _) = written();
        let (file, opened) = reopen(&disk, &projections(5, &["r", "q"])).unwrap();
        assert_eq!(opened.undeclared, ["p"]);
        file.commit(Write { committed: 8, ..Write::default() }).unwrap();
        drop(file);
        let (file, opened) = reopen(&disk, &projections(5, &["p", "q", "r"])).unwrap();
        assert!(opened.undeclared.is_empty());
        assert_eq!(file.read(&[(0, "a".into())]).unwrap().len(), 1);
        drop(file);
        let (_, opened) = reopen(&disk, &projections(5, &["p", "q"])).unwrap();
        assert!(opened.undeclared.is_empty(), "nothing was ever filed for r");
    }

    #[test]
    fn another_shards_file_is_refused() {
        let (disk, _) = written();
        for other in [Identity { shard: 2, ..IDENTITY }, Identity { map_version: 2, ..IDENTITY }] {
            let error = ShardFile::open(Place::Backend(Box::new(disk.crash())), CACHE_BYTES, other, &[])
                .map(|_| ())
                .unwrap_err();
            assert!(error.to_string().contains("shard 1 (of a shard map that began with version 1)"), "{error}");
        }
    }

    #[test]
    fn a_damaged_document_is_named() {
        let blob = document(1, &["x"]).encode();
        for damaged in [&blob[..blob.len() - 1], &[&blob[..], b"x"].concat()] {
            let disk = written().0.crash();
            let database = open(Place::Backend(Box::new(disk.clone())), "shard", 1 << 20).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(DOCUMENTS).unwrap().insert(("p", "a"), damaged).unwrap();
            transaction.commit().unwrap();
            drop(database);
            let (file, _) = reopen(&disk, &projections(5, &["p"])).unwrap();
            let error = file.read(&[(0, "a".into())]).unwrap_err();
            assert!(error.to_string().contains("`p/a`"), "{error}");
        }
    }
}
