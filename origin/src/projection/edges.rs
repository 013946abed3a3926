//! Whom a key points to, each once: state of `edges` (pure).
//!
//! An edge is added, added again, and removed by events that may come in any order and twice; what is shown must not
//! depend on that. So it is defined by sets:
//!
//! - Of each `to` the newest event counts, by (order, id): the edge is there unless that event removes it.
//! - Of all `to`, removed or not, the newest `keep` by the same have a place. What has none is forgotten.
//!
//! Whether a `to` has a place depends on its newest event alone, and one that was pushed out comes back only by an event
//! newer than those that pushed it out. So nothing need be known of what was forgotten.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use millpond_shared::stored;
use serde::{Deserialize, Serialize};

use super::{Before, Item};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    by_to: BTreeMap<Arc<str>, Arc<Item>>,
    /// The same, the oldest first.
    places: BTreeSet<Place>,
    weight: usize,
}

/// What one event does to an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Whom it points to.
    pub to: Box<str>,
    /// Without a body if the edge is removed.
    pub item: Item,
}

/// Compared by rank, then by `to`.
#[derive(Clone, Debug)]
struct Place {
    item: Arc<Item>,
    to: Arc<str>,
}

/// What an edge takes in memory beside its item and its `to`, in bytes: its parts of two tree nodes, and a block.
const EDGE_BYTES: usize = 120;

impl Edges {
    /// The edges that are there below a place, the newest first; all of them without one.
    pub fn below<'a>(&'a self, before: Option<&Before>) -> impl Iterator<Item = &'a Item> + use<'a> {
        let end = before.map_or(Bound::Unbounded, |before| Bound::Excluded(Place::first_at(before)));
        let below = self.places.range((Bound::Unbounded, end)).rev();
        below.map(|place| place.item.as_ref()).filter(|item| !item.body().is_empty())
    }

    /// Whether an edge stands at the place, removed or not.
    pub fn has_place(&self, before: &Before) -> bool {
        let next = self.places.range(Place::first_at(before)..).next();
        next.is_some_and(|place| place.item.rank() == before.rank())
    }

    /// What the state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Whether the event is the newest of its edge, and the edge has a place among the newest `keep`.
    pub fn would_change(&self, keep: usize, edge: &Edge) -> bool {
        match self.by_to.get(edge.to.as_ref()) {
            // Two events of one order and one id: the greater body stays, so that the first to arrive does not decide.
            Some(known) => (known.rank(), known.body()) < (edge.item.rank(), edge.item.body()),
            None => {
                self.places.len() < keep
                    || self.places.first().is_some_and(|oldest| {
                        (oldest.item.rank(), oldest.to.as_ref()) < (edge.item.rank(), edge.to.as_ref())
                    })
            }
        }
    }

    /// Number of edges that have a place, removed ones too.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Whether there is an edge to `to`.
    pub fn is_there(&self, to: &str) -> bool {
        self.by_to.get(to).is_some_and(|item| !item.body().is_empty())
    }

    /// All edges that are there, in the order of whom they point to.
    pub fn there(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Item>)> {
        self.by_to.iter().filter(|(_, item)| !item.body().is_empty())
    }

    /// Takes an event in. `None` if that changed nothing; otherwise what lost its place.
    pub fn apply(&mut self, keep: usize, edge: Edge) -> Option<Vec<(Arc<str>, Arc<Item>)>> {
        if !self.would_change(keep, &edge) {
            return None;
        }
        let to: Arc<str> = match self.by_to.get_key_value(edge.to.as_ref()) {
            Some((to, known)) => {
                let before = Place { item: known.clone(), to: to.clone() };
                self.weight -= before.weight();
                self.places.remove(&before);
                before.to
            }
            None => edge.to.into(),
        };
        self.put_in(Place { item: Arc::new(edge.item), to });
        let mut pushed_out = Vec::new();
        while self.places.len() > keep
            && let Some(oldest) = self.places.pop_first()
        {
            self.weight -= oldest.weight();
            self.by_to.remove(&oldest.to);
            pushed_out.push((oldest.to, oldest.item));
        }
        Some(pushed_out)
    }

    fn put_in(&mut self, place: Place) {
        self.weight += place.weight();
        self.by_to.insert(place.to.clone(), place.item.clone());
        self.places.insert(place);
    }

    /// Appends the state's bytes: their `postcard` encoding.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        fn stored(Place { item, to }: &Place) -> StoredEdge<'_> {
            StoredEdge { order: item.order, id: item.id(), to, body: item.body() }
        }
        let stored: Vec<StoredEdge<'_>> = self.places.iter().map(stored).collect();
        stored::append(&stored, out);
    }

    pub(super) fn restore(bytes: &[u8]) -> Result<Edges, String> {
        let (stored, rest): (Vec<StoredEdge<'_>>, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes are left over".to_owned());
        }
        if !stored.is_sorted_by(|a, b| (a.order, a.id, a.to) < (b.order, b.id, b.to)) {
            return Err("its edges are out of order".to_owned());
        }
        let mut edges = Edges::default();
        for StoredEdge { order, id, to, body } in stored {
            if edges.by_to.contains_key(to) {
                return Err(format!("it has two edges to `{to}`"));
            }
            let item = Item::new(order, id, body);
            edges.put_in(Place { item: Arc::new(item), to: to.into() });
        }
        Ok(edges)
    }
}

