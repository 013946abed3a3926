//! From a frame to effects that only have to be applied to their documents (pure).
//!
//! All that is costly about an event, parsing it and rendering its item, is done here, before the state is locked. It
//! depends on the frame and on the declared projections alone, so a frame may be prepared before those in front of it are
//! applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_shared::event::View;
use millpond_shared::projection::Projection;
use millpond_shared::version::{Offset, Position, QueueId, ShardId, Version};
use millpond_shared::wanted::Wanted;
use millpond_shared::wire::{FiledEvent, HandedDocument, Handover, NoFrame, ShardFrame, ShardMessage};

use super::held::CellId;
use super::keys::{KeyPlace, Keys};
use crate::projection::{Document, Effect, Told, is_hop};
use crate::queue::{DeadKey, DeadLetter};
use crate::store::shard_file::{Row, Taking};

/// What one shard needs to know to read its frames.
pub struct Preparer<'a> {
    pub shard: ShardId,
    pub projections: &'a [Projection],
    /// What the projections ask of payloads.
    pub wanted: &'a Wanted,
}

/// What stands in a shard queue at one position, ready for the state.
#[derive(Debug)]
pub enum Ready {
    Events(Prepared),
    Documents(TakenIn),
}

/// Events of a frame, ready to be merged into the state.
#[derive(Debug, Default)]
pub struct Prepared {
    pub position: Position,
    pub queue: QueueId,
    /// Last offset of the round: the queue's new mark.
    pub last: Offset,
    /// Number of events in the frame.
    pub events: u64,
    /// In the order of their offsets.
    pub arrived: Vec<Arrived>,
    /// The keys of their documents in one piece: one allocation instead of as many as there are events.
    pub keys: Keys,
    pub left_out: Vec<LeftOut>,
    /// The same events, to be laid aside.
    pub dead: Vec<DeadLetter>,
}

/// An event that can't be applied to documents.
#[derive(Debug)]
pub struct LeftOut {
    offset: Offset,
    why: Unapplied,
    /// Number of documents it was filed for.
    documents: u64,
}

/// Documents of another shard, ready to be taken in.
#[derive(Debug)]
pub struct TakenIn {
    pub position: Position,
    /// As it is behind them.
    pub taking: Taking,
    pub documents: Vec<Row>,
}

/// What an event does, and the document it does it to.
#[derive(Debug)]
pub struct Arrived {
    pub projection: u16,
    /// In [`Prepared::keys`].
    pub key: KeyPlace,
    pub effect: Effect,
    /// Of the event in its event queue.
    pub offset: Offset,
    /// When ingest took it: milliseconds since the Unix epoch.
    pub received: u64,
    /// Where the document is in memory, once it was found there.
    pub cell: Option<CellId>,
}

/// Why an event has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unapplied {
    /// At or below the mark of its queue: filed twice.
    Repeated,
    /// Its `order` is neither a time nor a whole number.
    Unordered,
    /// Its payload is no JSON.
    Damaged,
    /// Its projection is not declared here: it was taken out of the configuration while events were under way.
    Undeclared,
}

impl Unapplied {
    pub const ALL: [Unapplied; 4] =
        [Unapplied::Repeated, Unapplied::Unordered, Unapplied::Damaged, Unapplied::Undeclared];

    /// In words, with the fix.
    fn words(self) -> &'static str {
        match self {
            Unapplied::Repeated => "it was filed twice",
            Unapplied::Unordered => {
                "its `order` is neither a time nor a whole number: send it with one, or declare another `order`"
            }
            Unapplied::Damaged => "its payload is no JSON that can be read: send it anew",
            Unapplied::Undeclared => "its projection is not declared here: declare it again and replay, or remove this",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Unapplied::Repeated => "repeated",
            Unapplied::Unordered => "unordered",
            Unapplied::Damaged => "damaged",
            Unapplied::Undeclared => "undeclared",
        }
    }
}

