//! What queues may hold and how much they do at once. Each limit has a unit, a default and a behaviour.

use std::time::Duration;

/// Limits of the queue role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events in one event queue that were not filed yet; one more is refused as [`Full`](super::Fate::Full).
    pub depth_max_events: u64,
    /// Bytes of the same; beyond it events are refused likewise.
    pub depth_max_bytes: u64,
    /// Bytes in one shard queue that its consumers have not committed; beyond it no round is filed, so that the event
    /// queues fill up in turn and ingest refuses.
    pub shard_depth_max_bytes: u64,
    /// Ids that one event queue remembers, at 20 to 39 bytes of memory and some 20 on disk; beyond it those whose window
    /// ends first are forgotten early, and counted. The default holds ten minutes of 26,000 events a second on four
    /// queues.
    pub ids_max: usize,
    /// Events after which a group is committed although more are waiting.
    pub group_max_events: usize,
    /// Bytes of the same.
    pub group_max_bytes: u64,
    /// Calls that wait for one queue's writer; one more is refused as full.
    pub waiting_max_calls: usize,
    /// Bytes of events in such calls; beyond it a call is refused as full.
    pub waiting_max_bytes: u64,
    /// How often what was filed or committed is trimmed, and ended ids are forgotten, when nothing else is written.
    pub tidy_every: Duration,
    /// Page cache of one file, in bytes.
    pub cache_bytes: usize,
}

/// How often ids whose window has ended are looked for, in ms: so much longer they may be known. Each look is a page
/// more to write.
pub const FORGET_EVERY_MS: u64 = 500;
/// Calls of a group from which on its writer is under load. It then gives the next group as long to gather as the last
/// took to be committed: each commit costs the processor as much as dozens of events do. Who is alone does not wait.
pub const LOAD_FROM_CALLS: usize = 8;
/// The longest that a group is gathered.
pub const GATHER_MAX: Duration = Duration::from_millis(1);
/// Events of a group of fewer calls from which on the next one waits as well, if a quarter of them is missing.
pub const LOAD_FROM_EVENTS: usize = 128;
/// The longest that it does.
pub const GATHER_BATCHES_MAX: Duration = Duration::from_millis(4);
/// Bytes of events after which a frame ends; one event more than this makes a frame of its own.
pub const FRAME_MAX_BYTES: usize = 1 << 20;
/// Bytes of frames after which a `take` ends.
pub const TAKE_MAX_BYTES: usize = 4 << 20;
/// Pushes and lease calls that are committed together.
pub const PUSHES_MAX: usize = 64;
/// Consumers of one shard queue; one more is refused.
pub const CONSUMERS_MAX: usize = 16;
/// Bytes in a shard queue beyond which nothing is handed over to it: so much the taking shard may be behind when the
/// slots are about to be its own.
pub const HANDOVER_BEHIND_MAX_BYTES: u64 = 16 << 20;
/// How long the one who gives slots away has to be silent before another replica of its shard begins to.
pub const GIVER_SILENCE: Duration = Duration::from_secs(5);
/// Longest name of a consumer, in bytes.
pub const CONSUMER_NAME_MAX: usize = 128;
/// Most event queues of one role: each costs a thread and a file.
pub const EVENT_QUEUES_MAX: u16 = 64;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            depth_max_events: 1_000_000,
            depth_max_bytes: 256 << 20,
            shard_depth_max_bytes: 1 << 30,
            ids_max: 4_000_000,
            group_max_events: 10_000,
            group_max_bytes: 4 << 20,
            waiting_max_calls: 4_096,
            waiting_max_bytes: 64 << 20,
            tidy_every: Duration::from_secs(1),
            cache_bytes: 16 << 20,
        }
    }
}
