//! The newest items of a key, and the home feeds that follow it: state of a `feed` that a `home` gathers from (pure).
//!
//! Every item that gets in is told to all who follow, and whoever comes to follow is told of all that is there. So it
//! does not matter which of the two came first.
//!
//! A feed that comes to have more followers than it is to tell one by one becomes a great feed, and stays one: it forgets
//! who follows it, and tells each shard of its items instead (`excerpt`). What is shown does not depend on which of the
//! two it is.

use std::sync::Arc;

use millpond_shared::projection::Followed as Declared;
use millpond_shared::stored;
use serde::{Deserialize, Serialize};

use super::excerpt::{LISTED_ORDER, listed};
use super::followers::Followers;
use super::hop::{Audience, Follow, Hop, News};
use super::{Item, Items};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    items: Items,
    followers: Followers,
    is_great: bool,
}

impl Followed {
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.items.weight() + self.followers.weight()
    }

    /// Whether it tells shards, not those who follow.
    pub fn is_great(&self) -> bool {
        self.is_great
    }

    /// Files `item` among the newest; whether that changed anything.
    pub fn insert(&mut self, declared: &Declared, item: Item, hops: &mut Vec<Hop>) -> bool {
        let is_told = self.is_great || self.followers.count() > 0;
        let told = is_told.then(|| Arc::new(item.clone()));
        if !self.items.apply(declared.keep, item) {
            return false;
        }
        if self.followers.count() > declared.fanout_max {
            self.become_great();
        }
        let to = || if self.is_great { Audience::Shards } else { Audience::All(self.followers.clone()) };
        hops.extend(told.map(|item| Hop::Items { to: to(), items: vec![item] }));
        true
    }

    /// A home feed comes or goes; whether that changed anything. Who comes is told of the newest items, and who comes
    /// again again: it may have lost some.
    pub fn follow(&mut self, declared: &Declared, follow: &Follow, hops: &mut Vec<Hop>) -> bool {
        let Follow { home, decision, is_followed } = follow;
        if self.followers.decision(home).is_some_and(|known| known > *decision) {
            return false;
        }
        if !is_followed {
            return self.followers.remove(home);
        }
        let mut changed = !self.is_great && self.followers.insert(home, *decision);
        if self.followers.count() > declared.fanout_max {
            self.become_great();
            changed = true;
        }
        let items: Vec<Arc<Item>> = self.items.shared().take(declared.told).collect();
        if !items.is_empty() {
            hops.push(Hop::Items { to: Audience::One(home.clone()), items });
        }
        changed
    }

    fn become_great(&mut self) {
        self.is_great = true;
        self.followers = Followers::default();
    }

    /// As an excerpt: whether any of the news are among the newest, and not there yet.
    pub fn would_excerpt(&self, declared: &Declared, news: &News) -> bool {
        news.items.iter().any(|item| self.items.would_change(declared.told, item))
    }

    /// As an excerpt: takes news of its feed in; whether that changed anything.
    pub fn excerpt(&mut self, declared: &Declared, news: &News) -> bool {
        let mut changed = false;
        for item in news.items.iter() {
            changed |= self.items.apply(declared.told, item.as_ref().clone());
        }
        changed
    }

    /// As the list of great feeds: whether one is in it.
    pub fn lists(&self, feed: &str) -> bool {
        self.items.has_rank((LISTED_ORDER, feed))
    }

    /// As the list of great feeds: takes one in; whether that changed anything.
    pub fn list(&mut self, feed: &str) -> bool {
        self.items.apply(usize::MAX, listed(feed))
    }

    /// As an excerpt or the list: takes in what another shard's has; whether that changed anything.
    pub fn join(&mut self, declared: &Declared, other: &Followed, is_list: bool) -> bool {
        let keep = if is_list { usize::MAX } else { declared.told };
        let mut changed = false;
        for item in other.items.shared() {
            changed |= self.items.apply(keep, item.as_ref().clone());
        }
        changed
    }

    /// Appends the state's bytes: those of a great feed are its items', of another their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        if self.is_great {
            return self.items.put(out);
        }
        let mut items = Vec::new();
        self.items.put(&mut items);
        let stored = Stored { items: &items, followers: self.followers.sorted() };
        stored::append(&stored, out);
    }

    pub(super) fn restore_great(bytes: &[u8]) -> Result<Followed, String> {
        Ok(Followed { items: Items::restore(bytes)?, is_great: true, ..Followed::default() })
    }

    pub(super) fn restore(bytes: &[u8]) -> Result<Followed, String> {
        let (stored, rest): (Stored<'_>, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes are left over".to_owned());
        }
        let mut followed = Followed { items: Items::restore(stored.items)?, ..Followed::default() };
        for (home, decision) in stored.followers {
            if !followed.followers.insert(home, decision) {
                return Err(format!("`{home}` follows it twice"));
            }
        }
        Ok(followed)
    }
}

/// What a blob holds.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    items: &'a [u8],
    /// Key of the home feed, number of its decision; in the order of the keys.
    #[serde(borrow)]
    followers: Vec<(&'a str, u64)>,
}
