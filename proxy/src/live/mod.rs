//! Live documents: follows the shards' change streams, so that a change makes cached copies stale at once.
//!
//! [`Live`] knows, per shard, whether its stream can be trusted and what it announced of late. `follow` feeds it, from
//! every replica of the shard: they announce the same changes, and while one of them is heard, none is missed.
//! A copy is fresh only while its shard's stream is trusted and of the same generation as when it was admitted.
//!
//! The streams tell of the shard map as well. Where slots have moved, every copy from the shard that had them is of an
//! older generation from then on, and what that shard still answers for them is not given to anybody.

mod follow;
mod reach;
mod recent;

pub use follow::{Stream, follow};
pub use reach::Reach;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millpond_shared::clock;
use millpond_shared::shard_map::{ShardMap, Slot};
use millpond_shared::version::{Position, ShardId};
use millpond_shared::wire::ChangeMessage;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use self::recent::Recent;
use crate::cache::{Entry, Mark, Stamp, Store};
use crate::outcome::Reason;

/// What is known of all shards.
pub struct Live {
    store: Arc<Store>,
    shards: BTreeMap<ShardId, Shard>,
    /// The newest that was heard of; `None` where there are no shards.
    map: watch::Sender<Option<Arc<ShardMap>>>,
}

#[derive(Default)]
struct Shard {
    /// Rises whenever a change may have been missed: copies of an older generation must be validated.
    generation: AtomicU64,
    trusted: AtomicBool,
    /// When its stream was heard last, in milliseconds since the epoch.
    heard: AtomicU64,
    /// Position up to which changes were announced.
    announced: AtomicU64,
    /// Greatest position of a version that a client was given, or may have been.
    served: AtomicU64,
    /// Whether that covers what clients were given before this process was started.
    knows_before: AtomicBool,
    recent: Mutex<Recent>,
}

/// What the answer of a shard must have reached, so that no client sees a document go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Least {
    /// A position that was announced, or given to a client, of late; 0: none is known.
    pub position: Position,
    /// Nobody knows what clients were given before this process was started: only all that the shard's queue holds is
    /// enough.
    pub newest: bool,
}

/// Whether a response may be given to a client, and admitted as fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Current,
    /// A newer version was announced, but none was served: may be given to who asked before, not admitted as fresh.
    Superseded,
    /// A newer version was given to a client already: must not be given to anybody.
    Older,
}

impl Live {
    pub fn new(store: Arc<Store>, shards: impl IntoIterator<Item = ShardId>) -> Live {
        let shards = shards.into_iter().map(|shard| (shard, Shard::default())).collect();
        Live { store, shards, map: watch::Sender::new(None) }
    }

    /// The same, beginning with this shard map.
    pub fn with_map(self, map: ShardMap) -> Live {
        Live { map: watch::Sender::new(Some(Arc::new(map))), ..self }
    }

    /// The newest shard map that was heard of.
    pub fn map(&self) -> Option<Arc<ShardMap>> {
        self.map.borrow().clone()
    }

    /// A shard map with a version above this one, if it is heard of in time.
    pub async fn map_above(&self, version: u32, wait: Duration) -> Option<Arc<ShardMap>> {
        let mut map = self.map.subscribe();
        let is_newer = |map: &Option<Arc<ShardMap>>| map.as_ref().is_some_and(|map| map.version() > version);
        timeout(wait, map.wait_for(is_newer)).await.ok()?.ok()?.clone()
    }

    /// A shard map was heard of.
    pub(crate) fn learn(&self, map: &ShardMap) {
        let mut before = None;
        self.map.send_if_modified(|known| {
            let is_newer = known.as_ref().is_none_or(|known| known.version() < map.version());
            if is_newer {
                before = known.replace(Arc::new(map.clone()));
            }
            is_newer
        });
        // Behind the change of the map: what is admitted from now on is judged by it.
        let Some(before) = before else { return };
        let gave = before.givers(map);
        for shard in gave.iter().filter_map(|shard| self.shards.get(shard)) {
            shard.generation.fetch_add(1, Ordering::AcqRel);
        }
        tracing::info!(version = map.version(), ?gave, "the shard map has changed");
    }

