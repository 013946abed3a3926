//! Giving slots away: their documents go to the queue of the shard that takes them, while events go on.
//!
//! First everything, as it stands in the file; then, again and again, what has changed meanwhile, until that is little.
//! Then events of the slots are held, the shard comes to the end of those that are filed with it, and hands over what
//! is left. That closes the attempt. Nothing of it is remembered: who is started again begins anew, and what the taking
//! shard has of an earlier attempt is replaced.
//!
//! Only what is in the file is handed over, and what is in the file was told (`tellings`). So what documents had to tell
//! others is in the event queues before their slots are another's, and is filed by whatever map there is then.
//!
//! Home feeds take along what great feeds have told this shard: the taking shard may not have been told of it. What they
//! tell while the slots move is handed over as well.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use millpond_shared::projection::{Kind, Projection};
use millpond_shared::shard_map::{Final, MapState, Move, Slot, Slots, Stage};
use millpond_shared::version::Position;
use millpond_shared::wire::{HandedDocument, Handover};
use parking_lot::Mutex;
use tokio::task::JoinError;

use super::Shard;
use super::read::NotRead;
use super::state::Changed;
use crate::blocking::apart;
use crate::projection::{Document, GREAT_FEEDS, is_part};
use crate::queue::{HandedOver, KnownMap, MapChange, QueueError};
use crate::store::shard_file::{Row, ShardFileError};
use crate::timing::{now, sleep, timeout};

/// Documents that are handed over at a time, in bytes; one of them may exceed it.
const FRAME_BYTES: usize = 256 << 10;
/// Documents of the file that are looked at in one go, in bytes.
const PAGE_BYTES: usize = 4 << 20;
/// Changed documents that are noted; with more, everything is handed over again.
const TOUCHED_MAX: usize = 262_144;
/// With so few changed documents left, events are held: handing them over takes some milliseconds.
const FEW: usize = 1_000;
/// Times that what has changed is handed over before events are held, however much it is.
const PASSES_MAX: usize = 20;
/// With no more events than this in the queue that are not applied, events are held: applying them takes less than a tenth
/// of a second. Hops to many documents take longer; with too many of them the attempt is begun anew.
const LAG_MAX: i64 = 20_000;
/// Longest time that events are held: then they go on, and the attempt is given up.
const HOLD_MAX: Duration = Duration::from_secs(4);
/// Pause before something is looked at again: whether the other shard has caught up, or where this one ends.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How long a move waits for the taking shard without a word.
const WAIT_UNTOLD: Duration = Duration::from_secs(5);
/// Pause before it is looked again whether the taking shard has written what it was given.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(100);
/// Pause before an attempt is begun anew.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What changed of some slots.
#[derive(Default)]
pub struct Touched(Mutex<Option<Tracking>>);

struct Tracking {
    slots: Slots,
    keys: HashSet<(u16, Arc<str>)>,
    too_many: bool,
}

impl Touched {
    /// Notes what a batch has changed, or what another shard has handed over. To be called before it is said how far that
    /// went.
    pub fn note(&self, changed: &[Changed], projections: &[Projection]) {
        let mut tracking = self.0.lock();
        let Some(tracking) = tracking.as_mut() else { return };
        for (index, key, _) in changed {
            let Some(projection) = projections.get(usize::from(*index)) else { continue };
            // The list goes with the excerpts that are new in it.
            let is_excerpt = is_part(key) && key.as_ref() != GREAT_FEEDS;
            let is_its = !is_part(key) && tracking.slots.contains(Slot::of(&projection.name, key));
            if is_excerpt || is_its {
                tracking.too_many |= tracking.keys.len() >= TOUCHED_MAX;
                if !tracking.too_many {
                    tracking.keys.insert((*index, key.clone()));
                }
            }
        }
    }

    fn begin(&self, slots: Slots) {
        *self.0.lock() = Some(Tracking { slots, keys: HashSet::new(), too_many: false });
    }

