//! Calls between processes: late, lost on their way there or back, refused by a role that is down, and noted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use millpond_shared::event::Event;
use millpond_shared::shard_map::MapState;
use millpond_shared::version::{Position, QueueId, ShardId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::ledger::Ledger;
use super::scheduler::{Process, Simulation};
use super::tally::Befell;
use crate::queue::{
    DeadLetter, DeadLetters, DispatchQueues, EventQueues, Fate, HandedOver, Lease, MapChange, Pulled, QueueError,
    QueueRole, Queues, Round, ShardMaps, ShardQueues, Taken,
};
use crate::timing::{sleep, timeout};

/// How long a caller waits for an answer that is lost.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);

/// What all processes reach the queue role by.
#[derive(Default)]
pub struct Wire {
    there: Mutex<Option<(Process, Doors)>>,
    troubled: AtomicBool,
    /// Processes whose calls get nowhere.
    cut_off: Mutex<BTreeSet<Process>>,
    pub ledger: Arc<Ledger>,
}

/// The doors of one run of the queue role, with what goes through them noted.
#[derive(Clone)]
pub struct Doors {
    pub queues: Arc<Queues>,
    pub ledger: Arc<Ledger>,
    /// Whether who calls is another process than the queues'.
    pub from_elsewhere: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    /// It arrives when its caller may have given it up.
    Late,
    LostGoing,
    /// It was done, and its caller is not told.
    LostComing,
}

impl Wire {
    /// The queue role is up, or down.
    pub fn leads_to(&self, role: Option<(Process, Doors)>) {
        *self.there.lock() = role;
    }

    /// Whether calls are lost and late.
    pub fn set_troubled(&self, troubled: bool) {
        self.troubled.store(troubled, Ordering::Relaxed);
    }

    /// Whether what `process` asks gets nowhere.
    pub fn set_cut_off(&self, process: Process, is_cut_off: bool) {
        let mut cut_off = self.cut_off.lock();
        let _ = if is_cut_off { cut_off.insert(process) } else { cut_off.remove(&process) };
    }

    /// Whether the process that is running is cut off.
    fn is_cut_off(&self) -> bool {
        let is_cut_off = self.cut_off.lock().contains(&Simulation::running());
        if is_cut_off {
            Simulation::befell(Befell::CutOff);
        }
        is_cut_off
    }

    fn way(&self) -> Way {
        if self.is_cut_off() {
            return Way::LostGoing;
        }
        if !self.troubled.load(Ordering::Relaxed) {
            return Way::Straight;
        }
        let (way, befell) = match Simulation::below(12) {
            0 => (Way::LostGoing, Befell::CallLost),
            1 => (Way::LostComing, Befell::AnswerLost),
            2 | 3 => (Way::Late, Befell::CallLate),
            _ => return Way::Straight,
        };
        Simulation::befell(befell);
        way
    }

    async fn call<T: Send + 'static>(
        &self,
        ask: impl FnOnce(Doors) -> BoxFuture<'static, Result<T, QueueError>> + Send,
    ) -> Result<T, QueueError> {
        let unreachable = || QueueError::Unreachable { problem: "it is down, or the call was lost".to_owned() };
        let (way, going, coming) = (self.way(), Simulation::below(3), Simulation::below(3));
        let late = if way == Way::Late { Simulation::below(8_000) } else { 0 };
        sleep(Duration::from_millis(going)).await;
        let there = self.there.lock().clone();
        let Some((process, doors)) = there.filter(|_| way != Way::LostGoing) else { return Err(unreachable()) };
        let (answer, answered) = oneshot::channel();
        // The role does what it was asked for whether or not the caller still waits.
        let asked = ask(doors);
        Simulation::spawn(process, async move {
            sleep(Duration::from_millis(late)).await;
            let outcome = asked.await;
            sleep(Duration::from_millis(coming)).await;
            let _ = answer.send(outcome);
        });
        if way == Way::LostComing {
            drop(answered);
            sleep(GIVEN_UP_AFTER).await;
            return Err(unreachable());
        }
        let patience = if way == Way::Late { GIVEN_UP_AFTER } else { Duration::MAX };
        let answer = timeout(patience, answered).await.unwrap_or_else(|_| Ok(Err(unreachable())));
        // It may have been cut off meanwhile.
        answer.ok().filter(|_| !self.is_cut_off()).unwrap_or_else(|| Err(unreachable()))
    }
}

#[async_trait]
impl EventQueues for Wire {
    async fn count(&self) -> Result<u16, QueueError> {
        self.call(|doors| Box::pin(async move { EventQueues::count(&*doors.queues).await })).await
    }

    async fn append(
        &self,
        queue: QueueId,
        window: Option<Duration>,
        events: Vec<Event<'static>>,
    ) -> Result<Vec<Fate>, QueueError> {
        self.call(move |doors| Box::pin(async move { doors.queues.append(queue, window, events).await })).await
    }
}

#[async_trait]
impl DeadLetters for Wire {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError> {
        self.call(move |doors| Box::pin(async move { doors.bury(letters).await })).await
    }
}

#[async_trait]
impl DispatchQueues for Wire {
    async fn count(&self) -> Result<u16, QueueError> {
        EventQueues::count(self).await
    }

