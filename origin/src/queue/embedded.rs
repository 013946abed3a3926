//! The queues of one directory, called directly: what the queue role is made of.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millpond_shared::event::Event;
use millpond_shared::shard_map::{MapState, SHARDS_MAX};
use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use prometheus::Registry;
use serde::Serialize;

use super::event_queue::EventQueue;
use super::metrics::Gauges;
use super::shard_queues::ShardQueueSet;
use super::shard_writer::Ask;
use super::*;
use crate::blocking::apart;
use crate::store::shard_queue_file::Ends;
use crate::store::{Place, StoreError};

/// All queues of one role.
pub struct Queues {
    parts: Arc<Parts>,
}

struct Parts {
    events: Vec<EventQueue>,
    shards: ShardQueueSet,
    runtime: Runtime,
}

/// Where the files are: one for each event queue, one for all shard queues.
#[derive(Debug)]
pub struct Files {
    pub events: Vec<Place>,
    pub shards: Place,
}

/// The queues, as they stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub event_queues: Vec<EventQueueStatus>,
    /// Those that ever held a frame or were asked for by a consumer.
    pub shard_queues: Vec<ShardQueueStatus>,
    /// Number of dead letters.
    pub dead: usize,
}

impl Queues {
    /// Opens all files and starts a thread for each.
    pub fn open(files: Files, options: Options, registry: &Registry) -> Result<Queues, OpenError> {
        let runtime = Runtime::new(options, QueueMetrics::register(registry)?);
        let shards = ShardQueueSet::open(files.shards, &runtime)?;
        let mut events = Vec::new();
        for (place, queue) in files.events.into_iter().zip(0..EVENT_QUEUES_MAX) {
            events.push(EventQueue::open(place, queue, shards.cursor(queue), &runtime)?);
        }
        let parts = Arc::new(Parts { events, shards, runtime });
        let scraped = Arc::downgrade(&parts);
        Gauges::register(registry, move || scraped.upgrade().map(|parts| parts.status()))?;
        Ok(Queues { parts })
    }

    /// The queues as they stand.
    pub fn status(&self) -> Status {
        self.parts.status()
    }

    /// Ends all waits, answers what else is waiting, writes down what is left and closes the files.
    pub async fn close(&self) {
        self.parts.runtime.end();
        let parts = self.parts.clone();
        let closed = apart(move || {
            parts.events.iter().for_each(EventQueue::close);
            parts.shards.close();
        });
        let _ = closed.await;
    }

    /// Where a shard queue begins and ends.
    #[cfg(test)]
    pub(crate) fn shard_ends(&self, shard: ShardId) -> Ends {
        self.parts.shards.ends(shard).unwrap_or_default()
    }

    /// The shard map as it stands; `None`: nobody has told yet what it begins as.
    #[cfg(test)]
    pub(crate) fn map_now(&self) -> Option<Arc<MapState>> {
        self.parts.shards.map_now()
    }

    /// How far an event queue is filed, and where it ends.
    #[cfg(test)]
    pub(crate) fn event_ends(&self, queue: QueueId) -> (Offset, Offset) {
        self.event_queue(queue).map_or((0, 0), |queue| (queue.cursor(), queue.last()))
    }

    /// Files a frame without its round, as an engine without transactions does when a dispatcher dies half way.
    #[cfg(test)]
    pub(crate) fn file_half(&self, frame: &RoundFrame) -> Result<(), StoreError> {
        self.parts.shards.append_without_a_word(frame.shard, frame.events, &frame.bytes)
    }

    fn event_queue(&self, queue: QueueId) -> Result<&EventQueue, QueueError> {
        let last = QueueId::try_from(self.parts.events.len()).unwrap_or(QueueId::MAX).saturating_sub(1);
        let no_queue = || QueueError::NoQueue { what: "event queue".to_owned(), number: queue, last };
        self.parts.events.get(usize::from(queue)).ok_or_else(no_queue)
    }

    async fn claim(&self, queue: QueueId, holder: &str, ttl: Duration, in_process: bool) -> Result<Lease, QueueError> {
        self.event_queue(queue)?;
        lease::valid(holder, ttl)?;
        let done = self.parts.shards.ask(Ask::Acquire { queue, holder: holder.to_owned(), in_process, ttl }).await?;
        done.lease().ok_or(QueueError::Closed)
    }
}

impl Parts {
    fn status(&self) -> Status {
        let now_ms = self.runtime.now_ms();
        Status {
            event_queues: self.events.iter().zip(0..).map(|(queue, number)| status(queue, number, now_ms)).collect(),
            shard_queues: (0..SHARDS_MAX).filter_map(|shard| self.shard_status(shard, now_ms)).collect(),
            dead: self.shards.dead_count(),
        }
    }