    pub fn end(&self) {
        *self.0.lock() = None;
    }

    /// What was noted since this was asked last; `None` if it was too much.
    fn take(&self) -> Option<Vec<(u16, Arc<str>)>> {
        let mut tracking = self.0.lock();
        let tracking = tracking.as_mut()?;
        let keys = std::mem::take(&mut tracking.keys);
        (!std::mem::take(&mut tracking.too_many)).then(|| keys.into_iter().collect())
    }
}

/// Gives the slots of one attempt away.
pub struct Giver {
    pub shard: Arc<Shard>,
    pub known: KnownMap,
    pub moving: Move,
}

/// Why an attempt has failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    File(#[from] ShardFileError),
    #[error(transparent)]
    NotRead(#[from] NotRead),
    #[error("the thread that reads documents ended: {0}")]
    Thread(#[from] JoinError),
    #[error("more documents have changed than are noted")]
    TooMany,
    #[error("it took longer than events may be held")]
    TooLong,
    #[error("the shard is stopping")]
    Stopping,
}

/// A document on its way: index of its projection, key, bytes.
type Handed = (u16, String, Vec<u8>);

impl Giver {
    /// Until the slots are given away. If they are not any more to be, whoever started this ends it.
    pub async fn run(self) {
        let Move { slots, to, epoch, .. } = &self.moving;
        tracing::info!(shard = self.shard.id, to, %slots, epoch, "giving slots away");
        loop {
            match self.attempt().await {
                Ok(()) => break,
                Err(Failed::Queue(QueueError::Overtaken { .. })) => {
                    tracing::debug!(shard = self.shard.id, "another replica gives the slots away");
                }
                Err(error) => {
                    tracing::warn!(shard = self.shard.id, to, %error, "slots were not given away; beginning anew");
                }
            }
            sleep(RETRY_PAUSE).await;
        }
        tracing::info!(shard = self.shard.id, to, %slots, "slots given away");
    }

    async fn attempt(&self) -> Result<(), Failed> {
        let mut handing = Handing { giver: self, after: None, waiting: Vec::new(), bytes: 0 };
        self.shard.touched.begin(self.moving.slots.clone());
        self.everything(&mut handing).await?;
        let taken = handing.after.unwrap_or(0);
        for pass in 1.. {
            let changed = self.changed(&mut handing).await?;
            if self.shard.caught_up() != Some(true) {
                // It could not come to the end in the time for which events may be held.
                sleep(CATCH_UP_PAUSE).await;
                continue;
            }
            let is_little = changed <= FEW && self.shard.metrics.lag.get() <= LAG_MAX;
            if !is_little && pass < PASSES_MAX {
                continue;
            }
            match self.hold(taken).await {
                Ok(()) => break,
                // The taking shard has still to write what it was given first.
                Err(QueueError::ShardFull { .. }) => sleep(CATCH_UP_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        match timeout(HOLD_MAX, self.end(handing, taken)).await.unwrap_or(Err(Failed::TooLong)) {
            Ok(state) => {
                self.known.tell(state);
                Ok(())
            }
            Err(error) => {
                self.let_go().await;
                Err(error)
            }
        }
    }

    /// Events are held: comes to the end of those that are filed here, and hands over what is left.
    async fn end(&self, mut handing: Handing<'_>, taken: Position) -> Result<MapState, Failed> {
        let end = loop {
            match self.known.get().as_deref().and_then(end_of) {
                Some(end) => break end,
                None => sleep(LOOK_PAUSE).await,
            }
            self.hold(taken).await?;
        };
        let mut applied = self.shard.applied();
        applied.wait_for(|applied| *applied >= end).await.map_err(|_| Failed::Stopping)?;
        self.changed(&mut handing).await?;
        let since = handing.close().await?;
        let epoch = self.moving.epoch;
        Ok(self.known.maps().change_map(MapChange::Complete { epoch, since }).await?)
    }

    /// Hands over all documents of the slots that the file holds, once it holds what was applied when this began.
    async fn everything(&self, handing: &mut Handing<'_>) -> Result<(), Failed> {
        self.written().await?;
        let mut after: Option<(String, String)> = None;
        loop {
            let shard = self.shard.clone();
            let page = apart(move || {
                let after = after.as_ref().map(|(projection, key)| (projection.as_str(), key.as_str()));
                shard.file.page(after, PAGE_BYTES)
            });
            let page = page.await??;
            after = page.rows.last().map(|row| (row.projection.clone(), row.key.clone()));
            for row in page.rows {
                let index = self.shard.projections.iter().position(|projection| projection.name == row.projection);
                let Some(index) = index.and_then(|index| u16::try_from(index).ok()) else { continue };
                let is_its = !is_part(&row.key) && self.moving.slots.contains(Slot::of(&row.projection, &row.key));
                if is_its {
                    let blob = self.blob(index, row.blob).await?;
                    handing.add((index, row.key, blob)).await?;
                }
            }
            if !page.more {
                return handing.send(false).await;
            }
        }
    }

    /// Hands over what has changed since; how many documents.
    async fn changed(&self, handing: &mut Handing<'_>) -> Result<usize, Failed> {
        let keys = self.shard.touched.take().ok_or(Failed::TooMany)?;
        self.written().await?;
        let count = keys.len();
        let shard = self.shard.clone();
        let rows: Vec<Row> = apart(move || shard.file.read(&keys)).await??;
        for (projection, feeds) in great_feeds(&rows) {
            let Some(declared) = self.shard.projections.get(usize::from(projection)) else { continue };
            let list = Document::list_of(&declared.kind, &feeds);
            handing.add((projection, GREAT_FEEDS.to_owned(), list.encode())).await?;
        }
        for (projection, key, document) in rows {
            let blob = self.blob(projection, document.encode()).await?;
            handing.add((projection, key.to_string(), blob)).await?;
        }
        handing.send(false).await?;
        Ok(count)
    }

    /// What the taking shard is given of a document: of a home feed, with what excerpts have for it. That shard may have
    /// been given excerpts only later.
    async fn blob(&self, projection: u16, blob: Vec<u8>) -> Result<Vec<u8>, Failed> {
        let declared = self.shard.projections.get(usize::from(projection));
        let Some(kind @ Kind::Home(_)) = declared.map(|declared| &declared.kind) else { return Ok(blob) };
        if !self.shard.may_have_great_feeds(projection) {
            return Ok(blob);
        }
        let Ok(document) = Document::decode(kind, &blob) else { return Ok(blob) };
        let with_excerpts = self.shard.with_excerpts(projection, document).await?;
        Ok(with_excerpts.map_or(blob, |document| document.encode()))
    }

    /// Waits until everything that is applied by now is in the file, and therefore told.
    async fn written(&self) -> Result<(), Failed> {
        // Under the lock: a batch may be merged, and noted, and not told yet.
        let applied = self.shard.state.read().applied();
        let mut committed = self.shard.committed();
        self.shard.flush_wanted.notify_one();
        committed.wait_for(|committed| *committed >= applied).await.map(drop).map_err(|_| Failed::Stopping)
    }

    /// Holds the events of the slots, or goes on with that.
    async fn hold(&self, taken: Position) -> Result<(), QueueError> {
        let change = MapChange::Hold { epoch: self.moving.epoch, taken };
        self.known.tell(self.known.maps().change_map(change).await?);
        Ok(())
    }

    /// Lets held events go on. If it can't be said now, dispatchers find that they were held for too long.
    async fn let_go(&self) {
        let Some(state) = self.known.get().filter(|state| state.attempt(self.moving.epoch).is_ok()) else { return };
        let change = MapChange::LetGo { version: state.version() };
        if let Ok(Ok(state)) = timeout(HOLD_MAX, self.known.maps().change_map(change)).await {
            self.known.tell(state);
        }
    }
}

/// The feeds whose excerpts are among these, by their projections.
fn great_feeds(rows: &[Row]) -> BTreeMap<u16, Vec<&str>> {
    let mut great: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for (projection, key, _) in rows {
        if let Some(feed) = key.strip_prefix(GREAT_FEEDS) {
            great.entry(*projection).or_default().push(feed);
        }
    }
    great
}

/// Where the giving shard ends, if that is known.
fn end_of(state: &MapState) -> Option<Position> {
    match &state.moving.as_ref()?.stage {
        Stage::Held(Some(Final { position, .. })) => *position,
        Stage::Held(None) | Stage::Copying => None,
    }
}

/// One giver's part of the taking shard's queue.
struct Handing<'a> {
    giver: &'a Giver,
    /// Position of what was handed over last.
    after: Option<Position>,
    waiting: Vec<Handed>,
    bytes: usize,
}

impl Handing<'_> {
    async fn add(&mut self, document: Handed) -> Result<(), Failed> {
        let bytes = document.1.len() + document.2.len();
        if !self.waiting.is_empty() && self.bytes + bytes > FRAME_BYTES {
            self.send(false).await?;
        }
        self.bytes += bytes;
        self.waiting.push(document);
        Ok(())
    }

    /// Hands over what is left, and says that it was all; its position.
    async fn close(mut self) -> Result<Position, Failed> {
        self.send(true).await?;
        self.after.ok_or(Failed::Stopping)
    }

    /// Hands over what waits, as soon as the taking shard is not too far behind.
    async fn send(&mut self, is_last: bool) -> Result<(), Failed> {
        if self.waiting.is_empty() && !is_last {
            return Ok(());
        }
        let (giver, documents) = (self.giver, std::mem::take(&mut self.waiting));
        self.bytes = 0;
        let projection = |projection: &Projection| (projection.name.clone().into(), projection.state_fingerprint());
        let document =
            |(projection, key, blob): Handed| HandedDocument { projection, key: key.into(), blob: blob.into() };
        let epoch = giver.moving.epoch;
        let handover = Handover {
            epoch,
            from: giver.shard.id,
            is_last,
            projections: giver.shard.projections.iter().map(projection).collect(),
            documents: documents.into_iter().map(document).collect(),
        };
        let bytes = bytes::Bytes::from(handover.encode());
        let (began, mut is_told) = (now(), false);
        loop {
            let handed = HandedOver { epoch, after: self.after, bytes: bytes.clone() };
            match giver.known.maps().hand_over(handed).await {
                Ok(position) => {
                    self.after = Some(position);
                    return Ok(());
                }
                Err(QueueError::ShardFull { shard }) => {
                    let waited = now().duration_since(began);
                    if waited > WAIT_UNTOLD && !std::mem::replace(&mut is_told, true) {
                        let look = "look with `millpond queue ls` which of its consumers is";
                        tracing::warn!(shard, ?waited, "the move waits, as the taking shard is behind: {look}");
                    }
                    sleep(LOOK_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millpond_shared::version::Version;

    use super::*;
    use crate::projection::excerpt_key;
    use crate::projection::testing::feed;

    #[test]
    fn what_changes_of_the_slots_is_noted_and_what_great_feeds_tell() {
        let projections = feed(1);
        let touched = Touched::default();
        let change = |key: &str| touched.note(&[(0, Arc::from(key), Version::new(1, 1))], &projections);
        change("a");
        assert!(touched.take().is_none(), "nothing moves");
        touched.begin([Slot::of("p", "a")].into_iter().collect());
        ["a", "b", GREAT_FEEDS, &excerpt_key("b")].into_iter().for_each(change);
        let mut noted = touched.take().expect("not too many");
        noted.sort_unstable();
        assert_eq!(noted.iter().map(|(_, key)| key.as_ref()).collect::<Vec<_>>(), ["*b", "a"]);
        assert_eq!(touched.take(), Some(Vec::new()), "each once");
    }
}
