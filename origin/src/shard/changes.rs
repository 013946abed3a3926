//! The change stream of one shard: recent changes, and those who follow them.
//!
//! A follower is registered under the same lock that publishes, together with what it missed, so it gets every change
//! behind its position once, or is told that it can't.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use millpond_shared::version::{Position, ShardId};
use millpond_shared::wire::{CHANGES_FORMAT, Change, ChangeMessage, Follow};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Interval, interval};

/// How many changes of documents are kept for followers that come back. Who was away longer is told `resumed: false`.
const CHANGES_MAX: usize = 65_536;
/// How many batches they may come from.
const BATCHES_MAX: usize = 4_096;
/// How many batches wait for one follower. One that is further behind is cut off, and resumes.
const BEHIND_MAX: usize = 256;
/// How many followers a shard has at most. One more is refused.
const FOLLOWERS_MAX: usize = 1_024;

/// Recent changes and followers.
pub struct ChangeLog {
    shard: ShardId,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Position of the last batch published.
    at: Position,
    /// Every change behind this position is in `batches`.
    floor: Position,
    batches: VecDeque<Arc<Batch>>,
    /// Number of changes in `batches`.
    changes: usize,
    followers: Vec<mpsc::Sender<Arc<Batch>>>,
    closed: bool,
}

/// The changes of a batch that was applied up to `at`.
#[derive(Debug)]
struct Batch {
    at: Position,
    documents: Vec<Change>,
}

impl ChangeLog {
    /// An empty log of a shard that has applied everything up to `at`.
    pub fn new(shard: ShardId, at: Position) -> ChangeLog {
        let inner =
            Inner { at, floor: at, batches: VecDeque::new(), changes: 0, followers: Vec::new(), closed: false };
        ChangeLog { shard, inner: Mutex::new(inner) }
    }

    /// Announces a batch. Its documents must be readable already: a fetch made after this sees them.
    pub fn publish(&self, at: Position, documents: Vec<Change>) {
        let batch = Arc::new(Batch { at, documents });
        let mut inner = self.inner.lock();
        inner.at = at;
        inner.keep(batch.clone());
        // A follower that is gone, or too slow, loses its place.
        inner.followers.retain(|follower| follower.try_send(batch.clone()).is_ok());
    }

    /// A stream of messages from [`ChangeMessage::Hello`] on, which ends when the follower is too slow or the shard
    /// stops. `None` when it has stopped, or has too many followers.
    pub fn follow(&self, follow: Follow) -> Option<BoxStream<'static, ChangeMessage>> {
        let mut inner = self.inner.lock();
        inner.followers.retain(|follower| !follower.is_closed());
        if inner.closed || inner.followers.len() >= FOLLOWERS_MAX {
            return None;
        }
        let (sender, live) = mpsc::channel(BEHIND_MAX);
        inner.followers.push(sender);

        let resumed = follow.after.is_some_and(|after| after >= inner.floor);
        let after = follow.after.filter(|_| resumed).unwrap_or(inner.at);
        let mut missed: VecDeque<_> = inner.batches.iter().filter(|batch| batch.at > after).cloned().collect();
        // Batches without changes are not kept: this one tells how far they went.
        missed.push_back(Arc::new(Batch { at: inner.at, documents: Vec::new() }));
        let hello = ChangeMessage::Hello { format: CHANGES_FORMAT, shard: self.shard, resumed, at: inner.at };
        let follower = Follower { hello: Some(hello), missed, live, after, at: inner.at, ticks: None };
        Some(stream::unfold(follower, Follower::next).boxed())
    }

    /// Ends all streams.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.followers.clear();
    }
}

impl Inner {
    fn keep(&mut self, batch: Arc<Batch>) {
        if batch.documents.is_empty() {
            return;
        }
        self.changes += batch.documents.len();
        self.batches.push_back(batch);
        while self.changes > CHANGES_MAX || self.batches.len() > BATCHES_MAX {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.changes -= oldest.documents.len();
            self.floor = oldest.at;
        }
    }
}

struct Follower {
    hello: Option<ChangeMessage>,
    /// What was published between its position and its registration.
    missed: VecDeque<Arc<Batch>>,
    live: mpsc::Receiver<Arc<Batch>>,
    /// Changes at or below this position are not sent: it has seen them, maybe before this shard restarted.
    after: Position,
    /// Everything up to here was sent.
    at: Position,
    ticks: Option<Interval>,
}

impl Follower {
    async fn next(mut self) -> Option<(ChangeMessage, Follower)> {
        if let Some(hello) = self.hello.take() {
            return Some((hello, self));
        }
        loop {
            let ticks = self.ticks.get_or_insert_with(ticks);
            let batch = match self.missed.pop_front() {
                Some(batch) => batch,
                None => tokio::select! {
                    batch = self.live.recv() => batch?,
                    // Says no more than was sent: a follower may resume from any position it heard.
                    _ = ticks.tick() => return Some((ChangeMessage::Tick { at: self.at }, self)),
                },
            };
            self.at = batch.at;
            let unseen = |change: &&Change| change.version.position > self.after;
            let documents: Vec<Change> = batch.documents.iter().filter(unseen).cloned().collect();
            if !documents.is_empty() {
                ticks.reset();
                return Some((ChangeMessage::Changes { at: batch.at, documents }, self));
            }
        }
    }
}

/// The first comes after a whole period.
fn ticks() -> Interval {
    let mut ticks = interval(Duration::from_millis(ChangeMessage::TICK_MS));
    ticks.reset();
    ticks
}