    fn shard_status(&self, shard: ShardId, now_ms: u64) -> Option<ShardQueueStatus> {
        let Ends { last, trimmed, bytes, .. } = self.shards.ends(shard).ok()?;
        let consumers = self.shards.consumers(shard);
        let used = last > 0 || !consumers.is_empty();
        let heard_ms_ago = self.shards.heard_ms_ago(shard, now_ms);
        used.then_some(ShardQueueStatus { shard, last, trimmed, bytes, consumers, heard_ms_ago })
    }
}

fn status(queue: &EventQueue, number: QueueId, now_ms: u64) -> EventQueueStatus {
    EventQueueStatus {
        queue: number,
        last: queue.last(),
        filed: queue.cursor(),
        bytes: queue.depth_bytes(),
        oldest_age_ms: queue.oldest_ms().map_or(0, |oldest| now_ms.saturating_sub(oldest)),
    }
}

#[async_trait]
impl QueueRole for Queues {
    async fn acquire_from_elsewhere(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        self.claim(queue, holder, ttl, false).await
    }

    async fn remove_consumer(&self, shard: ShardId, consumer: &str) -> Result<bool, QueueError> {
        Ok(self.parts.shards.remove_consumer(shard, consumer))
    }

    async fn status(&self) -> Result<Status, QueueError> {
        Ok(self.parts.status())
    }

    async fn peek(&self, queue: QueueId, after: Offset, max_events: usize) -> Result<Option<Taken>, QueueError> {
        self.event_queue(queue)?.peek(after, max_events).await
    }

    async fn dead(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.parts.shards.dead(most).await
    }

    async fn dead_letter(&self, key: DeadKey) -> Result<Option<DeadLetter>, QueueError> {
        self.parts.shards.dead_letter(key).await
    }

    async fn unbury(&self, key: DeadKey) -> Result<bool, QueueError> {
        Ok(self.parts.shards.ask(Ask::Unbury { key }).await?.into_number() > 0)
    }

    /// A file has failed: what its last commit did is known only after reopening.
    async fn failed(&self) -> QueueError {
        self.parts.runtime.failed().await
    }

    fn end_waits(&self) {
        self.parts.runtime.end();
    }

    async fn close(&self) {
        Queues::close(self).await;
    }
}

#[async_trait]
impl DeadLetters for Queues {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError> {
        Ok(self.parts.shards.ask(Ask::Bury { letters }).await?.into_number())
    }
}

#[async_trait]
impl EventQueues for Queues {
    async fn count(&self) -> Result<u16, QueueError> {
        Ok(u16::try_from(self.parts.events.len()).unwrap_or(u16::MAX))
    }

    fn have_room(&self) -> bool {
        self.parts.events.iter().any(EventQueue::has_room)
    }

    async fn append(
        &self,
        queue: QueueId,
        window: Option<Duration>,
        events: Vec<Event<'static>>,
    ) -> Result<Vec<Fate>, QueueError> {
        self.event_queue(queue)?.append(window, events).await
    }
}

#[async_trait]
impl DispatchQueues for Queues {
    async fn count(&self) -> Result<u16, QueueError> {
        EventQueues::count(self).await
    }

