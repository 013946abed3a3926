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
use millpond_shared::projection::{Kind, Projection, Removal};

use super::counter::Counter;
use super::edges::{Edge, Edges};
use super::excerpt::{GREAT_FEEDS, is_part};
use super::followed::Followed;
use super::group::{Group, GroupTick};
use super::home::Home;
use super::hop::{Follow, Hop, News, Told};
use super::items::Items;
use super::numbers::Tick;
use super::removable::{Named, Removable, Remove};
use super::{Item, Unordered};

/// What one event does to one key. All that is costly about an event is in making it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An item of a `feed`, or the candidate for a `latest`.
    Item(Item),
    /// An item of a `feed` that items are removed from.
    Named(Named),
    /// Removes an item.
    Remove(Remove),
    /// Adds an edge, or removes it.
    Edge(Edge),
    /// A home feed comes to follow a feed, or goes.
    Follow(Follow),
    /// A feed has told its news to a home feed, or to its excerpt on this shard.
    News(News),
    /// The feed with this key is a great one.
    Great(Box<str>),
    /// Counts in a `counter`.
    Tick(Tick),
    /// Counts in a `group`.
    GroupTick(GroupTick),
}

/// What is kept for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Of `feed` and `latest`.
    Items(Items),
    /// Of `feed` with `remove_on`.
    Removable(Removable),
    /// Of `feed` that a `home` gathers from.
    Followed(Followed),
    Home(Home),
    Edges(Edges),
    Counter(Counter),
    Group(Group),
}

/// Format bytes of blobs, one per kind of state and layout of it. On disk: a number is never given another meaning.
const ITEMS_FORMAT: u8 = 1;
const REMOVABLE_FORMAT: u8 = 2;
const COUNTER_FORMAT: u8 = 3;
const GROUP_FORMAT: u8 = 4;
const EDGES_FORMAT: u8 = 5;
const FOLLOWED_FORMAT: u8 = 6;
const HOME_FORMAT: u8 = 7;
const GREAT_FORMAT: u8 = 8;

impl Effect {
    /// What `view` does to the documents of `projection` that it was routed to. What it is put together in is `scratch`,
    /// whatever that holds.
    pub fn of(projection: &Projection, view: &View<'_>, scratch: &mut Vec<u8>) -> Result<Effect, Unordered> {
        match &projection.kind {
            Kind::Feed { removal: Some(removal), .. } => Effect::of_removable(projection, removal, view, scratch),
            Kind::Feed { removal: None, .. } | Kind::Followed(_) | Kind::Latest => {
                Item::of(projection, view, scratch).map(Effect::Item)
            }
            Kind::Edges(pointing) => {
                let to = pointing.to.text(view).unwrap_or_default();
                Effect::of_edge(projection, to, view, scratch)
            }
            Kind::Home(gathering) => {
                let to = gathering.pointing.to.key(view).unwrap_or_default();
                Effect::of_edge(projection, to, view, scratch)
            }
            Kind::Counter(counting) => Ok(Effect::Tick(Tick::of(&counting.measures, view))),
            Kind::Group(grouping) => Ok(Effect::GroupTick(GroupTick::of(grouping, view))),
        }
    }

