//! Opens a redb file: creates it, or checks that it is of the format and kind that is expected.

use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadableDatabase, StorageBackend, TableDefinition, WriteTransaction};

use super::StoreError;

/// Format number of every redb file of this crate; rises when any table changes its meaning.
pub const STORE_FORMAT: u64 = 3;

/// Bytes that a queue's file may hold and still be read as a whole when it is opened after a crash: about a quarter of a
/// second. In return its commits sync once instead of twice, and don't write down which pages are free. A shard's file,
/// which is always large, does not make that bargain.
pub const REREAD_MAX_BYTES: u64 = 192 << 20;

const META: TableDefinition<&str, &str> = TableDefinition::new("meta");

/// Begins a transaction of a queue whose file holds about `bytes_held`; its commit is on disk when it returns.
pub fn begin(database: &Database, bytes_held: u64) -> Result<WriteTransaction, StoreError> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    write.set_quick_repair(bytes_held > REREAD_MAX_BYTES);
    Ok(write)
}

/// Where a store's bytes are.
#[derive(Debug)]
pub enum Place {
    File(PathBuf),
    Backend(Box<dyn StorageBackend>),
}

/// Opens the store at `place`, creating it where there is none.
///
/// `kind` says what the file is for, as in `event-queue`; a file of another kind or of an unknown format is refused.
/// `cache_bytes` bounds redb's page cache, which would take 1 GiB by itself.
pub fn open(place: Place, kind: &str, cache_bytes: usize) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    let (name, opened) = match place {
        Place::File(path) => {
            create_whole(&builder, &path, kind)?;
            (path.display().to_string(), builder.create(&path))
        }
        Place::Backend(backend) => (format!("{kind} in memory"), builder.create_with_backend(Backend(backend))),
    };
    let database = opened.map_err(|error| in_words(&name, error))?;
    match recorded(&database)? {
        None if is_empty(&database)? => record(&database, kind)?,
        None => check(&name, "none", "", kind)?,
        Some((format, found)) => check(&name, &format, &found, kind)?,
    }
    Ok(database)
}

/// A file that is not there yet is made under another name, and gets its own once it is whole: redb can't open a file
/// whose making was cut off.
fn create_whole(builder: &redb::Builder, path: &Path, kind: &str) -> Result<(), StoreError> {
    if path.exists() {
        return Ok(());
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let name = unfinished.display().to_string();
    let failed = |error: std::io::Error| in_words(&name, redb::DatabaseError::Storage(error.into()));
    let created = match builder.create(&unfinished) {
        // What a crash has left of an earlier try.
        Err(error) if unfinished.exists() && !matches!(error, redb::DatabaseError::DatabaseAlreadyOpen) => {
            std::fs::remove_file(&unfinished).map_err(failed)?;
            builder.create(&unfinished)
        }
        created => created,
    };
    let database = created.map_err(|error| in_words(&name, error))?;
    if recorded(&database)?.is_none() {
        record(&database, kind)?;
    }
    drop(database);
    rename_synced(&unfinished, path)
}

/// Gives a whole file its name, and returns once that is on disk: before anything in the file is relied on.
pub fn rename_synced(from: &Path, to: &Path) -> Result<(), StoreError> {
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = std::fs::rename(from, to)
        .and_then(|()| std::fs::File::open(directory))
        .and_then(|directory| directory.sync_all());
    synced.map_err(|error| in_words(&to.display().to_string(), redb::DatabaseError::Storage(error.into())))
}

fn in_words(name: &str, error: redb::DatabaseError) -> StoreError {
    let fix = match &error {
        redb::DatabaseError::DatabaseAlreadyOpen => "another process has it open: stop that one, or use another `dir`",
        redb::DatabaseError::UpgradeRequired(_) => "run the version that wrote it, let it drain, then start afresh",
        redb::DatabaseError::Storage(redb::StorageError::Io(_)) => "make its directory, or allow writing there",
        _ => "if the file is damaged, move it away: what it held and was not delivered yet is lost",
    };
    StoreError::Open { file: name.to_owned(), problem: error.to_string(), fix }
}

fn recorded(database: &Database) -> Result<Option<(String, String)>, StoreError> {
    let read = database.begin_read()?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = |name: &str| -> Result<String, StoreError> {
        Ok(meta.get(name)?.map(|value| value.value().to_owned()).unwrap_or_default())
    };
    Ok(Some((text("format")?, text("kind")?)))
}

/// Whether no table is in it: a file that was just created, or whose first commit a crash prevented.
fn is_empty(database: &Database) -> Result<bool, StoreError> {
    Ok(database.begin_read()?.list_tables()?.next().is_none())
}

fn record(database: &Database, kind: &str) -> Result<(), StoreError> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    {
        let mut meta = write.open_table(META)?;
        meta.insert("format", STORE_FORMAT.to_string().as_str())?;
        meta.insert("kind", kind)?;
    }
    write.commit()?;
    Ok(())
}

fn check(name: &str, format: &str, found: &str, kind: &str) -> Result<(), StoreError> {
    if format != STORE_FORMAT.to_string() {
        return Err(StoreError::Format { file: name.to_owned(), found: format.to_owned() });
    }
    if found != kind {
        return Err(StoreError::Kind { file: name.to_owned(), found: found.to_owned(), kind: kind.to_owned() });
    }
    Ok(())
}

/// redb takes a backend by type, [`Place`] holds one by trait.
#[derive(Debug)]
struct Backend(Box<dyn StorageBackend>);

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.write(offset, data)
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a crash leaves while a file is made: a length, and no magic number yet.
    #[test]
    fn a_file_whose_making_was_cut_off_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.redb");
        std::fs::write(dir.path().join("q.redb.new"), vec![0u8; 8192]).unwrap();
        drop(open(Place::File(path.clone()), "event-queue", 1 << 20).unwrap());
        assert!(path.exists() && !dir.path().join("q.redb.new").exists());
        drop(open(Place::File(path), "event-queue", 1 << 20).unwrap());
    }

    #[test]
    fn a_file_is_created_once_and_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        drop(open(Place::File(path.clone()), "event-queue", 1 << 20).unwrap());
        drop(open(Place::File(path.clone()), "event-queue", 1 << 20).unwrap());
        let error = open(Place::File(path), "shard", 1 << 20).unwrap_err();
        let words = error.to_string();
        assert!(words.contains("a.redb") && words.contains("event-queue") && words.contains("shard"), "{words}");
    }

    #[test]
    fn an_unknown_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        let database = open(Place::File(path.clone()), "shard", 1 << 20).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(META).unwrap().insert("format", "99").unwrap();
        write.commit().unwrap();
        drop(database);
        let words = open(Place::File(path), "shard", 1 << 20).unwrap_err().to_string();
        assert!(words.contains("a.redb") && words.contains("99"), "{words}");
    }

    #[test]
    fn a_foreign_file_is_not_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(TableDefinition::<u64, u64>::new("rows")).unwrap();
        write.commit().unwrap();
        drop(database);
        assert!(matches!(open(Place::File(path), "shard", 1 << 20), Err(StoreError::Format { .. })));
    }

    #[test]
    fn a_missing_directory_is_told_with_its_fix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none").join("a.redb");
        let words = open(Place::File(path), "shard", 1 << 20).unwrap_err().to_string();
        assert!(words.contains("make its directory"), "{words}");
    }
}
