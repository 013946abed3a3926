//! Records in the buckets: claims on event queues, and how far things are. Each is JSON with a format number, changed by
//! compare-and-set.

use std::collections::BTreeMap;

use async_nats::jetstream::kv::{CreateErrorKind, Store, UpdateErrorKind};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use ring::rand::{SecureRandom, SystemRandom};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::connection::unreachable;
use super::heads::FORMAT;
use crate::queue::QueueError;
use crate::store::event_queue_file::SECRET_BYTES;
use crate::store::shard_queue_file::Claim;

/// A bucket.
#[derive(Clone)]
pub struct Records {
    store: Store,
}

/// A record and its revision; 0 where there is none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revised<T> {
    pub value: Option<T>,
    pub revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Written<T> {
    format: u8,
    #[serde(flatten)]
    value: T,
}

/// A claim on an event queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    pub holder: String,
    /// None in the record that made the claim: then it is the record's own revision, which rises with every record of
    /// the bucket, also over claims that have vanished.
    pub token: Option<u64>,
    pub ends_ms: u64,
}

/// The last offset of an event queue that was filed, or one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiledRecord {
    pub offset: Offset,
}

/// What the consumers of a shard queue have committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Everything up to here may have been purged. Written before it is.
    pub trimmed: Position,
    pub consumers: BTreeMap<String, Position>,
    /// When each said so last, in ms since the epoch, by the clock of its own machine.
    #[serde(default)]
    pub heard_ms: BTreeMap<String, u64>,
}

/// What hashes of ids are keyed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SecretRecord {
    bytes: Vec<u8>,
}

pub fn claim_key(queue: QueueId) -> String {
    format!("events.{queue}")
}

pub fn filed_key(queue: QueueId) -> String {
    format!("filed.{queue}")
}

pub fn shard_key(shard: ShardId) -> String {
    format!("shard.{shard}")
}

/// Of the shard map, and what moves.
pub const MAP_KEY: &str = "map";

const SECRET_KEY: &str = "ids.secret";
/// Header of what is no value but a deletion (NATS ADR-8).
const KV_OPERATION: &str = "KV-Operation";

impl Records {
    pub fn new(store: Store) -> Records {
        Records { store }
    }

    /// The record as it is now: the leader of the bucket's stream is asked, where [`Store::entry`] would ask any replica, and
    /// one that lags tells what was.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Revised<T>, QueueError> {
        let subject = format!("{}{key}", self.store.prefix);
        let message = match self.store.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Ok(Revised { value: None, revision: 0 });
            }
            Err(error) => return Err(unreachable(error)),
        };
        // What was deleted leaves a message that says so.
        if message.headers.get(KV_OPERATION).is_some() {
            return Ok(Revised { value: None, revision: 0 });
        }
        Ok(Revised { value: Some(read(key, &message.payload)?), revision: message.sequence })
    }

    /// Writes the record if it is still at this revision (0: not there); its new revision, `None` if it has changed.
    pub async fn set<T: Serialize>(&self, key: &str, value: &T, revision: u64) -> Result<Option<u64>, QueueError> {
        let bytes = write(value);
        if revision == 0 {
            return match self.store.create(key, bytes).await {
                Ok(revision) => Ok(Some(revision)),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(unreachable(error)),
            };
        }
        match self.store.update(key, bytes, revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }

    /// The secret of this pond, made by whoever asks first.
    pub async fn secret(&self) -> Result<[u8; SECRET_BYTES], QueueError> {
        loop {
            if let Some(SecretRecord { bytes }) = self.get(SECRET_KEY).await?.value {
                let wrong = |_| failed(SECRET_KEY, "the secret has the wrong length");
                return bytes.try_into().map_err(wrong);
            }
            let mut bytes = vec![0; SECRET_BYTES];
            SystemRandom::new().fill(&mut bytes).map_err(|_| failed(SECRET_KEY, "the system gives no random bytes"))?;
            self.set(SECRET_KEY, &SecretRecord { bytes }, 0).await?;
        }
    }
}

impl Revised<ClaimRecord> {
    pub fn claim(&self) -> Option<Claim> {
        let record = self.value.as_ref()?;
        Some(Claim {
            holder: record.holder.clone(),
            token: record.token.unwrap_or(self.revision),
            ends_ms: record.ends_ms,
            in_process: false,
        })
    }
}

fn write<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(&Written { format: FORMAT, value }).unwrap_or_default().into()
}

fn read<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, QueueError> {
    #[derive(Deserialize)]
    struct Format {
        format: u8,
    }
    let format = serde_json::from_slice::<Format>(bytes).map_err(|error| failed(key, &error.to_string()))?.format;
    if format != FORMAT {
        let problem = format!("it has format {format}, this program knows {FORMAT}: run the version that wrote it");
        return Err(failed(key, &problem));
    }
    let written: Written<T> = serde_json::from_slice(bytes).map_err(|error| failed(key, &error.to_string()))?;
    Ok(written.value)
}

fn failed(key: &str, problem: &str) -> QueueError {
    QueueError::Failed { problem: format!("the record {key} on NATS: {problem}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_back() {
        let consumers = BTreeMap::from([("primary".to_owned(), 7), ("spare/1 ä".to_owned(), 5)]);
        let record = ShardRecord { trimmed: 5, consumers, heard_ms: BTreeMap::new() };
        assert_eq!(read::<ShardRecord>("k", &write(&record)), Ok(record));
        let claim = ClaimRecord { holder: "d".to_owned(), token: None, ends_ms: 9 };
        assert_eq!(read::<ClaimRecord>("k", &write(&claim)), Ok(claim.clone()));
        assert_eq!(Revised { value: Some(claim.clone()), revision: 4 }.claim().map(|claim| claim.token), Some(4));
        let renewed = ClaimRecord { token: Some(4), ..claim };
        assert_eq!(Revised { value: Some(renewed), revision: 8 }.claim().map(|claim| claim.token), Some(4));
    }

    #[test]
    fn strange_records_are_told() {
        let words = |bytes: &[u8]| read::<FiledRecord>("filed.1", bytes).expect_err("refused").to_string();
        assert!(words(br#"{"format":9,"offset":1}"#).contains("format 9"));
        assert!(words(b"{}").contains("filed.1"));
        assert!(words(br#"{"format":1}"#).contains("offset"));
    }
}
