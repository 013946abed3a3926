//! The newest items of a key: state of `feed` and `latest` (pure).

use std::collections::VecDeque;
use std::sync::Arc;

use millpond_shared::stored;
use serde::{Deserialize, Serialize};

use super::item::Texts;
use super::{Before, Item};

/// Items, the greatest by (order, id) first.
#[derive(Clone, Debug, Default)]
pub struct Items {
    items: VecDeque<Item>,
    weight: usize,
    /// The texts of items that were read together.
    read: Option<Together>,
}

/// Texts that stay as long as one of their items does.
#[derive(Clone, Debug)]
struct Together {
    text: Arc<str>,
    /// Bytes of items that have gone. When they are more than half of it, the others get a block of their own.
    gone: usize,
}

impl PartialEq for Items {
    fn eq(&self, other: &Items) -> bool {
        self.items == other.items
    }
}

impl Eq for Items {}

impl Items {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Item> {
        self.items.iter()
    }

    /// Those below a place; all of them without one.
    pub fn below<'a>(&'a self, before: Option<&Before>) -> impl Iterator<Item = &'a Item> + use<'a> {
        let above = |before: &Before| self.items.partition_point(|item| item.cmp_rank(before.rank()).is_ge());
        self.iter().skip(before.map_or(0, above))
    }

    /// Whether an item stands at the place.
    pub fn has_place(&self, before: &Before) -> bool {
        self.has_rank(before.rank())
    }

    /// Whether an item has this order and id.
    pub fn has_rank(&self, rank: (i64, &str)) -> bool {
        self.items.binary_search_by(|item| item.cmp_rank(rank).reverse()).is_ok()
    }

    /// The items, to be shared.
    pub fn shared(&self) -> impl Iterator<Item = Arc<Item>> {
        self.items.iter().cloned().map(Arc::new)
    }

    /// What the items take in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Whether `item` is among the newest `keep`, and not there yet.
    pub fn would_change(&self, keep: usize, item: &Item) -> bool {
        self.place(keep, item).is_some()
    }

    /// Files `item` among the newest `keep`, which is one at least; whether that changed anything.
    pub fn apply(&mut self, keep: usize, item: Item) -> bool {
        let Some(place) = self.place(keep, &item) else { return false };
        self.weight += item.weight();
        match place {
            Place::Insert(index) => {
                // First, so that the list does not need room for one more.
                while self.items.len() >= keep.max(1) {
                    let last = self.items.pop_back();
                    self.went(last);
                }
                self.items.insert(index, item);
            }
            Place::Replace(index) => {
                let replaced = self.items.get_mut(index).map(|kept| std::mem::replace(kept, item));
                self.went(replaced);
            }
        }
        true
    }

    fn went(&mut self, item: Option<Item>) {
        let Some(item) = item else { return };
        self.weight -= item.weight();
        if let Some(read) = &mut self.read
            && item.is_in(&read.text)
        {
            read.gone += item.text_bytes();
            self.weight += item.text_bytes();
            if read.gone > read.text.len() / 2 {
                self.gather();
            }
        }
    }

    /// Puts the texts that are left of those that were read together into a block of their own.
    fn gather(&mut self) {
        let Some(Together { text, gone }) = self.read.take() else { return };
        self.weight -= gone;
        let mut texts = Texts::with_room(self.items.len(), text.len() - gone);
        for item in self.items.iter().filter(|item| item.is_in(&text)) {
            texts.push(item.order, item.id(), item.body());
        }
        let (gathered, together) = texts.items();
        for (item, gathered) in self.items.iter_mut().filter(|item| item.is_in(&text)).zip(gathered) {
            *item = gathered;
        }
        self.read = Some(Together { text: together, gone: 0 });
    }

    fn place(&self, keep: usize, item: &Item) -> Option<Place> {
        let rank = item.rank();
        // The usual event is the newest.
        if self.items.front().is_none_or(|newest| newest.cmp_rank(rank).is_lt()) {
            return Some(Place::Insert(0));
        }
        match self.items.binary_search_by(|kept| kept.cmp_rank(rank).reverse()) {
            Err(index) => (index < keep).then_some(Place::Insert(index)),
            // Two events of one order and one id (of two sources, or repeated behind the source's window): the
            // greater body stays, so that the first to arrive does not decide.
            Ok(index) => self.items.get(index).filter(|kept| kept.body() < item.body()).map(|_| Place::Replace(index)),
        }
    }

    /// Appends the items' bytes: their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        // A sequence is its length and then its elements.
        stored::append(&self.items.len(), out);
        for item in self.iter() {
            stored::append(&StoredItem { order: item.order, id: item.id(), body: item.body() }, out);
        }
    }

    pub(super) fn restore(bytes: &[u8]) -> Result<Items, String> {
        let failed = |error: postcard::Error| error.to_string();
        let (count, mut rest): (usize, &[u8]) = postcard::take_from_bytes(bytes).map_err(failed)?;
        let mut texts = Texts::with_room(count.min(rest.len()), rest.len());
        for _ in 0..count {
            let (stored, behind): (StoredItem<'_>, &[u8]) = postcard::take_from_bytes(rest).map_err(failed)?;
            texts.push(stored.order, stored.id, stored.body);
            rest = behind;
        }
        if !rest.is_empty() {
            return Err("bytes are left over".to_owned());
        }
        let (items, text) = texts.items();
        let weight = items.iter().map(Item::weight).sum();
        Ok(Items { items, weight, read: Some(Together { text, gone: 0 }) })
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
    body: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn item(order: i64, id: &str, body: &str) -> Item {
        Item::new(order, id, body)
    }

    fn apply_all(keep: usize, items: &[Item]) -> Items {
        let mut kept = Items::default();
        for item in items {
            assert_eq!(kept.would_change(keep, item), kept.apply(keep, item.clone()));
        }
        kept
    }

    fn ids(items: &Items) -> Vec<&str> {
        items.iter().map(Item::id).collect()
    }

    #[test]
    fn the_newest_stay() {
        let items = [item(1, "a", ""), item(3, "b", ""), item(2, "c", ""), item(3, "a", ""), item(0, "z", "")];
        assert_eq!(ids(&apply_all(3, &items)), ["b", "a", "c"]);
        assert_eq!(ids(&apply_all(1, &items)), ["b"]);
    }

    fn restored(items: &Items) -> Items {
        let mut blob = Vec::new();
        items.put(&mut blob);
        Items::restore(&blob).expect("what was put")
    }

    /// Bytes of all blocks of texts that the items keep in memory, and of their own texts in them.
    fn text_bytes(items: &Items) -> (usize, usize) {
        let blocks: BTreeMap<*const u8, usize> =
            items.iter().map(|item| (item.block().as_ptr(), item.block().len())).collect();
        (blocks.values().sum(), items.iter().map(Item::text_bytes).sum())
    }

    #[test]
    fn texts_that_were_read_together_are_counted_while_they_are_there_and_go_when_half_of_them_are_of_no_use() {
        let body = "x".repeat(100);
        let all: Vec<Item> = (0..60).map(|n| item(n, "i", &body)).collect();
        let mut kept = restored(&apply_all(20, &all[..20]));
        let (read, own) = text_bytes(&kept);
        assert_eq!(read, own, "nothing else is in the block");
        for newer in &all[20..] {
            assert!(kept.apply(20, newer.clone()));
            let (held, own) = text_bytes(&kept);
            assert_eq!(kept.weight(), kept.iter().map(Item::weight).sum::<usize>() + held - own);
            assert!(held - own <= read / 2, "{held} for {own}");
        }
        assert_eq!((text_bytes(&kept), kept), ((own, own), apply_all(20, &all)));
    }

    /// What any arrival order must come to: by (order, id), the greatest body of each, the newest `keep`.
    fn model(keep: usize, items: &[Item]) -> Vec<Item> {
        let mut by_rank: BTreeMap<(i64, &str), &Item> = BTreeMap::new();
        for item in items {
            let kept = by_rank.entry(item.rank()).or_insert(item);
            if kept.body() < item.body() {
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
            // Whatever had been written and read again.
            let half = items(&again).len() / 2;
            let mut kept = restored(&apply_all(keep, &items(&again)[..half]));
            for item in &items(&again)[half..] {
                prop_assert_eq!(kept.would_change(keep, item), kept.clone().apply(keep, item.clone()));
                kept.apply(keep, item.clone());
                let (held, own) = text_bytes(&kept);
                prop_assert_eq!(kept.weight() + own, kept.iter().map(Item::weight).sum::<usize>() + held);
            }
            prop_assert_eq!(&kept.iter().cloned().collect::<Vec<_>>(), &expected);
            // Twice the same changes nothing more.
            let mut kept = apply_all(keep, &items(&arrivals));
            for item in items(&again) {
                prop_assert!(!kept.apply(keep, item));
            }
        }
    }
}
