//! The processes that a plan happens to, and what is looked at afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use millpond_shared::clock;
use millpond_shared::version::ShardId;

use super::mover::Mover;
use super::plan::{Disk, Engine, Fault, Link, Moment, Plan, ROLES, Role, SHARDS};
use crate::crash::several_processes::{SHORT_LEASE, SHORT_LEASE_ON_NATS};
use crate::crash::spare::WITH_SPARE;
use crate::crash::traffic::Traffic;
use crate::harness::client::Client;
use crate::harness::disk;
use crate::harness::pipeline::{
    DISPATCHER, DISPATCHER_2, DISPATCHER_2_ON_NATS, DISPATCHER_ON_NATS, INGEST, INGEST_ON_NATS, NATS, PROXY, Part,
    Pipeline, QUEUE, SHARD_A, SHARD_A_ON_NATS, SHARD_B, SHARD_B_ON_NATS, SPARE, SPARE_ON_NATS,
};
use crate::harness::random::Random;
use crate::harness::relay::Weather;

/// Events before anything goes wrong, and after everything was mended.
const EVENTS: usize = 300;
/// Size of a disk that is going to be full, in MiB.
const DISK_MIB: usize = 96;

/// What is applied is on disk soon, so that commits happen while things go wrong.
const FLUSHED_SOON: [(&str, &str); 2] =
    [("dir = \"data/shards\"", "flush_every = \"300ms\""), ("dir = \"data/spare\"", "flush_every = \"300ms\"")];

/// Frames are cut into several rounds, so that a reader can see whether their events come in order.
const CUT_SMALL: (&str, &str) = ("[dispatcher]", "max_events = 7");

/// All roles of one engine, each a process.
struct Stage {
    engine: Engine,
    // Processes end before their disks are gone.
    pipeline: Pipeline,
    disks: BTreeMap<Disk, disk::Disk>,
    /// What is the matter now.
    faults: Vec<Fault>,
    /// Who is to be started as soon as that is possible.
    to_start: BTreeSet<Role>,
    told: Told,
}

/// What became of a plan.
#[derive(Default)]
pub struct Told {
    /// Of the processes on full disks: how many noticed, and ended.
    ended_by_full_disk: usize,
    /// Frames that came to a shard twice.
    repeated: usize,
    /// Faults that could not be: why.
    skipped: Vec<String>,
    /// Until all processes had started, from the last mending until everything was applied, and for comparing it.
    started: Duration,
    recovered: Duration,
    compared: Duration,
    acknowledged: u64,
    /// Moves of slots that came to their end.
    moved: usize,
}

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { ended_by_full_disk, repeated, skipped, started, recovered, compared, acknowledged, moved } = self;
        write!(out, "{acknowledged} events acknowledged, all applied {recovered:.1?} after the last fault")?;
        write!(out, "; {ended_by_full_disk} ended themselves on a full disk")?;
        write!(out, "; {repeated} frames came twice; slots have moved {moved} times")?;
        write!(out, "; started in {started:.1?}, compared in {compared:.1?}")?;
        skipped.iter().try_for_each(|why| write!(out, "\n  SKIPPED: {why}"))
    }
}

/// Plays a plan to its end, and fails if anything is other than it must be.
pub fn play(plan: &Plan) -> Told {
    let began = clock::monotonic();
    let mut stage = Stage::set(plan);
    stage.told.started = began.elapsed();
    let traffic = Traffic::to(stage.pipeline.proxy());
    thread::scope(|scope| {
        let running = traffic.start(scope, &mut Random::from(!plan.seed));
        running.wait_for_events(EVENTS);
        let mover = Mover::start(scope, stage.desk());
        let began = clock::monotonic();
        for (at, moment) in plan.moments() {
            running.wait_until(began + at);
            match moment {
                Moment::Begins(fault) => stage.begin(fault, &traffic, &mover),
                Moment::Ends(fault) => stage.end(fault),
            }
        }
        let mended = clock::monotonic();
        if plan.engine == Engine::Nats {
            SHARDS.into_iter().for_each(|shard| stage.repeat(shard));
            assert!(stage.told.repeated > 0, "no frame came twice");
        }
        running.wait_for_events(EVENTS);
        stage.told.moved = mover.end();
        running.stop();
        stage.pipeline.wait_until_applied();
        stage.told.recovered = mended.elapsed();
    });
    let applied = clock::monotonic();
    traffic.compare_all();
    stage.compare_replicas(&traffic);
    stage.told.compared = applied.elapsed();
    Told { acknowledged: traffic.acknowledged(), ..stage.told }
}

