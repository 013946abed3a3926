//! The newest items of a key, some of them removed: state of a `feed` with `remove_on` (pure).
//!
//! Removals may come before their items, late, or twice, and only so many are remembered; what is shown must not depend
//! on any of this. So it is defined by sets:
//!
//! - Of all items, removed or not, the newest `keep` have a place. One that is removed keeps its place until newer ones
//!   push it out, without its content: else an older one would come back, or not, depending on when it had been dropped.
//! - Of each target the newest removal counts, and of these the newest `removals` are remembered. All items up to the
//!   newest that is forgotten are dropped, so that what was removed once never comes back.
//! - An item is removed if a removal of its name is newer than it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use millpond_shared::stored;
use serde::{Deserialize, Serialize};

use super::{Before, Item};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removable {
    /// The greatest by (order, id) first.
    places: VecDeque<Place>,
    /// When each target was removed last.
    removed: BTreeMap<Box<str>, Rank>,
    /// The same, the oldest first.
    removals: BTreeSet<(Rank, Box<str>)>,
    /// The newest removal that was forgotten.
    forgotten: Option<(Rank, Box<str>)>,
    weight: usize,
}

/// Order and id of an event.
type Rank = (i64, Box<str>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Its `id` by the declaration; empty if it has none, so that nothing removes it.
    name: Box<str>,
    /// Without a body if it is removed.
    item: Arc<Item>,
}

/// An item that can be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: Box<str>,
    pub item: Item,
}

/// Takes an item out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remove {
    pub order: i64,
    /// Id of the event.
    pub id: Box<str>,
    /// Name of the item.
    pub target: Box<str>,
}

/// What a removal takes in memory beside its two texts, in bytes: its parts of two tree nodes, and four blocks.
const REMOVAL_BYTES: usize = 160;
/// What a place takes beside its item and its name, in bytes.
const PLACE_BYTES: usize = size_of::<Place>() + 8;

impl Removable {
    /// The items below a place that are not removed, the newest first; all of them without one.
    pub fn below<'a>(&'a self, before: Option<&Before>) -> impl Iterator<Item = &'a Item> + use<'a> {
        let above = |before: &Before| self.places.partition_point(|place| place.item.cmp_rank(before.rank()).is_ge());
        let below = self.places.iter().skip(before.map_or(0, above));
        below.map(|place| place.item.as_ref()).filter(|item| !item.body().is_empty())
    }

    /// Whether an item stands at the place, removed or not.
    pub fn has_place(&self, before: &Before) -> bool {
        self.places.binary_search_by(|place| place.item.cmp_rank(before.rank()).reverse()).is_ok()
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Files an item among the newest `keep`; whether that changed anything.
    pub fn insert(&mut self, keep: usize, named: Named) -> bool {
        let Named { name, mut item } = named;
        let rank = (item.order, Box::from(item.id()));
        if self.forgotten.as_ref().is_some_and(|(forgotten, _)| rank <= *forgotten) {
            return false;
        }
        if self.removed.get(&name).is_some_and(|removed| rank < *removed) {
            item = item.without_body();
        }
        let place = Place { name, item: Arc::new(item) };
        match self.places.binary_search_by(|kept| kept.item.cmp_rank(place.item.rank()).reverse()) {
            Err(index) if index >= keep => return false,
            Err(index) => {
                self.weight += place.weight();
                self.places.insert(index, place);
            }
            Ok(index) => {
                let Some(kept) = self.places.get_mut(index) else { return false };
                // Two events of one order and one id: the greater stays, by the name first, on which it depends
                // whether there still is a body to compare.
                if (&kept.name, kept.item.body()) >= (&place.name, place.item.body()) {
                    return false;
                }
                self.weight = self.weight + place.weight() - kept.weight();
                *kept = place;
            }
        }
        while self.places.len() > keep {
            self.weight -= self.places.pop_back().map_or(0, |dropped| dropped.weight());
        }
        true
    }

    /// Remembers a removal among the newest `removals` and takes the item out; whether that changed anything.
    pub fn remove(&mut self, removals: usize, remove: Remove) -> bool {
        let Remove { order, id, target } = remove;
        let removal = ((order, id), target);
        let (rank, target) = &removal;
        let is_known = self.removed.get(target).is_some_and(|known| rank <= known);
        if target.is_empty() || is_known || self.forgotten.as_ref().is_some_and(|forgotten| removal <= *forgotten) {
            return false;
        }
        if let Some(before) = self.removed.insert(target.clone(), rank.clone()) {
            self.weight -= removal_weight(&before, target);
            self.removals.remove(&(before, target.clone()));
        }
        self.weight += removal_weight(rank, target);
        for place in self.places.iter_mut().filter(|place| place.name == *target) {
            let item = place.item.as_ref();
            if item.rank() < (rank.0, rank.1.as_ref()) && !item.body().is_empty() {
                self.weight -= item.body().len();
                place.item = Arc::new(item.without_body());
            }
        }
        self.removals.insert(removal);
        if self.removals.len() > removals
            && let Some(oldest) = self.removals.pop_first()
        {
            self.forget(oldest);
        }
        true
    }

    fn forget(&mut self, removal: (Rank, Box<str>)) {
        let (rank, target) = &removal;
        self.removed.remove(target);
        self.weight -= removal_weight(rank, target);
        while self.places.back().is_some_and(|place| place.item.rank() <= (rank.0, rank.1.as_ref())) {
            self.weight -= self.places.pop_back().map_or(0, |dropped| dropped.weight());
        }
        self.forgotten = Some(removal);
    }

    /// Appends the state's bytes: their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let stored = Stored {
            forgotten: self.forgotten.as_ref().map(stored),
            removals: self.removals.iter().map(stored).collect(),
            items: self
                .places
                .iter()
                .map(|Place { name, item }| (item.order, item.id(), name.as_ref(), item.body()))
                .collect(),
        };
        stored::append(&stored, out);
    }

    pub(super) fn restore(bytes: &[u8]) -> Result<Removable, String> {
        let (stored, rest): (Stored<'_>, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes are left over".to_owned());
        }
        let in_order = stored.removals.is_sorted_by(|a, b| a < b)
            && stored.items.is_sorted_by(|(a, a_id, ..), (b, b_id, ..)| (a, a_id) > (b, b_id));
        if !in_order {
            return Err("its items or its removals are out of order".to_owned());
        }
        let forgotten = stored.forgotten.map(|(order, id, target)| ((order, id.into()), target.into()));
        let mut removable = Removable { forgotten, ..Removable::default() };
        for (order, id, target) in stored.removals {
            let rank: Rank = (order, id.into());
            removable.weight += removal_weight(&rank, target);
            if removable.removed.insert(target.into(), rank.clone()).is_some() {
                return Err(format!("`{target}` is removed twice"));
            }
            removable.removals.insert((rank, target.into()));
        }
        for (order, id, name, body) in stored.items {
            let item = Arc::new(Item::new(order, id, body));
            let place = Place { name: name.into(), item };
            removable.weight += place.weight();
            removable.places.push_back(place);
        }
        Ok(removable)
    }
}

