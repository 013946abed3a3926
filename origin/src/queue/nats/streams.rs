//! The streams and buckets of one pond: their names, what they are asked to be, and whether they are.

use std::time::Duration;

use async_nats::jetstream::kv::{self, Store};
use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType, Stream};
use millpond_shared::version::{QueueId, ShardId};

use super::NatsError;
use super::connection::Connection;
use crate::queue::dead::{DEAD_MAX, DEAD_MAX_BYTES};
use crate::queue::lease::TTL_MAX;
use crate::queue::{DeadKey, Limits};

/// How the streams of a pond are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What all names begin with: ponds of different names can share servers.
    pub pond: String,
    /// Servers that keep a copy of everything: 1, 3 or 5.
    pub replicas: usize,
    pub limits: Limits,
}

/// Longest time that an id can be remembered: the largest `dedupe` of a source.
const WINDOW_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Bytes of a remembered id, with what the server adds.
const ID_BYTES: u64 = 20;
/// As a limit of bytes.
const UNLIMITED: i64 = -1;
/// Room for what there must always be room for.
const SPARE_BYTES: u64 = 4 << 20;

impl Plan {
    pub fn events(&self, queue: QueueId) -> String {
        format!("{}{queue}", self.events_prefix())
    }

    /// What the names of all event queues begin with.
    pub fn events_prefix(&self) -> String {
        format!("{}-events-", self.pond)
    }

    pub fn events_subject(&self, queue: QueueId) -> String {
        format!("{}.events.{queue}", self.pond)
    }

    pub fn ids_subject(&self, queue: QueueId) -> String {
        format!("{}.ids.{queue}", self.pond)
    }

    /// Frames of one event queue in the queue of one shard.
    pub fn shard_subject(&self, shard: ShardId, queue: QueueId) -> String {
        format!("{}.shard.{shard}.{queue}", self.pond)
    }

    /// What is handed over to a shard.
    pub fn handed_subject(&self, shard: ShardId) -> String {
        format!("{}.shard.{shard}.handed", self.pond)
    }

    /// What the names of all shard queues begin with.
    pub fn shard_prefix(&self) -> String {
        format!("{}-shard-", self.pond)
    }

    /// One subject, which nothing leaves but by a purge. Its writers refuse what is too much (`draft`), and the server does
    /// not: hops have to get in, see docs/decisions/0010.
    pub fn events_config(&self, queue: QueueId) -> Config {
        let config = self.config(self.events(queue), self.events_subject(queue), 0, DiscardPolicy::New);
        Config { max_bytes: UNLIMITED, ..config }
    }

    /// One subject for each event queue. A full one refuses, and nothing leaves it but by a purge.
    pub fn shard_config(&self, shard: ShardId) -> Config {
        let bytes = self.limits.shard_depth_max_bytes;
        let subjects = format!("{}.shard.{shard}.*", self.pond);
        self.config(format!("{}{shard}", self.shard_prefix()), subjects, roomy(bytes), DiscardPolicy::New)
    }

    /// What is too old or too much leaves by itself.
    pub fn ids_config(&self, queue: QueueId) -> Config {
        let bytes = u64::try_from(self.limits.ids_max).unwrap_or(u64::MAX).saturating_mul(ID_BYTES) + SPARE_BYTES;
        let name = format!("{}-ids-{queue}", self.pond);
        let config = self.config(name, self.ids_subject(queue), bytes, DiscardPolicy::Old);
        Config { max_age: WINDOW_MAX, ..config }
    }

    /// A subject for each letter; a letter that there is no room for is refused.
    pub fn dead_config(&self) -> Config {
        let config = self.config(
            format!("{}-dead", self.pond),
            format!("{}.dead.>", self.pond),
            DEAD_MAX_BYTES,
            DiscardPolicy::New,
        );
        Config { max_messages: i64::try_from(DEAD_MAX).unwrap_or(i64::MAX), ..config }
    }

    pub fn dead_subject(&self, key: DeadKey) -> String {
        let by = key.shard.map_or_else(|| "dispatcher".to_owned(), |shard| shard.to_string());
        format!("{}.dead.{}.{}.{by}", self.pond, key.queue, key.offset)
    }

    fn config(&self, name: String, subjects: String, max_bytes: u64, discard: DiscardPolicy) -> Config {
        Config {
            name,
            subjects: vec![subjects],
            max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            discard,
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: self.replicas,
            // No message has an id of its own: nothing is to be remembered for that.
            duplicate_window: Duration::from_secs(1),
            ..Config::default()
        }
    }

    /// Claims; one that is never renewed is gone after the longest time a lease may run.
    pub fn leases(&self) -> kv::Config {
        kv::Config { max_age: TTL_MAX, ..self.bucket("leases") }
    }

    /// How far things are, and what all processes share.
    pub fn state(&self) -> kv::Config {
        self.bucket("state")
    }

    fn bucket(&self, name: &str) -> kv::Config {
        kv::Config {
            bucket: format!("{}-{name}", self.pond),
            history: 1,
            storage: StorageType::File,
            num_replicas: self.replicas,
            ..kv::Config::default()
        }
    }
}

/// Small frames weigh more on NATS than on their own.
fn roomy(bytes: u64) -> u64 {
    bytes + bytes / 4 + SPARE_BYTES
}

