//! The thread that writes the shard queues: pushes, leases and trimming, several at a time in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use millpond_shared::version::{Offset, Position, QueueId, ShardId};
use tokio::sync::oneshot;

use super::dead::{DEAD_MAX, DEAD_MAX_BYTES};
use super::limits::PUSHES_MAX;
use super::shard_queues::Shared;
use super::writer_thread::Writer;
use super::{DeadKey, DeadLetter, Lease, QueueError, Round, RoundFrame, lease};
use crate::store::StoreError;
use crate::store::dead_letters::{Dead, DeadRow};
use crate::store::shard_queue_file::{Claim, Ends, Transaction};

/// Something that is to be done on disk.
pub(super) struct Call {
    pub ask: Ask,
    pub answer: oneshot::Sender<Result<Done, QueueError>>,
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Done {
    Lease(Lease),
    /// Of letters: how many found no room, or were removed.
    Number(usize),
}

impl Done {
    pub fn lease(self) -> Option<Lease> {
        if let Done::Lease(lease) = self { Some(lease) } else { None }
    }

    pub fn into_number(self) -> usize {
        if let Done::Number(number) = self { number } else { 0 }
    }
}

pub(super) enum Ask {
    Acquire {
        queue: QueueId,
        holder: String,
        in_process: bool,
        ttl: Duration,
    },
    Renew {
        lease: Lease,
        ttl: Duration,
    },
    Release {
        lease: Lease,
    },
    Push {
        lease: Lease,
        round: Round,
    },
    Bury {
        letters: Vec<DeadLetter>,
    },
    Unbury {
        key: DeadKey,
    },
    /// To write down what consumers have committed, as every transaction does.
    Note,
}

pub(super) struct ShardWriter {
    shared: Arc<Shared>,
}

/// What a transaction changes, to be told to others once it is committed.
#[derive(Default)]
struct Changes {
    ends: BTreeMap<ShardId, Ends>,
    cursors: BTreeMap<QueueId, Offset>,
    claims: BTreeMap<QueueId, Claim>,
    /// What consumers have committed; `None`: the consumer is gone.
    committed: BTreeMap<(ShardId, String), Option<Position>>,
    /// How many dead letters there are now.
    dead: Option<Dead>,
}

/// Why a call was not done: refused, with nothing written, or the store is broken.
enum Stop {
    Refused(QueueError),
    Broken(StoreError),
}

impl ShardWriter {
    pub fn new(shared: Arc<Shared>) -> ShardWriter {
        ShardWriter { shared }
    }
}

impl Writer for ShardWriter {
    type Call = Call;

    fn tidy_every(&self) -> Duration {
        self.shared.runtime.limits.tidy_every
    }

    fn gather(&mut self, first: Call, waiting: &Receiver<Call>) -> Vec<Call> {
        std::iter::once(first).chain(waiting.try_iter().take(PUSHES_MAX - 1)).collect()
    }

    fn write(&mut self, calls: Vec<Call>) -> Result<(), StoreError> {
        let file = self.shared.file.read();
        let Some(file) = file.as_ref() else { return Ok(()) };
        if calls.is_empty() && self.shared.consumers.lock().changed.is_empty() {
            return Ok(());
        }
        let mut answers = Vec::with_capacity(calls.len());
        let mut waiting = calls.into_iter();
        let mut attempt = || -> Result<(), StoreError> {
            let transaction = file.begin(self.shared.bytes_held.load(Ordering::Relaxed))?;
            let mut changes = Changes::default();
            for Call { ask, answer } in waiting.by_ref() {
                if answer.is_closed() && matches!(ask, Ask::Acquire { .. }) {
                    // Whoever asked is gone: the claim would be nobody's until it ends.
                    continue;
                }
                match self.apply(&transaction, ask, &mut changes) {
                    Ok(lease) => answers.push((answer, Ok(lease))),
                    Err(Stop::Refused(error)) => answers.push((answer, Err(error))),
                    Err(Stop::Broken(error)) => {
                        let _ = answer.send(Err(failed(&error)));
                        return Err(error);
                    }
                }
            }
            let tidied = self.tidy(&transaction, &mut changes)?;
            if tidied || !changes.claims.is_empty() || !changes.cursors.is_empty() || changes.dead.is_some() {
                transaction.commit()?;
                self.publish(changes);
            }
            Ok(())
        };
        let outcome = attempt();
        for (answer, result) in answers {
            // Whoever asked may be gone; what was committed stays.
            let _ = answer.send(outcome.as_ref().map_err(failed).and(Ok(())).and(result));
        }
        for call in waiting {
            let _ = call.answer.send(outcome.as_ref().map_err(failed).and(Err(QueueError::Closed)));
        }
        outcome
    }

