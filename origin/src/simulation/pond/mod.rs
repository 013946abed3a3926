//! The processes of one pond, each as it really is but for its time, its disks and its wires: they start, stop, sleep,
//! die in several ways, and start again from what their disks hold.
//!
//! `declared` says what they make of events, `machines` what they run on, `starting` how they start.

mod declared;
mod machines;
mod starting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond_shared::shard_map::{FirstMap, MapState};
use millpond_shared::version::{Position, QueueId, ShardId};
use millpond_shared::wire::EventFrame;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::declared::{FOLLOWS_MAX, KEEP, projections};
pub use self::machines::{Crash, Open};
use self::machines::{DispatcherMachine, MAP_VERSION, QueueMachine, ReplicaMachine, blank};
use super::filed::HALF_ROUND;
use super::ledger::Ledger;
use super::scheduler::{Process, Simulation};
use super::tally::Befell;
use super::wire::Wire;
use crate::dispatch::Routing;
use crate::queue::testing::START_MS;
use crate::queue::{Limits, QueueRole};
use crate::shard::ShardSettings;
use crate::store::forgetful::{Forgetful, Power};

/// How large the pond is, and how it is set.
#[derive(Clone, Debug)]
pub struct Plan {
    pub queues: QueueId,
    pub shards: ShardId,
    /// How often slots move.
    pub moves: u64,
    /// Processes that run each shard.
    pub replicas: usize,
    pub dispatchers: usize,
    /// Whether the first dispatcher is a part of the queues' process.
    pub one_process: bool,
    pub max_events: usize,
    pub lease_ttl: Duration,
    pub limits: Limits,
    pub shard: ShardSettings,
    /// Bytes of the pages of a copy.
    pub page: usize,
}

/// The processes, and what outlives them.
pub struct Pond {
    pub plan: Plan,
    /// What the shard map begins as.
    first: FirstMap,
    pub wire: Arc<Wire>,
    pub ledger: Arc<Ledger>,
    pub queue: QueueMachine,
    /// Why the queues could not be opened last.
    pub not_opened: String,
    pub dispatchers: Vec<DispatcherMachine>,
    pub replicas: Vec<ReplicaMachine>,
    /// Processes that have ended by themselves.
    ended: Arc<Mutex<BTreeSet<Process>>>,
    processes: u64,
    /// How much the queues' wall clock is ahead, in ms; it starts in the middle, so that it can be set back.
    wall_ms: Arc<AtomicU64>,
}

impl Pond {
    pub fn new(plan: Plan) -> Pond {
        let power = Power::default();
        let blank = blank();
        let disks = blank.events.iter().take(plan.queues.into()).chain([&blank.shard_queues]);
        let disks = disks.map(|disk| disk.copied().on(&power)).collect();
        let replica = |shard, number: usize| ReplicaMachine {
            shard,
            consumer: format!("replica-{number}"),
            disk: Some(blank.shards[&shard].copied()),
            power: Power::default(),
            up: None,
            open: Arc::default(),
            copied: Arc::default(),
            too_late: Arc::default(),
            stop: watch::Sender::default(),
        };
        let replicas = (0..plan.shards).flat_map(|shard| (0..plan.replicas).map(move |number| replica(shard, number)));
        let wire = Arc::<Wire>::default();
        Pond {
            ledger: wire.ledger.clone(),
            wire,
            first: FirstMap { version: MAP_VERSION, shards: plan.shards },
            queue: QueueMachine { disks, power, up: None },
            not_opened: String::new(),
            dispatchers: (0..plan.dispatchers).map(|_| DispatcherMachine::default()).collect(),
            replicas: replicas.collect(),
            ended: Arc::default(),
            processes: 0,
            wall_ms: Arc::new(AtomicU64::new(START_MS)),
            plan,
        }
    }