    /// An event that removes is no item, even where `where` holds.
    fn of_removable(
        projection: &Projection,
        removal: &Removal,
        view: &View<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Effect, Unordered> {
        if projection.removes(view) {
            let order = Item::order_of(projection, view)?;
            let target = removal.id.text(view).unwrap_or_default().into();
            return Ok(Effect::Remove(Remove { order, id: view.event.id.as_ref().into(), target }));
        }
        let name = projection.item.iter().find(|(name, _)| name == "id");
        let name = name.and_then(|(_, template)| template.text(view).ok()).unwrap_or_default().into();
        Ok(Effect::Named(Named { name, item: Item::of(projection, view, scratch)? }))
    }

    /// What the document of this key and kind of projection is told; `None` if that is nothing for it.
    pub fn told(kind: &Kind, key: &str, told: &Told) -> Option<Effect> {
        match (kind, told) {
            (Kind::Followed(_), Told::Follow(follow)) if !is_part(key) => Some(Effect::Follow(follow.clone())),
            (Kind::Followed(_), Told::News(news)) if key == GREAT_FEEDS => {
                Some(Effect::Great(news.feed.as_ref().into()))
            }
            (Kind::Followed(_), Told::News(news)) if is_part(key) => Some(Effect::News(news.clone())),
            (Kind::Home(_), Told::News(news)) => Some(Effect::News(news.clone())),
            _ => None,
        }
    }

    fn of_edge(
        projection: &Projection,
        to: String,
        view: &View<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Effect, Unordered> {
        let item = if projection.removes(view) {
            Item::new(Item::order_of(projection, view)?, &view.event.id, "")
        } else {
            Item::of(projection, view, scratch)?
        };
        Ok(Effect::Edge(Edge { to: to.into(), item }))
    }
}

impl KeyState {
    /// State of a key that no event has reached.
    pub fn empty(kind: &Kind) -> KeyState {
        match kind {
            Kind::Feed { removal: Some(_), .. } => KeyState::Removable(Removable::default()),
            Kind::Feed { removal: None, .. } | Kind::Latest => KeyState::Items(Items::default()),
            Kind::Followed(_) => KeyState::Followed(Followed::default()),
            Kind::Home(_) => KeyState::Home(Home::default()),
            Kind::Edges(_) => KeyState::Edges(Edges::default()),
            Kind::Counter(counting) => KeyState::Counter(Counter::empty(counting)),
            Kind::Group(grouping) => KeyState::Group(Group::empty(grouping)),
        }
    }

    /// Whether `effect` would change anything.
    ///
    /// Asked before a state is copied that readers or a commit hold; where the answer is costly, `true` will do.
    pub fn would_change(&self, kind: &Kind, effect: &Effect) -> bool {
        match (self, kind, effect) {
            (KeyState::Items(items), kind, Effect::Item(item)) => items.would_change(keep_of(kind), item),
            (KeyState::Followed(followed), kind, Effect::Item(item)) => {
                followed.items().would_change(keep_of(kind), item)
            }
            (KeyState::Followed(followed), Kind::Followed(declared), Effect::News(news)) => {
                followed.would_excerpt(declared, news)
            }
            (KeyState::Followed(followed), _, Effect::Great(feed)) => !followed.lists(feed),
            (KeyState::Home(home), kind, Effect::News(news)) => home.would_change(keep_of(kind), news),
            (KeyState::Edges(edges), kind, Effect::Edge(edge)) => edges.would_change(keep_of(kind), edge),
            (KeyState::Counter(counter), Kind::Counter(counting), Effect::Tick(tick)) => {
                counter.would_change(counting, tick)
            }
            (KeyState::Group(group), Kind::Group(grouping), Effect::GroupTick(tick)) => {
                group.would_change(grouping, tick)
            }
            _ => true,
        }
    }

    /// Takes `effect` in; whether that changed anything. An effect that another kind made has none. What `key` has to tell
    /// others of it goes to `hops`, changed or not.
    pub fn apply(&mut self, kind: &Kind, effect: Effect, key: &str, hops: &mut Vec<Hop>) -> bool {
        match (self, kind, effect) {
            (KeyState::Items(items), kind, Effect::Item(item)) => items.apply(keep_of(kind), item),
            (KeyState::Removable(items), kind, Effect::Named(named)) => items.insert(keep_of(kind), named),
            (KeyState::Removable(items), Kind::Feed { removal: Some(removal), .. }, Effect::Remove(remove)) => {
                items.remove(removal.keep, remove)
            }
            (KeyState::Followed(followed), Kind::Followed(declared), Effect::Item(item)) => {
                followed.insert(declared, item, hops)
            }
            (KeyState::Followed(followed), Kind::Followed(declared), Effect::Follow(follow)) => {
                followed.follow(declared, &follow, hops)
            }
            (KeyState::Followed(followed), Kind::Followed(declared), Effect::News(news)) => {
                followed.excerpt(declared, &news)
            }
            (KeyState::Followed(followed), _, Effect::Great(feed)) => followed.list(&feed),
            (KeyState::Home(home), Kind::Home(gathering), Effect::Edge(edge)) => {
                home.point(gathering.keep, gathering.pointing.keep, edge, key, hops)
            }
            (KeyState::Home(home), kind, Effect::News(news)) => home.insert(keep_of(kind), &news),
            (KeyState::Edges(edges), kind, Effect::Edge(edge)) => edges.apply(keep_of(kind), edge).is_some(),
            (KeyState::Counter(counter), Kind::Counter(counting), Effect::Tick(tick)) => counter.apply(counting, &tick),
            (KeyState::Group(group), Kind::Group(grouping), Effect::GroupTick(tick)) => group.apply(grouping, &tick),
            _ => false,
        }
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            KeyState::Items(items) => items.weight(),
            KeyState::Removable(items) => items.weight(),
            KeyState::Followed(followed) => followed.weight(),
            KeyState::Home(home) => home.weight(),
            KeyState::Edges(edges) => edges.weight(),
            KeyState::Counter(counter) => counter.weight(),
            KeyState::Group(group) => group.weight(),
        }
    }

    /// Which layout [`put`](KeyState::put) writes.
    pub fn format(&self) -> u8 {
        match self {
            KeyState::Items(_) => ITEMS_FORMAT,
            KeyState::Removable(_) => REMOVABLE_FORMAT,
            KeyState::Followed(followed) if followed.is_great() => GREAT_FORMAT,
            KeyState::Followed(_) => FOLLOWED_FORMAT,
            KeyState::Home(_) => HOME_FORMAT,
            KeyState::Edges(_) => EDGES_FORMAT,
            KeyState::Counter(_) => COUNTER_FORMAT,
            KeyState::Group(_) => GROUP_FORMAT,
        }
    }

    /// Appends the state's bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            KeyState::Items(items) => items.put(out),
            KeyState::Removable(items) => items.put(out),
            KeyState::Followed(followed) => followed.put(out),
            KeyState::Home(home) => home.put(out),
            KeyState::Edges(edges) => edges.put(out),
            KeyState::Counter(counter) => counter.put(out),
            KeyState::Group(group) => group.put(out),
        }
    }

    /// The state of a key of `kind` that `bytes` of `format` are; why they are none otherwise, in words.
    pub fn restore(kind: &Kind, format: u8, bytes: &[u8]) -> Result<KeyState, String> {
        match (kind, format) {
            (Kind::Feed { removal: None, .. } | Kind::Latest, ITEMS_FORMAT) => {
                Items::restore(bytes).map(KeyState::Items)
            }
            (Kind::Feed { removal: Some(_), .. }, REMOVABLE_FORMAT) => {
                Removable::restore(bytes).map(KeyState::Removable)
            }
            (Kind::Followed(_), FOLLOWED_FORMAT) => Followed::restore(bytes).map(KeyState::Followed),
            (Kind::Followed(_), GREAT_FORMAT) => Followed::restore_great(bytes).map(KeyState::Followed),
            (Kind::Home(_), HOME_FORMAT) => Home::restore(bytes).map(KeyState::Home),
            (Kind::Edges(_), EDGES_FORMAT) => Edges::restore(bytes).map(KeyState::Edges),
            (Kind::Counter(counting), COUNTER_FORMAT) => Counter::restore(counting, bytes).map(KeyState::Counter),
            (Kind::Group(grouping), GROUP_FORMAT) => Group::restore(grouping, bytes).map(KeyState::Group),
            (kind, other) => Err(format!("its state has format {other}, which no `{}` has", kind.as_str())),
        }
    }
}

/// How many items, or edges, documents of this kind keep: `latest` is a feed of one.
pub fn keep_of(kind: &Kind) -> usize {
    match kind {
        Kind::Feed { keep, .. } => *keep,
        Kind::Latest => 1,
        Kind::Followed(followed) => followed.keep,
        Kind::Home(gathering) => gathering.keep,
        Kind::Edges(pointing) => pointing.keep,
        Kind::Counter(_) | Kind::Group(_) => 0,
    }
}
