//! One document: the state of its key, and how far it has come (pure).

use std::sync::Arc;

use millpond_shared::projection::Kind;
use millpond_shared::stored;
use millpond_shared::version::{Offset, QueueId, Version};
use serde::{Deserialize, Serialize};

use super::packing::{Packer, unpack};
use super::state::{Effect, KeyState, keep_of};
use super::{Before, GREAT_FEEDS, Hop, Item, Items};

/// What the outputs of a document are rendered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Epoch of its slot, and position of the frame that changed it last.
    pub version: Version,
    /// The latest time at which ingest took an event that changed it: milliseconds since the Unix epoch.
    pub changed_ms: u64,
    /// Event queue and offset of the event that changed it last.
    pub reflects: (QueueId, Offset),
    pub state: KeyState,
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

/// What became of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Changed,
    /// The document is as it was.
    Nothing,
    /// The document had it, or came after it, before this was called: a replay does not apply it again.
    Before,
}

/// How a blob begins, behind the format byte of its state; the state's own bytes follow.
#[derive(Serialize, Deserialize)]
struct Head {
    version: Version,
    changed_ms: u64,
    reflects: (QueueId, Offset),
}

/// Longest [`Head`] with its format byte, in bytes: numbers of seven bits a byte.
const HEAD_BYTES: usize = 1 + 5 + 10 + 10 + 3 + 10;

/// Set in the format byte where the state's bytes are packed.
const PACKED: u8 = 0x80;

impl Document {
    /// The document of a key that no event has reached.
    pub fn empty(kind: &Kind) -> Document {
        Document { version: Version::ZERO, changed_ms: 0, reflects: (0, 0), state: KeyState::empty(kind) }
    }

