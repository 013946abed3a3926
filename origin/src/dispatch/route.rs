//! From events to the frames of the shards they concern (pure).

use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_shared::event::{Event, View};
use millpond_shared::projection::Projection;
use millpond_shared::shard_map::{MapState, Slot};
use millpond_shared::version::{Offset, QueueId, ShardId};
use millpond_shared::wanted::Wanted;
use millpond_shared::wire::{EventFrame, FiledEvent, ShardFrame};

use crate::projection::{addressees, is_hop, is_part};
use crate::queue::{DeadKey, DeadLetter, RoundFrame, Taken};

/// What events are routed by.
#[derive(Clone, Debug)]
pub struct Routing {
    pub projections: Arc<Vec<Projection>>,
    /// What these ask of payloads.
    pub wanted: Arc<Wanted>,
    pub map: Arc<MapState>,
}

/// What a run of events became.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// The last event that is in it. Before the end of the run: the next one has to wait, as its slot moves.
    pub last: Offset,
    /// One for every shard concerned, in the order of their numbers.
    pub frames: Vec<RoundFrame>,
    /// Events that concern no projection, or that nobody can read.
    pub unrouted: u64,
    /// The latter.
    pub dead: Vec<DeadLetter>,
}

impl Routed {
    /// The one event of this round is too large for a frame: it goes to no shard at all, rather than to some.
    pub fn lay_aside(&mut self, taken: &Taken, frame_max: usize) {
        let decoded = taken.frames.iter().filter_map(|bytes| EventFrame::decode(bytes).ok());
        for frame in decoded {
            let placed = (frame.first..).zip(&frame.events).find(|(offset, _)| *offset == taken.first);
            if let Some((offset, event)) = placed {
                let reason = format!(
                    "with the keys of its documents it takes more than the {frame_max} bytes of a message: make it smaller, or \
                     raise max_payload of the NATS servers and replay"
                );
                let key = DeadKey { queue: frame.queue, offset, shard: None };
                self.dead.push(DeadLetter::new(key, reason, event));
                self.frames.clear();
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.bytes.len()).sum()
    }
}

/// The part of a frame that concerns one shard, while it grows.
struct Part<'a> {
    /// Indices of the projections whose names stand in the frame, in the order they were met.
    projections: Vec<usize>,
    events: Vec<FiledEvent<'a>>,
}

/// A document that an event belongs to.
struct Filing {
    projection: usize,
    key: String,
    shard: ShardId,
}

/// Whether an event can be filed now.
enum Go {
    On,
    /// A slot of it is about to belong to another shard.
    NoFurther,
}

/// What has to be read of payloads to route them.
pub fn wanted(projections: &[Projection]) -> Arc<Wanted> {
    Arc::new(Wanted::of(projections.iter().flat_map(Projection::route_paths)))
}

impl Routing {
    pub fn new(projections: Arc<Vec<Projection>>, map: Arc<MapState>) -> Routing {
        Routing { wanted: wanted(&projections), projections, map }
    }

    /// Routes the events `first..=last` of `frames` under fencing token `epoch`.
    pub fn route(&self, frames: &[EventFrame<'_>], first: Offset, last: Offset, epoch: u64) -> Routed {
        let mut parts: BTreeMap<ShardId, Part<'_>> = BTreeMap::new();
        let (mut unrouted, mut dead, mut last) = (0, Vec::new(), last);
        let mut filings = Vec::new();
        let events = frames.iter().map(|frame| frame.events.len()).sum::<usize>();
        let room = events.div_ceil(usize::from(self.map.map.shards()).max(1));
        'frames: for frame in frames {
            let placed = (frame.first..).zip(&frame.events).filter(|(offset, _)| (first..=last).contains(offset));
            for (offset, event) in placed {
                match self.filings(frame.queue, offset, event, &mut filings) {
                    Ok(Go::On) if filings.is_empty() => unrouted += 1,
                    Ok(Go::On) => file(offset, event, &mut filings, &mut parts, room),
                    Ok(Go::NoFurther) => {
                        last = offset.saturating_sub(1);
                        break 'frames;
                    }
                    Err(problem) => {
                        unrouted += 1;
                        let reason = format!("its payload can't be read: {problem}; send it anew");
                        let key = DeadKey { queue: frame.queue, offset, shard: None };
                        dead.push(DeadLetter::new(key, reason, event));
                    }
                }
            }
        }
        let queue = frames.first().map_or(0, |frame| frame.queue);
        let encode = |(shard, part): (ShardId, Part<'_>)| {
            let frame = self.frame(part, queue, first, last, epoch);
            RoundFrame { shard, events: frame.events.len() as u64, bytes: frame.encode().into() }
        };
        Routed { last, frames: parts.into_iter().map(encode).collect(), unrouted, dead }
    }

