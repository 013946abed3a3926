//! The processes of one pond, each as it really is but for its time, its disks and its wires: they start, stop, sleep,
//! die in several ways, and start again from what their disks hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use millpond_shared::projection::Projection;
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::{Position, QueueId, ShardId};
use millpond_shared::wire::EventFrame;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::{oneshot, watch};

use super::ledger::{HALF_ROUND, Ledger};
use super::scheduler::{Process, Simulation};
use super::wire::{Doors, Wire};
use crate::dispatch::{Dispatcher, DispatcherSettings, Routing};
use crate::projection::testing::declared;
use crate::queue::testing::START_MS;
use crate::queue::{DispatchQueues, Files, Limits, Options, QueueError, QueueRole, Queues, ShardQueues};
use crate::shard::{CopyError, Opening, Pages, Shard, ShardError, ShardMetrics, ShardSettings, adopt};
use crate::store::Place;
use crate::store::event_queue_file::EventQueueFile;
use crate::store::forgetful::{Forgetful, Power};
use crate::store::shard_copy::Page;
use crate::store::shard_file::{Identity, ShardFile};
use crate::store::shard_queue_file::ShardQueueFile;

/// How many items a document of `edits` keeps.
pub const KEEP: usize = 3;

const PROJECTIONS: &str = r#"
    [[projection]]
    name = "edits"
    kind = "feed"
    keep = 3
    key = "{data.user}"
    item = { id = "{id}", n = "{data.n}", content_text = "{data.user}" }
    [[projection.output]]
    path = "/users/{key}/feed.json"
    format = "json"
    [[projection]]
    name = "last"
    kind = "latest"
    key = "{data.user}"
    order = "{data.n}"
    item = { id = "{id}", n = "{data.n}" }
    [[projection.output]]
    path = "/users/{key}/last.json"
    format = "json"
    [[projection]]
    name = "counts"
    kind = "counter"
    key = "{data.user}"
    count = true
    sum = ["data.n"]
    [[projection.output]]
    path = "/users/{key}/counts.json"
    format = "json"
"#;

/// What every history declares.
pub fn projections() -> &'static Arc<Vec<Projection>> {
    static DECLARED: OnceLock<Arc<Vec<Projection>>> = OnceLock::new();
    DECLARED.get_or_init(|| Arc::new(declared(PROJECTIONS)))
}

/// How large the pond is, and how it is set.
#[derive(Clone, Debug)]
pub struct Plan {
    pub queues: QueueId,
    pub shards: ShardId,
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
    pub map: Arc<ShardMap>,
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

pub struct QueueMachine {
    pub disks: Vec<Forgetful>,
    pub power: Power,
    pub up: Option<(Process, Arc<Queues>)>,
}

#[derive(Default)]
pub struct DispatcherMachine {
    pub up: Option<Process>,
    stop: watch::Sender<bool>,
}

/// Where one consumer of a shard queue lives.
pub struct ReplicaMachine {
    pub shard: ShardId,
    consumer: String,
    /// `None`: it was lost.
    pub disk: Option<Forgetful>,
    pub power: Power,
    pub up: Option<Process>,
    /// The shard, once it is open; those who call it must not keep it.
    pub open: Arc<Mutex<Weak<Shard>>>,
    /// A copy that is whole: the disk to start from.
    copied: Arc<Mutex<Option<Forgetful>>>,
    /// Whether the queue holds no longer what the shard has yet to pull.
    too_late: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
}

/// How a machine loses what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process: the kernel has all it has written.
    Process,
    /// The machine: what was not synced is gone.
    Power,
    /// The machine, after some of what was not synced got to the disk.
    Torn,
}

impl Crash {
    fn disk(self, before: &Forgetful, power: &Power) -> Forgetful {
        let after = match self {
            Crash::Process => before.copied(),
            Crash::Power => before.crash(),
            Crash::Torn => before.crash_keeping(|| Simulation::one_in(2)),
        };
        after.set_full(before.is_full());
        after.on(power)
    }
}

/// The files of a pond that nothing was ever written to, made once, as a file gets its name only when it is whole.
struct Blank {
    events: Vec<Forgetful>,
    shard_queues: Forgetful,
    /// By identity: of one shard, and of two.
    shards: BTreeMap<(ShardId, u16), Forgetful>,
}

