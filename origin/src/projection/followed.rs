//! The newest items of a key, and the home feeds that follow it: state of a `feed` that a `home` gathers from (pure).
//!
//! Every item that gets in is told to all who follow, and whoever comes to follow is told of all that is there. So it
//! does not matter which of the two came first.

use std::sync::Arc;

use millpond_shared::stored;
use serde::{Deserialize, Serialize};

use super::followers::Followers;
use super::hop::{Audience, Follow, Hop};
use super::{Item, Items};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    items: Items,
    followers: Followers,
}

impl Followed {
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.items.weight() + self.followers.weight()
    }

    /// Files `item` among the newest `keep`; whether that changed anything.
    pub fn insert(&mut self, keep: usize, item: Item, hops: &mut Vec<Hop>) -> bool {
        let told = (self.followers.count() > 0).then(|| Arc::new(item.clone()));
        if !self.items.apply(keep, item) {
            return false;
        }
        hops.extend(told.map(|item| Hop::Items { to: Audience::All(self.followers.clone()), items: vec![item] }));
        true
    }

    /// A home feed comes or goes; whether that changed anything. Who comes is told of the newest `told` items, and who comes
    /// again again: it may have lost some.
    pub fn follow(&mut self, told: usize, follow: &Follow, hops: &mut Vec<Hop>) -> bool {
        let Follow { home, decision, is_followed } = follow;
        if self.followers.decision(home).is_some_and(|known| known > *decision) {
            return false;
        }
        if !is_followed {
            return self.followers.remove(home);
        }
        let changed = self.followers.insert(home, *decision);
        let items: Vec<Arc<Item>> = self.items.shared().take(told).collect();
        if !items.is_empty() {
            hops.push(Hop::Items { to: Audience::One(home.clone()), items });
        }
        changed
    }

    /// Appends the state's bytes: their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut items = Vec::new();
        self.items.put(&mut items);
        let stored = Stored { items: &items, followers: self.followers.sorted() };
        stored::append(&stored, out);
    }

    pub(super) fn restore(bytes: &[u8]) -> Result<Followed, String> {
        let (stored, rest): (Stored<'_>, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes are left over".to_owned());
        }
        let mut followed = Followed { items: Items::restore(stored.items)?, followers: Followers::default() };
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
