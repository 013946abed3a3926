//! Leases of event queues, in a bucket: what the pure `queue::lease` decides is written by compare-and-set.
//!
//! They are measured by the servers' clock. The lease saves work; what keeps order is the fence of the shard queues
//! (see `filer`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use millpond_shared::clock;
use millpond_shared::version::QueueId;
use parking_lot::Mutex;

use super::records::{ClaimRecord, Records, Revised, claim_key};
use super::{Clock, Connection};
use crate::queue::{Lease, QueueError, lease};
use crate::store::shard_queue_file::Claim;

pub struct Leases {
    records: Records,
    time: Time,
    /// The newest claim that this process knows of each event queue.
    known: Mutex<BTreeMap<QueueId, Claim>>,
}

/// The servers' time.
struct Time {
    clock: Clock,
    connection: Connection,
    /// A stream whose server is asked.
    stream: String,
    ahead_ms: AtomicI64,
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// How long the difference between two clocks is believed.
const CLOCK_TIME: Duration = Duration::from_secs(60);

impl Leases {
    pub fn new(records: Records, connection: Connection, stream: String, clock: Clock) -> Leases {
        let time =
            Time { clock, connection, stream, ahead_ms: AtomicI64::new(0), asked: tokio::sync::Mutex::new(None) };
        Leases { records, time, known: Mutex::default() }
    }

    pub async fn acquire(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        lease::valid(holder, ttl)?;
        let now_ms = self.time.now_ms().await?;
        let found = self.records.get::<ClaimRecord>(&claim_key(queue)).await?;
        let claim = lease::acquire(found.claim().as_ref(), holder, false, now_ms, ttl)
            .map_err(|held| QueueError::Held { queue, for_ms: held.for_ms })?;
        let record = ClaimRecord { holder: claim.holder.clone(), token: None, ends_ms: claim.ends_ms };
        match self.records.set(&claim_key(queue), &record, found.revision).await? {
            Some(token) => {
                self.known.lock().insert(queue, Claim { token, ..claim });
                Ok(Lease { queue, token })
            }
            // Somebody was faster.
            None => Err(QueueError::Held { queue, for_ms: 1 }),
        }
    }

    pub async fn renew(&self, lease: Lease, ttl: Duration) -> Result<(), QueueError> {
        lease::valid_ttl(ttl)?;
        let now_ms = self.time.now_ms().await?;
        self.change(lease, |claim| lease::renew(claim, lease.token, now_ms, ttl)).await
    }

    pub async fn release(&self, lease: Lease) -> Result<(), QueueError> {
        self.change(lease, |claim| lease::release(claim, lease.token)).await
    }

    /// Whether work under the lease may go on, as far as this process knows.
    pub fn check(&self, lease: Lease) -> Result<(), QueueError> {
        let known = self.known.lock();
        lease::check(known.get(&lease.queue), lease.token, self.time.known_ms()).map_err(|_| fenced(lease))
    }

    async fn change(
        &self,
        lease: Lease,
        change: impl FnOnce(Option<&Claim>) -> Result<Claim, lease::NotHeld>,
    ) -> Result<(), QueueError> {
        let key = claim_key(lease.queue);
        let found: Revised<ClaimRecord> = self.records.get(&key).await?;
        let claim = change(found.claim().as_ref()).map_err(|_| fenced(lease))?;
        let record = ClaimRecord { holder: claim.holder.clone(), token: Some(claim.token), ends_ms: claim.ends_ms };
        match self.records.set(&key, &record, found.revision).await? {
            Some(_) => {
                self.known.lock().insert(lease.queue, claim);
                Ok(())
            }
            None => Err(fenced(lease)),
        }
    }
}

impl Time {
    async fn now_ms(&self) -> Result<u64, QueueError> {
        if let Clock::Servers = self.clock {
            let mut asked = self.asked.lock().await;
            let now = clock::monotonic();
            if asked.is_none_or(|asked| now.duration_since(asked) > CLOCK_TIME) {
                let ahead = self.connection.clock_ahead_ms(&self.stream).await?;
                self.ahead_ms.store(ahead, Ordering::Relaxed);
                *asked = Some(now);
            }
        }
        Ok(self.known_ms())
    }

    fn known_ms(&self) -> u64 {
        match &self.clock {
            Clock::Servers => clock::wall_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)),
            Clock::Given(clock) => clock(),
        }
    }
}

pub fn fenced(lease: Lease) -> QueueError {
    QueueError::Fenced { queue: lease.queue, token: lease.token }
}
