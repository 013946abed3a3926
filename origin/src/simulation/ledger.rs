//! What was seen from outside while a history ran, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use parking_lot::Mutex;

use super::moves::Moves;
use super::reading::Copy;
use super::scheduler::Process;
use crate::queue::{Lease, Pulled};

/// Everything that was told to somebody.
#[derive(Default)]
pub struct Ledger {
    pub moves: Moves,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    tokens: BTreeMap<QueueId, u64>,
    stored: BTreeMap<(QueueId, Offset), String>,
    frames: BTreeMap<(ShardId, Position), Bytes>,
    /// By tag and `ETag`.
    bodies: BTreeMap<(String, String), Bytes>,
    consumers: BTreeSet<(ShardId, String)>,
    /// Consumers that have lost a disk.
    lost_with: BTreeMap<(ShardId, String), Process>,
}

impl Ledger {
    /// Somebody was given a claim: nobody had one under this token.
    pub fn leased(&self, lease: Lease) {
        let before = self.seen.lock().tokens.insert(lease.queue, lease.token).unwrap_or(0);
        assert!(lease.token > before, "two claims under one token: {lease:?} after {before}");
    }

    pub fn newest_token(&self, queue: QueueId) -> u64 {
        self.seen.lock().tokens.get(&queue).copied().unwrap_or(0)
    }

    /// A producer was told where its event is.
    pub fn stored(&self, queue: QueueId, offset: Offset, id: &str) {
        let mut seen = self.seen.lock();
        let twice = seen.stored.values().any(|other| other == id);
        assert!(!twice, "event {id} was stored twice, at last at {queue}:{offset}");
        let before = seen.stored.insert((queue, offset), id.to_owned());
        assert_eq!(before, None, "offset {queue}:{offset} was given twice");
    }

    /// A shard pulled: what stands at a position never changes.
    pub fn pulled(&self, shard: ShardId, pulled: &Pulled) {
        let mut seen = self.seen.lock();
        for (position, frame) in &pulled.frames {
            let before = seen.frames.entry((shard, *position)).or_insert_with(|| frame.clone());
            assert_eq!(before, frame, "position {position} of shard {shard} holds another frame than before");
        }
    }

    /// A consumer was told that the queue knows it, in time: from then on nothing is trimmed that it has not committed.
    pub fn registered(&self, shard: ShardId, consumer: &str) {
        self.seen.lock().consumers.insert((shard, consumer.to_owned()));
    }

    pub fn is_registered(&self, shard: ShardId, consumer: &str) -> bool {
        self.seen.lock().consumers.contains(&(shard, consumer.to_owned()))
    }

    /// A consumer has lost its disk; `last`: no later process than this one ran on it.
    pub fn forget_consumer(&self, shard: ShardId, consumer: &str, last: Process) {
        let mut seen = self.seen.lock();
        let key = (shard, consumer.to_owned());
        seen.consumers.remove(&key);
        seen.lost_with.insert(key, last);
    }

    /// The queue was told by a process what a consumer has committed. If that is late, and the disk is lost, the queue takes
    /// the consumer to be further than it is.
    pub fn told_committed(&self, shard: ShardId, consumer: &str, by: Process) {
        let mut seen = self.seen.lock();
        let key = (shard, consumer.to_owned());
        if seen.lost_with.get(&key).is_some_and(|last| by <= *last) {
            seen.consumers.remove(&key);
        }
    }

    /// A reader was given a document: whoever gives this version gives these bytes.
    pub fn read(&self, tag: &str, copy: &Copy) {
        let mut seen = self.seen.lock();
        let before = seen.bodies.entry((tag.to_owned(), copy.etag.clone())).or_insert_with(|| copy.body.clone());
        assert_eq!(*before, copy.body, "{tag} at {} has other bytes than before", copy.version);
    }

    /// What anybody pulled at a position.
    pub fn frame(&self, shard: ShardId, position: Position) -> Bytes {
        let frame = self.seen.lock().frames.get(&(shard, position)).cloned();
        frame.unwrap_or_else(|| panic!("nobody pulled position {position} of shard {shard}"))
    }
}
