//! A shard that has no state starts from a copy of a replica's: its documents over HTTP, then the queue from there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode};
use millpond_shared::projection::Projection;
use millpond_shared::version::{Position, ShardId};
use tokio::task::JoinError;

use super::{Shard, file_path};
use crate::blocking::apart;
use crate::http::{Client, ClientError};
use crate::queue::{QueueError, ShardQueues};
use crate::store::shard_copy::Page;
use crate::store::shard_file::{Identity, ShardFile, ShardFileError, Write};
use crate::store::{Place, StoreError, rename_synced};
use crate::timing::{self, sleep};

/// Documents of one page, in bytes; the last of them may exceed it.
const PAGE_BYTES: usize = 4 << 20;
/// Page cache of the file that is written, in bytes: a commit writes one page of documents.
const CACHE_BYTES: usize = 4 * PAGE_BYTES;
/// How long one page may take.
const PAGE_TIME: Duration = Duration::from_secs(60);
/// How long the queue is tried to be told of a consumer that is about to copy, and the pause between two tries.
const QUEUE_TIME: Duration = Duration::from_secs(10);
const QUEUE_PAUSE: Duration = Duration::from_millis(100);

/// What a shard is copied with.
pub struct Copying {
    pub shard: ShardId,
    /// With which the shard map began.
    pub map_version: u32,
    pub projections: Arc<Vec<Projection>>,
    /// Where the shard's file is, or will be.
    pub dir: PathBuf,
    /// `host:port` of a process that runs the same shard.
    pub from: String,
    pub queues: Arc<dyn ShardQueues>,
    /// Name of the consumer that will pull from the copy's position.
    pub consumer: String,
}

