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
        let above =
            |before: &Before| self.items.partition_point(|gathered| gathered.item.cmp_rank(before.rank()).is_ge());
        self.items.iter().skip(before.map_or(0, above)).map(|gathered| gathered.item.as_ref())
    }

    /// Whether an item stands at the place.
    pub fn has_place(&self, before: &Before) -> bool {
        self.items.binary_search_by(|gathered| gathered.item.cmp_rank(before.rank()).reverse()).is_ok()
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
                if self.items.len() >= keep
                    && self.items.back().is_some_and(|last| last.item.cmp_rank(item.rank()).is_gt())
                {
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
        let compare = |kept: &Gathered| kept.item.cmp_rank(item.rank()).then_with(|| kept.feed.as_ref().cmp(feed));
        match self.items.binary_search_by(|kept| compare(kept).reverse()) {
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
mod tests;
