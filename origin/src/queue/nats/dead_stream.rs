//! Dead letters on NATS: a stream with a subject for each letter, which holds it once.

use std::time::Duration;

use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures_util::future::join_all;

use super::appender::HEADROOM_BYTES;
use super::connection::{Connection, Published, publish, unreachable};
use super::reader::Reader;
use super::streams::Plan;
use crate::queue::{DeadKey, DeadLetter, QueueError};

pub struct DeadStream {
    pub plan: Plan,
    pub connection: Connection,
    pub stream: Stream,
}

/// Letters that are on their way at once.
const AT_ONCE: usize = 64;
/// Read at once, in bytes.
const READ_BYTES: usize = 4 << 20;

impl DeadStream {
    /// See [`DeadLetters::bury`](crate::queue::DeadLetters::bury). A letter that is there already stays as it is. One that
    /// is larger than a message may be, with its reason, finds no room.
    pub async fn bury(&self, letters: Vec<DeadLetter>, now_ms: u64) -> Result<usize, QueueError> {
        let mut refused = 0;
        for some in letters.chunks(AT_ONCE) {
            let encoded = some.iter().map(|letter| {
                let bytes = DeadLetter { buried_ms: now_ms, ..letter.clone() }.encode();
                (letter.key, bytes)
            });
            let (fitting, too_large): (Vec<_>, Vec<_>) =
                encoded.partition(|(_, bytes)| bytes.len() + HEADROOM_BYTES <= self.connection.message_max);
            refused += too_large.len();
            let burying = fitting.into_iter().map(|(key, bytes)| {
                // The fence of a subject that has a letter refuses another one.
                publish(&self.connection, self.plan.dead_subject(key), 0, key.to_string(), bytes.into())
            });
            for outcome in join_all(burying).await {
                refused += usize::from(outcome? == Published::NoRoom);
            }
        }
        Ok(refused)
    }

    pub async fn first(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let mut stream = self.stream.clone();
        let first = stream.info().await.map_err(unreachable)?.state.first_sequence;
        let mut reader = Reader::new(stream, self.connection.message_max);
        let (mut after, mut letters) = (first.saturating_sub(1), Vec::new());
        while letters.len() < most {
            let read = reader.read(after, READ_BYTES, Duration::ZERO).await?;
            let Some(last) = read.last() else { break };
            after = last.sequence;
            for stored in read.iter().take(most - letters.len()) {
                letters.push(decoded(&stored.payload)?);
            }
        }
        Ok(letters)
    }

    pub async fn letter(&self, key: DeadKey) -> Result<Option<DeadLetter>, QueueError> {
        match self.stream.get_last_raw_message_by_subject(&self.plan.dead_subject(key)).await {
            Ok(message) => decoded(&message.payload).map(Some),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }

    pub async fn unbury(&self, key: DeadKey) -> Result<bool, QueueError> {
        let purged = self.stream.purge().filter(self.plan.dead_subject(key)).await.map_err(unreachable)?;
        Ok(purged.purged > 0)
    }

    pub async fn count(&self) -> Result<usize, QueueError> {
        let mut stream = self.stream.clone();
        let messages = stream.info().await.map_err(unreachable)?.state.messages;
        Ok(usize::try_from(messages).unwrap_or(usize::MAX))
    }
}

fn decoded(bytes: &[u8]) -> Result<DeadLetter, QueueError> {
    DeadLetter::decode(bytes).map_err(|problem| QueueError::Failed { problem })
}
