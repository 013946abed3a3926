//! What the queues on NATS do at each door: who works on what, and who is refused.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use millpond_shared::event::Event;
use millpond_shared::shard_map::MapState;
use millpond_shared::version::{Offset, Position, QueueId, ShardId};

use super::NatsQueues;
use super::connection;
use crate::queue::{
    DeadKey, DeadLetter, DeadLetters, DispatchQueues, EventQueues, Fate, HandedOver, Lease, MapChange, Pulled,
    QueueError, QueueRole, Round, ShardMaps, ShardQueues, Status, Taken,
};

#[async_trait]
impl EventQueues for NatsQueues {
    async fn count(&self) -> Result<u16, QueueError> {
        Ok(self.count())
    }

    async fn append(
        &self,
        queue: QueueId,
        window: Option<Duration>,
        events: Vec<Event<'static>>,
    ) -> Result<Vec<Fate>, QueueError> {
        self.appender(queue)?.append(window, events).await
    }
}

#[async_trait]
impl DeadLetters for NatsQueues {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError> {
        self.is_open()?;
        self.parts.dead.bury(letters, self.parts.runtime.now_ms()).await
    }
}

#[async_trait]
impl DispatchQueues for NatsQueues {
    async fn count(&self) -> Result<u16, QueueError> {
        Ok(self.count())
    }

    fn frame_max_bytes(&self) -> usize {
        self.parts.connection.frame_max()
    }

    async fn acquire(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        self.queue(queue)?;
        self.is_open()?;
        self.parts.leases.acquire(queue, holder, ttl).await
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<(), QueueError> {
        self.is_open()?;
        self.parts.leases.renew(lease, ttl).await
    }

    async fn release(&self, lease: Lease) -> Result<(), QueueError> {
        self.is_open()?;
        self.parts.leases.check(lease)?;
        // The next holder begins where this one ended. If it can't be written down, it begins a little earlier.
        let _ = self.queue(lease.queue)?.filer.lock().await.write_down().await;
        self.parts.leases.release(lease).await
    }

    async fn take(&self, lease: Lease, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError> {
        self.is_open()?;
        self.parts.leases.check(lease)?;
        self.queue(lease.queue)?.filer.lock().await.take(lease, max_events, wait).await
    }

    async fn push(&self, lease: Lease, round: Round) -> Result<(), QueueError> {
        self.is_open()?;
        self.parts.leases.check(lease)?;
        self.queue(lease.queue)?.filer.lock().await.push(lease, round).await
    }
}

#[async_trait]
impl ShardQueues for NatsQueues {
    async fn pull(
        &self,
        shard: ShardId,
        after: Position,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Pulled, QueueError> {
        self.is_open()?;
        self.parts.puller.pull(shard, after, max_bytes, wait).await
    }

    async fn newest(&self, shard: ShardId) -> Result<Position, QueueError> {
        self.is_open()?;
        Ok(self.parts.shards.extent(shard).await?.last)
    }

    async fn committed(&self, shard: ShardId, consumer: &str, position: Position) -> Result<(), QueueError> {
        self.is_open()?;
        self.parts.shards.committed(shard, consumer, position, self.parts.runtime.now_ms()).await
    }
}

#[async_trait]
impl ShardMaps for NatsQueues {
    async fn map(&self, after: u32, wait: Duration) -> Result<Option<MapState>, QueueError> {
        self.is_open()?;
        self.parts.maps.map(after, wait).await
    }

    async fn change_map(&self, change: MapChange) -> Result<MapState, QueueError> {
        self.is_open()?;
        self.parts.maps.change(change).await
    }

    async fn hand_over(&self, handed: HandedOver) -> Result<Position, QueueError> {
        self.is_open()?;
        self.parts.maps.hand_over(handed).await
    }
}

#[async_trait]
impl QueueRole for NatsQueues {
    async fn acquire_from_elsewhere(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        DispatchQueues::acquire(self, queue, holder, ttl).await
    }

    async fn remove_consumer(&self, shard: ShardId, consumer: &str) -> Result<bool, QueueError> {
        self.is_open()?;
        self.parts.shards.remove_consumer(shard, consumer).await
    }

    async fn status(&self) -> Result<Status, QueueError> {
        let status = self.parts.read_status().await?;
        *self.parts.status.lock() = Some(status.clone());
        Ok(status)
    }

    async fn peek(&self, queue: QueueId, after: Offset, max_events: usize) -> Result<Option<Taken>, QueueError> {
        self.is_open()?;
        let events = &self.queue(queue)?.events;
        self.parts.peek(events, after, max_events).await
    }

    async fn dead(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.is_open()?;
        self.parts.dead.first(most).await
    }

    async fn dead_letter(&self, key: DeadKey) -> Result<Option<DeadLetter>, QueueError> {
        self.is_open()?;
        self.parts.dead.letter(key).await
    }

    async fn unbury(&self, key: DeadKey) -> Result<bool, QueueError> {
        self.is_open()?;
        self.parts.dead.unbury(key).await
    }

    /// Nothing here fails for good: what is lost with a connection is found again.
    async fn failed(&self) -> QueueError {
        self.parts.runtime.failed().await
    }

    fn end_waits(&self) {
        self.parts.runtime.end();
    }

    async fn close(&self) {
        self.end_waits();
        let appenders = self.parts.queues.iter().map(|queue| {
            let mut appender = queue.appender.lock();
            self.parts.is_closed.store(true, Ordering::Release);
            appender.take()
        });
        drop(appenders.collect::<Vec<_>>());
        for queue in &self.parts.queues {
            // What is not written down is found by the next holder.
            let _ = queue.filer.lock().await.write_down().await;
        }
        // What is on its way out.
        let _ = tokio::time::timeout(connection::CALL_TIME, self.parts.connection.client.flush()).await;
    }
}