    /// Whether the document belongs to another shard by now than the one that gave it, or did meanwhile: what the shard had
    /// before it was given the document back is older than what the other made of it.
    fn has_moved(&self, stamp: &Stamp) -> bool {
        let slot = Slot::of_tag(&stamp.tag);
        let map = self.map.borrow();
        let owner = map.as_ref().and_then(|map| Some(map.owner(slot?)));
        owner.is_some_and(|owner| owner.shard != stamp.shard || stamp.at < owner.since)
    }

    /// Generation that copies from the shard are to be admitted under.
    pub fn generation(&self, shard: ShardId) -> u64 {
        self.shards.get(&shard).map_or(0, |shard| shard.generation.load(Ordering::Acquire))
    }

    /// Whether copies with this stamp are as good as when they were admitted; `now_ms`: milliseconds since the epoch.
    pub fn vouches_for(&self, stamp: &Stamp, now_ms: u64) -> bool {
        self.shards.get(&stamp.shard).is_some_and(|shard| {
            shard.trusted.load(Ordering::Acquire)
                && shard.generation.load(Ordering::Acquire) == stamp.generation
                && now_ms.saturating_sub(shard.heard.load(Ordering::Acquire)) <= ChangeMessage::SILENCE_MAX_MS
        })
    }

    /// How long the shard may still be silent before its copies are no longer trusted.
    fn patience(&self, id: ShardId) -> Duration {
        let heard = self.shards.get(&id).map_or(0, |shard| shard.heard.load(Ordering::Acquire));
        let silent = clock::wall_ms().saturating_sub(heard);
        Duration::from_millis(ChangeMessage::SILENCE_MAX_MS.saturating_sub(silent))
    }

    /// What a fetch must ask for at least.
    pub fn least(&self, shard: ShardId) -> Least {
        self.shards.get(&shard).map_or_else(Least::default, |shard| {
            // In this order: what is learnt in between counts.
            let newest = !shard.knows_before.load(Ordering::Acquire);
            let position = shard.announced.load(Ordering::Acquire).max(shard.served.load(Ordering::Acquire));
            Least { position, newest }
        })
    }

    /// The shard has applied all that its queue held, up to `newest`, some time after this process was started: nobody
    /// can have been given more before.
    pub fn learnt(&self, id: ShardId, newest: Position) {
        if let Some(shard) = self.shards.get(&id) {
            shard.served.fetch_max(newest, Ordering::AcqRel);
            shard.knows_before.store(true, Ordering::Release);
        }
    }

    /// A response with this stamp is about to be given to a client that asked when [`Live::least`] was `asked_at`.
    pub fn judge(&self, stamp: &Stamp, asked_at: Position) -> Verdict {
        if self.has_moved(stamp) {
            return Verdict::Older;
        }
        let Some(shard) = self.shards.get(&stamp.shard) else { return Verdict::Current };
        let (verdict, rose) = {
            let mut recent = shard.recent.lock();
            let against = recent.against(stamp);
            if against.newer_was_given || against.changed_at.is_some_and(|position| position <= asked_at) {
                return Verdict::Older;
            }
            let verdict = if against.changed_at.is_some() { Verdict::Superseded } else { Verdict::Current };
            // It is given to somebody in both cases, so what is older and still in use must go.
            (verdict, shard.gives(&mut recent, stamp))
        };
        self.other_outputs(stamp, rose);
        verdict
    }

    /// Whether a newer version than this was announced or served, or may have been: then it must not be found as fresh.
    /// To be asked under the lock of the store under which it is admitted.
    pub fn overtaken(&self, stamp: &Stamp) -> bool {
        self.has_moved(stamp)
            || self.shards.get(&stamp.shard).is_some_and(|shard| {
                let against = shard.recent.lock().against(stamp);
                against.newer_was_given || against.changed_at.is_some()
            })
    }

    /// Clients may be given this version from now on: no older one, on any output.
    pub fn given(&self, stamp: &Stamp) {
        let Some(shard) = self.shards.get(&stamp.shard) else { return };
        let rose = shard.gives(&mut shard.recent.lock(), stamp);
        self.other_outputs(stamp, rose);
    }

