//! Frames: runs of events moved together. On disk and on the wire, so the layout never changes under its number.
//!
//! A frame is one byte, the format number, and then the `postcard` encoding (a stable, specified wire format) of
//! the struct below.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use crate::event::Event;
use crate::stored;
use crate::version::{Offset, Position, QueueId, ShardId};

/// Format number of frames of events.
pub const FRAME_FORMAT: u8 = 1;
/// Format number of [`Handover`]. In a shard queue it tells them from frames of events.
pub const HANDOVER_FORMAT: u8 = 2;

/// A frame of an event queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFrame<'a> {
    pub queue: QueueId,
    /// Offset of the first event; the others follow without gaps.
    pub first: Offset,
    #[serde(borrow)]
    pub events: Vec<Event<'a>>,
}

/// A frame of a shard queue: the part of one dispatch round that concerns one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardFrame<'a> {
    /// The event queue the round was taken from.
    pub queue: QueueId,
    /// First and last offset of the round, whether or not those events concern this shard.
    pub first: Offset,
    pub last: Offset,
    /// Fencing token of the lease under which the round was pushed.
    pub epoch: u64,
    /// Version of the shard map it was routed by.
    pub map_version: u32,
    /// Names of the projections that `FiledEvent::routes` count from 0.
    #[serde(borrow)]
    pub projections: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    pub events: Vec<FiledEvent<'a>>,
}

/// An event and the documents of this shard that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiledEvent<'a> {
    pub offset: Offset,
    /// (index into the frame's projections, key).
    #[serde(borrow, deserialize_with = "routes")]
    pub routes: Vec<(u16, Cow<'a, str>)>,
    #[serde(borrow)]
    pub event: Event<'a>,
}

/// An entry of [`FiledEvent::routes`] that is read without a copy: a `Cow` within a list or a tuple is always read as an
/// owned one.
#[derive(Deserialize)]
struct Route<'a>(u16, #[serde(borrow)] Cow<'a, str>);

fn routes<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Vec<(u16, Cow<'a, str>)>, D::Error> {
    let routes = Vec::<Route<'a>>::deserialize(from)?;
    Ok(routes.into_iter().map(|Route(projection, key)| (projection, key)).collect())
}

/// What stands in a shard queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardMessage<'a> {
    Events(ShardFrame<'a>),
    Documents(Handover<'a>),
}

/// Documents of slots that move, in the queue of the shard that takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover<'a> {
    /// Version of the shard map with which the attempt began.
    pub epoch: u32,
    /// The shard that gives them.
    pub from: ShardId,
    /// Nothing of this attempt counts behind it.
    pub is_last: bool,
    /// Names of the projections that documents count from 0, each with the fingerprint of its declaration.
    #[serde(borrow)]
    pub projections: Vec<(Cow<'a, str>, u64)>,
    #[serde(borrow)]
    pub documents: Vec<HandedDocument<'a>>,
}

/// A document as it stands in the file of the giving shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedDocument<'a> {
    /// Index into the projections.
    pub projection: u16,
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    #[serde(borrow)]
    pub blob: Cow<'a, [u8]>,
}

/// The bytes are no frame of a format that is known here.
#[derive(Debug, thiserror::Error)]
pub enum NoFrame {
    #[error("the frame has format {0}, this program knows {FRAME_FORMAT}: run the version that wrote it")]
    Format(u8),
    #[error("the frame is damaged: {0}")]
    Damaged(String),
}

/// What surrounds an event in a frame, at most: its offset, and lengths.
const AROUND_EVENT_BYTES: u64 = 16;
/// What surrounds a key in a frame, at most: the number of its projection, and its length.
const AROUND_KEY_BYTES: usize = 8;
/// What stands before the events of an event queue's frame, at most: its format, its queue, its first offset, and how many
/// there are.
const BEFORE_EVENTS_BYTES: usize = 1 + 3 + 10 + 10;

/// A format number and a frame. With `room` for all of it at once, where it can be told: growing step by step would touch
/// several times the memory.
fn encode<T: Serialize>(format: u8, room: u64, frame: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
    out.push(format);
    stored::append(frame, &mut out);
    out
}

