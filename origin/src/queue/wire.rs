//! The queue role's wire: paths, and bodies that carry frames (pure).
//!
//! | request | asks for |
//! |---|---|
//! | `GET /_millpond/queues` | the status of all queues, as JSON |
//! | `POST /_millpond/queues/events/Q/append` | [`Append`] and one `EventFrame` of any `first`; answered with [`Fates`] |
//! | `POST /_millpond/queues/events/Q/lease` | [`Acquire`]; answered with a `Lease` |
//! | `PUT /_millpond/queues/events/Q/lease/TOKEN` | [`Renew`] |
//! | `DELETE /_millpond/queues/events/Q/lease/TOKEN` | giving the lease up |
//! | `GET /_millpond/queues/events/Q?token=&max_events=&wait_ms=` | a take; answered with [`TakenHead`] and its frames |
//! | `POST /_millpond/queues/events/Q/push/TOKEN` | [`RoundHead`] and its frames |
//! | `GET /_millpond/queues/shards/S?after=&max_bytes=&wait_ms=` | a pull; answered with [`PulledHead`] and its frames |
//! | `GET /_millpond/queues/shards/S/newest` | where the queue ends; answered with [`Newest`] |
//! | `GET /_millpond/queues/map/changes?after=&wait_ms=` | the shard map once it is newer; answered with it, or none |
//! | `POST /_millpond/queues/map` | a `MapChange`; answered with the shard map |
//! | `POST /_millpond/queues/map/handed` | [`HandedHead`] and a `Handover`; answered with its position |
//! | `POST /_millpond/queues/dead` | dead letters as parts, to be laid aside; answered with [`Buried`] |
//! | `PUT /_millpond/queues/shards/S/consumers/NAME` | [`Committed`] |
//!
//! A body is a [`Message`]: one byte, the format number; a head as JSON, and any number of binary parts, each behind
//! its length in four bytes, big-endian. Requests with a body, and all answers but the status, are such messages. An
//! answer that is an error is JSON instead, with the error itself in `queue_error`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::StatusCode;
use millpond_shared::version::{Offset, Position, ShardId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Fate, QueueError};

/// Format number of messages.
pub const WIRE_FORMAT: u8 = 3;
/// What all paths of the queue role start with.
pub const ROOT: &str = "/_millpond/queues";
/// Content type of messages.
pub const CONTENT_TYPE: &str = "application/vnd.millpond.frames";
/// Longest wait of a take or a pull; a longer one is cut to it.
pub const WAIT_MAX_MS: u64 = 60_000;
/// Largest body of an append, in bytes; beyond it 413.
pub const APPEND_MAX_BYTES: u64 = 64 << 20;
/// Largest body of a push, in bytes; beyond it 413.
pub const PUSH_MAX_BYTES: u64 = 256 << 20;
/// Largest body of any other request, in bytes.
pub const OTHER_MAX_BYTES: u64 = 64 << 10;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// How long ids are recognised; none: they are known to be new.
    pub window_ms: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fates {
    pub fates: Vec<Fate>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    pub holder: String,
    pub ttl_ms: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    pub ttl_ms: u64,
}

/// `None`: there was nothing to take.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenHead {
    pub run: Option<(Offset, Offset)>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundHead {
    pub first: Offset,
    pub last: Offset,
    pub map_version: u32,
    /// The shard of each frame, and how many events it has.
    pub frames: Vec<(ShardId, u64)>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledHead {
    /// The position of each frame.
    pub positions: Vec<Position>,
    pub last: Position,
    pub events_after: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    pub position: Position,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub position: Position,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedHead {
    pub epoch: u32,
    pub after: Option<Position>,
}

/// How many letters there was no room for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buried {
    pub refused: usize,
}

/// A head and binary parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<H> {
    pub head: H,
    pub parts: Vec<Bytes>,
}

impl<H: Serialize + DeserializeOwned> Message<H> {
    pub fn encode(&self) -> Bytes {
        let head = serde_json::to_vec(&self.head).unwrap_or_default();
        let bytes: usize = self.parts.iter().map(|part| part.len() + 4).sum();
        let mut out = BytesMut::with_capacity(1 + 4 + head.len() + bytes);
        out.put_u8(WIRE_FORMAT);
        put_part(&mut out, &head);
        self.parts.iter().for_each(|part| put_part(&mut out, part));
        out.freeze()
    }

    /// Reads a message; its parts share the memory of `bytes`. In words what is wrong.
    pub fn decode(mut bytes: Bytes) -> Result<Message<H>, String> {
        match bytes.try_get_u8() {
            Ok(WIRE_FORMAT) => {}
            Ok(other) => {
                return Err(format!(
                    "the message has format {other}, this program knows {WIRE_FORMAT}: run the same version on both sides"
                ));
            }
            Err(_) => return Err("the message is empty".to_owned()),
        }
        let head = take_part(&mut bytes)?;
        let head = serde_json::from_slice(&head).map_err(|error| format!("the head of the message: {error}"))?;
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            parts.push(take_part(&mut bytes)?);
        }
        Ok(Message { head, parts })
    }
}

/// Parts are far below 4 GiB: bodies are bounded.
fn put_part(out: &mut BytesMut, part: &[u8]) {
    out.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
    out.put_slice(part);
}

fn take_part(bytes: &mut Bytes) -> Result<Bytes, String> {
    let cut = || "the message is cut short".to_owned();
    let length = usize::try_from(bytes.try_get_u32().map_err(|_| cut())?).map_err(|_| cut())?;
    if length > bytes.len() { Err(cut()) } else { Ok(bytes.split_to(length)) }
}

/// The error of a queue, as the body of an answer holds it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
    pub queue_error: QueueError,
}

/// Status of the answer that carries an error.
pub fn status(error: &QueueError) -> StatusCode {
    match error {
        QueueError::NoQueue { .. } => StatusCode::NOT_FOUND,
        QueueError::Trimmed { .. } => StatusCode::GONE,
        QueueError::Invalid { .. } => StatusCode::BAD_REQUEST,
        QueueError::Fenced { .. } | QueueError::MapChanged { .. } => StatusCode::PRECONDITION_FAILED,
        QueueError::Ahead { .. }
        | QueueError::Held { .. }
        | QueueError::NotNext { .. }
        | QueueError::Map { .. }
        | QueueError::Overtaken { .. } => StatusCode::CONFLICT,
        QueueError::ShardFull { .. } | QueueError::Busy | QueueError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        QueueError::Unreachable { .. } => StatusCode::BAD_GATEWAY,
        QueueError::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_back() {
        let head = RoundHead { first: 1, last: 9, map_version: 1, frames: vec![(3, 1), (4, 8)] };
        let message = Message { head, parts: vec![Bytes::from_static(b"abc"), Bytes::new()] };
        assert_eq!(Message::decode(message.encode()), Ok(message));
    }

    #[test]
    fn damage_and_unknown_formats_are_told() {
        let bytes = Message { head: Committed { position: 1 }, parts: vec![Bytes::from_static(b"abc")] }.encode();
        let whole_without_parts = bytes.len() - 7;
        for cut in (0..bytes.len()).filter(|cut| *cut != whole_without_parts) {
            assert!(Message::<Committed>::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = 7;
        let words = Message::<Committed>::decode(newer.into()).expect_err("refused");
        assert!(words.contains("format 7"), "{words}");
    }
}
