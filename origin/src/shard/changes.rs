//! The change stream of one shard: recent changes, and those who follow them.
//!
//! A follower is registered under the same lock that publishes, together with what it missed, so it gets every change
//! behind its position once, or is told that it can't.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use millpond_shared::version::{Position, ShardId};
use millpond_shared::wire::{CHANGES_FORMAT, Change, ChangeMessage, Follow};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::timing;

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
        let inner = Inner { at, floor: at, batches: VecDeque::new(), changes: 0, followers: Vec::new(), closed: false };
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
        let follower = Follower { hello: Some(hello), missed, live, after, at: inner.at, tick_at: None };
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
    /// When silence is broken next.
    tick_at: Option<Instant>,
}

impl Follower {
    async fn next(mut self) -> Option<(ChangeMessage, Follower)> {
        if let Some(hello) = self.hello.take() {
            return Some((hello, self));
        }
        loop {
            let tick_at = *self.tick_at.get_or_insert_with(next_tick);
            let batch = match self.missed.pop_front() {
                Some(batch) => batch,
                None => {
                    let silence = tick_at.saturating_duration_since(timing::now());
                    match timing::timeout(silence, self.live.recv()).await {
                        Ok(batch) => batch?,
                        Err(timing::TimeOver) => {
                            self.tick_at = Some(next_tick());
                            // Says no more than was sent: a follower may resume from any position it heard.
                            return Some((ChangeMessage::Tick { at: self.at }, self));
                        }
                    }
                }
            };
            // A replay announces again what a document has had since a later frame than the batch's.
            self.at = batch.at.max(self.after);
            let unseen = |change: &&Change| change.version.position > self.after;
            let documents: Vec<Change> = batch.documents.iter().filter(unseen).cloned().collect();
            if !documents.is_empty() {
                self.tick_at = Some(next_tick());
                return Some((ChangeMessage::Changes { at: self.at, documents }, self));
            }
        }
    }
}

