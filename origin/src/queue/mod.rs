//! Queues: durable, bounded, first in first out. Nothing here knows what an event means.
//!
//! | file | what it holds |
//! |---|---|
//! | `traits` | the narrow doors: [`EventQueues`], [`DispatchQueues`], [`ShardQueues`], [`ShardMaps`] |
//! | `embedded` | [`Queues`]: all of them, over the files of one directory |
//! | `event_queue`, `event_writer` | one event queue: its handle, its writer thread |
//! | `packed`, `pace` | the events of a call as they are stored; how long a group gathers (pure) |
//! | `shard_queues`, `shard_writer`, `map_writer` | all shard queues, cursors, leases and the shard map: handle, writer thread |
//! | `writer_thread` | what the two have in common: a thread, and the calls that wait for it |
//! | `nats` | [`NatsQueues`](nats::NatsQueues): the same doors on NATS JetStream |
//! | `runtime` | what all parts of either engine share: limits, clock, the end |
//! | `dead` | events that can't be filed or applied, laid aside (pure) |
//! | `lease`, `ids` | who may work on an event queue; which ids were seen (pure) |
//! | `known_map` | [`KnownMap`]: the shard map as a process knows it |
//! | `wire`, `client` | the same doors over HTTP: the messages, the client |

mod client;
#[cfg(test)]
mod crashes;
pub mod dead;
mod embedded;
mod event_queue;
mod event_writer;
mod ids;
mod known_map;
pub mod lease;
mod limits;
mod map_writer;
mod metrics;
pub mod nats;
mod pace;
mod packed;
mod runtime;
mod shard_queues;
mod shard_writer;
#[cfg(test)]
mod suite;
#[cfg(test)]
pub(crate) mod testing;
mod traits;
pub mod wire;
mod writer_thread;

pub use client::QueueClient;
pub use dead::{DeadKey, DeadLetter, DeadLetters};
pub use embedded::{Files, Queues, Status};
pub(crate) use ids::HashParts;
pub use known_map::KnownMap;
pub use limits::{EVENT_QUEUES_MAX, Limits};
pub use metrics::{EventQueueStatus, QueueMetrics, ShardQueueStatus};
pub use runtime::Options;
pub use traits::{
    DispatchQueues, EventQueues, Fate, HandedOver, Lease, MapChange, Pulled, QueueError, QueueRole, Round, RoundFrame,
    ShardMaps, ShardQueues, Taken,
};

use runtime::Runtime;