/// Why a shard can't go on past a frame. Leaving it out would lose events without a word.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the frame at position {position} of shard queue {shard} can't be read: {problem}")]
    Unreadable { shard: ShardId, position: Position, problem: NoFrame },
    #[error(
        "the documents handed over at position {position} of shard queue {shard} can't be taken in: {problem}; give all \
         shard servers the same [[projection]]s"
    )]
    Documents { shard: ShardId, position: Position, problem: String },
}

impl Ready {
    pub fn position(&self) -> Position {
        match self {
            Ready::Events(prepared) => prepared.position,
            Ready::Documents(taken) => taken.position,
        }
    }
}

impl Prepared {
    /// Adds what the event with this offset, received at this time (ms since the Unix epoch), does to a document.
    pub fn arrive(&mut self, projection: u16, key: &str, effect: Effect, (offset, received): (Offset, u64)) {
        let key = self.keys.push(key);
        self.arrived.push(Arrived { projection, key, effect, offset, received, cell: None });
    }

    /// Leaves out the events that are at or below the mark of their queue: they were filed twice. How many are left out by
    /// then, by reason; an event counts once for every document it was filed for.
    pub fn leave_repeated(&mut self, mark: Offset) -> BTreeMap<Unapplied, u64> {
        let mut repeated = 0;
        let mut is_new = |offset: Offset, documents: u64| {
            repeated += if offset > mark { 0 } else { documents };
            offset > mark
        };
        self.arrived.retain(|arrived| is_new(arrived.offset, 1));
        self.left_out.retain(|left_out| is_new(left_out.offset, left_out.documents));
        self.dead.retain(|letter| letter.key.offset > mark);
        let mut unapplied = BTreeMap::new();
        if repeated > 0 {
            unapplied.insert(Unapplied::Repeated, repeated);
        }
        for LeftOut { why, documents, .. } in &self.left_out {
            *unapplied.entry(*why).or_default() += documents;
        }
        unapplied
    }
}

impl Preparer<'_> {
    /// Reads what stands in the queue at `position`.
    pub fn read(&self, position: Position, message: &[u8]) -> Result<Ready, FrameError> {
        let unreadable = |problem| FrameError::Unreadable { shard: self.shard, position, problem };
        match ShardMessage::decode(message).map_err(unreadable)? {
            ShardMessage::Events(frame) => Ok(Ready::Events(self.events(position, &frame))),
            ShardMessage::Documents(handover) => self.documents(position, &handover).map(Ready::Documents),
        }
    }

    fn events(&self, position: Position, frame: &ShardFrame<'_>) -> Prepared {
        let routes = || frame.events.iter().flat_map(|filed| &filed.routes);
        let mut reading = Reading {
            preparer: self,
            declared: frame.projections.iter().map(|name| self.declared(name)).collect(),
            scratch: Vec::new(),
            out: Prepared {
                position,
                queue: frame.queue,
                last: frame.last,
                events: frame.events.len() as u64,
                arrived: Vec::with_capacity(routes().count()),
                keys: Keys::with_room(routes().map(|(_, key)| key.len()).sum()),
                ..Prepared::default()
            },
        };
        frame.events.iter().for_each(|filed| reading.event(filed));
        reading.out
    }

    /// Reads documents that another shard has handed over.
    fn documents(&self, position: Position, handover: &Handover<'_>) -> Result<TakenIn, FrameError> {
        let failed = |problem: String| FrameError::Documents { shard: self.shard, position, problem };
        let mut projections = Vec::with_capacity(handover.projections.len());
        for (name, fingerprint) in &handover.projections {
            let declared = self.declared(name).filter(|(_, projection)| projection.state_fingerprint() == *fingerprint);
            projections
                .push(declared.ok_or_else(|| failed(format!("`{name}` is declared in another way here, or not")))?);
        }
        let mut documents = Vec::with_capacity(handover.documents.len());
        for HandedDocument { projection, key, blob } in &handover.documents {
            let (index, projection) = projections
                .get(usize::from(*projection))
                .ok_or_else(|| failed("a projection has no name".to_owned()))?;
            let decoded = Document::decode(&projection.kind, blob)
                .map_err(|problem| failed(format!("`{}/{key}`: {problem}", projection.name)))?;
            let version = Version::new(handover.epoch, position);
            documents.push((*index, Arc::from(key.as_ref()), Arc::new(Document { version, ..decoded })));
        }
        let taking = Taking { epoch: handover.epoch, closed: handover.is_last };
        Ok(TakenIn { position, taking, documents })
    }

    fn declared(&self, name: &str) -> Option<(u16, &Projection)> {
        let index = self.projections.iter().position(|projection| projection.name == name)?;
        Some((u16::try_from(index).ok()?, self.projections.get(index)?))
    }
}