const CACHE_BYTES: usize = 1 << 20;
const QUEUES_MAX: QueueId = 2;
const SHARDS_MAX: u16 = 2;

fn blank() -> &'static Blank {
    static BLANK: OnceLock<Blank> = OnceLock::new();
    let made = |make: &dyn Fn(Place)| {
        let disk = Forgetful::new();
        make(Place::Backend(Box::new(disk.clone())));
        disk
    };
    let shard_file = |shard, shards| {
        let identity = Identity { shard, shards, map_version: MAP_VERSION };
        made(&|place| drop(ShardFile::open(place, identity, projections()).expect("made")))
    };
    BLANK.get_or_init(|| Blank {
        events: (0..QUEUES_MAX)
            .map(|queue| made(&|place| drop(EventQueueFile::open(place, queue, CACHE_BYTES).expect("made"))))
            .collect(),
        shard_queues: made(&|place| drop(ShardQueueFile::open(place, CACHE_BYTES).expect("made"))),
        shards: (1..=SHARDS_MAX)
            .flat_map(|shards| (0..shards).map(move |shard| ((shard, shards), shard_file(shard, shards))))
            .collect(),
    })
}

const MAP_VERSION: u32 = 1;

impl QueueMachine {
    /// From here on whoever has the disks open writes nothing more; another process finds what the crash has left.
    fn lose(&mut self, crash: Crash) {
        self.power.cut_after(0);
        let power = Power::default();
        self.disks = self.disks.iter().map(|disk| crash.disk(disk, &power)).collect();
        self.power = power;
    }
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
            disk: Some(blank.shards[&(shard, plan.shards)].copied()),
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
            map: Arc::new(ShardMap::even(MAP_VERSION, plan.shards)),
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

    fn process(&mut self) -> Process {
        self.processes += 1;
        Process(self.processes)
    }