/// The stream, made if it is not there, and as it was asked for. Limits are brought up to date.
pub async fn stream(connection: &Connection, asked: Config) -> Result<Stream, NatsError> {
    let name = asked.name.clone();
    let failed = |error: &dyn std::fmt::Display| NatsError::Stream { name: name.clone(), problem: error.to_string() };
    let jetstream = &connection.jetstream;
    let mut stream = jetstream.get_or_create_stream(asked.clone()).await.map_err(|error| failed(&error))?;
    if stream.cached_info().config.max_bytes != asked.max_bytes {
        let updated = Config { max_bytes: asked.max_bytes, ..stream.cached_info().config.clone() };
        jetstream.update_stream(updated).await.map_err(|error| failed(&error))?;
        stream = jetstream.get_stream(name.clone()).await.map_err(|error| failed(&error))?;
        tracing::info!(stream = name, max_bytes = asked.max_bytes, "the limit of the stream has changed");
    }
    match difference(&asked, &stream.cached_info().config) {
        None => Ok(stream),
        Some(difference) => Err(NatsError::Different { name, difference }),
    }
}

/// The bucket, likewise.
pub async fn bucket(connection: &Connection, asked: kv::Config) -> Result<Store, NatsError> {
    let name = asked.bucket.clone();
    let failed = |error: &dyn std::fmt::Display| NatsError::Stream { name: name.clone(), problem: error.to_string() };
    let jetstream = &connection.jetstream;
    let store = match jetstream.get_key_value(&asked.bucket).await {
        Ok(store) => store,
        Err(_) => jetstream.create_key_value(asked.clone()).await.map_err(|error| failed(&error))?,
    };
    let told = store.status().await.map_err(|error| failed(&error))?;
    let found = &told.info.config;
    let checks = [
        ("max_age", format!("{:?}", asked.max_age), format!("{:?}", found.max_age)),
        ("num_replicas", asked.num_replicas.to_string(), found.num_replicas.to_string()),
        ("storage", format!("{:?}", asked.storage), format!("{:?}", found.storage)),
        ("history", asked.history.to_string(), found.max_messages_per_subject.to_string()),
    ];
    match checks.into_iter().find(|(_, asked, found)| asked != found) {
        None => Ok(store),
        Some((field, asked, found)) => Err(NatsError::Different { name, difference: words(field, &asked, &found) }),
    }
}

/// In words where a stream is not what was asked for. A server may know less than we do, and somebody else may have
/// made the stream, or changed it: only what it says it is counts.
fn difference(asked: &Config, found: &Config) -> Option<String> {
    let limit = |limit: i64| if limit <= 0 { "none".to_owned() } else { limit.to_string() };
    let checks = [
        ("subjects", format!("{:?}", asked.subjects), format!("{:?}", found.subjects)),
        ("retention", format!("{:?}", asked.retention), format!("{:?}", found.retention)),
        ("storage", format!("{:?}", asked.storage), format!("{:?}", found.storage)),
        ("discard", format!("{:?}", asked.discard), format!("{:?}", found.discard)),
        ("num_replicas", asked.num_replicas.to_string(), found.num_replicas.to_string()),
        ("max_age", format!("{:?}", asked.max_age), format!("{:?}", found.max_age)),
        ("max_bytes", limit(asked.max_bytes), limit(found.max_bytes)),
        ("max_msgs", limit(asked.max_messages), limit(found.max_messages)),
        ("max_msgs_per_subject", limit(asked.max_messages_per_subject), limit(found.max_messages_per_subject)),
        ("no_ack", asked.no_ack.to_string(), found.no_ack.to_string()),
        ("sealed", asked.sealed.to_string(), found.sealed.to_string()),
        ("deny_purge", asked.deny_purge.to_string(), found.deny_purge.to_string()),
        ("mirror", "false".to_owned(), found.mirror.is_some().to_string()),
        ("sources", "false".to_owned(), found.sources.as_ref().is_some_and(|all| !all.is_empty()).to_string()),
        (
            "persist_mode async",
            "false".to_owned(),
            matches!(found.persist_mode, Some(PersistenceMode::Async)).to_string(),
        ),
    ];
    let mut different = checks.into_iter().filter(|(_, asked, found)| asked != found);
    different.next().map(|(field, asked, found)| words(field, &asked, &found))
}

fn words(field: &str, asked: &str, found: &str) -> String {
    format!("its {field} is {found}, not {asked}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_echoes_is_compared_with_what_was_asked() {
        let plan = Plan { pond: "p".to_owned(), replicas: 1, limits: Limits::default() };
        let asked = plan.events_config(3);
        assert_eq!((asked.name.as_str(), asked.subjects[0].as_str()), ("p-events-3", "p.events.3"));
        assert_eq!(difference(&asked, &asked), None);
        let unlimited = Config { max_messages: 0, max_messages_per_subject: 0, ..asked.clone() };
        assert_eq!(difference(&asked, &unlimited), None, "0 and -1 both mean none");
        type Change = fn(&mut Config);
        let changes: [(&str, Change); 9] = [
            ("storage", |found| found.storage = StorageType::Memory),
            ("discard", |found| found.discard = DiscardPolicy::Old),
            ("retention", |found| found.retention = RetentionPolicy::WorkQueue),
            ("num_replicas", |found| found.num_replicas = 3),
            ("subjects", |found| found.subjects.push("q".to_owned())),
            ("max_age", |found| found.max_age = Duration::from_secs(1)),
            ("max_msgs", |found| found.max_messages = 10),
            ("deny_purge", |found| found.deny_purge = true),
            ("persist_mode async", |found| found.persist_mode = Some(PersistenceMode::Async)),
        ];
        for (field, change) in changes {
            let mut found = asked.clone();
            change(&mut found);
            let words = difference(&asked, &found).unwrap_or_default();
            assert!(words.starts_with(&format!("its {field} is ")), "{field}: {words}");
        }
    }
}
