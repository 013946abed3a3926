//! What the kinds of projection keep for one key, behind one small interface (pure).
//!
//! The shard, its file and its replay know nothing else of a kind: an event becomes an [`Effect`] before the state is
//! locked, and a [`KeyState`] takes effects, weighs itself, and becomes a blob and comes back. A new kind is a variant of
//! both and a module of its own beside `items`. What it has to hold:
//!
//! - **No order of arrival shows.** The same set of effects gives an equal state, and equal states give the same blob.
//! - **`apply` tells the truth.** It returns whether the state is another than before, and what it returns is a function
//!   of state and effect. What changed nothing may be applied again by a replay, and must change nothing again.
//! - **`weight` costs nothing**: it is asked for with every event.
//! - **A key never goes away.** One whose last item was removed keeps an empty state, which is its own tombstone: its
//!   version tells a replay what it has seen.

use millpond_shared::event::View;
use millpond_shared::projection::{Kind, Projection};

use super::items::Items;
use super::{Item, Unordered};

/// What one event does to one key. All that is costly about an event is in making it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An item of a `feed`, or the candidate for a `latest`.
    Item(Item),
}

/// What is kept for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Of `feed` and `latest`.
    Items(Items),
}

/// Format bytes of blobs, one per kind of state and layout of it. On disk: a number is never given another meaning.
const ITEMS_FORMAT: u8 = 1;

impl Effect {
    /// What `view` does to the documents of `projection` that it was routed to.
    pub fn of(projection: &Projection, view: &View<'_>) -> Result<Effect, Unordered> {
        match projection.kind {
            Kind::Feed { .. } | Kind::Latest => Item::of(projection, view).map(Effect::Item),
        }
    }
}

impl KeyState {
    /// State of a key that no event has reached.
    pub fn empty(kind: &Kind) -> KeyState {
        match kind {
            Kind::Feed { .. } | Kind::Latest => KeyState::Items(Items::default()),
        }
    }

    /// Whether `effect` would change anything.
    ///
    /// Asked before a state is copied that readers or a commit hold; where the answer is costly, `true` will do.
    pub fn would_change(&self, kind: &Kind, effect: &Effect) -> bool {
        match (self, effect) {
            (KeyState::Items(items), Effect::Item(item)) => items.would_change(keep_of(kind), item),
        }
    }

    /// Takes `effect` in; whether that changed anything.
    pub fn apply(&mut self, kind: &Kind, effect: Effect) -> bool {
        match (self, effect) {
            (KeyState::Items(items), Effect::Item(item)) => items.apply(keep_of(kind), item),
        }
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            KeyState::Items(items) => items.weight(),
        }
    }

    /// Which layout [`put`](KeyState::put) writes.
    pub fn format(&self) -> u8 {
        match self {
            KeyState::Items(_) => ITEMS_FORMAT,
        }
    }

    /// Appends the state's bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            KeyState::Items(items) => items.put(out),
        }
    }

    /// The state of a key of `kind` that `bytes` of `format` are; why they are none otherwise, in words.
    pub fn restore(kind: &Kind, format: u8, bytes: &[u8]) -> Result<KeyState, String> {
        match (kind, format) {
            (Kind::Feed { .. } | Kind::Latest, ITEMS_FORMAT) => Items::restore(bytes).map(KeyState::Items),
            (kind, other) => Err(format!("its state has format {other}, which no `{}` has", kind.as_str())),
        }
    }
}

/// How many items documents of this kind keep: `latest` is a feed of one.
pub fn keep_of(kind: &Kind) -> usize {
    match kind {
        Kind::Feed { keep } => *keep,
        Kind::Latest => 1,
    }
}