    async fn acquire(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        self.claim(queue, holder, ttl, true).await
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<(), QueueError> {
        lease::valid_ttl(ttl)?;
        self.parts.shards.ask(Ask::Renew { lease, ttl }).await.map(drop)
    }

    async fn release(&self, lease: Lease) -> Result<(), QueueError> {
        self.parts.shards.ask(Ask::Release { lease }).await.map(drop)
    }

    async fn take(&self, lease: Lease, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError> {
        self.parts.shards.check(lease)?;
        self.event_queue(lease.queue)?.take(max_events, wait).await
    }

    async fn push(&self, lease: Lease, round: Round) -> Result<(), QueueError> {
        let queue = self.event_queue(lease.queue)?;
        if round.last > queue.last() {
            let problem = format!("the round ends at {}, the queue at {}", round.last, queue.last());
            return Err(QueueError::Invalid { problem });
        }
        self.parts.shards.ask(Ask::Push { lease, round }).await.map(drop)
    }
}

#[async_trait]
impl ShardMaps for Queues {
    async fn map(&self, after: u32, wait: Duration) -> Result<Option<MapState>, QueueError> {
        self.parts.shards.map(after, wait).await
    }

    async fn change_map(&self, change: MapChange) -> Result<MapState, QueueError> {
        self.parts.shards.ask(Ask::ChangeMap { change }).await?.map().ok_or(QueueError::Closed)
    }

    async fn hand_over(&self, handed: HandedOver) -> Result<Position, QueueError> {
        self.parts.shards.ask(Ask::HandOver { handed }).await?.position().ok_or(QueueError::Closed)
    }
}

#[async_trait]
impl ShardQueues for Queues {
    async fn pull(
        &self,
        shard: ShardId,
        after: Position,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Pulled, QueueError> {
        self.parts.shards.pull(shard, after, max_bytes, wait).await
    }

    async fn newest(&self, shard: ShardId) -> Result<Position, QueueError> {
        Ok(self.parts.shards.ends(shard)?.last)
    }

    async fn committed(&self, shard: ShardId, consumer: &str, position: Position) -> Result<(), QueueError> {
        self.parts.shards.committed(shard, consumer, position).await
    }
}

impl Files {
    /// The files in `dir`, which is made if it is not there. Refuses to leave out a queue that `dir` holds.
    pub fn in_dir(dir: &Path, event_queues: u16) -> Result<Files, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| StoreError::Open {
            file: dir.display().to_string(),
            problem: error.to_string(),
            fix: "allow making the directory, or name another `dir`",
        })?;
        let path = |queue: u16| dir.join(format!("event-queue-{queue}.redb"));
        if let Some(left_out) = (event_queues..EVENT_QUEUES_MAX).map(path).find(|path| path.exists()) {
            return Err(StoreError::Damaged {
                file: left_out.display().to_string(),
                problem: format!(
                    "it would be left out with event_queues = {event_queues}: raise the number again, let the queue \
                     drain, stop, and move the file away"
                ),
            });
        }
        let events = (0..event_queues).map(|queue| Place::File(path(queue))).collect();
        Ok(Files { events, shards: Place::File(dir.join("shard-queues.redb")) })
    }
}

/// The queues can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the metrics of the queue role can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::queue::testing::{Machine, event, round_frame, round_of};

    /// Between the commit of a frame and the word that it is there a consumer may come to read: it would then ask for
    /// what is behind a frame that the queue does not know of yet, be told that the queue lost data, and end.
    #[tokio::test]
    async fn no_consumer_gets_ahead_of_what_the_queue_says_it_has() {
        let mut machine = Machine::new(1);
        // Whoever trims reads the file, and says what is there.
        machine.limits.tidy_every = Duration::from_secs(3600);
        let queues = machine.open();
        queues.append(0, None, vec![event("a", 1)]).await.unwrap();
        let lease = queues.acquire(0, "a", Duration::from_secs(10)).await.unwrap();
        let round = round_of(1..=1, vec![round_frame(3, 1, "said")]);
        queues.push(lease, round).await.unwrap();
        // Being made known writes, and says what is there.
        queues.committed(3, "shard", 0).await.unwrap();
        queues.parts.shards.append_without_a_word(3, 10, b"not said yet").unwrap();
        let pulled = queues.pull(3, 0, 1 << 20, Duration::ZERO).await.unwrap();
        assert_eq!(pulled, Pulled { frames: vec![(1, Bytes::from_static(b"said"))], last: 1, events_after: 1 });
        queues.committed(3, "shard", 1).await.unwrap();
        assert_eq!(queues.pull(3, 1, 1 << 20, Duration::ZERO).await.unwrap().frames, []);
    }

    #[tokio::test]
    async fn a_directory_is_made_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new").join("queue");
        let registry = Registry::new();
        let queues = Queues::open(Files::in_dir(&dir, 2).unwrap(), Options::default(), &registry).unwrap();
        let fates = queues.append(1, None, vec![event("a", 1)]).await.unwrap();
        assert_eq!(fates, [Fate::Stored { offset: 1 }]);
        let scraped = registry.gather();
        let depth = scraped.iter().find(|family| family.name() == "millpond_queue_depth").unwrap();
        let values: Vec<f64> = depth.get_metric().iter().map(|metric| metric.get_gauge().get_value()).collect();
        assert_eq!(values, [0.0, 1.0]);
        queues.close().await;

        let left_out = Files::in_dir(&dir, 1).unwrap_err().to_string();
        assert!(left_out.contains("event-queue-1.redb") && left_out.contains("event_queues = 1"), "{left_out}");
        let queues = Queues::open(Files::in_dir(&dir, 3).unwrap(), Options::default(), &Registry::new()).unwrap();
        let last: Vec<u64> = queues.status().event_queues.iter().map(|queue| queue.last).collect();
        assert_eq!(last, [0, 1, 0], "a queue may be added");
        let again = Queues::open(Files::in_dir(&dir, 3).unwrap(), Options::default(), &Registry::new());
        let words = again.map(drop).unwrap_err().to_string();
        assert!(words.contains("another process has it open"), "{words}");
    }
}