    /// A version was given out before it was announced: copies of older ones are marked as if it had been.
    fn other_outputs(&self, stamp: &Stamp, rose: bool) {
        if rose {
            self.store.document_changed(&stamp.tag, stamp.version);
        }
    }

    /// One message of the shard's stream came.
    fn heard(&self, id: ShardId, message: &ChangeMessage) {
        let Some(shard) = self.shards.get(&id) else { return };
        match message {
            ChangeMessage::Hello { resumed, at, .. } => {
                if !resumed {
                    shard.generation.fetch_add(1, Ordering::AcqRel);
                    // What is remembered may be out of date as well.
                    let floor = (*at).max(shard.served.load(Ordering::Acquire));
                    *shard.recent.lock() = Recent::after(floor);
                    shard.announced.fetch_max(*at, Ordering::AcqRel);
                }
            }
            ChangeMessage::Changes { at, documents } => {
                for change in documents {
                    // Remembered first: a response that is admitted in between finds it there.
                    shard.recent.lock().announced(&change.tag, change.version);
                    self.store.document_changed(&change.tag, change.version);
                }
                shard.announced.fetch_max(*at, Ordering::AcqRel);
            }
            ChangeMessage::Tick { at } => {
                shard.announced.fetch_max(*at, Ordering::AcqRel);
            }
            ChangeMessage::Map { at, map } => {
                self.learn(map);
                shard.announced.fetch_max(*at, Ordering::AcqRel);
            }
        }
        shard.heard.store(clock::wall_ms(), Ordering::Release);
        // What was admitted while nobody listened may have missed changes that are still to come.
        if !shard.trusted.load(Ordering::Acquire) {
            shard.generation.fetch_add(1, Ordering::AcqRel);
            shard.trusted.store(true, Ordering::Release);
        }
    }

    /// The shard was silent for too long: its copies must be validated.
    fn lost(&self, id: ShardId) {
        if let Some(shard) = self.shards.get(&id)
            && shard.trusted.swap(false, Ordering::AcqRel)
        {
            shard.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Position after which the shard's stream is to be resumed; `None` before the first message.
    fn resume_after(&self, id: ShardId) -> Option<Position> {
        self.shards.get(&id).map(|shard| shard.announced.load(Ordering::Acquire)).filter(|at| *at > 0)
    }

    /// Whether every shard's stream is followed and trusted.
    pub fn is_ready(&self) -> bool {
        self.shards.values().all(|shard| shard.trusted.load(Ordering::Acquire))
    }

    /// Whether a copy may be used though its document has changed: its projection's `refresh` allows it, and nobody was
    /// given a newer version, so that no client sees the document go back.
    fn may_lag(&self, stamp: &Stamp, now_ms: u64) -> bool {
        now_ms < stamp.lags_until
            && self.vouches_for(stamp, now_ms)
            && self.shards.get(&stamp.shard).is_some_and(|shard| shard.recent.lock().none_newer_was_given(stamp))
    }

    /// Why a stored response must not be used as it is, if so.
    pub fn invalidated(&self, entry: &Entry, now_ms: u64) -> Option<Reason> {
        match (entry.mark(), entry.stamp()) {
            (Mark::Purged, _) => Some(Reason::Purged),
            (Mark::Changed, Some(stamp)) if self.may_lag(stamp, now_ms) => None,
            (Mark::Changed, _) => Some(Reason::Changed),
            (Mark::None, Some(stamp)) if !self.vouches_for(stamp, now_ms) => Some(Reason::LiveUnsure),
            (Mark::None, _) => None,
        }
    }
}

impl Shard {
    /// Notes that clients are given this version; whether it is newer than all that was given or announced.
    fn gives(&self, recent: &mut Recent, stamp: &Stamp) -> bool {
        // A document that no event has reached has no older version.
        if stamp.version.position == 0 {
            return false;
        }
        // A document may be ahead of its shard, on disk after a crash: the others can't be asked to be as far.
        self.served.fetch_max(stamp.version.position.min(stamp.at), Ordering::AcqRel);
        recent.given(stamp)
    }
}

#[cfg(test)]
mod tests;
