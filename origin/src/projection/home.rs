//! The newest items of all feeds that a key follows: state of `home` (pure).
//!
//! What is shown must be, once everything has arrived, the newest `keep` of the newest items of all feeds that are followed
//! then, whichever came first: an item, or the event by which its feed is followed. So:
//!
//! - The feeds are told who follows them by this state, not by the events themselves: news of a feed that is not followed
//!   come from before or after, and are dropped.
//! - A feed that is followed tells all its newest items, then each that is new.
//! - When a feed is followed no longer, its items go. Others may have been pushed out by them: where that may be, all
//!   feeds are asked to tell theirs again.
//!
//! Everything may come twice, and late. Great feeds do not tell home feeds of their items; those are merged with what is
//! here when it is read (`excerpt`).

use std::collections::VecDeque;
use std::sync::Arc;

use millpond_shared::stored;
use serde::{Deserialize, Serialize};

use super::edges::{Edge, Edges};
use super::hop::{Follow, Hop, News};
use super::{Before, Followed, Item, Items};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    follows: Edges,
    /// How many decisions the feeds were told, so that of two that overtake each other the latest counts.
    decisions: u64,
    /// The greatest by order, id and feed first.
    items: VecDeque<Gathered>,
    weight: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Gathered {
    item: Arc<Item>,
    /// Key of its feed.
    feed: Arc<str>,
}

/// What an item takes beside itself, in bytes; the key of its feed is shared.
const GATHERED_BYTES: usize = size_of::<Gathered>() + 8;

