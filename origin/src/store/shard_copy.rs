//! Copying a shard's file to another process, a page at a time, while it is written.
//!
//! Each page is read in a transaction of its own, as a long one would keep the file from reusing its space. The pages
//! need not be of one moment: a document tells by its version what it has. Whatever the pages hold, replaying the queue
//! from the position of the *first* one gives the state of the shard, as after a crash between two slices.

use std::collections::BTreeMap;
use std::ops::Bound;

use millpond_shared::stored;
use millpond_shared::version::{Offset, Position, QueueId};
use redb::{ReadableDatabase, ReadableTable};
use serde::{Deserialize, Serialize};

use super::shard_file::{DOCUMENTS, MARKS, META, PROJECTIONS, ShardFile, ShardFileError, Taking};
use crate::projection::Document;

/// A run of a file's documents, in the order of projection and key.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Of the file when the page was read.
    pub committed: Position,
    pub marks: BTreeMap<QueueId, Offset>,
    pub taking: Taking,
    /// Name → fingerprint of its declaration.
    pub projections: BTreeMap<String, String>,
    pub rows: Vec<PageRow>,
    /// Whether there is more behind the last row.
    pub more: bool,
}

/// A document as it stands in a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRow {
    pub projection: String,
    pub key: String,
    pub blob: Vec<u8>,
}

/// Format number of pages.
const PAGE_FORMAT: u8 = 2;

impl Page {
    /// One byte, the format number, then `postcard`.
    pub fn encode(&self) -> Vec<u8> {
        stored::with_format(PAGE_FORMAT, self)
    }

    /// The page that `bytes` are; why they are none otherwise, in words.
    pub fn decode(bytes: &[u8]) -> Result<Page, String> {
        match bytes.split_first() {
            Some((&PAGE_FORMAT, rest)) => match postcard::take_from_bytes(rest) {
                Ok((page, [])) => Ok(page),
                Ok(_) => Err("bytes are left over".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Some((other, _)) => Err(format!("its format is {other}, this program knows {PAGE_FORMAT}")),
            None => Err("it is empty".to_owned()),
        }
    }
}

impl ShardFile {
    /// The documents behind `after` (projection and key), until they take more than `bytes_max`; one at least. Blocks.
    pub fn page(&self, after: Option<(&str, &str)>, bytes_max: usize) -> Result<Page, ShardFileError> {
        let read = self.database.begin_read()?;
        let meta = read.open_table(META)?;
        let (committed, taking) = (self.number(&meta, "committed")?, self.taking(&meta)?);
        let mut page = Page { committed, taking, ..Page::default() };
        for row in read.open_table(MARKS)?.iter()? {
            let (queue, offset) = row?;
            page.marks.insert(queue.value(), offset.value());
        }
        for row in read.open_table(PROJECTIONS)?.iter()? {
            let (name, fingerprint) = row?;
            page.projections.insert(name.value().to_owned(), fingerprint.value().to_owned());
        }
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        for row in read.open_table(DOCUMENTS)?.range::<(&str, &str)>((first, Bound::Unbounded))? {
            if bytes > bytes_max {
                page.more = true;
                break;
            }
            let (place, blob) = row?;
            let ((projection, key), blob) = (place.value(), blob.value());
            bytes += projection.len() + key.len() + blob.len();
            page.rows.push(PageRow { projection: projection.to_owned(), key: key.to_owned(), blob: blob.to_vec() });
        }
        Ok(page)
    }

    /// Writes the documents of a page, those of declared projections; the file's position stays. Blocks until they are on
    /// disk. Refused where a projection is declared here in another way than it was there.
    pub fn adopt(&self, page: &Page) -> Result<(), ShardFileError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        {
            let recorded = transaction.open_table(PROJECTIONS)?;
            for (name, _) in &self.projections {
                let ours = recorded.get(name.as_str())?.map(|fingerprint| fingerprint.value().to_owned());
                let theirs = page.projections.get(name);
                if theirs.is_some() && theirs != ours.as_ref() {
                    return Err(ShardFileError::Declaration { file: self.name.clone(), projection: name.clone() });
                }
            }
            let mut documents = transaction.open_table(DOCUMENTS)?;
            for PageRow { projection, key, blob } in &page.rows {
                let Some((_, kind)) = self.projections.iter().find(|(name, _)| name == projection) else { continue };
                Document::decode(kind, blob)
                    .map_err(|problem| self.damaged(format!("the document `{projection}/{key}`: {problem}")))?;
                documents.insert((projection.as_str(), key.as_str()), blob.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_back() {
        let page = Page {
            committed: 7,
            marks: BTreeMap::from([(1, 2)]),
            taking: Taking { epoch: 3, closed: true },
            projections: BTreeMap::from([("p".to_owned(), "f".to_owned())]),
            rows: vec![PageRow { projection: "p".to_owned(), key: "k".to_owned(), blob: vec![1, 2, 3] }],
            more: true,
        };
        let bytes = page.encode();
        assert_eq!(Page::decode(&bytes).as_ref(), Ok(&page));
        for cut in 0..bytes.len() {
            assert!(Page::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Page::decode(&[&bytes[..], b"x"].concat()).is_err());
        assert!(Page::decode(&[&[9], &bytes[1..]].concat()).expect_err("refused").contains("format is 9"));
    }
}
