//! A shard: pulls its queue, keeps documents in memory as far as they fit, writes them behind, and answers readers and
//! followers.
//!
//! ```text
//! shard queue ─▶ pull ─▶ prepare (parse, render items) ─▶ state (merge, under the lock) ─▶ changes (announce)
//!                                                   slices │  ▲ what is not in memory         ▲ follow
//!                                        flusher ─▶ store::shard_file ─▶ read ◀─ render ◀─────┘
//! ```
//!
//! `maps` follows the shard map; `give` hands the documents of slots that move over to the queue of another shard, from
//! which they are taken in there like events.
//!
//! Nothing is lost when the process dies: the queue is replayed from the committed position, and the same frames give
//! the same documents, versions and bytes. So a second process that pulls the same queue is a spare, and `copy` gives it
//! what the queue does not hold any more.

mod ahead;
mod changes;
mod copy;
mod dead;
mod flusher;
mod give;
mod held;
mod keys;
mod maps;
mod memo;
mod merged;
mod metrics;
mod newest;
mod outbox;
mod prepare;
mod pull;
mod read;
mod state;
mod tellings;
mod unwritten;

#[cfg(test)]
mod fan_out;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod running;
#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod testing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::BoxStream;
use millpond_shared::projection::Projection;
use millpond_shared::shard_map::MapState;
use millpond_shared::version::{Position, ShardId};
use millpond_shared::wanted::Wanted;
use millpond_shared::wire::{ChangeMessage, Follow};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::JoinError;

use self::changes::ChangeLog;
use self::give::Touched;
use self::memo::Memo;
use self::metrics::OneShard;
use self::newest::Newest;
use self::state::State;
use self::tellings::Telling;
use crate::queue::{EventQueues, QueueError, ShardQueues};
use crate::render::Renderer;
use crate::store::Place;
use crate::store::shard_file::{Identity, ShardFile, ShardFileError};
use crate::timing;

pub use self::copy::{CopyError, Copying, copy};
#[cfg(test)]
pub(crate) use self::copy::{Pages, adopt};
pub use self::metrics::ShardMetrics;
pub use self::outbox::Attached;
pub use self::prepare::FrameError;
pub use self::read::{Behind, Found, NotRead, Read};

/// How a shard writes and remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardSettings {
    /// Longest time between a change and the commit that writes it, while commits keep up.
    pub flush_every: Duration,
    /// More bytes of changed documents than this are written before it is time.
    pub flush_bytes: u64,
    /// So many events that are not on disk are written before it is time.
    pub flush_events: u64,
    /// Bytes of documents that one commit writes, as they are counted in memory; the rest goes into the next.
    pub flush_slice: u64,
    /// What documents in memory may take of it, in bytes. What was not used of late and is on disk is dropped; while
    /// nothing can be dropped, pulling waits for a commit. The documents of one batch, which are changed together, may
    /// exceed it.
    pub memory: u64,
    /// With more events than this applied and not on disk, pulling waits for a commit: they are what a restart has to
    /// replay.
    pub uncommitted_events: u64,
    /// Bytes of rendered outputs that are kept.
    pub render_cache: u64,
    /// Name under which the queue keeps this consumer's committed position.
    pub consumer: String,
}

impl Default for ShardSettings {
    fn default() -> ShardSettings {
        ShardSettings {
            flush_every: Duration::from_secs(2),
            flush_bytes: 32 << 20,
            flush_events: 500_000,
            flush_slice: 8 << 20,
            memory: 128 << 20,
            uncommitted_events: 1_000_000,
            render_cache: 32 << 20,
            consumer: "primary".to_owned(),
        }
    }
}

/// Bounds of redb's page cache for the file of a shard, in bytes.
const PAGE_CACHE_MIN: usize = 16 << 20;
const PAGE_CACHE_MAX: usize = 256 << 20;

impl ShardSettings {
    /// redb's page cache for the file, in bytes: documents that are needed often are in the shard's own memory, so it is for
    /// the inner pages of the tree, and for what one commit writes. Half of it may be pages that are not in the file yet;
    /// any beyond are written early, and read and written once more at the commit. A document takes up to twice its size
    /// in pages.
    fn page_cache(&self) -> usize {
        let bytes = self.flush_slice.saturating_mul(4).max(self.memory / 16);
        usize::try_from(bytes).unwrap_or(usize::MAX).clamp(PAGE_CACHE_MIN, PAGE_CACHE_MAX)
    }
}

/// What a shard is opened with.
pub struct Opening {
    pub shard: ShardId,
    /// With which the shard map began.
    pub map_version: u32,
    pub projections: Arc<Vec<Projection>>,
    pub place: Place,
    pub queues: Arc<dyn ShardQueues>,
    /// Where documents tell others: needed where a `home` is declared.
    pub events: Option<Arc<dyn EventQueues>>,
    pub settings: ShardSettings,
    /// Databases that documents are sent to; a projection is in one of them at most.
    pub attached: Vec<Attached>,
}