impl Home {
    /// The items below a place, the newest first; all of them without one.
    pub fn below<'a>(&'a self, before: Option<&Before>) -> impl Iterator<Item = &'a Item> + use<'a> {
        let above = |before: &Before| self.items.partition_point(|gathered| gathered.item.rank() >= before.rank());
        self.items.iter().skip(before.map_or(0, above)).map(|gathered| gathered.item.as_ref())
    }

    /// Whether an item stands at the place.
    pub fn has_place(&self, before: &Before) -> bool {
        self.items.binary_search_by(|gathered| before.rank().cmp(&gathered.item.rank())).is_ok()
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.weight + self.follows.weight()
    }

    /// A feed is followed, or no longer; whether that changed anything. `key`: of this home feed; `follows_max`: most
    /// edges that have a place.
    pub fn point(&mut self, keep: usize, follows_max: usize, edge: Edge, key: &str, hops: &mut Vec<Hop>) -> bool {
        let (to, is_followed) = (edge.to.clone(), !edge.item.body().is_empty());
        let Some(pushed_out) = self.follows.apply(follows_max, edge) else { return false };
        let decisions = &mut self.decisions;
        let mut tell = |feed: &str, is_followed| {
            *decisions += 1;
            let follow = Follow { home: key.into(), decision: *decisions, is_followed };
            hops.push(Hop::Follow { feed: feed.into(), follow });
        };
        tell(&to, is_followed);
        pushed_out.iter().for_each(|(feed, _)| tell(feed, false));
        let was_full = self.items.len() >= keep;
        let before = self.items.len();
        drop_unfollowed(&self.follows, &mut self.items, &mut self.weight);
        if was_full && self.items.len() < before {
            let others = self.follows.there().filter(|(feed, _)| feed.as_ref() != to.as_ref());
            others.for_each(|(feed, _)| tell(feed, true));
        }
        true
    }

    /// Whether any of the news get in.
    pub fn would_change(&self, keep: usize, news: &News) -> bool {
        self.follows.is_there(&news.feed) && news.items.iter().any(|item| self.place(keep, item, &news.feed).is_some())
    }

    /// Files news of a feed that is followed among the newest `keep`; whether that changed anything.
    pub fn insert(&mut self, keep: usize, news: &News) -> bool {
        if !self.follows.is_there(&news.feed) {
            return false;
        }
        let mut changed = false;
        for item in news.items.iter() {
            changed |= self.take(keep, item, &news.feed);
        }
        changed
    }

    /// Files an item of a feed among the newest `keep`; whether that changed anything.
    fn take(&mut self, keep: usize, item: &Arc<Item>, feed: &Arc<str>) -> bool {
        let Some(place) = self.place(keep, item, feed) else { return false };
        let gathered = Gathered { item: item.clone(), feed: feed.clone() };
        self.weight += gathered.weight();
        match place {
            Err(index) => self.items.insert(index, gathered),
            Ok(index) => {
                let replaced = self.items.get_mut(index).map(|kept| std::mem::replace(kept, gathered));
                self.weight -= replaced.map_or(0, |replaced| replaced.weight());
            }
        }
        while self.items.len() > keep {
            self.weight -= self.items.pop_back().map_or(0, |dropped| dropped.weight());
        }
        true
    }

    /// The feeds that are followed and that are in a list of great feeds, in the order of their keys.
    pub fn great_feeds(&self, list: &Followed) -> Vec<Arc<str>> {
        // The shorter of the two is gone through.
        if list.items().iter().len() < self.follows.count() {
            let mut great: Vec<Arc<str>> = (list.items().iter())
                .filter(|item| self.follows.is_there(item.id()))
                .map(|item| Arc::from(item.id()))
                .collect();
            great.sort_unstable();
            return great;
        }
        self.follows.there().map(|(feed, _)| feed).filter(|feed| list.lists(feed)).cloned().collect()
    }

    /// What is shown: its items with those of excerpts of feeds that it follows. Whom it follows is not in it.
    pub fn merged<'a>(&self, keep: usize, excerpts: impl Iterator<Item = (&'a Arc<str>, &'a Items)>) -> Home {
        let shown = Home { items: self.items.clone(), weight: self.weight, ..Home::default() };
        shown.with(keep, excerpts)
    }

    /// The same with the items of excerpts.
    pub fn with<'a>(mut self, keep: usize, excerpts: impl Iterator<Item = (&'a Arc<str>, &'a Items)>) -> Home {
        for (feed, items) in excerpts {
            for item in items.iter() {
                // The newest come first.
                if self.items.len() >= keep && self.items.back().is_some_and(|last| last.item.rank() > item.rank()) {
                    break;
                }
                self.take(keep, &Arc::new(item.clone()), feed);
            }
        }
        self
    }

    /// Where the item gets in (`Err`), or which it takes the place of (`Ok`): of two of one feed, one order and one id the
    /// greater stays, so that the first to arrive does not decide.
    fn place(&self, keep: usize, item: &Item, feed: &str) -> Option<Result<usize, usize>> {
        match self.items.binary_search_by(|kept| (item.rank(), feed).cmp(&(kept.item.rank(), &kept.feed))) {
            Err(index) => (index < keep).then_some(Err(index)),
            Ok(index) => self.items.get(index).filter(|kept| kept.item.body() < item.body()).map(|_| Ok(index)),
        }
    }

    /// Appends the state's bytes: their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut follows = Vec::new();
        self.follows.put(&mut follows);
        let items = self.items.iter().map(|Gathered { item, feed }| StoredItem {
            order: item.order,
            id: item.id(),
            feed,
            body: item.body(),
        });
        let stored = Stored { follows: &follows, decisions: self.decisions, items: items.collect() };
        stored::append(&stored, out);
    }

    pub(super) fn restore(bytes: &[u8]) -> Result<Home, String> {
        let (stored, rest): (Stored<'_>, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes are left over".to_owned());
        }
        if !stored.items.is_sorted_by(|a, b| (a.order, a.id, a.feed) > (b.order, b.id, b.feed)) {
            return Err("its items are out of order".to_owned());
        }
        let follows = Edges::restore(stored.follows)?;
        let mut home = Home { follows, decisions: stored.decisions, ..Home::default() };
        for StoredItem { order, id, feed, body } in stored.items {
            let item = Item::new(order, id, body);
            let gathered = Gathered { item: Arc::new(item), feed: feed.into() };
            home.weight += gathered.weight();
            home.items.push_back(gathered);
        }
        Ok(home)
    }
}

fn drop_unfollowed(follows: &Edges, items: &mut VecDeque<Gathered>, weight: &mut usize) {
    items.retain(|gathered| {
        let stays = follows.is_there(&gathered.feed);
        if !stays {
            *weight -= gathered.weight();
        }
        stays
    });
}

impl Gathered {
    fn weight(&self) -> usize {
        GATHERED_BYTES + self.feed.len() + self.item.weight()
    }
}

