//! The queues on NATS JetStream: the same doors as the embedded queues', for any number of processes.
//!
//! | on NATS | what it is |
//! |---|---|
//! | stream `POND-events-Q`, subject `POND.events.Q` | event queue Q: one message is an `EventFrame` |
//! | stream `POND-ids-Q` | ids of frames that were purged from it, until their windows end |
//! | stream `POND-shard-S`, subjects `POND.shard.S.Q` | the queue of shard S: one message is a `ShardFrame`, its position the message's sequence |
//! | stream `POND-dead`, subjects `POND.dead.Q.OFFSET.BY` | dead letters |
//! | bucket `POND-leases` | claims on event queues |
//! | the same stream, subject `POND.shard.S.handed` | documents of slots that move to shard S: one message is a `Handover` |
//! | bucket `POND-state` | how far event queues are filed, what consumers have committed, the shard map, the secret of the ids |
//!
//! `connection` and `streams` judge the servers before anything is trusted to them. `appender` (with `event_log`, `draft`,
//! `ids`) is the way in, `filer` (with `filing`, `leases`) the dispatcher's side, `puller` and `shard_streams` the shards', `maps` the
//! shard map; `doors` calls them. `reader` reads streams, `heads` and `records` say what is written. Why it is so:
//! docs/decisions/0007.

mod appender;
mod connection;
mod dead_stream;
mod doors;
mod draft;
mod event_log;
mod filer;
mod filing;
mod heads;
mod ids;
mod leases;
mod maps;
mod puller;
mod reader;
mod records;
mod shard_streams;
mod status;
mod streams;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_nats::jetstream::stream::Stream;
use millpond_shared::version::QueueId;
use parking_lot::Mutex;
use prometheus::Registry;

use self::appender::Appender;
use self::connection::Connection;
use self::dead_stream::DeadStream;
use self::event_log::EventLog;
use self::filer::Filer;
use self::leases::Leases;
use self::maps::Maps;
use self::puller::Puller;
use self::records::Records;
use self::shard_streams::ShardStreams;
use self::streams::Plan;
use super::ids::IdHasher;
use super::metrics::Gauges;
use super::{EVENT_QUEUES_MAX, Options, QueueError, QueueMetrics, Runtime, Status};

pub use self::connection::{Servers, VERSION_MIN};

/// Where the queues are on NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSettings {
    pub servers: Servers,
    /// What the names of all streams begin with, so that ponds can share servers.
    pub pond: String,
    /// Servers that keep a copy of everything: 1, 3 or 5.
    pub replicas: usize,
    pub event_queues: u16,
}

/// What leases are measured by.
pub enum Clock {
    /// The servers' clock.
    Servers,
    /// Milliseconds since the Unix epoch, as somebody else tells them.
    Given(Arc<dyn Fn() -> u64 + Send + Sync>),
}

/// The queues of one pond, as one process reaches them.
pub struct NatsQueues {
    parts: Arc<Parts>,
}

struct Parts {
    runtime: Runtime,
    connection: Connection,
    plan: Plan,
    state: Records,
    hasher: IdHasher,
    leases: Leases,
    queues: Vec<EventQueue>,
    shards: Arc<ShardStreams>,
    puller: Puller,
    maps: Maps,
    dead: DeadStream,
    /// As it was asked for last; what is scraped.
    status: Mutex<Option<Status>>,
    is_closed: AtomicBool,
}

struct EventQueue {
    events: Stream,
    ids: Stream,
    /// The last offset that this process knows to be filed.
    filed: Arc<AtomicU64>,
    filer: tokio::sync::Mutex<Filer>,
    /// Started by the first append.
    appender: Mutex<Option<Arc<Appender>>>,
}

