//! Where processes live: machines with disks, and what is left of these when one dies.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};

use millpond_shared::version::{QueueId, ShardId};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::declared::projections;
use crate::api::documents::Documents;
use crate::queue::Queues;
use crate::shard::Shard;
use crate::simulation::scheduler::{Process, Simulation};
use crate::store::Place;
use crate::store::event_queue_file::EventQueueFile;
use crate::store::forgetful::{Forgetful, Power};
use crate::store::shard_file::{Identity, ShardFile};
use crate::store::shard_queue_file::ShardQueueFile;

pub struct QueueMachine {
    pub disks: Vec<Forgetful>,
    pub power: Power,
    pub up: Option<(Process, Arc<Queues>)>,
}

#[derive(Default)]
pub struct DispatcherMachine {
    pub up: Option<Process>,
    pub stop: watch::Sender<bool>,
}

/// Where one consumer of a shard queue lives.
pub struct ReplicaMachine {
    pub shard: ShardId,
    pub consumer: String,
    /// `None`: it was lost.
    pub disk: Option<Forgetful>,
    pub power: Power,
    pub up: Option<Process>,
    /// What runs, once it is open; those who call it must not keep it.
    pub open: Arc<Mutex<Weak<Open>>>,
    /// A copy that is whole: the disk to start from.
    pub copied: Arc<Mutex<Option<Forgetful>>>,
    /// Whether the queue holds no longer what the shard has yet to pull.
    pub too_late: Arc<AtomicBool>,
    pub stop: watch::Sender<bool>,
}

/// A shard that is open, and the door to its documents.
pub struct Open {
    pub shard: Arc<Shard>,
    pub documents: Documents,
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
    /// What stands for it, of those that stand for each in turn.
    pub fn one_of<T: Copy>(self, [process, power, torn]: [T; 3]) -> T {
        match self {
            Crash::Process => process,
            Crash::Power => power,
            Crash::Torn => torn,
        }
    }

    pub fn disk(self, before: &Forgetful, power: &Power) -> Forgetful {
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
pub struct Blank {
    pub events: Vec<Forgetful>,
    pub shard_queues: Forgetful,
    pub shards: BTreeMap<ShardId, Forgetful>,
}

/// Page cache of each file.
pub const CACHE_BYTES: usize = 1 << 20;
const QUEUES_MAX: QueueId = 2;
const SHARDS_MAX: u16 = 3;

pub fn blank() -> &'static Blank {
    static BLANK: OnceLock<Blank> = OnceLock::new();
    let made = |make: &dyn Fn(Place)| {
        let disk = Forgetful::new();
        make(Place::Backend(Box::new(disk.clone())));
        disk
    };
    let shard_file = |shard| {
        let identity = Identity { shard, map_version: MAP_VERSION };
        made(&|place| drop(ShardFile::open(place, CACHE_BYTES, identity, projections()).expect("made")))
    };
    BLANK.get_or_init(|| Blank {
        events: (0..QUEUES_MAX)
            .map(|queue| made(&|place| drop(EventQueueFile::open(place, queue, CACHE_BYTES).expect("made"))))
            .collect(),
        shard_queues: made(&|place| drop(ShardQueueFile::open(place, CACHE_BYTES).expect("made"))),
        shards: (0..SHARDS_MAX).map(|shard| (shard, shard_file(shard))).collect(),
    })
}

pub const MAP_VERSION: u32 = 1;

impl QueueMachine {
    /// The machine fails: from here on whoever has the disks open writes nothing more; another process finds what the crash has left.
    pub fn lose(&mut self, crash: Crash) {
        self.power.cut_after(0);
        let power = Power::default();
        self.disks = self.disks.iter().map(|disk| crash.disk(disk, &power)).collect();
        self.power = power;
    }
}
