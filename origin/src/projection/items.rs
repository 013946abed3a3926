//! The newest items of a key: state of `feed` and `latest` (pure).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use millpond_shared::stored;
use serde::{Deserialize, Serialize, Serializer};

use super::{Before, Item};

/// Items, the greatest by (order, id) first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    items: VecDeque<Arc<Item>>,
    weight: usize,
}

impl Items {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Item> {
        self.items.iter().map(Arc::as_ref)
    }

    /// Those below a place; all of them without one.
    pub fn below<'a>(&'a self, before: Option<&Before>) -> impl Iterator<Item = &'a Item> + use<'a> {
        let above = |before: &Before| self.items.partition_point(|item| item.rank() >= before.rank());
        self.iter().skip(before.map_or(0, above))
    }

    /// Whether an item stands at the place.
    pub fn has_place(&self, before: &Before) -> bool {
        self.has_rank(before.rank())
    }

    /// Whether an item has this order and id.
    pub fn has_rank(&self, rank: (i64, &str)) -> bool {
        self.items.binary_search_by(|item| rank.cmp(&item.rank())).is_ok()
    }

    /// The items, to be shared.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.items.iter()
    }

    /// What the items take in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Whether `item` is among the newest `keep`, and not there yet.
    pub fn would_change(&self, keep: usize, item: &Item) -> bool {
        self.place(keep, item).is_some()
    }

    /// Files `item` among the newest `keep`; whether that changed anything.
    pub fn apply(&mut self, keep: usize, item: Item) -> bool {
        let Some(place) = self.place(keep, &item) else { return false };
        self.weight += item.weight();
        match place {
            Place::Insert(index) => self.items.insert(index, Arc::new(item)),
            Place::Replace(index) => {
                let replaced = self.items.get_mut(index).map(|kept| std::mem::replace(kept, Arc::new(item)));
                self.weight -= replaced.map_or(0, |replaced| replaced.weight());
            }
        }
        while self.items.len() > keep {
            self.weight -= self.items.pop_back().map_or(0, |dropped| dropped.weight());
        }
        true
    }

    fn place(&self, keep: usize, item: &Item) -> Option<Place> {
        // The usual event is the newest.
        if self.items.front().is_none_or(|newest| newest.rank() < item.rank()) {
            return Some(Place::Insert(0));
        }
        match self.items.binary_search_by(|kept| item.rank().cmp(&kept.rank())) {
            Err(index) => (index < keep).then_some(Place::Insert(index)),
            // Two events of one order and one id (of two sources, or repeated behind the source's window): the
            // greater body stays, so that the first to arrive does not decide.
            Ok(index) => self.items.get(index).filter(|kept| kept.body < item.body).map(|_| Place::Replace(index)),
        }
    }

    /// Appends the items' bytes: their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        // A sequence is its length and then its elements.
        stored::append(&self.items.len(), out);
        for item in self.iter() {
            stored::append(&StoredItem { order: item.order, id: &item.id, body: &item.body }, out);
        }
    }

    pub(super) fn restore(bytes: &[u8]) -> Result<Items, String> {
        let failed = |error: postcard::Error| error.to_string();
        // Each becomes an item as soon as it is read.
        let (count, mut rest): (usize, &[u8]) = postcard::take_from_bytes(bytes).map_err(failed)?;
        let mut restored = Items { items: VecDeque::with_capacity(count.min(rest.len())), weight: 0 };
        for _ in 0..count {
            let (stored, behind): (StoredItem<'_>, &[u8]) = postcard::take_from_bytes(rest).map_err(failed)?;
            let (id, body) = (stored.id.into(), Bytes::copy_from_slice(stored.body));
            let item = Item { order: stored.order, id, body };
            restored.weight += item.weight();
            restored.items.push_back(Arc::new(item));
            rest = behind;
        }
        if rest.is_empty() { Ok(restored) } else { Err("bytes are left over".to_owned()) }
    }
}

enum Place {
    Insert(usize),
    Replace(usize),
}

#[derive(Serialize, Deserialize)]
struct StoredItem<'a> {
    order: i64,
    id: &'a str,
    #[serde(serialize_with = "as_bytes")]
    body: &'a [u8],
}

/// In one piece; `serde` would write a slice byte by byte. The encoding is the same.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn item(order: i64, id: &str, body: &str) -> Item {
        Item { order, id: id.into(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn apply_all(keep: usize, items: &[Item]) -> Items {
        let mut kept = Items::default();
        for item in items {
            assert_eq!(kept.would_change(keep, item), kept.apply(keep, item.clone()));
        }
        kept
    }

    fn ids(items: &Items) -> Vec<&str> {
        items.iter().map(|item| item.id.as_ref()).collect()
    }

    #[test]
    fn the_newest_stay() {
        let items = [item(1, "a", ""), item(3, "b", ""), item(2, "c", ""), item(3, "a", ""), item(0, "z", "")];
        assert_eq!(ids(&apply_all(3, &items)), ["b", "a", "c"]);
        assert_eq!(ids(&apply_all(1, &items)), ["b"]);
    }

    /// What any arrival order must come to: by (order, id), the greatest body of each, the newest `keep`.
    fn model(keep: usize, items: &[Item]) -> Vec<Item> {
        let mut by_rank: BTreeMap<(i64, &str), &Item> = BTreeMap::new();
        for item in items {
            let kept = by_rank.entry(item.rank()).or_insert(item);
            if kept.body < item.body {
                *kept = item;
            }
        }
        by_rank.into_values().rev().take(keep).cloned().collect()
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_items(
            (arrivals, again) in proptest::collection::vec((0i64..6, 0u8..4, 0u8..3), 0..40).prop_flat_map(|list| {
                (Just(list.clone()), Just(list).prop_shuffle())
            }),
            keep in 1usize..8,
        ) {
            let items = |list: &[(i64, u8, u8)]| -> Vec<Item> {
                list.iter().map(|(order, id, body)| item(*order, &id.to_string(), &body.to_string())).collect()
            };
            let expected = model(keep, &items(&arrivals));
            for list in [&arrivals, &again] {
                let kept = apply_all(keep, &items(list));
                prop_assert_eq!(&kept.iter().cloned().collect::<Vec<_>>(), &expected);
                prop_assert_eq!(kept.weight(), expected.iter().map(Item::weight).sum::<usize>());
            }
            // Twice the same changes nothing more.
            let mut kept = apply_all(keep, &items(&arrivals));
            for item in items(&again) {
                prop_assert!(!kept.apply(keep, item));
            }
        }
    }
}
