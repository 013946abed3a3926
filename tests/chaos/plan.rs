//! What will go wrong, and when (pure): all of it follows from a seed.

use std::fmt;
use std::time::Duration;

use millpond_shared::version::ShardId;

use crate::crash::several_processes::LEASE;
use crate::harness::random::Random;

/// How long things go wrong.
pub const LENGTH: Duration = Duration::from_secs(5);
/// Moves of one plan, which has one at least.
const MOVES_MAX: usize = 3;
/// Faults of one plan but for moves: one of each sort, and some more.
const FAULTS_MIN: usize = 4;
const FAULTS_MAX: usize = 12;
/// Most repeats, beside these.
const REPEATS_MAX: usize = 4;
/// A thing that has been mended is left alone for so long.
const REST: Duration = Duration::from_millis(300);
/// Everything that will go wrong in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub seed: u64,
    pub engine: Engine,
    /// By when they begin.
    pub actions: Vec<Action>,
}

/// What keeps the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Embedded,
    Nats,
}

/// One thing that goes wrong, and is mended. Times count from when the clients have begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Action {
    pub begins: Duration,
    pub ends: Duration,
    pub fault: Fault,
}

/// A further sort is a variant here, a case of [`Action::any`] or chosen behind all those, and what the stage does about it when it begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`; it is started again when the action ends.
    Killed(Role),
    /// `SIGSTOP`, then `SIGCONT`.
    Paused(Role),
    /// No space is left; who writes there is started again once there is.
    Full(Disk),
    /// Connections are reset.
    Cut(Link),
    /// Nothing comes through; connections stay.
    Stalled(Link),
    /// Everything is so late.
    Slow(Link, Duration),
    /// The last frame of each subject of a shard queue comes once more. On NATS only: the embedded queues have no door for it.
    Repeated(ShardId),
    /// Slots move, for as long as it takes; they may wait for those before.
    Moved(Give),
}

/// Half of the slots of a shard go to another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Give {
    pub from: ShardId,
    pub to: ShardId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The queue role, or the NATS server in its place.
    Queue,
    Ingest,
    Dispatcher,
    OtherDispatcher,
    ShardA,
    ShardB,
    /// Of [`Role::ShardA`].
    Spare,
    Proxy,
}

/// The connections that one role makes to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub from: Role,
    pub to: Role,
}

/// What is on a disk of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// Of the queue role, or of the NATS server.
    Queue,
    /// Of both primaries.
    Shards,
    Spare,
}

pub const ROLES: [Role; 8] = [
    Role::Queue,
    Role::Ingest,
    Role::Dispatcher,
    Role::OtherDispatcher,
    Role::ShardA,
    Role::ShardB,
    Role::Spare,
    Role::Proxy,
];

pub const LINKS: [Link; 10] = [
    Link { from: Role::Ingest, to: Role::Queue },
    Link { from: Role::Dispatcher, to: Role::Queue },
    Link { from: Role::OtherDispatcher, to: Role::Queue },
    Link { from: Role::ShardA, to: Role::Queue },
    Link { from: Role::ShardB, to: Role::Queue },
    Link { from: Role::Spare, to: Role::Queue },
    Link { from: Role::Proxy, to: Role::Ingest },
    Link { from: Role::Proxy, to: Role::ShardA },
    Link { from: Role::Proxy, to: Role::ShardB },
    Link { from: Role::Proxy, to: Role::Spare },
];

/// As `config/cluster/shard-map.toml` has them: those of [`Role::ShardA`] and [`Role::Spare`], then those of
/// [`Role::ShardB`].
pub const SHARDS: [ShardId; 4] = [0, 1, 2, 3];

const DISKS: [Disk; 3] = [Disk::Queue, Disk::Shards, Disk::Spare];