impl Place {
    /// What no edge with this order and id is below.
    fn first_at(before: &Before) -> Place {
        let (order, id) = before.rank();
        Place { item: Arc::new(Item::new(order, id, "")), to: "".into() }
    }

    fn rank(&self) -> (i64, &str, &str) {
        (self.item.order, self.item.id(), &self.to)
    }

    fn weight(&self) -> usize {
        EDGE_BYTES + self.to.len() + self.item.weight()
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Place) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Place {}

/// What a blob holds: edges, the oldest first.
#[derive(Serialize, Deserialize)]
struct StoredEdge<'a> {
    order: i64,
    id: &'a str,
    to: &'a str,
    body: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Order, id, to, body; a removal if there is none.
    type Act = (i64, u8, u8, Option<u8>);

    fn edge((order, id, to, body): &Act) -> Edge {
        let body = body.map_or_else(String::new, |body| format!("{{\"n\":{body}}}"));
        Edge { to: to.to_string().into(), item: Item::new(*order, &id.to_string(), &body) }
    }

    fn applied(keep: usize, acts: &[Act]) -> Edges {
        let mut edges = Edges::default();
        for act in acts {
            let (before, would) = (edges.clone(), edges.would_change(keep, &edge(act)));
            let changed = edges.apply(keep, edge(act)).is_some();
            assert_eq!((changed, would), (edges != before, changed), "{act:?}");
        }
        edges
    }

    fn shown(edges: &Edges) -> Vec<(i64, String)> {
        edges.below(None).map(|item| (item.order, item.id().to_owned())).collect()
    }

    #[test]
    fn the_newest_event_of_an_edge_decides_whichever_comes_first() {
        let (add, remove, again) = ((1, 1, 7, Some(0)), (2, 2, 7, None), (3, 3, 7, Some(0)));
        for acts in [[add, remove], [remove, add]] {
            assert!(shown(&applied(5, &acts)).is_empty());
        }
        assert_eq!(shown(&applied(5, &[again, remove, add])), [(3, "3".to_owned())]);
    }

    #[test]
    fn an_edge_that_was_removed_keeps_its_place() {
        let acts = [(1, 1, 1, Some(0)), (2, 2, 2, Some(0)), (3, 3, 3, None)];
        assert_eq!(shown(&applied(2, &acts)), [(2, "2".to_owned())]);
        let mut blob = Vec::new();
        applied(2, &acts).put(&mut blob);
        for cut in 0..blob.len() {
            assert!(Edges::restore(&blob[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Edges::restore(&[&blob[..], b"x"].concat()).is_err());
    }

    /// The definition at the head of this file, word by word.
    fn model(keep: usize, acts: &[Act]) -> Vec<(i64, String)> {
        let mut newest: BTreeMap<String, Edge> = BTreeMap::new();
        for edge in acts.iter().map(edge) {
            let kept = newest.entry(edge.to.to_string()).or_insert_with(|| edge.clone());
            if (kept.item.rank(), kept.item.body()) < (edge.item.rank(), edge.item.body()) {
                *kept = edge;
            }
        }
        let mut ranked: Vec<Edge> = newest.into_values().collect();
        ranked.sort_by(|a, b| (b.item.rank(), &b.to).cmp(&(a.item.rank(), &a.to)));
        let there = ranked.into_iter().take(keep).filter(|edge| !edge.item.body().is_empty());
        there.map(|edge| (edge.item.order, edge.item.id().to_owned())).collect()
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_bytes(
            (acts, again) in prop::collection::vec((0i64..9, 0u8..3, 0u8..7, prop::option::of(0u8..3)), 0..40)
                .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
            keep in 1usize..8,
        ) {
            let edges = applied(keep, &acts);
            prop_assert_eq!(shown(&edges), model(keep, &acts));
            let other = applied(keep, &again);
            prop_assert_eq!(&other, &edges, "weights included");
            let (mut blob, mut other_blob) = (Vec::new(), Vec::new());
            edges.put(&mut blob);
            other.put(&mut other_blob);
            prop_assert_eq!(&other_blob, &blob);
            prop_assert_eq!(Edges::restore(&blob), Ok(edges.clone()));
            // Twice the same changes nothing more.
            prop_assert_eq!(applied(keep, &[acts, again].concat()), edges);
        }
    }
}