impl Stage {
    /// Starts everything, with relays and disks where the plan needs them.
    fn set(plan: &Plan) -> Stage {
        let insertions = [&WITH_SPARE[..], &FLUSHED_SOON, &[CUT_SMALL]].concat();
        let pipeline = match plan.engine {
            Engine::Embedded => Pipeline::changed(&[&insertions[..], &[SHORT_LEASE]].concat(), &[]),
            Engine::Nats => Pipeline::changed(&insertions, &[SHORT_LEASE_ON_NATS]),
        };
        let mut stage = Stage {
            engine: plan.engine,
            pipeline,
            disks: BTreeMap::new(),
            faults: Vec::new(),
            to_start: BTreeSet::new(),
            told: Told::default(),
        };
        for action in &plan.actions {
            if let Some(Link { from, to }) = action.fault.link() {
                let (from, to) = (stage.part(from), stage.part(to));
                stage.pipeline.relay(from, to);
            }
            if let Fault::Full(which) = action.fault {
                stage.mount(which);
            }
        }
        for role in ROLES {
            stage.pipeline.start(stage.part(role));
        }
        stage
    }

    fn mount(&mut self, which: Disk) {
        let folder = match (which, self.engine) {
            (Disk::Queue, Engine::Embedded) => "queue",
            (Disk::Queue, Engine::Nats) => "nats",
            (Disk::Shards, _) => "shards",
            (Disk::Spare, _) => "spare",
        };
        if self.disks.contains_key(&which) {
            return;
        }
        match disk::Disk::mount(&self.pipeline.data().join(folder), DISK_MIB) {
            Ok(disk) => drop(self.disks.insert(which, disk)),
            Err(why) => self.told.skipped.push(format!("{:?}: no disk can be mounted here: {why}", Fault::Full(which))),
        }
    }

    fn part(&self, role: Role) -> Part {
        let (embedded, on_nats) = match role {
            Role::Queue => (QUEUE, NATS),
            Role::Ingest => (INGEST, INGEST_ON_NATS),
            Role::Dispatcher => (DISPATCHER, DISPATCHER_ON_NATS),
            Role::OtherDispatcher => (DISPATCHER_2, DISPATCHER_2_ON_NATS),
            Role::ShardA => (SHARD_A, SHARD_A_ON_NATS),
            Role::ShardB => (SHARD_B, SHARD_B_ON_NATS),
            Role::Spare => (SPARE, SPARE_ON_NATS),
            Role::Proxy => (PROXY, PROXY),
        };
        if self.engine == Engine::Nats { on_nats } else { embedded }
    }

    /// The admin socket that is asked to move slots.
    fn desk(&self) -> SocketAddr {
        let role = if self.engine == Engine::Nats { Role::Ingest } else { Role::Queue };
        self.pipeline.address(self.part(role), "admin")
    }

    fn begin(&mut self, fault: Fault, traffic: &Traffic, mover: &Mover<'_>) {
        match fault {
            // It is dead already, since it can't be started yet.
            Fault::Killed(role) | Fault::Paused(role) if self.to_start.contains(&role) => return,
            Fault::Killed(role) => {
                if role == Role::Proxy {
                    traffic.proxy_ends();
                }
                self.pipeline.kill9(self.part(role));
            }
            Fault::Paused(role) => self.pipeline.signal(self.part(role), "STOP"),
            Fault::Full(which) => match self.disks.get(&which) {
                Some(disk) => disk.fill(),
                None => return,
            },
            Fault::Cut(link) => self.set_weather(link, Weather::Cut),
            Fault::Stalled(link) => self.set_weather(link, Weather::Stalled),
            Fault::Slow(link, by) => self.set_weather(link, Weather::Delayed(by)),
            Fault::Repeated(shard) => return self.repeat(shard),
            Fault::Moved(give) => mover.ask(give),
        }
        self.faults.push(fault);
    }