impl Plan {
    /// The plan of a seed: always the same. Even seeds have the embedded queues, odd ones NATS.
    pub fn of(seed: u64) -> Plan {
        let mut random = Random::from(seed);
        let engine = if seed.is_multiple_of(2) { Engine::Embedded } else { Engine::Nats };
        let count = FAULTS_MIN + random.below(FAULTS_MAX - FAULTS_MIN + 1);
        let mut actions: Vec<Action> = Vec::new();
        for number in 0..count {
            let sort = if number < FAULTS_MIN { number } else { random.below(FAULTS_MIN) };
            // Where something else happens to the same thing at the time, another time or thing is chosen.
            let action = loop {
                let action = Action::any(sort, &mut random);
                if !actions.iter().any(|other| action.collides_with(other)) {
                    break action;
                }
            };
            actions.push(action);
        }
        if engine == Engine::Nats {
            for _ in 0..=random.below(REPEATS_MAX) {
                let begins = Duration::from_millis(random.below(LENGTH.as_millis() as usize) as u64);
                let fault = Fault::Repeated(one_of(&SHARDS, &mut random));
                actions.push(Action { begins, ends: begins, fault });
            }
        }
        actions.extend((0..1 + random.below(MOVES_MAX)).map(|_| Action::moved(&mut random)));
        actions.sort_by_key(|action| action.begins);
        Plan { seed, engine, actions }
    }

    /// What happens, in order: an action begins, or ends.
    pub fn moments(&self) -> Vec<(Duration, Moment)> {
        let begins = self.actions.iter().map(|action| (action.begins, Moment::Begins(action.fault)));
        let ends = self.actions.iter().map(|action| (action.ends, Moment::Ends(action.fault)));
        let mut moments: Vec<_> = begins.chain(ends).collect();
        moments.sort_by_key(|(at, _)| *at);
        moments
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Begins(Fault),
    Ends(Fault),
}

impl Action {
    /// One of a sort: killed, paused, a full disk, or something with a connection.
    fn any(sort: usize, random: &mut Random) -> Action {
        let (fault, least, most) = match sort {
            0 => (Fault::Killed(one_of(&ROLES, random)), 50, 1_200),
            // About half of them beyond the end of a lease.
            1 => (Fault::Paused(one_of(&ROLES, random)), 200, 2 * LEASE.as_millis() as usize),
            2 => (Fault::Full(one_of(&DISKS, random)), 500, 1_500),
            _ => {
                let link = one_of(&LINKS, random);
                let late = Duration::from_millis(2 + random.below(80) as u64);
                (one_of(&[Fault::Cut(link), Fault::Stalled(link), Fault::Slow(link, late)], random), 200, 2_500)
            }
        };
        let lasts = Duration::from_millis((least + random.below(most - least)) as u64);
        let begins = Duration::from_millis(random.below((LENGTH - lasts).as_millis() as usize) as u64);
        Action { begins, ends: begins + lasts, fault }
    }

    /// Slots move from one shard server to another.
    fn moved(random: &mut Random) -> Action {
        let from = one_of(&SHARDS, random);
        let to = (from + 2 + random.below(2) as ShardId) % SHARDS.len() as ShardId;
        let begins = Duration::from_millis(random.below(LENGTH.as_millis() as usize) as u64);
        Action { begins, ends: LENGTH, fault: Fault::Moved(Give { from, to }) }
    }

    fn collides_with(&self, other: &Action) -> bool {
        let at_once = self.begins < other.ends + REST && other.begins < self.ends + REST;
        at_once && self.fault.things().iter().any(|thing| other.fault.things().contains(thing))
    }
}

/// What a fault happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Role(Role),
    Link(Link),
}

impl Fault {
    fn things(self) -> Vec<Thing> {
        match self {
            Fault::Killed(role) | Fault::Paused(role) => vec![Thing::Role(role)],
            Fault::Full(disk) => disk.users().iter().copied().map(Thing::Role).collect(),
            Fault::Cut(link) | Fault::Stalled(link) | Fault::Slow(link, _) => vec![Thing::Link(link)],
            Fault::Repeated(_) | Fault::Moved(_) => Vec::new(),
        }
    }