    fn fail(&self, error: &StoreError) -> QueueError {
        self.shared.runtime.fail(failed(error));
        failed(error)
    }

    fn refuse(call: Call, error: QueueError) {
        // Whoever asked may be gone.
        let _ = call.answer.send(Err(error));
    }
}

impl ShardWriter {
    fn apply(&self, transaction: &Transaction, ask: Ask, changes: &mut Changes) -> Result<Done, Stop> {
        let now_ms = self.shared.runtime.now_ms();
        let (lease, claim) = match ask {
            Ask::Push { lease, round } => {
                self.push(transaction, lease, &round, now_ms, changes)?;
                return Ok(Done::Lease(lease));
            }
            Ask::Bury { letters } => return self.bury(transaction, letters, now_ms, changes),
            Ask::Unbury { key } => return self.unbury(transaction, key, changes),
            Ask::Note => return Ok(Done::Number(0)),
            Ask::Acquire { queue, holder, in_process, ttl } => {
                let current = transaction.claim(queue)?;
                let claim = lease::acquire(current.as_ref(), &holder, in_process, now_ms, ttl)
                    .map_err(|held| QueueError::Held { queue, for_ms: held.for_ms })?;
                (Lease { queue, token: claim.token }, claim)
            }
            Ask::Renew { lease, ttl } => {
                let current = transaction.claim(lease.queue)?;
                (lease, lease::renew(current.as_ref(), lease.token, now_ms, ttl).map_err(|_| fenced(lease))?)
            }
            Ask::Release { lease } => {
                let current = transaction.claim(lease.queue)?;
                (lease, lease::release(current.as_ref(), lease.token).map_err(|_| fenced(lease))?)
            }
        };
        transaction.set_claim(lease.queue, &claim)?;
        changes.claims.insert(lease.queue, claim);
        Ok(Done::Lease(lease))
    }

