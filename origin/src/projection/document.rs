//! State of one document: its newest items, and the version they make (pure).

use std::collections::VecDeque;
use std::sync::Arc;

use millpond_shared::projection::Kind;
use millpond_shared::version::{Offset, QueueId, Version};

use super::Item;

/// What the outputs of a document are rendered from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// Epoch of its slot, and position of the frame that changed it last.
    pub version: Version,
    /// The latest time at which ingest took an event that changed it: milliseconds since the Unix epoch.
    pub changed_ms: u64,
    /// Event queue and offset of the event that changed it last.
    pub reflects: (QueueId, Offset),
    /// The greatest by (order, id) first.
    items: VecDeque<Arc<Item>>,
    weight: usize,
}

/// Where and when an event came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Epoch of the document's slot and position of the event's frame.
    pub version: Version,
    /// Its place in its event queue.
    pub place: (QueueId, Offset),
    /// When ingest took it: milliseconds since the Unix epoch.
    pub received: u64,
}

/// How many items documents of this kind keep: `latest` is a feed of one.
pub fn keep_of(kind: Kind) -> usize {
    match kind {
        Kind::Feed { keep } => keep,
        Kind::Latest => 1,
    }
}

impl Document {
    /// A document as it was stored, its items in order.
    pub fn restored(version: Version, changed_ms: u64, reflects: (QueueId, Offset), items: Vec<Item>) -> Document {
        let weight = items.iter().map(Item::weight).sum();
        Document { version, changed_ms, reflects, items: items.into_iter().map(Arc::new).collect(), weight }
    }

    pub fn items(&self) -> impl ExactSizeIterator<Item = &Item> {
        self.items.iter().map(Arc::as_ref)
    }

    /// What the items take in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Files `item` among the newest `keep`; whether that changed anything.
    ///
    /// Takes the document by its shared handle, so that one that readers or the flusher hold is copied only when it
    /// does change.
    pub fn apply(document: &mut Arc<Document>, keep: usize, item: Item, arrival: Arrival) -> bool {
        let Some(place) = document.place(keep, &item) else { return false };
        let document = Arc::make_mut(document);
        document.weight += item.weight();
        match place {
            Place::Insert(index) => document.items.insert(index, Arc::new(item)),
            Place::Replace(index) => {
                let replaced = document.items.get_mut(index).map(|kept| std::mem::replace(kept, Arc::new(item)));
                document.weight -= replaced.map_or(0, |replaced| replaced.weight());
            }
        }
        while document.items.len() > keep {
            document.weight -= document.items.pop_back().map_or(0, |dropped| dropped.weight());
        }
        document.version = arrival.version;
        document.reflects = arrival.place;
        document.changed_ms = document.changed_ms.max(arrival.received);
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
}

enum Place {
    Insert(usize),
    Replace(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn item(order: i64, id: &str, body: &str) -> Item {
        Item { order, id: id.into(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn arrival(position: u64, received: u64) -> Arrival {
        Arrival { version: Version::new(1, position), place: (0, position * 10), received }
    }

    fn apply_all(keep: usize, items: &[Item]) -> Arc<Document> {
        let mut document = Arc::default();
        for (index, item) in items.iter().enumerate() {
            Document::apply(&mut document, keep, item.clone(), arrival(index as u64 + 1, 0));
        }
        document
    }

    fn ids(document: &Document) -> Vec<&str> {
        document.items().map(|item| item.id.as_ref()).collect()
    }

    #[test]
    fn the_newest_stay() {
        let items = [item(1, "a", ""), item(3, "b", ""), item(2, "c", ""), item(3, "a", ""), item(0, "z", "")];
        assert_eq!(ids(&apply_all(3, &items)), ["b", "a", "c"]);
        assert_eq!(ids(&apply_all(1, &items)), ["b"]);
    }

    #[test]
    fn what_changes_nothing_leaves_the_version() {
        let mut document = apply_all(2, &[item(5, "a", "x"), item(6, "b", "x")]);
        let before = document.clone();
        for (why, repeated) in [("too old", item(4, "c", "x")), ("there already", item(5, "a", "x"))] {
            assert!(!Document::apply(&mut document, 2, repeated, arrival(9, 9)), "{why}");
        }
        assert_eq!(document, before);
        assert!(Document::apply(&mut document, 2, item(7, "d", "x"), arrival(10, 3)));
        assert_eq!((document.version.position, document.changed_ms, document.reflects), (10, 3, (0, 100)));
        assert!(Document::apply(&mut document, 2, item(8, "e", "x"), arrival(11, 2)));
        assert_eq!(document.changed_ms, 3, "the latest `received`, not the last");
    }

    #[test]
    fn a_copy_that_somebody_holds_is_not_changed() {
        let mut document = apply_all(2, &[item(5, "a", "x")]);
        let held = document.clone();
        Document::apply(&mut document, 2, item(6, "b", "x"), arrival(2, 0));
        assert_eq!((ids(&held), ids(&document)), (vec!["a"], vec!["b", "a"]));
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
                let document = apply_all(keep, &items(list));
                prop_assert_eq!(&document.items().cloned().collect::<Vec<_>>(), &expected);
                prop_assert_eq!(document.weight(), expected.iter().map(Item::weight).sum::<usize>());
            }
            // Twice the same changes nothing more.
            let mut document = apply_all(keep, &items(&arrivals));
            for item in items(&again) {
                prop_assert!(!Document::apply(&mut document, keep, item, arrival(99, 0)));
            }
        }
    }
}
