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

pub use follow::{Stream, follow};
pub use reach::Reach;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::time::Duration;

use millpond_shared::clock;
use millpond_shared::shard_map::{ShardMap, Slot};
use millpond_shared::version::{Position, ShardId, Version};
use millpond_shared::wire::ChangeMessage;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_128;

use crate::cache::{Entry, Mark, Stamp, Store};
use crate::outcome::Reason;

/// Document versions remembered per shard. Of a document that is not among them it is known that it has not changed
/// since the position at which remembering began.
const REMEMBERED_MAX: usize = 65_536;

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

#[derive(Default)]
struct Recent {
    /// Changes at or below this position may have been forgotten.
    floor: Position,
    /// By the 128-bit hash of the tag: a client chooses how long tags are.
    versions: HashMap<u128, Known>,
    order: VecDeque<u128>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    announced: Version,
    served: Version,
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
    fn learn(&self, map: &ShardMap) {
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

    /// Whether the document belongs to another shard by now than the one that gave it.
    fn has_moved(&self, stamp: &Stamp) -> bool {
        let slot = Slot::of_tag(&stamp.tag);
        let map = self.map.borrow();
        let owner = map.as_ref().and_then(|map| Some(map.owner(slot?)));
        owner.is_some_and(|owner| owner.shard != stamp.shard)
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
        let rose = {
            let mut recent = shard.recent.lock();
            let floor = recent.floor;
            let known = recent.versions.get(&hash(&stamp.tag)).copied().unwrap_or_default();
            let announced_before = known.announced > stamp.version && known.announced.position <= asked_at;
            if known.served > stamp.version || announced_before {
                return Verdict::Older;
            }
            if known.announced > stamp.version {
                // It is given to somebody, so what is older and still in use must go.
                recent.served(shard, stamp);
                return Verdict::Superseded;
            }
            // Where the announcements of the time are forgotten, an old response can't be vouched for.
            if known.announced == Version::ZERO && stamp.at < floor {
                return if floor <= asked_at { Verdict::Older } else { Verdict::Superseded };
            }
            recent.served(shard, stamp)
        };
        self.other_outputs(stamp, rose);
        Verdict::Current
    }

    /// Whether a newer version than this was announced or served, or may have been: then it must not be found as fresh.
    /// To be asked under the lock of the store under which it is admitted.
    pub fn overtaken(&self, stamp: &Stamp) -> bool {
        self.has_moved(stamp)
            || self.shards.get(&stamp.shard).is_some_and(|shard| {
                let recent = shard.recent.lock();
                match recent.versions.get(&hash(&stamp.tag)) {
                    Some(known) => known.announced.max(known.served) > stamp.version,
                    None => stamp.at < recent.floor,
                }
            })
    }

    /// Clients may be given this version from now on: no older one, on any output.
    pub fn given(&self, stamp: &Stamp) {
        let Some(shard) = self.shards.get(&stamp.shard) else { return };
        let rose = shard.recent.lock().served(shard, stamp);
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
                    *shard.recent.lock() = Recent { floor, ..Recent::default() };
                    shard.announced.fetch_max(*at, Ordering::AcqRel);
                }
            }
            ChangeMessage::Changes { at, documents } => {
                for change in documents {
                    // Remembered first: a response that is admitted in between finds it there.
                    shard.recent.lock().remember(hash(&change.tag), |known| {
                        known.announced = known.announced.max(change.version);
                    });
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
            && self.shards.get(&stamp.shard).is_some_and(|shard| {
                let recent = shard.recent.lock();
                // What is forgotten may have been given to somebody.
                recent.versions.get(&hash(&stamp.tag)).is_some_and(|known| known.served <= stamp.version)
            })
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

impl Recent {
    /// Notes that clients are given this version; whether it is newer than all that was given or announced.
    fn served(&mut self, shard: &Shard, stamp: &Stamp) -> bool {
        // A document that no event has reached has no older version.
        if stamp.version.position == 0 {
            return false;
        }
        let mut rose = false;
        self.remember(hash(&stamp.tag), |known| {
            rose = stamp.version > known.served.max(known.announced);
            known.served = known.served.max(stamp.version);
        });
        shard.served.fetch_max(stamp.version.position, Ordering::AcqRel);
        rose
    }

    fn remember(&mut self, tag: u128, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.versions.get_mut(&tag) {
            return change(known);
        }
        if self.versions.len() >= REMEMBERED_MAX
            && let Some(forgotten) = self.order.pop_front().and_then(|oldest| self.versions.remove(&oldest))
        {
            self.floor = self.floor.max(forgotten.announced.position).max(forgotten.served.position);
        }
        let mut known = Known::default();
        change(&mut known);
        self.versions.insert(tag, known);
        self.order.push_back(tag);
    }
}

fn hash(tag: &str) -> u128 {
    xxh3_128(tag.as_bytes())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use millpond_shared::http1::Fields;
    use millpond_shared::shard_map::{Final, FirstMap, MapState};
    use millpond_shared::wire::{CHANGES_FORMAT, Change};

    use super::*;
    use crate::cache::StoreLimits;
    use crate::semantics::freshness::Times;
    use crate::semantics::vary::Selection;

    const SHARD: ShardId = 3;

    fn live() -> Live {
        Live::new(Arc::new(Store::new(StoreLimits::with_budget(1 << 20))), [SHARD])
    }

    fn stamp(live: &Live, tag: &str, position: Position, at: Position) -> Stamp {
        let version = Version::new(1, position);
        Stamp { shard: SHARD, tag: tag.into(), version, at, generation: live.generation(SHARD), lags_until: 0 }
    }

    fn changed(live: &Live, tag: &str, position: Position) {
        let documents = vec![Change { tag: tag.to_owned(), version: Version::new(1, position) }];
        live.heard(SHARD, &ChangeMessage::Changes { at: position, documents });
    }

    #[test]
    fn nothing_is_fresh_before_the_stream_is_heard_or_after_it_was_lost() {
        let live = live();
        let before = stamp(&live, "p/k", 1, 1);
        assert!(!live.vouches_for(&before, clock::wall_ms()));
        live.heard(SHARD, &ChangeMessage::Hello { format: CHANGES_FORMAT, shard: SHARD, resumed: true, at: 1 });
        assert!(!live.vouches_for(&before, clock::wall_ms()), "admitted while nobody listened");
        let during = stamp(&live, "p/k", 1, 1);
        assert!(live.vouches_for(&during, clock::wall_ms()));
        assert!(!live.vouches_for(&during, clock::wall_ms() + ChangeMessage::SILENCE_MAX_MS + 1000), "silence");
        live.lost(SHARD);
        assert!(!live.vouches_for(&during, clock::wall_ms()));
        live.heard(SHARD, &ChangeMessage::Tick { at: 1 });
        assert!(!live.vouches_for(&during, clock::wall_ms()), "a change may have been missed meanwhile");
        assert!(live.vouches_for(&stamp(&live, "p/k", 1, 1), clock::wall_ms()));
    }

    #[test]
    fn a_gap_makes_every_copy_suspect() {
        let live = live();
        live.heard(SHARD, &ChangeMessage::Tick { at: 1 });
        let copy = stamp(&live, "p/k", 1, 1);
        live.heard(SHARD, &ChangeMessage::Hello { format: CHANGES_FORMAT, shard: SHARD, resumed: true, at: 2 });
        assert!(live.vouches_for(&copy, clock::wall_ms()));
        live.heard(SHARD, &ChangeMessage::Hello { format: CHANGES_FORMAT, shard: SHARD, resumed: false, at: 9 });
        assert!(!live.vouches_for(&copy, clock::wall_ms()));
        assert_eq!(live.least(SHARD).position, 9);
    }

    #[test]
    fn a_fetch_that_was_overtaken_is_not_admitted_and_no_client_goes_back() {
        let live = live();
        live.heard(SHARD, &ChangeMessage::Tick { at: 4 });
        let asked_at = live.least(SHARD).position;
        let slow = stamp(&live, "p/k", 3, 4);
        changed(&live, "p/k", 5);
        assert_eq!(live.judge(&slow, asked_at), Verdict::Superseded, "asked before the change: may have it");
        assert_eq!(live.judge(&slow, live.least(SHARD).position), Verdict::Older, "asked after it: must not");
        assert_eq!(live.judge(&stamp(&live, "p/k", 5, 5), asked_at), Verdict::Current);
        assert_eq!(live.judge(&slow, asked_at), Verdict::Older, "version 5 was given out");
        assert_eq!(live.judge(&stamp(&live, "p/other", 2, 4), asked_at), Verdict::Current);
    }

    #[test]
    fn what_was_served_is_asked_for_at_least() {
        let live = live();
        assert_eq!(live.judge(&stamp(&live, "p/k", 7, 8), 0), Verdict::Current);
        assert_eq!(live.least(SHARD).position, 7);
    }

    #[test]
    fn who_has_just_started_asks_for_the_newest_until_it_knows_where_that_is() {
        let live = live();
        assert_eq!(live.least(SHARD), Least { position: 0, newest: true });
        // A shard that is cut off from its queue announces, and is asked, and knows of nothing newer.
        live.heard(SHARD, &ChangeMessage::Tick { at: 4 });
        assert_eq!(live.judge(&stamp(&live, "p/k", 3, 4), 0), Verdict::Current);
        assert_eq!(live.least(SHARD), Least { position: 4, newest: true });
        live.learnt(SHARD, 9);
        assert_eq!(live.least(SHARD), Least { position: 9, newest: false });
        live.learnt(SHARD, 7);
        assert_eq!(live.least(SHARD), Least { position: 9, newest: false }, "of two that were asked at once");
        assert_eq!(live.least(SHARD + 1), Least::default(), "another's");
    }

    fn entry(stamp: Stamp) -> Entry {
        let times = Times {
            received: 0,
            initial_age: 0,
            lifetime: 60,
            stale_revalidate: 0,
            stale_error: 0,
            stale_disconnected: false,
            must_revalidate: false,
            no_cache: false,
        };
        Entry::new(StatusCode::OK, Fields::default(), Bytes::new(), times, Selection::NONE, Vec::new(), Some(stamp))
    }

    #[test]
    fn a_copy_lags_as_long_as_it_may_and_nobody_has_a_newer_one() {
        let live = live();
        live.heard(SHARD, &ChangeMessage::Tick { at: 4 });
        let now = clock::wall_ms();
        let lagging = |position| Stamp { lags_until: now + 100, ..stamp(&live, "p/k", position, position) };
        let (copy, other, strict) = (entry(lagging(4)), entry(lagging(4)), entry(stamp(&live, "p/k", 4, 4)));
        changed(&live, "p/k", 6);
        for one in [&copy, &other, &strict] {
            one.set_mark(Mark::Changed);
        }
        assert_eq!(live.invalidated(&strict, now), Some(Reason::Changed));
        assert_eq!((live.invalidated(&copy, now), live.invalidated(&copy, now + 99)), (None, None));
        assert_eq!(live.invalidated(&copy, now + 100), Some(Reason::Changed));
        other.set_mark(Mark::Purged);
        assert_eq!(live.invalidated(&other, now), Some(Reason::Purged), "purged is purged");

        // A fetch that was overtaken itself is given to somebody, and may then lag itself.
        let overtaken = lagging(5);
        assert_eq!(live.judge(&overtaken, 4), Verdict::Superseded);
        assert_eq!(live.invalidated(&copy, now), Some(Reason::Changed), "no client goes back");
        let overtaken = entry(overtaken);
        overtaken.set_mark(Mark::Changed);
        assert_eq!(live.invalidated(&overtaken, now), None);
        live.lost(SHARD);
        assert_eq!(live.invalidated(&overtaken, now), Some(Reason::Changed), "nobody knows what was missed");
    }

    #[test]
    fn forgotten_changes_are_not_taken_for_none() {
        let live = live();
        for position in 1..=(REMEMBERED_MAX as u64 + 10) {
            changed(&live, &format!("p/{position}"), position);
        }
        assert_eq!(live.judge(&stamp(&live, "p/1", 0, 5), 0), Verdict::Superseded);
        assert_eq!(
            live.judge(&stamp(&live, "p/1", 1, 11), 0),
            Verdict::Current,
            "rendered after all that is forgotten"
        );
    }

    #[test]
    fn what_has_moved_is_neither_fresh_nor_given_by_the_shard_that_had_it() {
        let first = MapState::first(FirstMap { version: 1, shards: 4 });
        let live = Live::new(Arc::new(Store::new(StoreLimits::with_budget(1 << 20))), 0..4).with_map(first.map.clone());
        let slot = Slot::of("p", "k");
        let from = first.map.owner(slot).shard;
        let (to, other) = ((from + 1) % 4, (from + 2) % 4);
        for shard in 0..4 {
            live.heard(shard, &ChangeMessage::Tick { at: 9 });
        }
        let of = |shard, tag: &str, version| Stamp {
            shard,
            tag: tag.into(),
            version,
            at: 9,
            generation: live.generation(shard),
            lags_until: 0,
        };
        let before = of(from, "p/k", Version::new(1, 9));
        let elsewhere = of(other, "p/elsewhere", Version::new(1, 9));
        assert_eq!((live.judge(&before, 9), live.vouches_for(&before, clock::wall_ms())), (Verdict::Current, true));

        let ended = Some(Final { offsets: Vec::new(), position: Some(9) });
        let moved = first.begin([slot].into_iter().collect(), to).and_then(|state| state.hold(2, ended));
        let moved = moved.and_then(|state| state.complete(2, 5)).expect("moved");
        live.heard(to, &ChangeMessage::Map { at: 9, map: moved.map.clone() });
        assert!(!live.vouches_for(&before, clock::wall_ms()));
        assert!(live.vouches_for(&elsewhere, clock::wall_ms()), "the others' copies are as good as before");
        let late = of(from, "p/k", Version::new(1, 9));
        assert_eq!((live.judge(&late, 9), live.overtaken(&late)), (Verdict::Older, true));
        assert_eq!(live.judge(&of(to, "p/k", Version::new(2, 5)), 9), Verdict::Current);
        live.heard(from, &ChangeMessage::Map { at: 9, map: first.map });
        assert_eq!(live.map().expect("a map").version(), moved.version(), "an older map changes nothing");
    }
}