/// Why a shard can't be opened, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    #[error(transparent)]
    File(#[from] ShardFileError),
    #[error("shard {shard} stops: a commit failed, so nobody knows what is on disk; start it again: {problem}")]
    Commit { shard: ShardId, problem: ShardFileError },
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a thread of the shard ended: {0}")]
    Thread(#[from] JoinError),
}

/// An open shard. Cheap to share; [`Shard::run`] moves it, everything else reads.
pub struct Shard {
    id: ShardId,
    projections: Arc<Vec<Projection>>,
    /// What the projections ask of payloads.
    wanted: Wanted,
    renderer: Renderer,
    settings: ShardSettings,
    file: ShardFile,
    queues: Arc<dyn ShardQueues>,
    events: Option<Arc<dyn EventQueues>>,
    metrics: OneShard,
    /// Locked for as long as it takes to merge one frame, or to list what changed; never while something is parsed,
    /// rendered, read or written.
    state: RwLock<State>,
    changes: ChangeLog,
    memo: Mutex<Memo>,
    applied: watch::Sender<Position>,
    committed: watch::Sender<Position>,
    /// What the queue held when it was first reached: before this much is applied, documents may be older than those
    /// that were served before a crash. `None` while it was not reached.
    held_at_start: watch::Sender<Option<Position>>,
    newest: Newest,
    opened_at: Instant,
    flush_wanted: Notify,
    /// What the current batch has to tell others. While there is something, or it could not be told, nothing is written.
    tellings: Mutex<Vec<Telling>>,
    untold: AtomicBool,
    /// Held from before a batch is applied until it is told; and to take a slice.
    telling: tokio::sync::Mutex<()>,
    /// What could not be applied and is not laid aside yet.
    dead: dead::Pending,
    /// The shard map that is in the file.
    kept_map: watch::Sender<Option<Arc<MapState>>>,
    /// What changed of slots that move, since it was handed over.
    touched: Touched,
    attached: Vec<Attached>,
}

impl Shard {
    /// Opens the shard's file. Documents are read when they are needed. Blocks.
    pub fn open(opening: Opening, metrics: &ShardMetrics) -> Result<Arc<Shard>, ShardError> {
        let Opening { shard, map_version, projections, place, queues, events, settings, attached } = opening;
        let (mut file, mut opened) =
            ShardFile::open(place, settings.page_cache(), Identity { shard, map_version }, &projections)?;
        let one = |attached: &Attached| {
            attached.projections.iter().map(|projection| (*projection, attached.name.clone())).collect::<Vec<_>>()
        };
        file.attach(&attached.iter().flat_map(one).collect())?;
        for projection in &opened.undeclared {
            tracing::warn!(shard, projection, "not declared any more: its documents stay in the file");
        }
        let (committed, map) = (opened.committed, opened.map.take());
        let metrics = metrics.of(shard);
        metrics.committed.set(i64::try_from(committed).unwrap_or(i64::MAX));
        metrics.position.set(i64::try_from(committed).unwrap_or(i64::MAX));
        Ok(Arc::new(Shard {
            id: shard,
            state: RwLock::new(State::restored(&projections, opened)),
            changes: ChangeLog::new(shard, committed, map.as_ref().map(|state| Arc::new(state.map.clone()))),
            kept_map: watch::Sender::new(map.map(Arc::new)),
            touched: Touched::default(),
            memo: Mutex::new(Memo::new(usize::try_from(settings.render_cache).unwrap_or(usize::MAX))),
            applied: watch::Sender::new(committed),
            committed: watch::Sender::new(committed),
            held_at_start: watch::Sender::new(None),
            newest: Newest::default(),
            opened_at: timing::now(),
            flush_wanted: Notify::new(),
            tellings: Mutex::default(),
            untold: AtomicBool::new(false),
            telling: tokio::sync::Mutex::default(),
            dead: dead::Pending::default(),
            attached,
            wanted: Wanted::of(projections.iter().flat_map(Projection::paths)),
            renderer: Renderer::new(projections.clone()),
            projections,
            settings,
            file,
            queues,
            events,
            metrics,
        }))
    }

    /// Pulls, applies and commits until `stop` is true, then commits what is left.
    ///
    /// After an error the shard must not go on: the process reports it and ends, and a restart goes on from what the
    /// file holds.
    pub async fn run(self: &Arc<Self>, mut stop: watch::Receiver<bool>) -> Result<(), ShardError> {
        let (over, is_over) = watch::channel(false);
        let (broken, mut is_broken) = watch::channel(false);
        let pulling = async {
            let pulled = tokio::select! {
                biased;
                pulled = self.pull_loop(&mut stop) => pulled,
                _ = is_broken.wait_for(|broken| *broken) => Ok(()),
            };
            if matches!(pulled, Err(ShardError::Thread(_))) {
                // Whatever it was at may be half done: nothing of it is to be written. The next start replays it.
                self.untold.store(true, Ordering::Release);
            }
            over.send_replace(true);
            pulled
        };
        let flushing = async {
            let flushed = self.flush_loop(is_over).await;
            broken.send_replace(flushed.is_err());
            flushed
        };
        let (pulled, flushed) = tokio::select! {
            biased;
            ended = async { tokio::join!(pulling, flushing) } => ended,
            // What is not sent yet is sent after the next start.
            sent = self.send_out() => (Ok(()), sent.map(|never| match never {})),
        };
        self.changes.close();
        flushed.and(pulled)
    }

    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The shard's change stream, from [`ChangeMessage::Hello`] on; `None` once the shard has stopped, or while it has
    /// as many followers as it takes.
    pub fn follow(&self, follow: Follow) -> Option<BoxStream<'static, ChangeMessage>> {
        self.changes.follow(follow)
    }

    /// The position that is on disk, with the state it produced.
    pub fn committed(&self) -> watch::Receiver<Position> {
        self.committed.subscribe()
    }

    /// The position up to which documents can be read.
    pub fn applied(&self) -> watch::Receiver<Position> {
        self.applied.subscribe()
    }
}

/// Name of a shard's file in the shards' directory.
pub fn file_path(dir: &Path, shard: ShardId) -> PathBuf {
    dir.join(format!("shard-{shard}.redb"))
}