    /// Lays letters aside as long as there is room.
    fn bury(
        &self,
        transaction: &Transaction,
        letters: Vec<DeadLetter>,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<Done, Stop> {
        let mut dead = changes.dead.unwrap_or_else(|| *self.shared.dead.lock());
        let mut refused = 0;
        for letter in letters {
            let row = row(letter.key);
            let bytes = DeadLetter { buried_ms: now_ms, ..letter }.encode();
            if dead.letters >= DEAD_MAX || dead.bytes + bytes.len() as u64 > DEAD_MAX_BYTES {
                refused += 1;
            } else if transaction.bury(row, &bytes)? {
                dead = Dead { letters: dead.letters + 1, bytes: dead.bytes + bytes.len() as u64 };
            }
        }
        changes.dead = Some(dead);
        Ok(Done::Number(refused))
    }

    fn unbury(&self, transaction: &Transaction, key: DeadKey, changes: &mut Changes) -> Result<Done, Stop> {
        let dead = changes.dead.unwrap_or_else(|| *self.shared.dead.lock());
        let Some(bytes) = transaction.unbury(row(key))? else { return Ok(Done::Number(0)) };
        changes.dead = Some(Dead { letters: dead.letters.saturating_sub(1), bytes: dead.bytes.saturating_sub(bytes) });
        Ok(Done::Number(1))
    }

    /// The fence, the cursor and the frames stand or fall together: that is what makes a dispatcher's crash harmless.
    fn push(
        &self,
        transaction: &Transaction,
        lease: Lease,
        round: &Round,
        now_ms: u64,
        changes: &mut Changes,
    ) -> Result<(), Stop> {
        let claim = transaction.claim(lease.queue)?;
        lease::check(claim.as_ref(), lease.token, now_ms).map_err(|_| fenced(lease))?;
        let expected = transaction.cursor(lease.queue)? + 1;
        if round.first != expected {
            return Err(QueueError::NotNext { queue: lease.queue, first: round.first, expected }.into());
        }
        if round.last < round.first {
            return Err(QueueError::Invalid { problem: "the round holds no event".to_owned() }.into());
        }
        for RoundFrame { shard, bytes, .. } in &round.frames {
            let waiting = self.shared.ends(*shard)?.borrow().bytes;
            let waiting = changes.ends.get(shard).map_or(waiting, |ends| ends.bytes);
            if waiting > 0 && waiting + bytes.len() as u64 > self.shared.runtime.limits.shard_depth_max_bytes {
                return Err(QueueError::ShardFull { shard: *shard }.into());
            }
        }
        for RoundFrame { shard, events, bytes } in &round.frames {
            changes.ends.insert(*shard, transaction.append(*shard, *events, bytes)?);
        }
        transaction.set_cursor(lease.queue, round.last)?;
        changes.cursors.insert(lease.queue, round.last);
        Ok(())
    }

    /// Writes down what consumers have committed, and trims what all of them have passed; whether there was any.
    fn tidy(&self, transaction: &Transaction, changes: &mut Changes) -> Result<bool, StoreError> {
        let (changed, passed) = {
            let mut consumers = self.shared.consumers.lock();
            let keys = std::mem::take(&mut consumers.changed);
            let shards = keys.iter().map(|(shard, _)| *shard);
            let slowest = |shard| Some((shard, consumers.of(shard).map(|(_, position)| position).min()?));
            let passed: BTreeMap<ShardId, u64> = shards.filter_map(slowest).collect();
            let committed = |key: &_| consumers.committed.get(key).copied();
            let changed: BTreeMap<_, _> =
                keys.into_iter().map(|key| (committed(&key), key)).map(|(at, key)| (key, at)).collect();
            (changed, passed)
        };
        for ((shard, consumer), position) in &changed {
            transaction.set_committed(*shard, consumer, *position)?;
        }
        for (shard, upto) in passed {
            changes.ends.insert(shard, transaction.trim(shard, upto)?);
        }
        changes.committed = changed;
        Ok(!changes.committed.is_empty())
    }

    fn publish(&self, changes: Changes) {
        for (shard, ends) in changes.ends {
            if let Ok(sender) = self.shared.ends(shard) {
                let before = sender.send_replace(ends).bytes;
                self.shared.bytes_held.fetch_add(ends.bytes.wrapping_sub(before), Ordering::Relaxed);
            }
        }
        for (queue, cursor) in changes.cursors {
            if let Some(shared) = self.shared.cursors.get(usize::from(queue)) {
                shared.store(cursor, Ordering::Release);
            }
        }
        self.shared.claims.lock().extend(changes.claims);
        for (key, position) in changes.committed {
            let mut consumers = self.shared.consumers.lock();
            match position {
                Some(position) => consumers.recorded.insert(key, position),
                None => consumers.recorded.remove(&key),
            };
        }
        if let Some(dead) = changes.dead {
            *self.shared.dead.lock() = dead;
        }
    }
}

/// Where a letter is in the file.
pub(super) fn row(key: DeadKey) -> DeadRow {
    (key.queue, key.offset, key.shard.map_or(0, |shard| shard.saturating_add(1)))
}

fn failed(error: &StoreError) -> QueueError {
    QueueError::Failed { problem: format!("shard queues: {error}") }
}

fn fenced(lease: Lease) -> QueueError {
    QueueError::Fenced { queue: lease.queue, token: lease.token }
}

impl From<QueueError> for Stop {
    fn from(error: QueueError) -> Stop {
        Stop::Refused(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Broken(error)
    }
}