    /// Its items, if it is of a kind that has some.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items_below(None)
    }

    /// Its items below a place, the newest first; all of them without one.
    pub fn items_below<'a>(&'a self, before: Option<&Before>) -> impl Iterator<Item = &'a Item> + use<'a> {
        let items: Box<dyn Iterator<Item = &'a Item> + 'a> = match &self.state {
            KeyState::Items(items) => Box::new(items.below(before)),
            KeyState::Removable(items) => Box::new(items.below(before)),
            KeyState::Followed(followed) => Box::new(followed.items().below(before)),
            KeyState::Home(home) => Box::new(home.below(before)),
            KeyState::Edges(edges) => Box::new(edges.below(before)),
            KeyState::Counter(_) | KeyState::Group(_) => Box::new(std::iter::empty()),
        };
        items
    }

    /// Whether an item stands at the place, removed or not.
    pub fn has_place(&self, before: &Before) -> bool {
        match &self.state {
            KeyState::Items(items) => items.has_place(before),
            KeyState::Removable(items) => items.has_place(before),
            KeyState::Followed(followed) => followed.items().has_place(before),
            KeyState::Home(home) => home.has_place(before),
            KeyState::Edges(edges) => edges.has_place(before),
            KeyState::Counter(_) | KeyState::Group(_) => false,
        }
    }

    /// What its state takes in memory, in bytes.
    pub fn weight(&self) -> usize {
        self.state.weight()
    }

    /// Takes `effect` in, unless the document has it: a replay may start before the position that it reflects.
    ///
    /// Takes the document by its shared handle, so that one that readers or a commit hold is copied only when it does
    /// change.
    pub fn apply(document: &mut Arc<Document>, kind: &Kind, effect: Effect, arrival: Arrival) -> Applied {
        Document::apply_and_tell(document, kind, effect, arrival, "", &mut Vec::new())
    }

    /// The same to the document of `key`; what it has to tell others goes to `hops`. What it had before it told before.
    pub fn apply_and_tell(
        document: &mut Arc<Document>,
        kind: &Kind,
        effect: Effect,
        arrival: Arrival,
        key: &str,
        hops: &mut Vec<Hop>,
    ) -> Applied {
        if document.has(&arrival) {
            return Applied::Before;
        }
        let document = if let Some(own) = Arc::get_mut(document) {
            own
        } else if document.state.would_change(kind, &effect) {
            Arc::make_mut(document)
        } else {
            return Applied::Nothing;
        };
        if !document.state.apply(kind, effect, key, hops) {
            return Applied::Nothing;
        }
        document.version = arrival.version;
        document.reflects = arrival.place;
        document.changed_ms = document.changed_ms.max(arrival.received);
        Applied::Changed
    }

    /// Takes what another shard's excerpt or list of great feeds has into this one's, which has `key`; whether that changed
    /// it. It then has the other's version, as if it had been taken over.
    pub fn join(document: &mut Arc<Document>, kind: &Kind, key: &str, other: &Document) -> bool {
        let (Kind::Followed(declared), KeyState::Followed(theirs)) = (kind, &other.state) else { return false };
        let mut joined = document.as_ref().clone();
        let KeyState::Followed(ours) = &mut joined.state else { return false };
        if !ours.join(declared, theirs, key == GREAT_FEEDS) {
            return false;
        }
        joined.version = other.version;
        joined.reflects = other.reflects;
        joined.changed_ms = joined.changed_ms.max(other.changed_ms);
        *document = Arc::new(joined);
        true
    }

    /// A home feed's document with excerpts of the feeds with these keys, as it is shown at `version`.
    pub fn merged<'a>(
        &self,
        kind: &Kind,
        excerpts: impl Iterator<Item = (&'a Arc<str>, &'a Document)> + Clone,
        version: Version,
    ) -> Document {
        let KeyState::Home(home) = &self.state else { return self.clone() };
        let changed_ms = latest_of(self, excerpts.clone());
        let state = KeyState::Home(home.merged(keep_of(kind), items_of(excerpts)));
        Document { version, changed_ms, state, ..*self }
    }

    /// The same document with the items of excerpts in it, as if it had been told of them.
    pub fn with_excerpts<'a>(
        &self,
        kind: &Kind,
        excerpts: impl Iterator<Item = (&'a Arc<str>, &'a Document)> + Clone,
    ) -> Document {
        let KeyState::Home(home) = &self.state else { return self.clone() };
        let changed_ms = latest_of(self, excerpts.clone());
        let state = KeyState::Home(home.clone().with(keep_of(kind), items_of(excerpts)));
        Document { changed_ms, state, ..*self }
    }

    /// What another shard has to list of great feeds when it is given excerpts of them.
    pub fn list_of(kind: &Kind, feeds: &[&str]) -> Document {
        let mut list = Document::empty(kind);
        if let KeyState::Followed(followed) = &mut list.state {
            feeds.iter().for_each(|feed| _ = followed.list(feed));
        }
        list
    }

    /// Whether the event is in the document, or came before one that is.
    ///
    /// Frames are applied in the order of their positions, and the events of one frame, which come from one queue, in
    /// the order of their offsets. An event behind the last one that changed something may have been applied too: it
    /// changed nothing, and will change nothing again.
    fn has(&self, arrival: &Arrival) -> bool {
        (arrival.version, arrival.place.1) <= (self.version, self.reflects.1)
    }

    /// The document as bytes: a format byte, then version, time and place in `postcard`, then what its state puts; that
    /// packed, where it is large and gets smaller by it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.weight());
        self.encode_into(&mut out, &mut Packer::default());
        out
    }

    /// The same, in place of what is in `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>, packer: &mut Packer) {
        let Document { version, changed_ms, reflects, .. } = *self;
        out.clear();
        out.push(self.state.format());
        stored::append(&Head { version, changed_ms, reflects }, out);
        let head = out.len();
        self.state.put(out);
        if let Some(packed) = packer.pack(out.get(head..).unwrap_or_default()) {
            out.truncate(head);
            out.extend_from_slice(packed);
            out.iter_mut().take(1).for_each(|format| *format |= PACKED);
        }
    }

    /// The document of a key of `kind` that `blob` is; why it is none otherwise, in words.
    pub fn decode(kind: &Kind, blob: &[u8]) -> Result<Document, String> {
        let (format, rest) = blob.split_first().ok_or("it is empty")?;
        let (head, rest): (Head, &[u8]) = postcard::take_from_bytes(rest).map_err(|error| error.to_string())?;
        let Head { version, changed_ms, reflects } = head;
        let unpacked = if format & PACKED == 0 { None } else { Some(unpack(rest)?) };
        let state = KeyState::restore(kind, format & !PACKED, unpacked.as_deref().unwrap_or(rest))?;
        Ok(Document { version, changed_ms, reflects, state })
    }
}

/// Items of excerpts with the keys of their feeds.
fn items_of<'a>(
    excerpts: impl Iterator<Item = (&'a Arc<str>, &'a Document)>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Items)> {
    excerpts.filter_map(|(feed, document)| match &document.state {
        KeyState::Followed(excerpt) => Some((feed, excerpt.items())),
        _ => None,
    })
}