impl EventFrame<'_> {
    /// Offset of the last event; `first - 1` for an empty frame.
    pub fn last(&self) -> Offset {
        self.first.saturating_add(self.events.len() as u64).saturating_sub(1)
    }

    pub fn encode(&self) -> Vec<u8> {
        let room = self.events.iter().map(|event| event.frame_bytes() + AROUND_EVENT_BYTES).sum::<u64>();
        encode(FRAME_FORMAT, room + AROUND_EVENT_BYTES, self)
    }

    /// Appends `event` to `out` as it stands in a frame.
    pub fn put_event(event: &Event<'_>, out: &mut Vec<u8>) {
        stored::append(event, out);
    }

    /// The frame of `count` events that [`EventFrame::put_event`] has encoded, in runs of one or more: the same bytes as
    /// [`EventFrame::encode`] makes.
    pub fn join<'r>(
        queue: QueueId,
        first: Offset,
        count: usize,
        runs: impl Iterator<Item = &'r [u8]> + Clone,
    ) -> Vec<u8> {
        let bytes: usize = runs.clone().map(<[u8]>::len).sum();
        let mut out = Vec::with_capacity(BEFORE_EVENTS_BYTES + bytes);
        out.push(FRAME_FORMAT);
        stored::append(&(queue, first, count), &mut out);
        runs.for_each(|run| out.extend_from_slice(run));
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<EventFrame<'_>, NoFrame> {
        decode(FRAME_FORMAT, bytes)
    }
}

impl ShardFrame<'_> {
    pub fn encode(&self) -> Vec<u8> {
        let one = |filed: &FiledEvent<'_>| {
            let keys: usize = filed.routes.iter().map(|(_, key)| key.len() + AROUND_KEY_BYTES).sum();
            filed.event.frame_bytes() + AROUND_EVENT_BYTES + keys as u64
        };
        let names: usize = self.projections.iter().map(|name| name.len() + AROUND_KEY_BYTES).sum();
        let room = self.events.iter().map(one).sum::<u64>() + names as u64 + 4 * AROUND_EVENT_BYTES;
        encode(FRAME_FORMAT, room, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<ShardFrame<'_>, NoFrame> {
        decode(FRAME_FORMAT, bytes)
    }
}

impl Handover<'_> {
    pub fn encode(&self) -> Vec<u8> {
        stored::with_format(HANDOVER_FORMAT, self)
    }
}

impl ShardMessage<'_> {
    pub fn decode(bytes: &[u8]) -> Result<ShardMessage<'_>, NoFrame> {
        match bytes.first() {
            Some(&HANDOVER_FORMAT) => decode(HANDOVER_FORMAT, bytes).map(ShardMessage::Documents),
            _ => ShardFrame::decode(bytes).map(ShardMessage::Events),
        }
    }
}

/// A frame's place and bytes, as they are pulled.
pub type Placed<T> = (Position, T);

fn decode<'a, T: Deserialize<'a>>(format: u8, bytes: &'a [u8]) -> Result<T, NoFrame> {
    match bytes.split_first() {
        Some((found, rest)) if *found == format => match postcard::take_from_bytes(rest) {
            Ok((frame, [])) => Ok(frame),
            Ok(_) => Err(NoFrame::Damaged("bytes are left over".to_owned())),
            Err(error) => Err(NoFrame::Damaged(error.to_string())),
        },
        Some((&other, _)) => Err(NoFrame::Format(other)),
        None => Err(NoFrame::Damaged("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &'static str) -> Event<'static> {
        Event {
            id: id.into(),
            source: "wiki".into(),
            kind: "edit".into(),
            subject: Some("s".into()),
            time: -5,
            received: 7,
            data: r#"{"a":1}"#.into(),
        }
    }

    #[test]
    fn frames_and_back() {
        let frame = EventFrame { queue: 2, first: 10, events: vec![event("a"), event("b")] };
        assert_eq!(frame.last(), 11);
        assert_eq!(EventFrame::decode(&frame.encode()).expect("a frame"), frame);
        let frame = ShardFrame {
            queue: 2,
            first: 10,
            last: 20,
            epoch: 3,
            map_version: 1,
            projections: vec!["p".into()],
            events: vec![FiledEvent { offset: 12, routes: vec![(0, "k".into())], event: event("a") }],
        };
        assert_eq!(ShardFrame::decode(&frame.encode()).expect("a frame"), frame);
        assert_eq!(ShardMessage::decode(&frame.encode()).expect("a frame"), ShardMessage::Events(frame));
        let document = HandedDocument { projection: 0, key: "k".into(), blob: vec![1, 2].into() };
        let handover = Handover {
            epoch: 3,
            from: 1,
            is_last: true,
            projections: vec![("p".into(), 7)],
            documents: vec![document],
        };
        let bytes = handover.encode();
        assert!(matches!(ShardFrame::decode(&bytes), Err(NoFrame::Format(HANDOVER_FORMAT))));
        assert_eq!(ShardMessage::decode(&bytes).expect("a handover"), ShardMessage::Documents(handover));
    }

    #[test]
    fn damage_is_told() {
        let bytes = EventFrame { queue: 2, first: 10, events: vec![event("a")] }.encode();
        let mut newer = bytes.clone();
        newer[0] = 9;
        assert!(matches!(EventFrame::decode(&newer), Err(NoFrame::Format(9))));
        for cut in 0..bytes.len() {
            assert!(EventFrame::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(EventFrame::decode(&longer).is_err());
    }
}