struct Reading<'a> {
    preparer: &'a Preparer<'a>,
    /// The declared projection behind each name of the frame.
    declared: Vec<Option<(u16, &'a Projection)>>,
    /// What the texts of items are put together in, one after the other.
    scratch: Vec<u8>,
    out: Prepared,
}

impl Reading<'_> {
    /// Leaves an event out of a document, of all its documents if none is named, and lays it aside.
    fn bury(&mut self, filed: &FiledEvent<'_>, why: Unapplied, document: Option<&str>) {
        let documents = if document.is_some() { 1 } else { filed.routes.len() as u64 };
        self.out.left_out.push(LeftOut { offset: filed.offset, why, documents });
        let reason = match document {
            Some(document) => format!("not in {document}: {}", why.words()),
            None => why.words().to_owned(),
        };
        let (queue, shard) = (self.out.queue, Some(self.preparer.shard));
        let key = DeadKey { queue, offset: filed.offset, shard };
        match self.out.dead.last_mut().filter(|letter| letter.key == key) {
            Some(letter) => letter.reason = format!("{}; {reason}", letter.reason),
            None => self.out.dead.push(DeadLetter::new(key, reason, &filed.event)),
        }
    }

    fn event(&mut self, filed: &FiledEvent<'_>) {
        if is_hop(&filed.event) {
            return self.hop(filed);
        }
        let Ok(view) = View::of(&filed.event, self.preparer.wanted) else {
            return self.bury(filed, Unapplied::Damaged, None);
        };
        for (name, key) in &filed.routes {
            let declared = self.declared.get(usize::from(*name)).copied().flatten();
            let Some((index, projection)) = declared else {
                self.bury(filed, Unapplied::Undeclared, Some(key));
                continue;
            };
            match Effect::of(projection, &view, &mut self.scratch) {
                Err(_) => {
                    let document = millpond_shared::projection::document_tag(&projection.name, key);
                    self.bury(filed, Unapplied::Unordered, Some(&document));
                }
                Ok(effect) => self.arrive(index, key, effect, filed),
            }
        }
    }

    /// What documents have told others.
    fn hop(&mut self, filed: &FiledEvent<'_>) {
        let Some(told) = Told::of(&filed.event) else {
            return self.bury(filed, Unapplied::Damaged, None);
        };
        for (name, key) in &filed.routes {
            let declared = self.declared.get(usize::from(*name)).copied().flatten();
            let effect =
                declared.and_then(|(index, projection)| Some((index, Effect::told(&projection.kind, key, &told)?)));
            match effect {
                Some((index, effect)) => self.arrive(index, key, effect, filed),
                None => self.bury(filed, Unapplied::Undeclared, Some(key)),
            }
        }
    }

    fn arrive(&mut self, projection: u16, key: &str, effect: Effect, filed: &FiledEvent<'_>) {
        self.out.arrive(projection, key, effect, (filed.offset, filed.event.received));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::testing::{declared, event};

    fn projections() -> Vec<Projection> {
        declared(
            r#"
            name = "p"
            kind = "feed"
            key = "{data.user}"
            order = "{data.o}"
            item = { id = "{id}" }
        "#,
        )
    }

    fn filed(offset: Offset, data: &str, routes: &[(u16, &'static str)]) -> FiledEvent<'static> {
        let routes = routes.iter().map(|(index, key)| (*index, (*key).into())).collect();
        FiledEvent { offset, routes, event: event(&offset.to_string(), 0, data) }
    }

    fn frame(events: Vec<FiledEvent<'static>>) -> ShardFrame<'static> {
        ShardFrame {
            queue: 2,
            first: 1,
            last: 9,
            epoch: 1,
            map_version: 1,
            projections: vec!["gone".into(), "p".into()],
            events,
        }
    }

    #[test]
    fn what_cannot_be_applied_is_counted_by_its_reason() {
        let frame = frame(vec![
            filed(2, r#"{"o":"#, &[(1, "repeated"), (0, "repeated")]),
            filed(3, r#"{"o":1}"#, &[(1, "repeated"), (0, "repeated")]),
            filed(4, r#"{"o":1}"#, &[(1, "k"), (0, "undeclared"), (9, "no such name")]),
            filed(5, r#"{"o":"x"}"#, &[(1, "unordered")]),
            filed(6, r#"{"o":"#, &[(1, "damaged")]),
        ]);
        let projections = projections();
        let wanted = Wanted::of(projections.iter().flat_map(Projection::paths));
        let preparer = Preparer { shard: 0, projections: &projections, wanted: &wanted };
        let Ok(Ready::Events(mut prepared)) = preparer.read(5, &frame.encode()) else { panic!("no events") };
        let unapplied = prepared.leave_repeated(3);
        assert_eq!((prepared.position, prepared.queue, prepared.last, prepared.events), (5, 2, 9, 5));
        let expected =
            [(Unapplied::Repeated, 4), (Unapplied::Unordered, 1), (Unapplied::Damaged, 1), (Unapplied::Undeclared, 2)];
        assert_eq!(unapplied, BTreeMap::from(expected));
        assert_eq!(prepared.dead.iter().map(|letter| letter.key.offset).collect::<Vec<_>>(), [4, 5, 6]);
        let [arrived] = prepared.arrived.as_slice() else { panic!("{:?}", prepared.arrived) };
        let Effect::Item(item) = &arrived.effect else { panic!("{arrived:?}") };
        assert_eq!((arrived.projection, prepared.keys.get(arrived.key), item.order), (0, "k", 1));
        assert_eq!((arrived.offset, arrived.received), (4, 0));
    }

    #[test]
    fn documents_of_another_declaration_are_not_taken_in() {
        let projections = projections();
        let wanted = Wanted::of(projections.iter().flat_map(Projection::paths));
        let preparer = Preparer { shard: 0, projections: &projections, wanted: &wanted };
        let handover = |name: &'static str, fingerprint, blob: Vec<u8>| Handover {
            epoch: 4,
            from: 1,
            is_last: false,
            projections: vec![(name.into(), fingerprint)],
            documents: vec![HandedDocument { projection: 0, key: "k".into(), blob: blob.into() }],
        };
        let (fingerprint, blob) = (projections[0].state_fingerprint(), Document::empty(&projections[0].kind).encode());
        let taken = preparer.documents(9, &handover("p", fingerprint, blob.clone())).expect("taken in");
        assert_eq!((taken.position, taken.taking), (9, Taking { epoch: 4, closed: false }));
        assert_eq!(taken.documents[0].2.version, Version::new(4, 9), "as if it had been changed here");
        let words = |handover| preparer.documents(9, &handover).expect_err("refused").to_string();
        assert!(words(handover("p", fingerprint + 1, blob.clone())).contains("`p` is declared in another way"));
        assert!(words(handover("q", fingerprint, blob.clone())).contains("`q`"));
        assert!(words(handover("p", fingerprint, blob[1..].to_vec())).contains("`p/k`"));
    }
}