    /// The documents that an event belongs to, each with its shard.
    fn filings(
        &self,
        queue: QueueId,
        offset: Offset,
        event: &Event<'_>,
        filings: &mut Vec<Filing>,
    ) -> Result<Go, serde_json::Error> {
        filings.clear();
        if is_hop(event) {
            return Ok(self.hop_filings(queue, offset, event, filings));
        }
        let view = View::of(event, &self.wanted)?;
        for (projection, declared) in self.projections.iter().enumerate() {
            let Some(key) = declared.route(&view) else { continue };
            let slot = Slot::of(&declared.name, &key);
            let Some(shard) = self.map.filed_with(slot, queue, offset) else { return Ok(Go::NoFurther) };
            filings.push(Filing { projection, key, shard });
        }
        Ok(Go::On)
    }

    /// The same of what documents tell others: it says itself which. None if there is no such projection.
    fn hop_filings(&self, queue: QueueId, offset: Offset, event: &Event<'_>, filings: &mut Vec<Filing>) -> Go {
        let (name, keys) = addressees(event);
        let named = self.projections.iter().position(|projection| projection.name == name);
        let Some(projection) = named else { return Go::On };
        for key in keys {
            if is_part(key) {
                let key = || key.to_owned();
                let everywhere = self.map.all_shards().into_iter();
                filings.extend(everywhere.map(|shard| Filing { projection, key: key(), shard }));
                continue;
            }
            let Some(shard) = self.map.filed_with(Slot::of(name, key), queue, offset) else { return Go::NoFurther };
            filings.push(Filing { projection, key: key.to_owned(), shard });
        }
        Go::On
    }

    fn frame<'a>(&'a self, part: Part<'a>, queue: QueueId, first: Offset, last: Offset, epoch: u64) -> ShardFrame<'a> {
        let names = part.projections.iter().filter_map(|index| self.projections.get(*index));
        ShardFrame {
            queue,
            first,
            last,
            epoch,
            map_version: self.map.version(),
            projections: names.map(|projection| projection.name.as_str().into()).collect(),
            events: part.events,
        }
    }
}

/// Files one event with every shard it concerns.
///
/// A part is made with `room` for its share of the round: to grow step by step touches several times the memory.
fn file<'a>(
    offset: Offset,
    event: &Event<'a>,
    filings: &mut Vec<Filing>,
    parts: &mut BTreeMap<ShardId, Part<'a>>,
    room: usize,
) {
    for Filing { projection, key, shard } in filings.drain(..) {
        let with_room = || Part { projections: Vec::new(), events: Vec::with_capacity(room) };
        let part = parts.entry(shard).or_insert_with(with_room);
        let route = (part.name(projection), key.into());
        match part.events.last_mut().filter(|filed| filed.offset == offset) {
            Some(filed) => filed.routes.push(route),
            None => {
                let mut event = event.clone();
                if is_hop(&event) {
                    // Shards need not be told of each other's keys.
                    event.subject = None;
                }
                part.events.push(FiledEvent { offset, routes: vec![route], event });
            }
        }
    }
}

impl Part<'_> {
    /// Number of the projection in this frame.
    fn name(&mut self, index: usize) -> u16 {
        let found = self.projections.iter().position(|other| *other == index);
        let number = found.unwrap_or_else(|| {
            self.projections.push(index);
            self.projections.len() - 1
        });
        u16::try_from(number).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
pub(super) mod tests;