impl Place {
    fn weight(&self) -> usize {
        PLACE_BYTES + self.name.len() + self.item.weight()
    }
}

fn removal_weight(rank: &Rank, target: &str) -> usize {
    REMOVAL_BYTES + 2 * (rank.1.len() + target.len())
}

/// What a blob holds.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    forgotten: Option<StoredRemoval<'a>>,
    /// The oldest first.
    removals: Vec<StoredRemoval<'a>>,
    /// Order, id, name, body; the newest first.
    items: Vec<(i64, &'a str, &'a str, &'a str)>,
}

/// Order, id, target.
type StoredRemoval<'a> = (i64, &'a str, &'a str);

fn stored(((order, id), target): &(Rank, Box<str>)) -> StoredRemoval<'_> {
    (*order, id, target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What one event does.
    #[derive(Clone, Debug)]
    enum Act {
        Item { order: i64, id: u8, name: u8, body: u8 },
        Remove { order: i64, id: u8, target: u8 },
    }

    fn applied(keep: usize, removals: usize, acts: &[Act]) -> Removable {
        let mut state = Removable::default();
        for act in acts {
            let before = state.clone();
            let changed = match act {
                Act::Item { order, id, name, body } => {
                    let item = Item::new(*order, &id.to_string(), &format!("{{\"body\":{body}}}"));
                    state.insert(keep, Named { name: name.to_string().into(), item })
                }
                Act::Remove { order, id, target } => state.remove(
                    removals,
                    Remove { order: *order, id: id.to_string().into(), target: target.to_string().into() },
                ),
            };
            assert_eq!(changed, state != before, "{act:?}");
        }
        state
    }

    fn orders(state: &Removable) -> Vec<i64> {
        state.below(None).map(|item| item.order).collect()
    }

    fn item(order: i64, name: u8) -> Act {
        Act::Item { order, id: order as u8, name, body: 0 }
    }

    fn remove(order: i64, target: u8) -> Act {
        Act::Remove { order, id: order as u8, target }
    }

    #[test]
    fn a_removal_takes_what_is_older_whichever_comes_first() {
        for acts in [[item(1, 7), item(2, 8), remove(3, 7)], [remove(3, 7), item(1, 7), item(2, 8)]] {
            assert_eq!(orders(&applied(5, 5, &acts)), [2]);
        }
        // What is posted again after it was removed is there again.
        assert_eq!(orders(&applied(5, 5, &[item(1, 7), remove(3, 7), item(4, 7)])), [4]);
    }

    #[test]
    fn what_is_removed_keeps_its_place_and_loses_its_content() {
        let state = applied(2, 5, &[item(1, 1), item(2, 2), item(3, 3), remove(9, 3)]);
        assert_eq!(orders(&state), [2], "the first was pushed out before the third was removed");
        assert_eq!(orders(&applied(2, 5, &[remove(9, 3), item(3, 3), item(2, 2), item(1, 1)])), [2]);
        let mut blob = Vec::new();
        state.put(&mut blob);
        assert_eq!(blob.windows(6).filter(|window| *window == b"\"body\"").count(), 1);
    }

    #[test]
    fn what_a_forgotten_removal_took_does_not_come_back() {
        let acts = [item(1, 1), item(3, 3), remove(2, 1), remove(5, 9)];
        let mut state = applied(5, 1, &acts);
        assert_eq!(orders(&state), [3], "up to the removal at 2 everything has gone");
        let late = Item::new(1, "1", "{}");
        assert!(!state.insert(5, Named { name: "1".into(), item: late }));
        assert_eq!(state.removals.len(), 1);
    }

    /// The definition at the head of this file, word by word.
    fn model(keep: usize, removals: usize, acts: &[Act]) -> Vec<(i64, String, String)> {
        let mut items: BTreeMap<(i64, String), (String, String)> = BTreeMap::new();
        let mut newest: BTreeMap<String, (i64, String)> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Item { order, id, name, body } => {
                    let content = (name.to_string(), format!("{{\"body\":{body}}}"));
                    let kept = items.entry((*order, id.to_string())).or_insert_with(|| content.clone());
                    *kept = content.max(kept.clone());
                }
                Act::Remove { order, id, target } => {
                    let rank = (*order, id.to_string());
                    let kept = newest.entry(target.to_string()).or_insert_with(|| rank.clone());
                    *kept = rank.max(kept.clone());
                }
            }
        }
        let mut ranked: Vec<(&(i64, String), &String)> = newest.iter().map(|(target, rank)| (rank, target)).collect();
        ranked.sort();
        ranked.reverse();
        let forgotten = ranked.get(removals).map(|(rank, _)| (*rank).clone());
        let remembered: BTreeMap<&String, &(i64, String)> =
            ranked.into_iter().take(removals).map(|(rank, target)| (target, rank)).collect();
        items
            .into_iter()
            .rev()
            .take(keep)
            .filter(|(rank, _)| forgotten.as_ref().is_none_or(|forgotten| rank > forgotten))
            .filter(|(rank, (name, _))| remembered.get(name).is_none_or(|removal| rank >= *removal))
            .map(|((order, id), (_, body))| (order, id, body))
            .collect()
    }

    fn act() -> impl Strategy<Value = Act> {
        let item =
            (0i64..12, 0u8..3, 0u8..6, 0u8..3).prop_map(|(order, id, name, body)| Act::Item { order, id, name, body });
        let remove = (0i64..12, 0u8..3, 0u8..6).prop_map(|(order, id, target)| Act::Remove { order, id, target });
        prop_oneof![3 => item, 2 => remove]
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_bytes(
            (acts, again) in prop::collection::vec(act(), 0..40).prop_flat_map(|list| {
                (Just(list.clone()), Just(list).prop_shuffle())
            }),
            keep in 1usize..8,
            removals in 1usize..5,
        ) {
            let state = applied(keep, removals, &acts);
            let shown: Vec<_> =
                state.below(None).map(|item| (item.order, item.id().to_owned(), item.body().to_owned())).collect();
            prop_assert_eq!(shown, model(keep, removals, &acts));
            let other = applied(keep, removals, &again);
            prop_assert_eq!(&other, &state, "weights included");
            let mut blob = Vec::new();
            state.put(&mut blob);
            prop_assert_eq!(Removable::restore(&blob), Ok(state.clone()));
            // Twice the same changes nothing more.
            let both = [acts, again].concat();
            prop_assert_eq!(applied(keep, removals, &both), state);
        }
    }
}
