//! Dead letters: events that cannot be filed or applied, laid aside with the reason, so that nothing waits for them (pure).

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use millpond_shared::event::{Event, time_text};
use millpond_shared::stored;
use millpond_shared::version::{Offset, QueueId, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::QueueError;

/// Most dead letters of one pond; further ones are dropped, and counted: the first tell most.
pub const DEAD_MAX: usize = 10_000;
/// Most bytes of all of them together.
pub const DEAD_MAX_BYTES: u64 = 64 << 20;
/// Format number of a letter as it is stored.
const FORMAT: u8 = 1;

/// Where dispatchers and shards lay events aside.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Lays letters aside, and returns when they are on disk; how many there was no room for. Whoever lays the same event
    /// aside again changes nothing.
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError>;
}

/// Which event a letter holds, and who laid it aside: `QUEUE:OFFSET` if it was a dispatcher, `QUEUE:OFFSET:SHARD` if it
/// was a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeadKey {
    pub queue: QueueId,
    pub offset: Offset,
    pub shard: Option<ShardId>,
}

/// An event that was laid aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    pub key: DeadKey,
    /// In words, with the fix.
    pub reason: String,
    /// When it was laid aside: milliseconds since the Unix epoch. Set by the queue role.
    pub buried_ms: u64,
    pub event: Event<'static>,
}

impl DeadLetter {
    pub fn new(key: DeadKey, reason: impl Into<String>, event: &Event<'_>) -> DeadLetter {
        DeadLetter { key, reason: reason.into(), buried_ms: 0, event: event.clone().into_owned() }
    }

    /// What it takes, near enough.
    pub fn bytes(&self) -> u64 {
        self.event.frame_bytes() + self.reason.len() as u64 + 32
    }

    pub fn encode(&self) -> Vec<u8> {
        stored::with_format(FORMAT, self)
    }

    /// In words what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<DeadLetter, String> {
        #[derive(Deserialize)]
        struct Stored<'a> {
            key: DeadKey,
            reason: String,
            buried_ms: u64,
            #[serde(borrow)]
            event: Event<'a>,
        }
        let rest = match bytes.split_first() {
            Some((&FORMAT, rest)) => rest,
            Some((other, _)) => return Err(format!("the letter has format {other}, this program knows {FORMAT}")),
            None => return Err("the letter is empty".to_owned()),
        };
        let stored: Stored<'_> = postcard::from_bytes(rest).map_err(|error| format!("the letter: {error}"))?;
        let Stored { key, reason, buried_ms, event } = stored;
        Ok(DeadLetter { key, reason, buried_ms, event: event.into_owned() })
    }
}

/// An event as operators are shown it.
#[derive(Serialize)]
pub struct ShownEvent<'a> {
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: String,
    data: Box<RawValue>,
}

impl<'a> ShownEvent<'a> {
    pub fn of(event: &'a Event<'_>) -> ShownEvent<'a> {
        // What is no JSON is shown as text: that is why it is here.
        let text = || serde_json::value::to_raw_value(&event.data);
        let data = RawValue::from_string(event.data.as_ref().to_owned()).or_else(|_| text());
        ShownEvent {
            id: &event.id,
            source: &event.source,
            kind: &event.kind,
            subject: event.subject.as_deref(),
            time: time_text(event.time),
            data: data.unwrap_or_else(|_| RawValue::NULL.to_owned()),
        }
    }
}

/// A letter as operators are shown it.
#[derive(Serialize)]
pub struct ShownLetter<'a> {
    key: String,
    reason: &'a str,
    buried: String,
    event: ShownEvent<'a>,
}

impl<'a> ShownLetter<'a> {
    pub fn of(letter: &'a DeadLetter) -> ShownLetter<'a> {
        let nanoseconds = i64::try_from(letter.buried_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        ShownLetter {
            key: letter.key.to_string(),
            reason: &letter.reason,
            buried: time_text(nanoseconds),
            event: ShownEvent::of(&letter.event),
        }
    }
}

impl fmt::Display for DeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.queue, self.offset)?;
        self.shard.map_or(Ok(()), |shard| write!(f, ":{shard}"))
    }
}

/// The text is no key of a letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no dead letter's key: write QUEUE:OFFSET or QUEUE:OFFSET:SHARD, as in 0:4711:3")]
pub struct NoDeadKey(String);

impl FromStr for DeadKey {
    type Err = NoDeadKey;

    fn from_str(text: &str) -> Result<DeadKey, NoDeadKey> {
        let no_key = || NoDeadKey(text.chars().take(64).collect());
        let numbers: Vec<&str> = text.split(':').collect();
        let (queue, offset, shard) = match numbers.as_slice() {
            [queue, offset] => (queue, offset, None),
            [queue, offset, shard] => (queue, offset, Some(shard.parse().map_err(|_| no_key())?)),
            _ => return Err(no_key()),
        };
        let (queue, offset) = (queue.parse().map_err(|_| no_key())?, offset.parse().map_err(|_| no_key())?);
        Ok(DeadKey { queue, offset, shard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::testing::event;

    #[test]
    fn letters_and_keys_and_back() {
        for shard in [None, Some(3)] {
            let key = DeadKey { queue: 2, offset: 4711, shard };
            assert_eq!(key.to_string().parse(), Ok(key));
            let letter = DeadLetter { buried_ms: 5, ..DeadLetter::new(key, "why", &event("a", 1)) };
            assert_eq!(DeadLetter::decode(&letter.encode()), Ok(letter));
        }
        for wrong in ["", "1", "1:", "a:1", "1:2:3:4", "1:2:", "70000:1", "-1:2"] {
            assert!(wrong.parse::<DeadKey>().is_err(), "{wrong}");
        }
        assert!(DeadLetter::decode(&[]).is_err() && DeadLetter::decode(&[9, 1]).unwrap_err().contains("format 9"));
    }

    #[test]
    fn what_is_no_json_is_shown_as_text() {
        let mut broken = event("a", 1);
        broken.data = "{oh".into();
        let letter = DeadLetter::new(DeadKey { queue: 0, offset: 1, shard: None }, "why", &broken);
        let shown = serde_json::to_value(ShownLetter::of(&letter)).unwrap();
        assert_eq!((&shown["event"]["data"], &shown["key"]), (&"{oh".into(), &"0:1".into()));
        let whole = serde_json::to_value(ShownEvent::of(&event("a", 1))).unwrap();
        assert_eq!(whole["data"]["n"], 1);
    }
}