    /// Sets the queues' wall clock, forward or back.
    pub fn set_clock(&self, wall_ms: impl FnOnce(u64) -> u64) {
        self.wall_ms.store(wall_ms(self.wall_ms.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Notes which processes have ended, by themselves or for want of power.
    pub fn tend(&mut self) {
        let ended = std::mem::take(&mut *self.ended.lock());
        if let Some((process, _)) = self.queue.up
            && (ended.contains(&process) || self.queue.power.is_cut())
        {
            self.crash_queue(if self.queue.power.is_cut() { Crash::Torn } else { Crash::Process });
        }
        for number in 0..self.dispatchers.len() {
            if self.dispatchers[number].up.is_some_and(|process| ended.contains(&process)) {
                self.crash_dispatcher(number);
            }
        }
        for number in 0..self.replicas.len() {
            let replica = &self.replicas[number];
            let cut = replica.power.is_cut();
            if replica.up.is_some_and(|process| cut || ended.contains(&process)) {
                self.crash_replica(number, if cut { Crash::Torn } else { Crash::Process });
            }
        }
    }

    /// Starts whatever is down, each if `starts` says so.
    pub fn start(&mut self, mut starts: impl FnMut() -> bool) {
        if self.queue.up.is_none() && starts() {
            self.start_queue();
        }
        for number in 0..self.dispatchers.len() {
            if self.dispatchers[number].up.is_none() && starts() {
                self.start_dispatcher(number);
            }
        }
        for number in 0..self.replicas.len() {
            if self.replicas[number].up.is_none() && starts() {
                self.start_replica(number);
            }
        }
    }

    pub fn crash_queue(&mut self, crash: Crash) {
        let Some((process, queues)) = self.queue.up.take() else { return };
        let befell = [Befell::QueuesKilled, Befell::QueuesLostPower, Befell::QueuesTorn];
        Simulation::befell(crash.one_of(befell));
        self.ledger.moves.lost(Befell::QueuesLostMoving);
        self.wire.leads_to(None);
        self.queue.lose(crash);
        Simulation::kill(process);
        drop(queues);
        if self.plan.one_process {
            self.dispatchers[0].up = None;
        }
    }

    pub fn crash_dispatcher(&mut self, number: usize) {
        if number == 0 && self.plan.one_process {
            return;
        }
        if let Some(process) = self.dispatchers[number].up.take() {
            Simulation::befell(Befell::DispatcherKilled);
            self.ledger.moves.lost(Befell::DispatcherLostMoving);
            Simulation::kill(process);
        }
    }

    pub fn crash_replica(&mut self, number: usize, crash: Crash) {
        let replica = &mut self.replicas[number];
        let Some(process) = replica.up.take() else { return };
        let befell = [Befell::ReplicaKilled, Befell::ReplicaLostPower, Befell::ReplicaTorn];
        Simulation::befell(crash.one_of(befell));
        self.ledger.moves.lost_replica(replica.shard);
        replica.power.cut_after(0);
        replica.power = Power::default();
        replica.disk = replica.disk.take().map(|disk| crash.disk(&disk, &replica.power));
        Simulation::kill(process);
    }

    /// Asks a process to end in peace. The queue role has no such end: it is what the others wait for.
    pub fn stop_dispatcher(&self, number: usize) {
        let dispatcher = &self.dispatchers[number];
        if dispatcher.up.is_some() {
            Simulation::befell(Befell::DispatcherStopped);
        }
        dispatcher.stop.send_replace(true);
    }

    pub fn stop_replica(&self, number: usize) {
        let replica = &self.replicas[number];
        if replica.up.is_some() {
            Simulation::befell(Befell::ReplicaStopped);
        }
        replica.stop.send_replace(true);
    }

    /// A disk is gone with all it held, if another replica has the same.
    pub fn lose_disk(&mut self, number: usize) {
        let shard = self.replicas[number].shard;
        let others = self.replicas.iter().enumerate().filter(|(other, there)| *other != number && there.shard == shard);
        let registered = |other: &ReplicaMachine| self.ledger.is_registered(shard, &other.consumer);
        let held_elsewhere = others.filter(|(_, other)| other.disk.is_some() && registered(other)).count() > 0;
        if held_elsewhere {
            Simulation::befell(Befell::DiskLost);
            self.ledger.forget_consumer(shard, &self.replicas[number].consumer, Process(self.processes));
            self.crash_replica(number, Crash::Process);
            self.replicas[number].disk = None;
        }
    }

    pub fn disk(&self, number: usize) -> &Forgetful {
        self.disks().nth(number).expect("a disk")
    }

    /// Whatever was done to a disk is undone.
    pub fn mend_disks(&self) {
        self.disks().for_each(|disk| disk.set_full(false));
    }

    /// Those of the queues, then those of the replicas that have one.
    pub fn disks(&self) -> impl Iterator<Item = &Forgetful> {
        self.queue.disks.iter().chain(self.replicas.iter().filter_map(|replica| replica.disk.as_ref()))
    }

    /// Every process, for those that are to be paused or let go on.
    pub fn running(&self) -> Vec<Process> {
        let queue = self.queue.up.as_ref().map(|(process, _)| *process);
        let dispatchers = self.dispatchers.iter().filter_map(|dispatcher| dispatcher.up);
        let replicas = self.replicas.iter().filter_map(|replica| replica.up);
        let all: BTreeSet<Process> = queue.into_iter().chain(dispatchers).chain(replicas).collect();
        all.into_iter().collect()
    }

    /// Files the next events of a queue with some of their shards and leaves the cursor where it is: what an engine
    /// without transactions holds after a dispatcher died half way. The round comes again, and maybe with other bounds.
    pub fn file_half(&self, queue: QueueId) {
        let Some((process, queues)) = self.queue.up.clone() else { return };
        let Some(map) = queues.map_now() else { return };
        let routing = Routing::new(projections().clone(), map);
        let most = 1 + Simulation::below(4) as usize;
        Simulation::spawn(process, async move {
            let (filed, _) = queues.event_ends(queue);
            let Ok(Some(taken)) = QueueRole::peek(&*queues, queue, filed, most).await else { return };
            if queues.event_ends(queue).0 != filed {
                return;
            }
            let frames: Vec<_> = taken.frames.iter().filter_map(|bytes| EventFrame::decode(bytes).ok()).collect();
            for frame in routing.route(&frames, taken.first, taken.last, HALF_ROUND).frames {
                if Simulation::one_in(2) {
                    if queues.file_half(&frame).is_err() {
                        return;
                    }
                    Simulation::befell(Befell::RoundHalfFiled);
                }
            }
        });
    }

    /// Where each shard queue ends, if the queues are up.
    pub fn lasts(&self) -> Option<Vec<Position>> {
        let (_, queues) = self.queue.up.as_ref()?;
        Some((0..self.plan.shards).map(|shard| queues.shard_ends(shard).last).collect())
    }

    /// The shard map, if the queues are up and have one.
    pub fn map(&self) -> Option<Arc<MapState>> {
        self.queue.up.as_ref()?.1.map_now()
    }

    /// Whether all that was sent is filed, applied and on disk, everywhere, nothing moves, and all know the shard map.
    pub fn is_done(&self) -> bool {
        let (Some((_, queues)), Some(lasts)) = (self.queue.up.as_ref(), self.lasts()) else { return false };
        let Some(map) = self.map().filter(|map| map.moving.is_none()) else { return false };
        let is_filed = |queue| {
            let (filed, last) = queues.event_ends(queue);
            filed == last
        };
        (0..self.plan.queues).all(is_filed)
            && self.replicas.iter().all(|replica| {
                let last = lasts[usize::from(replica.shard)];
                let open = replica.open.lock().upgrade().filter(|_| replica.up.is_some());
                open.is_some_and(|open| {
                    let shard = &open.shard;
                    let knows = shard.kept_map().is_some_and(|kept| kept.version() == map.version());
                    knows && *shard.applied().borrow() == last && *shard.committed().borrow() == last
                })
            })
    }
}
