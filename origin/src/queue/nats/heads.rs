//! What messages on NATS are, beside the frames they carry (pure).
//!
//! A message of an event queue is an `EventFrame`, one of a shard queue a `ShardFrame`, as they are on every engine.
//! What a reader needs to know without decoding them stands in one header, [`HEADER`], as a JSON object.

use millpond_shared::stored;
use millpond_shared::version::{Offset, QueueId};
use millpond_shared::wire::EventFrame;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::queue::QueueError;
use crate::queue::ids::IdHasher;

/// Name of the header.
pub const HEADER: &str = "Millpond";
/// Format number of heads, records and ids.
pub const FORMAT: u8 = 1;

/// Of a message of an event queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHead {
    pub format: u8,
    /// Offsets of the first and the last event.
    pub first: Offset,
    pub last: Offset,
    /// When ingest took the first event: milliseconds since the Unix epoch.
    pub received: u64,
    /// Who appended it, and the writer's own number for it: how a writer whose acknowledgement was lost finds its
    /// frame again.
    pub writer: u64,
    pub group: u64,
    /// In the order of the events: when the ids of so many of them are forgotten, in ms; 0 if they are not remembered.
    pub windows: Vec<(u64, u32)>,
}

/// Of a message of a shard queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHead {
    pub format: u8,
    /// First and last offset of the round: all events of its event queue up to `last` that concern this shard are here.
    pub first: Offset,
    pub last: Offset,
    /// Fencing token of the lease it was filed under.
    pub token: u64,
    /// Version of the shard map it was routed by.
    pub map: u32,
    /// Events in this frame, and in all frames of its event queue up to this one.
    pub events: u64,
    pub total: u64,
}

/// As it stands in the header.
pub fn encode<H: Serialize>(head: &H) -> String {
    serde_json::to_string(head).unwrap_or_default()
}

pub fn decode<H: DeserializeOwned>(text: Option<&str>) -> Result<H, QueueError> {
    let text = text.ok_or_else(|| strange("has no header `Millpond`: another program writes to its subject"))?;
    #[derive(Deserialize)]
    struct Format {
        format: u8,
    }
    let Format { format } = serde_json::from_str(text).map_err(|error| strange(&error.to_string()))?;
    if format != FORMAT {
        let problem = format!("has format {format}, this program knows {FORMAT}: run the version that wrote it");
        return Err(strange(&problem));
    }
    serde_json::from_str(text).map_err(|error| strange(&error.to_string()))
}

fn strange(problem: &str) -> QueueError {
    QueueError::Failed { problem: format!("a message on NATS {problem}") }
}

/// Ids that were remembered with frames which are not in their event queue any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The last offset of the frames.
    pub last: Offset,
    /// Hashes, by the time their window ends in ms.
    pub ids: Vec<(u64, Vec<u128>)>,
}

impl Remembered {
    pub fn encode(&self) -> Vec<u8> {
        stored::with_format(FORMAT, self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Remembered, QueueError> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|error| strange(&error.to_string())),
            Some((other, _)) => Err(strange(&format!("has format {other}: run the version that wrote it"))),
            None => Err(strange("is empty")),
        }
    }
}

/// The ids of a frame that are still remembered, by the time their window ends.
pub fn ids_of(
    head: &EventHead,
    frame: &[u8],
    hasher: &IdHasher,
    now_ms: u64,
) -> Result<Vec<(u64, Vec<u128>)>, QueueError> {
    if head.windows.iter().all(|(ends_ms, _)| *ends_ms <= now_ms) {
        return Ok(Vec::new());
    }
    let frame = EventFrame::decode(frame).map_err(|error| strange(&error.to_string()))?;
    let mut events = frame.events.iter();
    let mut ids = Vec::new();
    for (ends_ms, count) in &head.windows {
        let run = events.by_ref().take(usize::try_from(*count).unwrap_or(usize::MAX));
        // The run has to be walked through in any case.
        let hashes: Vec<u128> = run.map(|event| hasher.hash(&event.source, &event.id)).collect();
        if *ends_ms > now_ms {
            ids.push((*ends_ms, hashes));
        }
    }
    Ok(ids)
}

/// The subject of a shard queue that an event queue's frames are filed under ends in its number.
pub fn source_of(subject: &str) -> Option<QueueId> {
    subject.rsplit('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::testing::event;

    fn head(windows: Vec<(u64, u32)>) -> EventHead {
        EventHead { format: FORMAT, first: 1, last: 3, received: 5, writer: u64::MAX, group: 7, windows }
    }

    #[test]
    fn heads_and_back() {
        let event = head(vec![(9, 2), (0, 1)]);
        assert_eq!(decode(Some(&encode(&event))), Ok(event));
        let shard = ShardHead { format: FORMAT, first: 1, last: 2, token: 3, map: 6, events: 4, total: 5 };
        assert_eq!(decode(Some(&encode(&shard))), Ok(shard));
        let remembered = Remembered { last: 8, ids: vec![(9, vec![1, u128::MAX])] };
        assert_eq!(Remembered::decode(&remembered.encode()), Ok(remembered));
    }

    #[test]
    fn what_is_no_message_of_ours_is_told() {
        let words = |text: Option<&str>| decode::<ShardHead>(text).expect_err("refused").to_string();
        assert!(words(None).contains("another program"), "{}", words(None));
        assert!(words(Some(r#"{"format":2}"#)).contains("format 2, this program knows 1"));
        for text in ["", "{}", r#"{"format":1}"#, r#"{"format":1,"first":-1}"#] {
            assert!(decode::<ShardHead>(Some(text)).is_err(), "{text}");
        }
        for bytes in [&[][..], &[9, 1], &[FORMAT]] {
            assert!(Remembered::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_ids_of_a_frame_are_those_whose_window_runs() {
        let hasher = IdHasher::new([7; 192]);
        let events = vec![event("a", 1), event("b", 2), event("c", 3)];
        let frame = EventFrame { queue: 0, first: 1, events }.encode();
        let of = |windows, now_ms| ids_of(&head(windows), &frame, &hasher, now_ms).expect("a frame");
        let hash = |id| hasher.hash("s", id);
        assert_eq!(of(vec![(9, 2), (0, 1)], 8), [(9, vec![hash("a"), hash("b")])]);
        assert_eq!(of(vec![(9, 1), (0, 1), (12, 1)], 9), [(12, vec![hash("c")])]);
        assert_eq!(of(vec![(9, 3)], 9), []);
        assert!(ids_of(&head(vec![(9, 1)]), b"no frame", &hasher, 1).is_err());
    }
}