/// The queues on NATS can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("NATS can't be reached: {problem}; start the servers, or name others in queue.servers")]
    Connect { problem: String },
    #[error(
        "the NATS server has version {found}, {}.{} or newer is needed: older ones can't be told to sync what they \
         acknowledge, and drop settings that they don't know",
        VERSION_MIN.0, VERSION_MIN.1
    )]
    Version { found: String },
    #[error(
        "the NATS server has no JetStream: add a block jetstream {{ store_dir: …, sync_interval: always }} to its configuration"
    )]
    NoJetStream,
    #[error("the NATS server takes messages of {found} bytes at most: set its max_payload to {least} or more")]
    SmallMessages { found: usize, least: usize },
    #[error("{}: {problem}", file.display())]
    File { file: PathBuf, problem: String },
    #[error("{name} on NATS can't be made or read: {problem}")]
    Stream { name: String, problem: String },
    #[error(
        "{name} on NATS is not as it was asked for: {difference}; give every process the same [queue], and upgrade the \
         servers, or delete it there once it is empty"
    )]
    Different { name: String, difference: String },
    #[error(
        "event queue {queue} on NATS would be left out with event_queues = {count}: raise the number again, let the \
         queue drain, stop, and delete its stream"
    )]
    LeftOut { queue: QueueId, count: u16 },
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the metrics of the queue role can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl NatsQueues {
    /// Connects, judges the servers, and makes the streams that are not there.
    pub async fn open(
        settings: &NatsSettings,
        options: Options,
        clock: Clock,
        registry: &Registry,
    ) -> Result<NatsQueues, NatsError> {
        let runtime = Runtime::new(options, QueueMetrics::register(registry)?);
        let plan = Plan { pond: settings.pond.clone(), replicas: settings.replicas, limits: runtime.limits };
        let connection = Connection::open(&settings.servers).await?;
        let left_out = (settings.event_queues..EVENT_QUEUES_MAX).take(1);
        for queue in left_out {
            if connection.jetstream.get_stream(plan.events(queue)).await.is_ok() {
                return Err(NatsError::LeftOut { queue, count: settings.event_queues });
            }
        }
        let state = Records::new(streams::bucket(&connection, plan.state()).await?);
        let leases = Records::new(streams::bucket(&connection, plan.leases()).await?);
        let leases = Leases::new(leases, connection.clone(), plan.events(0), clock);
        let hasher = IdHasher::new(state.secret().await?);
        let shards = ShardStreams::new(plan.clone(), connection.clone(), state.clone(), settings.event_queues);
        let shards = Arc::new(shards);
        let mut queues = Vec::new();
        for queue in 0..settings.event_queues {
            let events = streams::stream(&connection, plan.events_config(queue)).await?;
            let ids = streams::stream(&connection, plan.ids_config(queue)).await?;
            let filed = Arc::new(AtomicU64::new(0));
            let filer = Filer::new(filing::Shared {
                queue,
                plan: plan.clone(),
                connection: connection.clone(),
                stream: events.clone(),
                state: state.clone(),
                shards: shards.clone(),
                hasher: hasher.clone(),
                runtime: runtime.clone(),
                filed: filed.clone(),
            });
            let filer = tokio::sync::Mutex::new(filer);
            queues.push(EventQueue { events, ids, filed, filer, appender: Mutex::default() });
        }
        let dead = streams::stream(&connection, plan.dead_config()).await?;
        let dead = DeadStream { plan: plan.clone(), connection: connection.clone(), stream: dead };
        let puller = Puller::new(shards.clone(), runtime.clone(), connection.message_max);
        let maps = Maps {
            plan: plan.clone(),
            connection: connection.clone(),
            state: state.clone(),
            shards: shards.clone(),
            runtime: runtime.clone(),
            seen: Mutex::default(),
        };
        let parts = Arc::new(Parts {
            runtime,
            connection,
            plan,
            state,
            hasher,
            leases,
            queues,
            shards,
            puller,
            maps,
            dead,
            status: Mutex::default(),
            is_closed: AtomicBool::new(false),
        });
        let scraped = Arc::downgrade(&parts);
        Gauges::register(registry, move || scraped.upgrade().and_then(|parts| parts.status.lock().clone()))?;
        Ok(NatsQueues { parts })
    }

    fn queue(&self, queue: QueueId) -> Result<&EventQueue, QueueError> {
        let last = self.count().saturating_sub(1);
        let no_queue = || QueueError::NoQueue { what: "event queue".to_owned(), number: queue, last };
        self.parts.queues.get(usize::from(queue)).ok_or_else(no_queue)
    }

    fn count(&self) -> u16 {
        u16::try_from(self.parts.queues.len()).unwrap_or(u16::MAX)
    }

    fn is_open(&self) -> Result<(), QueueError> {
        if self.parts.is_closed.load(Ordering::Acquire) { Err(QueueError::Closed) } else { Ok(()) }
    }

    fn appender(&self, queue: QueueId) -> Result<Arc<Appender>, QueueError> {
        let of = self.queue(queue)?;
        let mut appender = of.appender.lock();
        // Behind the lock: who closes takes what is there, and nothing comes after that.
        self.is_open()?;
        let start = || {
            Arc::new(Appender::start(EventLog {
                queue,
                plan: self.parts.plan.clone(),
                connection: self.parts.connection.clone(),
                stream: of.events.clone(),
                ids: of.ids.clone(),
                state: self.parts.state.clone(),
                hasher: self.parts.hasher.clone(),
                runtime: self.parts.runtime.clone(),
                filed: of.filed.clone(),
            }))
        };
        Ok(appender.get_or_insert_with(start).clone())
    }
}