/// Why no copy was made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("shard {shard} was not copied from {from}: the queue does not know of its consumer yet: {problem}")]
    Queue { shard: ShardId, from: String, problem: QueueError },
    #[error("shard {shard} was not copied: {problem}")]
    Unreachable { shard: ShardId, problem: ClientError },
    #[error("shard {shard} was not copied from {from}, which answered {status}: {words}")]
    Refused { shard: ShardId, from: String, status: StatusCode, words: String },
    #[error(
        "shard {shard} was not copied from {from}, which sent no page: {problem}; run the same version on both sides"
    )]
    NoPage { shard: ShardId, from: String, problem: String },
    #[error(transparent)]
    File(#[from] ShardFileError),
    #[error("the thread that writes the copy ended: {0}")]
    Thread(#[from] JoinError),
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> CopyError {
        CopyError::File(error.into())
    }
}

/// Path and query of a page.
pub fn page_path(shard: ShardId, after: Option<(&str, &str)>) -> String {
    match after {
        // Names and keys hold nothing that a query can't.
        Some((projection, key)) => format!("/_millpond/shards/{shard}/copy?after={projection}/{key}"),
        None => format!("/_millpond/shards/{shard}/copy"),
    }
}

/// Copies a shard whose file is not there, or holds nothing; the position that the copy reflects. `None`: there is a
/// file that holds something, or nobody answers at `from`, so that the shard has to start from what it has.
pub async fn copy(copying: Copying) -> Result<Option<Position>, CopyError> {
    let path = file_path(&copying.dir, copying.shard);
    let copying = Arc::new(copying);
    let unfinished = path.with_extension("redb.copy");
    if holds_something(&copying, &path).await? {
        return Ok(None);
    }
    // Before anything is copied: what follows the copy's position must still be in the queue when it is pulled.
    copying.register().await?;
    let replica = Replica { copying: &copying, client: Client::new(copying.from.clone()) };
    let first = match replica.page(None).await {
        Ok(page) => page,
        Err(CopyError::Unreachable { shard, problem }) => {
            tracing::warn!(shard, %problem, "no replica to copy from: the shard starts from what its queue holds");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let committed = first.committed;
    let documents = adopt(copying.create(&unfinished).await?, first, &replica).await?;
    apart(move || rename_synced(&unfinished, &path)).await??;
    tracing::info!(shard = copying.shard, from = copying.from, documents, position = committed, "copied");
    Ok(Some(committed))
}

/// Where the pages of a copy come from.
#[async_trait]
pub(crate) trait Pages: Send + Sync {
    /// The documents behind `after` (projection and key).
    async fn page(&self, after: Option<(&str, &str)>) -> Result<Page, CopyError>;
}

/// Takes the `first` page and those behind it into a file, and then gives it the position of the first; how many documents
/// that were.
pub(crate) async fn adopt(file: ShardFile, first: Page, replica: &dyn Pages) -> Result<usize, CopyError> {
    let (committed, marks, taking) = (first.committed, first.marks.clone(), Some(first.taking));
    let write = Write { committed, marks, taking, ..Write::default() };
    let file = Arc::new(file);
    let (mut page, mut documents) = (first, 0);
    loop {
        documents += page.rows.len();
        let more = page.more;
        let last = page.rows.last().map(|row| (row.projection.clone(), row.key.clone()));
        let adopting = file.clone();
        apart(move || adopting.adopt(&page)).await??;
        let Some((projection, key)) = last.filter(|_| more) else { break };
        page = replica.page(Some((&projection, &key))).await?;
    }
    apart(move || file.commit(write)).await??;
    Ok(documents)
}

/// A process that runs the same shard, over HTTP.
struct Replica<'a> {
    copying: &'a Copying,
    client: Client,
}

async fn holds_something(copying: &Arc<Copying>, path: &Path) -> Result<bool, CopyError> {
    if !path.exists() {
        return Ok(false);
    }
    let (copying, path) = (copying.clone(), path.to_owned());
    let opened = apart(move || copying.open(path).map(|(_, opened)| opened)).await??;
    Ok(!opened.is_empty || opened.committed > 0)
}

impl Copying {
    async fn register(&self) -> Result<(), CopyError> {
        let began = timing::now();
        loop {
            match self.queues.committed(self.shard, &self.consumer, 0).await {
                Ok(()) => return Ok(()),
                Err(problem) if timing::now().duration_since(began) > QUEUE_TIME => {
                    return Err(CopyError::Queue { shard: self.shard, from: self.from.clone(), problem });
                }
                Err(_) => sleep(QUEUE_PAUSE).await,
            }
        }
    }

    /// The file of a copy that is not finished; one that an earlier try has left goes.
    async fn create(self: &Arc<Self>, path: &Path) -> Result<ShardFile, CopyError> {
        let (copying, path) = (self.clone(), path.to_owned());
        let created = apart(move || {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ShardFileError::Store(StoreError::Failed(redb::Error::Io(error))));
                }
                _ => {}
            }
            copying.open(path)
        });
        Ok(created.await??.0)
    }

    fn open(&self, path: PathBuf) -> Result<(ShardFile, crate::store::shard_file::Opened), ShardFileError> {
        let identity = Identity { shard: self.shard, map_version: self.map_version };
        ShardFile::open(Place::File(path), CACHE_BYTES, identity, &self.projections)
    }
}

#[async_trait]
impl Pages for Replica<'_> {
    async fn page(&self, after: Option<(&str, &str)>) -> Result<Page, CopyError> {
        let (shard, from) = (self.copying.shard, || self.copying.from.clone());
        let no_page = |problem: String| CopyError::NoPage { shard, from: from(), problem };
        let request = Request::get(page_path(shard, after)).body(Bytes::new());
        let request = request.map_err(|error| no_page(error.to_string()))?;
        let answer = self.client.call(request, PAGE_TIME).await;
        let answer = answer.map_err(|problem| CopyError::Unreachable { shard, problem })?;
        if answer.status() != StatusCode::OK {
            let words = String::from_utf8_lossy(answer.body()).into_owned();
            return Err(CopyError::Refused { shard, from: from(), status: answer.status(), words });
        }
        Page::decode(answer.body()).map_err(no_page)
    }
}

impl Shard {
    /// The documents in the shard's file behind `after`, for a replica that copies it.
    pub async fn page(self: &Arc<Self>, after: Option<(String, String)>) -> Result<Page, CopyError> {
        self.page_of(after, PAGE_BYTES).await
    }

    /// The same, of so many bytes.
    pub(crate) async fn page_of(
        self: &Arc<Self>,
        after: Option<(String, String)>,
        bytes_max: usize,
    ) -> Result<Page, CopyError> {
        let shard = self.clone();
        let reading = apart(move || {
            let after = after.as_ref().map(|(projection, key)| (projection.as_str(), key.as_str()));
            shard.file.page(after, bytes_max)
        });
        Ok(reading.await??)
    }
}