/// After a whole period.
fn next_tick() -> Instant {
    timing::now() + Duration::from_millis(ChangeMessage::TICK_MS)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use millpond_shared::version::Version;

    use super::*;

    fn changes(position: Position, keys: std::ops::Range<usize>) -> Vec<Change> {
        keys.map(|key| Change { tag: format!("p/{key}"), version: Version::new(1, position) }).collect()
    }

    fn follow(log: &ChangeLog, after: Option<Position>) -> BoxStream<'static, ChangeMessage> {
        log.follow(Follow { after }).expect("a stream")
    }

    /// What can be read without waiting, and whether the stream has ended.
    async fn ready(stream: &mut BoxStream<'static, ChangeMessage>) -> (Vec<ChangeMessage>, bool) {
        let mut messages = Vec::new();
        loop {
            match tokio::task::unconstrained(stream.next()).now_or_never() {
                Some(Some(message)) => messages.push(message),
                Some(None) => return (messages, true),
                None => return (messages, false),
            }
        }
    }

    fn hello(resumed: bool, at: Position) -> ChangeMessage {
        ChangeMessage::Hello { format: CHANGES_FORMAT, shard: 3, resumed, at }
    }

    fn changed(at: Position, documents: Vec<Change>) -> ChangeMessage {
        ChangeMessage::Changes { at, documents }
    }

    #[tokio::test]
    async fn a_follower_that_comes_back_gets_what_it_missed_and_nothing_else() {
        let log = ChangeLog::new(3, 10);
        let mut from_the_start = follow(&log, None);
        log.publish(11, changes(11, 0..1));
        log.publish(12, Vec::new());
        log.publish(13, changes(13, 1..2));
        let mut back = follow(&log, Some(11));
        log.publish(14, changes(14, 0..1));

        let (one, two, three) = (changes(11, 0..1), changes(13, 1..2), changes(14, 0..1));
        assert_eq!(
            ready(&mut from_the_start).await.0,
            [hello(false, 10), changed(11, one), changed(13, two.clone()), changed(14, three.clone())]
        );
        assert_eq!(ready(&mut back).await.0, [hello(true, 13), changed(13, two), changed(14, three)]);
    }

    #[tokio::test]
    async fn a_follower_from_before_the_floor_is_told_so() {
        let log = ChangeLog::new(3, 10);
        let mut stream = follow(&log, Some(9));
        log.publish(11, changes(11, 0..1));
        assert_eq!(ready(&mut stream).await.0, [hello(false, 10), changed(11, changes(11, 0..1))]);
        assert_eq!(ready(&mut follow(&log, Some(10))).await.0[0], hello(true, 11));

        // The oldest batches go, the floor rises with them.
        for at in 12..20 {
            log.publish(at, changes(at, 0..CHANGES_MAX / 4));
        }
        assert_eq!(ready(&mut follow(&log, Some(14))).await.0[0], hello(false, 19));
        let (messages, _) = ready(&mut follow(&log, Some(15))).await;
        assert_eq!((messages.len(), &messages[0]), (5, &hello(true, 19)));

        // A batch larger than all that is kept leaves nothing to resume from.
        log.publish(20, changes(20, 0..CHANGES_MAX + 1));
        assert_eq!(ready(&mut follow(&log, Some(19))).await.0, [hello(false, 20)]);
        assert_eq!(ready(&mut follow(&log, Some(20))).await.0, [hello(true, 20)]);

        for at in 21..=21 + BATCHES_MAX as u64 {
            log.publish(at, changes(at, 0..1));
        }
        assert_eq!(log.inner.lock().batches.len(), BATCHES_MAX);
        assert_eq!(log.inner.lock().floor, 21);
    }

    #[tokio::test]
    async fn a_follower_ahead_of_a_restarted_shard_gets_only_what_is_new_to_it() {
        let log = ChangeLog::new(3, 10);
        let mut stream = follow(&log, Some(15));
        assert_eq!(ready(&mut stream).await.0, [hello(true, 10)]);
        // Replayed, in other batches than before the restart.
        log.publish(13, changes(13, 0..2));
        let straddling = [changes(15, 0..1), changes(16, 1..2)].concat();
        log.publish(16, straddling);
        assert_eq!(ready(&mut stream).await.0, [changed(16, changes(16, 1..2))]);
    }

    #[tokio::test]
    async fn a_follower_too_slow_is_cut_off_and_can_resume_without_a_gap() {
        let log = ChangeLog::new(3, 0);
        let mut slow = follow(&log, Some(0));
        let last = BEHIND_MAX as u64 + 50;
        for at in 1..=last {
            log.publish(at, changes(at, 0..1));
        }
        let (messages, ended) = ready(&mut slow).await;
        assert!(ended && messages.len() == 1 + BEHIND_MAX, "{}", messages.len());
        let Some(ChangeMessage::Changes { at, .. }) = messages.last() else { panic!("{messages:?}") };
        let (rest, ended) = ready(&mut follow(&log, Some(*at))).await;
        assert!(!ended && rest.len() == 1 + 50, "{}", rest.len());
    }

    #[tokio::test]
    async fn silence_is_broken_by_ticks_that_say_no_more_than_was_sent() {
        let log = ChangeLog::new(3, 5);
        let mut stream = follow(&log, None);
        log.publish(6, Vec::new());
        assert_eq!(stream.next().await, Some(hello(false, 5)));
        assert_eq!(stream.next().await, Some(ChangeMessage::Tick { at: 6 }));
    }

    #[tokio::test]
    async fn a_closed_log_ends_its_streams_and_takes_no_more() {
        let log = ChangeLog::new(3, 5);
        let mut stream = follow(&log, None);
        log.publish(6, changes(6, 0..1));
        log.close();
        assert_eq!(ready(&mut stream).await, (vec![hello(false, 5), changed(6, changes(6, 0..1))], true));
        assert!(log.follow(Follow::default()).is_none());
    }

    #[tokio::test]
    async fn followers_are_bounded_and_those_that_left_make_room() {
        let log = ChangeLog::new(3, 5);
        let mut streams: Vec<_> = (0..FOLLOWERS_MAX).map(|_| follow(&log, None)).collect();
        assert!(log.follow(Follow::default()).is_none());
        streams.pop();
        assert!(log.follow(Follow::default()).is_some());
    }
}