/// What a blob holds.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    follows: &'a [u8],
    decisions: u64,
    /// The newest first.
    #[serde(borrow)]
    items: Vec<StoredItem<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredItem<'a> {
    order: i64,
    id: &'a str,
    feed: &'a str,
    body: &'a str,
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use millpond_shared::projection::Followed as Declared;
    use proptest::prelude::*;

    use super::super::followed::Followed;
    use super::super::followers::Cursor;
    use super::super::hop::Audience;
    use super::*;

    const KEEP: usize = 3;
    const FEED_KEEP: usize = 4;
    const FOLLOWS_MAX: usize = 3;

    /// What happens, in whatever order it arrives.
    #[derive(Clone, Debug)]
    enum Act {
        Point { home: u8, feed: u8, order: i64, id: u8, is_followed: bool },
        Post { feed: u8, order: i64, id: u8, body: u8 },
    }

    /// Something on its way to the state of a key.
    #[derive(Clone, Debug)]
    enum Message {
        Act(Act),
        Follow(Box<str>, Follow),
        News(Box<str>, News),
        /// To the list of great feeds.
        Listed(News),
        /// To an excerpt.
        Excerpt(News),
    }

    /// With one follower a feed tells it, with two it is a great feed.
    fn declared() -> Declared {
        Declared { keep: FEED_KEEP, home: "home".to_owned(), told: KEEP, fanout_max: 1 }
    }

    #[derive(Default)]
    struct World {
        homes: BTreeMap<String, Home>,
        feeds: BTreeMap<String, Followed>,
        list: Followed,
        excerpts: BTreeMap<String, Followed>,
    }

    fn item(order: i64, id: u8, body: &str) -> Item {
        Item::new(order, &id.to_string(), body)
    }

    impl World {
        /// What comes of a message.
        fn take(&mut self, message: Message) -> Vec<Message> {
            let mut hops = Vec::new();
            let feed: Arc<str> = match message {
                Message::Act(Act::Point { home, feed, order, id, is_followed }) => {
                    let key = home.to_string();
                    let edge = Edge {
                        to: feed.to_string().into(),
                        item: item(order, id, if is_followed { "{}" } else { "" }),
                    };
                    let home = self.homes.entry(key.clone()).or_default();
                    home.point(KEEP, FOLLOWS_MAX, edge, &key, &mut hops);
                    "".into()
                }
                Message::Act(Act::Post { feed, order, id, body }) => {
                    let key = feed.to_string();
                    let item = item(order, id, &format!("{{\"n\":{body}}}"));
                    self.feeds.entry(key.clone()).or_default().insert(&declared(), item, &mut hops);
                    key.into()
                }
                Message::Follow(feed, follow) => {
                    self.feeds.entry(feed.to_string()).or_default().follow(&declared(), &follow, &mut hops);
                    feed.into()
                }
                Message::News(home, news) => {
                    let home = self.homes.entry(home.to_string()).or_default();
                    let (before, would) = (home.clone(), home.would_change(KEEP, &news));
                    assert_eq!((home.insert(KEEP, &news), would), (*home != before, *home != before));
                    return Vec::new();
                }
                Message::Listed(news) => {
                    let would = !self.list.lists(&news.feed);
                    assert_eq!(self.list.list(&news.feed), would);
                    return Vec::new();
                }
                Message::Excerpt(news) => {
                    let excerpt = self.excerpts.entry(news.feed.to_string()).or_default();
                    let would = excerpt.would_excerpt(&declared(), &news);
                    assert_eq!(excerpt.excerpt(&declared(), &news), would);
                    return Vec::new();
                }
            };
            hops.into_iter().flat_map(|hop| messages(hop, &feed)).collect()
        }

        /// What a home feed shows.
        fn shown(&self, home: &str) -> Vec<(i64, String, String, String)> {
            let Some(home) = self.homes.get(home) else { return Vec::new() };
            let great = home.great_feeds(&self.list);
            let by_hand: Vec<&str> =
                home.follows.there().map(|(feed, _)| &**feed).filter(|feed| self.list.lists(feed)).collect();
            assert_eq!(great.iter().map(|feed| &**feed).collect::<Vec<_>>(), by_hand);
            let items = |feed: &str| Some(self.excerpts.get(feed)?.items());
            let excerpts: Vec<(&Arc<str>, &Items)> =
                great.iter().filter_map(|feed| Some((feed, items(feed)?))).collect();
            let merged = home.merged(KEEP, excerpts.iter().copied());
            assert_eq!(merged.weight, merged.items.iter().map(Gathered::weight).sum::<usize>());
            assert_eq!(home.clone().with(KEEP, excerpts.iter().copied()).items, merged.items);
            let item = |Gathered { item, feed }: &Gathered| {
                (item.order, item.id().to_owned(), feed.to_string(), item.body().to_owned())
            };
            merged.items.iter().map(item).collect()
        }
    }

    fn messages(hop: Hop, feed: &Arc<str>) -> Vec<Message> {
        match hop {
            Hop::Follow { feed, follow } => vec![Message::Follow(feed, follow)],
            Hop::Items { to: Audience::Shards, items } => {
                let news = News { feed: feed.clone(), items: items.into() };
                vec![Message::Listed(news.clone()), Message::Excerpt(news)]
            }
            Hop::Items { to, items } => {
                let homes = match to {
                    Audience::Shards => Vec::new(),
                    Audience::One(home) => vec![home],
                    Audience::All(followers) => followers.page(&Cursor::default(), usize::MAX, usize::MAX).0,
                };
                let news = News { feed: feed.clone(), items: items.into() };
                homes.into_iter().map(|home| Message::News(home, news.clone())).collect()
            }
        }
    }

    /// By the definition at the head of this file: the newest of the newest of all feeds that are followed.
    fn model(acts: &[Act], home: u8) -> Vec<(i64, String, String, String)> {
        let mut newest: BTreeMap<u8, (i64, String, bool)> = BTreeMap::new();
        let mut posts: BTreeMap<u8, BTreeMap<(i64, String), String>> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Point { home: whose, feed, order, id, is_followed } if *whose == home => {
                    let event = (*order, id.to_string(), *is_followed);
                    let kept = newest.entry(*feed).or_insert_with(|| event.clone());
                    *kept = event.max(kept.clone());
                }
                Act::Point { .. } => {}
                Act::Post { feed, order, id, body } => {
                    let body = format!("{{\"n\":{body}}}");
                    let posts = posts.entry(*feed).or_default();
                    let kept = posts.entry((*order, id.to_string())).or_insert_with(|| body.clone());
                    *kept = body.max(kept.clone());
                }
            }
        }
        let mut ranked: Vec<_> =
            newest.into_iter().map(|(feed, (order, id, there))| (order, id, feed.to_string(), there)).collect();
        ranked.sort();
        let followed: BTreeSet<String> = ranked
            .into_iter()
            .rev()
            .take(FOLLOWS_MAX)
            .filter(|(.., there)| *there)
            .map(|(_, _, feed, _)| feed)
            .collect();
        let mut items: Vec<(i64, String, String, String)> = Vec::new();
        for (feed, posts) in posts.into_iter().filter(|(feed, _)| followed.contains(&feed.to_string())) {
            let newest = posts.into_iter().rev().take(FEED_KEEP);
            items.extend(newest.map(|((order, id), body)| (order, id, feed.to_string(), body)));
        }
        items.sort();
        items.into_iter().rev().take(KEEP).collect()
    }

    fn act() -> impl Strategy<Value = Act> {
        let point = (0u8..2, 0u8..5, 0i64..12, 0u8..3, prop::bool::weighted(0.7))
            .prop_map(|(home, feed, order, id, is_followed)| Act::Point { home, feed, order, id, is_followed });
        let post =
            (0u8..5, 0i64..12, 0u8..3, 0u8..3).prop_map(|(feed, order, id, body)| Act::Post { feed, order, id, body });
        prop_oneof![point, post]
    }

    proptest! {
        /// Whatever overtakes what, and whatever comes twice: once all has arrived, each home feed is what it must be.
        #[test]
        fn home_feeds_come_to_the_same_in_the_end(
            acts in prop::collection::vec(act(), 0..60),
            picks in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.1)), 400),
        ) {
            let mut world = World::default();
            let mut bag: Vec<Message> = acts.iter().cloned().map(Message::Act).collect();
            let mut picks = picks.into_iter();
            while !bag.is_empty() {
                let (index, again) = picks.next().map_or((0, false), |(pick, again)| (pick.index(bag.len()), again));
                let message = bag.swap_remove(index);
                // Events are applied once; what documents tell each other may come again.
                if again && !matches!(message, Message::Act(_)) {
                    bag.push(message.clone());
                }
                bag.extend(world.take(message));
            }
            for home in 0u8..2 {
                prop_assert_eq!(world.shown(&home.to_string()), model(&acts, home));
                let state = world.homes.remove(&home.to_string()).unwrap_or_default();
                let mut blob = Vec::new();
                state.put(&mut blob);
                prop_assert_eq!(Home::restore(&blob), Ok(state));
                for cut in 0..blob.len() {
                    prop_assert!(Home::restore(&blob[..cut]).is_err());
                }
            }
            for state in world.feeds.into_values().chain([world.list]).chain(world.excerpts.into_values()) {
                let mut blob = Vec::new();
                state.put(&mut blob);
                let restored = if state.is_great() { Followed::restore_great(&blob) } else { Followed::restore(&blob) };
                prop_assert_eq!(restored, Ok(state));
            }
        }
    }
}