    async fn acquire(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        let holder = holder.to_owned();
        self.call(move |doors| Box::pin(async move { doors.acquire(queue, &holder, ttl).await })).await
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<(), QueueError> {
        self.call(move |doors| Box::pin(async move { doors.renew(lease, ttl).await })).await
    }

    async fn release(&self, lease: Lease) -> Result<(), QueueError> {
        self.call(move |doors| Box::pin(async move { doors.release(lease).await })).await
    }

    async fn take(&self, lease: Lease, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError> {
        self.call(move |doors| Box::pin(async move { doors.take(lease, max_events, wait).await })).await
    }

    async fn push(&self, lease: Lease, round: Round) -> Result<(), QueueError> {
        self.call(move |doors| Box::pin(async move { doors.push(lease, round).await })).await
    }
}

#[async_trait]
impl ShardQueues for Wire {
    async fn pull(&self, shard: ShardId, after: Position, most: usize, wait: Duration) -> Result<Pulled, QueueError> {
        self.call(move |doors| {
            Box::pin(async move {
                let mut pulled = doors.queues.pull(shard, after, most, wait).await?;
                doors.ledger.pulled(shard, &pulled);
                // A queue hands out as much as it likes, and a shard that catches up is read on its way.
                if pulled.frames.len() > 1 && Simulation::one_in(2) {
                    pulled.frames.truncate(1 + Simulation::below(pulled.frames.len() as u64) as usize);
                }
                Ok(pulled)
            })
        })
        .await
    }

    async fn newest(&self, shard: ShardId) -> Result<Position, QueueError> {
        self.call(move |doors| Box::pin(async move { doors.queues.newest(shard).await })).await
    }

    async fn committed(&self, shard: ShardId, consumer: &str, position: Position) -> Result<(), QueueError> {
        let (name, by) = (consumer.to_owned(), Simulation::running());
        let ask = move |doors: Doors| -> BoxFuture<'static, _> {
            Box::pin(async move {
                doors.queues.committed(shard, &name, position).await?;
                doors.ledger.told_committed(shard, &name, by);
                Ok(position >= doors.queues.shard_ends(shard).trimmed)
            })
        };
        if self.call(ask).await? {
            self.ledger.registered(shard, consumer);
        }
        Ok(())
    }
}

#[async_trait]
impl ShardMaps for Wire {
    async fn map(&self, after: u32, wait: Duration) -> Result<Option<MapState>, QueueError> {
        self.call(move |doors| Box::pin(async move { doors.map(after, wait).await })).await
    }

    async fn change_map(&self, change: MapChange) -> Result<MapState, QueueError> {
        let is_first = matches!(change, MapChange::First(_));
        let changed = self.call(move |doors| Box::pin(async move { doors.change_map(change).await })).await;
        if !is_first {
            note_unanswered(&changed, Befell::MapChangeUnanswered);
        }
        changed
    }

    async fn hand_over(&self, handed: HandedOver) -> Result<Position, QueueError> {
        let done = self.call(move |doors| Box::pin(async move { doors.hand_over(handed).await })).await;
        note_unanswered(&done, Befell::HandoverUnanswered);
        done
    }
}

fn note_unanswered<T>(answer: &Result<T, QueueError>, befell: Befell) {
    if let Err(QueueError::Unreachable { .. }) = answer {
        Simulation::befell(befell);
    }
}

#[async_trait]
impl DeadLetters for Doors {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError> {
        self.queues.bury(letters).await
    }
}

#[async_trait]
impl DispatchQueues for Doors {
    async fn count(&self) -> Result<u16, QueueError> {
        DispatchQueues::count(&*self.queues).await
    }

    async fn acquire(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        let lease = if self.from_elsewhere {
            self.queues.acquire_from_elsewhere(queue, holder, ttl).await?
        } else {
            self.queues.acquire(queue, holder, ttl).await?
        };
        self.ledger.leased(lease);
        Ok(lease)
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<(), QueueError> {
        self.queues.renew(lease, ttl).await
    }

    async fn release(&self, lease: Lease) -> Result<(), QueueError> {
        self.queues.release(lease).await
    }

    async fn take(&self, lease: Lease, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError> {
        self.queues.take(lease, max_events, wait).await
    }

    async fn push(&self, lease: Lease, round: Round) -> Result<(), QueueError> {
        let newest = self.ledger.newest_token(lease.queue);
        let pushed = self.queues.push(lease, round).await;
        if let Err(QueueError::MapChanged { .. }) = pushed {
            Simulation::befell(Befell::RoutedBehind);
        }
        pushed?;
        assert!(lease.token >= newest, "{lease:?} was passed on under token {newest}, and still written under");
        Ok(())
    }
}

#[async_trait]
impl ShardMaps for Doors {
    async fn map(&self, after: u32, wait: Duration) -> Result<Option<MapState>, QueueError> {
        let state = self.queues.map(after, wait).await?;
        state.iter().for_each(|state| self.ledger.moves.mapped(state));
        Ok(state)
    }

    async fn change_map(&self, change: MapChange) -> Result<MapState, QueueError> {
        let changed = self.queues.change_map(change.clone()).await;
        self.ledger.moves.changed(&change, &changed);
        changed
    }

    async fn hand_over(&self, handed: HandedOver) -> Result<Position, QueueError> {
        let done = self.queues.hand_over(handed.clone()).await;
        self.ledger.moves.handed_over(&handed, &done);
        done
    }
}