/// When any of these documents was changed last.
fn latest_of<'a>(home: &Document, excerpts: impl Iterator<Item = (&'a Arc<str>, &'a Document)>) -> u64 {
    excerpts.fold(home.changed_ms, |latest, (_, excerpt)| latest.max(excerpt.changed_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::Feed { keep: 2, removal: None };

    fn item(order: i64, id: &str, body: &str) -> Effect {
        Effect::Item(Item::new(order, id, body))
    }

    fn arrival(position: u64, received: u64) -> Arrival {
        Arrival { version: Version::new(1, position), place: (0, position * 10), received }
    }

    fn document(items: &[(i64, &str)]) -> Arc<Document> {
        let mut document = Arc::new(Document::empty(&KIND));
        for (position, (order, id)) in (1..).zip(items) {
            let applied = Document::apply(&mut document, &KIND, item(*order, id, "x"), arrival(position, 0));
            assert_eq!(applied, Applied::Changed);
        }
        document
    }

    fn ids(document: &Document) -> Vec<&str> {
        document.items().map(|item| item.id()).collect()
    }

    #[test]
    fn what_changes_nothing_leaves_the_version() {
        let mut document = document(&[(5, "a"), (6, "b")]);
        let before = document.clone();
        for (why, repeated) in [("too old", item(4, "c", "x")), ("there already", item(5, "a", "x"))] {
            let applied = Document::apply(&mut document, &KIND, repeated, arrival(9, 9));
            assert_eq!(applied, Applied::Nothing, "{why}");
        }
        assert_eq!(document, before);
        Document::apply(&mut document, &KIND, item(7, "d", "x"), arrival(10, 3));
        assert_eq!((document.version.position, document.changed_ms, document.reflects), (10, 3, (0, 100)));
        Document::apply(&mut document, &KIND, item(8, "e", "x"), arrival(11, 2));
        assert_eq!(document.changed_ms, 3, "the latest `received`, not the last");
    }

    #[test]
    fn a_copy_that_somebody_holds_is_not_changed() {
        let mut document = document(&[(5, "a")]);
        let held = document.clone();
        assert_eq!(Document::apply(&mut document, &KIND, item(5, "a", "x"), arrival(2, 0)), Applied::Nothing);
        assert!(Arc::ptr_eq(&held, &document), "not copied for nothing");
        Document::apply(&mut document, &KIND, item(6, "b", "x"), arrival(3, 0));
        assert_eq!((ids(&held), ids(&document)), (vec!["a"], vec!["b", "a"]));
    }

    #[test]
    fn what_it_has_already_is_not_taken_in_again() {
        let mut document = document(&[(5, "a"), (6, "b"), (7, "c")]);
        let place = |position, offset| Arrival { place: (0, offset), ..arrival(position, 0) };
        let mut apply = |order, arrival| Document::apply(&mut document, &KIND, item(order, "z", "x"), arrival);
        for (position, offset) in [(1, 10), (3, 30), (3, 29)] {
            assert_eq!(apply(9, place(position, offset)), Applied::Before);
        }
        assert_eq!(apply(9, place(3, 31)), Applied::Changed, "later in the same frame");
        assert_eq!(apply(10, place(4, 1)), Applied::Changed, "a later frame, of another event queue");
        let moved = Arrival { version: Version::new(2, 1), ..place(1, 1) };
        assert_eq!(apply(11, moved), Applied::Changed, "positions are those of another shard's queue");
    }

    fn stored(items: usize) -> Document {
        let kind = Kind::Feed { keep: 1_000, removal: None };
        let mut document = Arc::new(Document::empty(&kind));
        for n in (0..items).rev() {
            let effect = item(-(n as i64), &format!("id {n}"), &format!("{{\"n\":{n}}}"));
            let position = (items - n) as u64;
            Document::apply(&mut document, &kind, effect, arrival(position, 4_000));
        }
        Document { version: Version::new(2, 300), changed_ms: 4_000, reflects: (5, 600), ..(*document).clone() }
    }

    /// What is packed in `blob`.
    fn unpacked(blob: &[u8]) -> Vec<u8> {
        let (_, rest): (Head, &[u8]) = postcard::take_from_bytes(&blob[1..]).expect("a head");
        unpack(rest).expect("packed")
    }

    #[test]
    fn blobs_and_back() {
        for items in [0, 1, 200] {
            let document = stored(items);
            assert_eq!(Document::decode(&KIND, &document.encode()), Ok(document));
        }
    }

    #[test]
    fn the_encoding_never_changes_under_its_number() {
        // format, version, changed, reflects; number of items; order (zigzag), id, body.
        let expected = [&[1, 2, 0xac, 2, 0xa0, 0x1f, 5, 0xd8, 4, 1, 0, 4][..], b"id 0", &[7], b"{\"n\":0}"].concat();
        assert_eq!(stored(1).encode(), expected);
    }

    #[test]
    fn what_is_large_is_packed() {
        let (small, large) = (stored(2).encode(), stored(200).encode());
        assert_eq!((small[0] & PACKED, large[0]), (0, PACKED | small[0]));
        let bytes: usize = stored(200).items().map(|item| item.id().len() + item.body().len()).sum();
        assert!(large.len() < bytes * 4 / 5, "{} for {bytes}", large.len());
    }

    #[test]
    fn damage_is_told() {
        for items in [2, 200] {
            let blob = stored(items).encode();
            for cut in 0..blob.len() {
                assert!(Document::decode(&KIND, &blob[..cut]).is_err(), "cut at {cut}");
            }
            assert!(Document::decode(&KIND, &[&blob[..], b"x"].concat()).is_err());
        }
        let blob = stored(200).encode();
        let head = blob.len() - lz4_flex::block::compress_prepend_size(&unpacked(&blob)).len();
        let huge = [&blob[..head], &u32::MAX.to_le_bytes(), &blob[head + 4..]].concat();
        assert!(Document::decode(&KIND, &huge).expect_err("refused").contains("4294967295"));
        let unknown = [&[99], &stored(2).encode()[1..]].concat();
        assert!(Document::decode(&KIND, &unknown).expect_err("refused").contains("format 99"));
    }
}