    pub fn link(self) -> Option<Link> {
        match self {
            Fault::Cut(link) | Fault::Stalled(link) | Fault::Slow(link, _) => Some(link),
            Fault::Killed(_) | Fault::Paused(_) | Fault::Full(_) | Fault::Repeated(_) | Fault::Moved(_) => None,
        }
    }
}

impl Disk {
    /// Who writes there.
    pub fn users(self) -> &'static [Role] {
        match self {
            Disk::Queue => &[Role::Queue],
            Disk::Shards => &[Role::ShardA, Role::ShardB],
            Disk::Spare => &[Role::Spare],
        }
    }
}

fn one_of<T: Copy>(all: &[T], random: &mut Random) -> T {
    all[random.below(all.len())]
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "chaos, SEED={}, engine {:?}:", self.seed, self.engine)?;
        for Action { begins, ends, fault } in &self.actions {
            writeln!(out, "  from {begins:.3?} to {ends:.3?}: {fault:?}")?;
        }
        Ok(())
    }
}

#[test]
fn the_same_seed_makes_the_same_plan_and_another_one_another() {
    let told = |seed: u64| Plan::of(seed).to_string();
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(9));
    assert_eq!([Plan::of(7).engine, Plan::of(8).engine], [Engine::Nats, Engine::Embedded]);
}

#[test]
fn everything_happens_sometimes_and_is_mended_in_time() {
    let plans: Vec<Plan> = (0..1_000).map(Plan::of).collect();
    let happens = |wanted: &dyn Fn(Fault) -> bool| {
        plans.iter().filter(|plan| plan.actions.iter().any(|action| wanted(action.fault))).count()
    };
    for role in ROLES {
        assert!(happens(&|fault| fault == Fault::Killed(role)) > 20, "{role:?}");
        assert!(happens(&|fault| fault == Fault::Paused(role)) > 20, "{role:?}");
    }
    for disk in DISKS {
        assert!(happens(&|fault| fault == Fault::Full(disk)) > 20, "{disk:?}");
    }
    for link in LINKS {
        assert!(happens(&|fault| fault == Fault::Cut(link)) > 20, "{link:?}");
        assert!(happens(&|fault| fault == Fault::Stalled(link)) > 20, "{link:?}");
        assert!(happens(&|fault| matches!(fault, Fault::Slow(slow, _) if slow == link)) > 20, "{link:?}");
    }
    for shard in SHARDS {
        assert!(happens(&|fault| fault == Fault::Repeated(shard)) > 20, "{shard}");
    }
    for [from, to] in [[0, 2], [3, 1]] {
        assert!(happens(&|fault| fault == Fault::Moved(Give { from, to })) > 20, "{from} to {to}");
    }
    assert_eq!(happens(&|fault| matches!(fault, Fault::Moved(_))), plans.len());
    let actions = || plans.iter().flat_map(|plan| &plan.actions);
    let lasts = |action: &Action| action.begins < action.ends || matches!(action.fault, Fault::Repeated(_));
    assert!(actions().all(|action| lasts(action) && action.ends <= LENGTH));
    let beyond_lease = |action: &&Action| {
        matches!(action.fault, Fault::Paused(Role::Dispatcher)) && action.ends - action.begins > LEASE
    };
    assert!(actions().filter(beyond_lease).count() > 20);
}

#[test]
fn nothing_is_broken_twice_at_once() {
    for plan in (0..1_000).map(Plan::of) {
        let mut broken: Vec<Thing> = Vec::new();
        for (_, moment) in plan.moments() {
            match moment {
                Moment::Begins(fault) => {
                    assert!(!fault.things().iter().any(|thing| broken.contains(thing)), "{plan}");
                    broken.extend(fault.things());
                }
                Moment::Ends(fault) => broken.retain(|thing| !fault.things().contains(thing)),
            }
        }
        assert_eq!(broken, []);
    }
}