    /// Sets the queues' wall clock, forward or back.
    pub fn set_clock(&self, wall_ms: impl FnOnce(u64) -> u64) {
        self.wall_ms.store(wall_ms(self.wall_ms.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Has `work` done by `process`, which ends with it.
    fn run(&self, process: Process, what: std::fmt::Arguments<'_>, work: impl Future<Output = ()> + 'static) {
        Simulation::tell(format_args!("{process:?} is {what}"));
        let ended = self.ended.clone();
        Simulation::spawn(process, async move {
            work.await;
            Simulation::tell(format_args!("{process:?} ends"));
            ended.lock().insert(process);
        });
    }

    /// Starts the queue role; fails where a disk is full, for example.
    pub fn start_queue(&mut self) {
        let process = self.process();
        let place = |disk: &Forgetful| Place::Backend(Box::new(disk.clone()));
        let Some((shards, events)) = self.queue.disks.split_last() else { return };
        let files = Files { events: events.iter().map(place).collect(), shards: place(shards) };
        let wall_ms = self.wall_ms.clone();
        let clock = Arc::new(move || wall_ms.load(Ordering::Relaxed) + Simulation::elapsed().as_millis() as u64);
        let options = Options { limits: self.plan.limits, clock };
        let opened = Simulation::within(process, || Queues::open(files, options, &Registry::new()));
        let queues = match opened {
            Ok(queues) => Arc::new(queues),
            Err(error) => {
                self.not_opened = error.to_string();
                Simulation::kill(process);
                self.queue.lose(if self.queue.power.is_cut() { Crash::Torn } else { Crash::Process });
                return;
            }
        };
        let doors = Doors { queues: queues.clone(), ledger: self.ledger.clone(), from_elsewhere: true };
        let failing = queues.clone();
        self.run(process, format_args!("the queues"), async move { drop(failing.failed().await) });
        self.wire.leads_to(Some((process, doors.clone())));
        self.queue.up = Some((process, queues));
        if self.plan.one_process {
            self.start_dispatcher_in(process, 0, Arc::new(Doors { from_elsewhere: false, ..doors }));
        }
    }

    pub fn start_dispatcher(&mut self, number: usize) {
        if number > 0 || !self.plan.one_process {
            let process = self.process();
            self.start_dispatcher_in(process, number, self.wire.clone());
        }
    }

    fn start_dispatcher_in(&mut self, process: Process, number: usize, queues: Arc<dyn DispatchQueues>) {
        let settings = DispatcherSettings {
            holder: format!("dispatcher-{number}-{}", process.0),
            max_events: self.plan.max_events,
            lease_ttl: self.plan.lease_ttl,
            pause_max: Duration::from_millis(500),
        };
        let routing = Routing { projections: projections().to_vec(), map: (*self.map).clone() };
        let dispatcher = Dispatcher::new(queues, routing, settings, &Registry::new()).expect("metrics");
        let (stop, stopped) = watch::channel(false);
        let works: Vec<_> =
            (0..self.plan.queues).map(|queue| dispatcher.clone().work(queue, stopped.clone())).collect();
        let what = format_args!("dispatcher {number}");
        self.run(process, what, async move { drop(futures_util::future::join_all(works).await) });
        self.dispatchers[number] = DispatcherMachine { up: Some(process), stop };
    }

    /// Starts a replica from its disk; or has it copy another first, if it has none.
    pub fn start_replica(&mut self, number: usize) {
        let process = self.process();
        let replica = &mut self.replicas[number];
        if replica.too_late.swap(false, Ordering::Relaxed) {
            replica.disk = None;
        }
        if let Some(copied) = replica.copied.lock().take() {
            replica.disk = Some(copied);
        }
        replica.disk = replica.disk.take().map(|disk| disk.on(&replica.power));
        let Some(disk) = replica.disk.clone() else {
            self.start_copy(process, number);
            return;
        };
        replica.stop = watch::Sender::new(false);
        replica.up = Some(process);
        let place = Place::Backend(Box::new(disk));
        let opening = Opening {
            shard: replica.shard,
            map: self.map.clone(),
            projections: projections().clone(),
            place,
            queues: self.wire.clone(),
            events: None,
            attached: Vec::new(),
            settings: ShardSettings { consumer: replica.consumer.clone(), ..self.plan.shard.clone() },
        };
        let (open, stopped) = (replica.open.clone(), replica.stop.subscribe());
        let (id, consumer, too_late) = (replica.shard, replica.consumer.clone(), replica.too_late.clone());
        let ledger = self.ledger.clone();
        self.run(process, format_args!("replica {number}, shard {id}"), async move {
            let metrics = ShardMetrics::register(&Registry::new()).expect("metrics");
            if let Ok(shard) = Shard::open(opening, &metrics) {
                *open.lock() = Arc::downgrade(&shard);
                match shard.run(stopped).await {
                    // What ends a process that then starts again.
                    Ok(()) | Err(ShardError::Commit { .. } | ShardError::File(_)) => {}
                    Err(ShardError::Queue(QueueError::Trimmed { .. })) if !ledger.is_registered(id, &consumer) => {
                        too_late.store(true, Ordering::Relaxed);
                    }
                    Err(error) => panic!("a shard can't go on, and never will: {error}"),
                }
            }
        });
    }

    fn start_copy(&mut self, process: Process, number: usize) {
        let replica = &mut self.replicas[number];
        let (shard, consumer, copied) = (replica.shard, replica.consumer.clone(), replica.copied.clone());
        replica.up = Some(process);
        let others = self.replicas.iter().enumerate().filter(|(other, there)| *other != number && there.shard == shard);
        let Some((process_there, open)) = others.filter_map(|(_, other)| Some((other.up?, other.open.clone()))).next()
        else {
            self.ended.lock().insert(process);
            return;
        };
        let (wire, bytes_max) = (self.wire.clone(), self.plan.page);
        let identity = Identity { shard, shards: self.map.shards(), map_version: self.map.version };
        self.run(process, format_args!("a copy for replica {number}, shard {shard}"), async move {
            if wire.committed(shard, &consumer, 0).await.is_err() {
                return;
            }
            let from = PagesOf { process: process_there, open, shard, bytes_max };
            let Ok(first) = from.page(None).await else { return };
            let disk = blank().shards[&(identity.shard, identity.shards)].copied();
            let place = Place::Backend(Box::new(disk.clone()));
            let (file, _) = ShardFile::open(place, identity, projections()).expect("opened");
            if adopt(file, first, &from).await.is_ok() {
                *copied.lock() = Some(disk);
            }
        });
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
            Simulation::kill(process);
        }
    }

    pub fn crash_replica(&mut self, number: usize, crash: Crash) {
        let replica = &mut self.replicas[number];
        let Some(process) = replica.up.take() else { return };
        replica.power.cut_after(0);
        replica.power = Power::default();
        replica.disk = replica.disk.take().map(|disk| crash.disk(&disk, &replica.power));
        Simulation::kill(process);
    }

    /// Asks a process to end in peace. The queue role has no such end: it is what the others wait for.
    pub fn stop_dispatcher(&self, number: usize) {
        self.dispatchers[number].stop.send_replace(true);
    }

    pub fn stop_replica(&self, number: usize) {
        self.replicas[number].stop.send_replace(true);
    }

    /// A disk is gone with all it held, if another replica has the same.
    pub fn lose_disk(&mut self, number: usize) {
        let shard = self.replicas[number].shard;
        let others = self.replicas.iter().enumerate().filter(|(other, there)| *other != number && there.shard == shard);
        let registered = |other: &ReplicaMachine| self.ledger.is_registered(shard, &other.consumer);
        let held_elsewhere = others.filter(|(_, other)| other.disk.is_some() && registered(other)).count() > 0;
        if held_elsewhere {
            self.ledger.forget_consumer(shard, &self.replicas[number].consumer);
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
        let routing = Routing { projections: projections().to_vec(), map: (*self.map).clone() };
        let most = 1 + Simulation::below(4) as usize;
        Simulation::spawn(process, async move {
            let (filed, _) = queues.event_ends(queue);
            let Ok(Some(taken)) = QueueRole::peek(&*queues, queue, filed, most).await else { return };
            if queues.event_ends(queue).0 != filed {
                return;
            }
            let frames: Vec<_> = taken.frames.iter().filter_map(|bytes| EventFrame::decode(bytes).ok()).collect();
            for frame in routing.route(&frames, taken.first, taken.last, HALF_ROUND).frames {
                if Simulation::one_in(2) && queues.file_half(&frame).is_err() {
                    return;
                }
            }
        });
    }

    /// Where each shard queue ends, if the queues are up.
    pub fn lasts(&self) -> Option<Vec<Position>> {
        let (_, queues) = self.queue.up.as_ref()?;
        Some((0..self.plan.shards).map(|shard| queues.shard_ends(shard).last).collect())
    }

    /// Whether all that was sent is filed, applied and on disk, everywhere.
    pub fn is_done(&self) -> bool {
        let (Some((_, queues)), Some(lasts)) = (self.queue.up.as_ref(), self.lasts()) else { return false };
        let is_filed = |queue| {
            let (filed, last) = queues.event_ends(queue);
            filed == last
        };
        (0..self.plan.queues).all(is_filed)
            && self.replicas.iter().all(|replica| {
                let last = lasts[usize::from(replica.shard)];
                let open = replica.open.lock().upgrade().filter(|_| replica.up.is_some());
                open.is_some_and(|shard| *shard.applied().borrow() == last && *shard.committed().borrow() == last)
            })
    }
}

/// The pages of another replica's file, asked for over a wire.
struct PagesOf {
    process: Process,
    open: Arc<Mutex<Weak<Shard>>>,
    shard: ShardId,
    bytes_max: usize,
}

#[async_trait]
impl Pages for PagesOf {
    async fn page(&self, after: Option<(&str, &str)>) -> Result<Page, CopyError> {
        let after = after.map(|(projection, key)| (projection.to_owned(), key.to_owned()));
        let (answer, answered) = oneshot::channel();
        let (open, bytes_max) = (self.open.lock().clone(), self.bytes_max);
        Simulation::spawn(self.process, async move {
            let Some(shard) = open.upgrade() else { return };
            let page = shard.page_of(after, bytes_max).await;
            let _ = answer.send(page.map(|page| page.encode()));
        });
        let no_page = |problem: String| CopyError::NoPage { shard: self.shard, from: "the other".to_owned(), problem };
        let bytes = answered.await.map_err(|_| no_page("it is down".to_owned()))??;
        Page::decode(&bytes).map_err(no_page)
    }
}