    fn end(&mut self, fault: Fault) {
        let before = self.faults.len();
        self.faults.retain(|other| *other != fault);
        if self.faults.len() == before {
            return;
        }
        match fault {
            Fault::Killed(role) => drop(self.to_start.insert(role)),
            Fault::Paused(role) => self.pipeline.signal(self.part(role), "CONT"),
            Fault::Full(which) => {
                self.disks.get(&which).expect("it was filled").free();
                // Whoever could not write has ended, or has to be started again by hand, as a NATS server.
                for role in which.users().iter().filter(|role| !self.to_start.contains(*role)) {
                    self.told.ended_by_full_disk += usize::from(self.pipeline.end(self.part(*role)));
                }
                self.to_start.extend(which.users());
            }
            Fault::Cut(link) | Fault::Stalled(link) | Fault::Slow(link, _) => self.set_weather(link, Weather::Clear),
            // They have no end that could be set.
            Fault::Repeated(_) | Fault::Moved(_) => {}
        }
        self.start_who_can();
    }

    /// Starts those who wait for it: a process on NATS ends again where it can't reach the server.
    fn start_who_can(&mut self) {
        for role in self.to_start.clone() {
            if self.can_start(role) {
                self.pipeline.start(self.part(role));
                self.to_start.remove(&role);
            }
        }
    }

    fn can_start(&self, role: Role) -> bool {
        let queue_is_up = || {
            let stands_in_the_way = |fault: &Fault| match fault {
                Fault::Killed(other) | Fault::Paused(other) => *other == Role::Queue,
                Fault::Full(disk) => *disk == Disk::Queue,
                Fault::Cut(link) | Fault::Stalled(link) => *link == Link { from: role, to: Role::Queue },
                Fault::Slow(..) | Fault::Repeated(_) | Fault::Moved(_) => false,
            };
            !self.to_start.contains(&Role::Queue) && !self.faults.iter().any(stands_in_the_way)
        };
        self.engine == Engine::Embedded || [Role::Queue, Role::Proxy].contains(&role) || queue_is_up()
    }

    /// Has the last frames of a shard queue come once more, unless the server is away.
    fn repeat(&mut self, shard: ShardId) {
        let is_away = |fault: &Fault| match fault {
            Fault::Killed(role) | Fault::Paused(role) => *role == Role::Queue,
            Fault::Full(disk) => *disk == Disk::Queue,
            Fault::Cut(_) | Fault::Stalled(_) | Fault::Slow(..) | Fault::Repeated(_) | Fault::Moved(_) => false,
        };
        if !self.to_start.contains(&Role::Queue) && !self.faults.iter().any(is_away) {
            self.told.repeated += self.pipeline.repeat_frames(shard);
        }
    }

    fn set_weather(&mut self, link: Link, weather: Weather) {
        let (from, to) = (self.part(link.from), self.part(link.to));
        self.pipeline.relay(from, to).set(weather);
    }

    /// A primary and its spare hold the same documents: the same bytes, in the same versions.
    fn compare_replicas(&self, traffic: &Traffic) {
        let clients = [Role::ShardA, Role::Spare].map(|role| self.pipeline.address(self.part(role), "shards"));
        let [mut primary, mut spare] = clients.map(Client::of);
        let mut both = 0;
        for url in traffic.documents().keys() {
            let [one, other] = [&mut primary, &mut spare].map(|client| client.get(url));
            assert_eq!((one.status(), other.status()), (one.status(), one.status()), "{url}");
            let told = |name| (one.field(name), other.field(name));
            for (one, other) in ["etag", "millpond-version"].map(told) {
                assert_eq!(one, other, "{url}");
            }
            assert!(one.body == other.body, "{url}: {} and {}", one.text(), other.text());
            both += usize::from(one.status() == 200);
        }
        assert!(both > 0, "shard A has some of the documents");
    }
}
