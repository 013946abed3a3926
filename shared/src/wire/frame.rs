//! Frames: runs of events moved together. On disk and on the wire, so the layout never changes under its number.
//!
//! A frame is one byte, the format number, and then the `postcard` encoding (a stable, specified wire format) of
//! the struct below.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::version::{Offset, Position, QueueId};

/// Format number of both kinds of frame.
pub const FRAME_FORMAT: u8 = 1;

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
    #[serde(borrow)]
    pub routes: Vec<(u16, Cow<'a, str>)>,
    #[serde(borrow)]
    pub event: Event<'a>,
}

/// The bytes are no frame of a format that is known here.
#[derive(Debug, thiserror::Error)]
pub enum NoFrame {
    #[error("the frame has format {0}, this program knows {FRAME_FORMAT}: run the version that wrote it")]
    Format(u8),
    #[error("the frame is damaged: {0}")]
    Damaged(String),
}

impl EventFrame<'_> {
    /// Offset of the last event; `first - 1` for an empty frame.
    pub fn last(&self) -> Offset {
        self.first.saturating_add(self.events.len() as u64).saturating_sub(1)
    }

    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<EventFrame<'_>, NoFrame> {
        decode(bytes)
    }
}

impl ShardFrame<'_> {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<ShardFrame<'_>, NoFrame> {
        decode(bytes)
    }
}

/// A frame's place and bytes, as they are pulled.
pub type Placed<T> = (Position, T);

fn encode<T: Serialize>(frame: &T) -> Vec<u8> {
    // Writing to a Vec fails only for types that postcard can't know the length of; these are none.
    postcard::to_extend(frame, vec![FRAME_FORMAT]).unwrap_or_default()
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, NoFrame> {
    match bytes.split_first() {
        Some((&FRAME_FORMAT, rest)) => match postcard::take_from_bytes(rest) {
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
