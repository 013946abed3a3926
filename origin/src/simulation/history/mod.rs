//! One history: a pond, its traffic, and what befalls it, all by one seed.

mod blows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millpond_shared::version::{QueueId, ShardId};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use super::filed::Filed;
use super::follower::{Followed, Follower};
use super::model::{Dead, held, is_empty, model};
use super::moves::Operator;
use super::pond::{Crash, Plan, Pond, projections};
use super::reading::{Answer, Copy, Directory, Wish, documents};
use super::scheduler::{Process, Simulation};
use super::tally::{Befell, Tally};
use super::traffic::Traffic;
use super::watcher;
use crate::queue::testing::Random;
use crate::queue::{DeadLetter, Limits, QueueRole};
use crate::shard::ShardSettings;

/// How many times something befalls the pond.
const BLOWS: u64 = 8;
/// In one of so many ponds users follow each other: what their documents tell each other takes most of the time there.
const FOLLOWING: u64 = 4;
/// In one of so many ponds slots move.
const MOVING: u64 = 5;
/// How long, in its own time, a pond may take to be done once nothing befalls it any more.
const DONE_WITHIN: Duration = Duration::from_secs(600);
/// Producers and clients: nothing befalls them.
const CLIENTS: Process = Process(0);
/// Bytes of a document of these histories, near enough.
const DOCUMENT: u64 = 400;

struct History {
    pond: Pond,
    traffic: Arc<Traffic>,
    operator: Arc<Operator>,
    directory: Arc<Directory>,
    followed: Vec<Arc<Mutex<Followed>>>,
}

/// How a history went.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Another one for another course.
    digest: u64,
    pub tally: Tally,
}

/// Runs the history of a seed.
pub fn run(seed: u64) -> Ran {
    let _began = Simulation::begin(Random::seeded(seed));
    let mut history = History::new();
    for _ in 0..BLOWS {
        history.blow();
        let is_moving = history.pond.ledger.moves.under_way().is_some();
        history.pass(Duration::from_millis(Simulation::below(if is_moving { 200 } else { 1_000 })));
        history.pond.start(|| Simulation::one_in(2));
    }
    history.mend();
    history.finish();
    let copies = history.check();
    Simulation::tell(format_args!("all is as it should be"));
    if Simulation::one_in(3) {
        // Once more from what the disks hold alone.
        history.crash_all();
        history.finish();
        assert_eq!(history.check(), copies, "after everything was started again");
        Simulation::tell(format_args!("and again"));
    }
    Ran { digest: Simulation::digest(), tally: Simulation::tally() }
}

fn plan() -> Plan {
    let pick = |choices: &[u64]| choices[Simulation::below(choices.len() as u64) as usize];
    let limits = Limits {
        depth_max_events: pick(&[6, 1_000]),
        shard_depth_max_bytes: pick(&[1, 1_500, 1 << 20]),
        tidy_every: Duration::from_millis(pick(&[250, 1_000])),
        cache_bytes: 1 << 20,
        waiting_max_calls: 64,
        ..Limits::default()
    };
    let shard = ShardSettings {
        flush_every: Duration::from_millis(pick(&[150, 600, 2_000])),
        flush_bytes: pick(&[DOCUMENT, 1 << 20]),
        flush_events: pick(&[2, 1_000]),
        flush_slice: pick(&[1, 3 * DOCUMENT, 1 << 20]),
        memory: pick(&[0, 3 * DOCUMENT, 1 << 20]),
        uncommitted_events: pick(&[3, 1_000]),
        ..ShardSettings::default()
    };
    let moves = if Simulation::one_in(MOVING) { 3 + Simulation::below(3) } else { 0 };
    Plan {
        queues: pick(&[1, 2]) as QueueId,
        shards: pick(if moves > 0 { &[2, 3] } else { &[1, 2] }) as ShardId,
        moves,
        replicas: pick(&[1, 2]) as usize,
        dispatchers: pick(&[1, 2]) as usize,
        one_process: Simulation::one_in(4),
        max_events: pick(&[1, 3, 100]) as usize,
        lease_ttl: Duration::from_secs(pick(&[2, 5])),
        limits,
        shard,
        page: pick(&[1, 1 << 20]) as usize,
    }
}

impl History {
    fn new() -> History {
        let mut pond = Pond::new(plan());
        Simulation::tell(format_args!("{:?}", pond.plan));
        pond.start(|| true);
        let follows = Simulation::one_in(FOLLOWING);
        let (traffic, directory) = (Traffic::new(follows), Arc::<Directory>::default());
        for queue in 0..pond.plan.queues {
            let batches = 2 + Simulation::below(4) + pond.plan.moves;
            let (wire, ledger) = (pond.wire.clone(), pond.ledger.clone());
            let producing = traffic.clone().produce(queue, pond.plan.queues, batches, wire, ledger);
            Simulation::spawn(CLIENTS, producing);
        }
        for _ in 0..2 {
            Simulation::spawn(CLIENTS, watcher::read_on(directory.clone(), pond.ledger.clone()));
        }
        let followed: Vec<_> = (0..pond.plan.shards).map(|_| Arc::<Mutex<Followed>>::default()).collect();
        for (shard, known) in (0..).zip(&followed) {
            let follower = Follower { shard, directory: directory.clone(), known: known.clone() };
            Simulation::spawn(CLIENTS, follower.follow_on());
        }
        let operator = Arc::<Operator>::default();
        if pond.plan.moves > 0 {
            pond.wire.set_troubled(Simulation::one_in(3));
            Simulation::spawn(CLIENTS, operator.clone().work(pond.plan.moves, pond.wire.clone()));
        }
        History { pond, traffic, operator, directory, followed }
    }

    /// Lets time pass a little at a time, so that what has ended is noticed.
    fn pass(&mut self, duration: Duration) {
        let until = Simulation::elapsed() + duration;
        while Simulation::elapsed() < until {
            self.directory.update(&self.pond);
            Simulation::pass(Duration::from_millis(100).min(until - Simulation::elapsed()));
            self.pond.tend();
        }
    }

    /// From here on nothing befalls it.
    fn mend(&mut self) {
        self.pond.wire.set_troubled(false);
        self.pond.mend_disks();
    }

    fn crash_all(&mut self) {
        self.pond.crash_queue(Crash::Power);
        for number in 0..self.pond.replicas.len() {
            self.pond.crash_replica(number, Crash::Power);
        }
    }

    /// Until everything that was sent is done with, and everybody who follows knows.
    fn finish(&mut self) {
        let until = Simulation::elapsed() + DONE_WITHIN;
        while !(self.is_over() && self.pond.is_done() && self.all_know()) {
            assert!(Simulation::elapsed() < until, "it comes to no end: {}", self.standing());
            self.pond.start(|| true);
            self.pass(Duration::from_millis(300));
        }
    }

    fn is_over(&self) -> bool {
        self.traffic.is_over() && self.operator.is_over()
    }

    fn all_know(&self) -> bool {
        let (Some(lasts), Some(map)) = (self.pond.lasts(), self.pond.map()) else { return false };
        lasts.iter().zip(&self.followed).all(|(last, known)| {
            let known = known.lock();
            known.at == Some(*last) && known.map.as_ref().is_some_and(|known| known.version() == map.version())
        })
    }

    fn standing(&self) -> String {
        let queues = self.pond.queue.up.as_ref().map(|(_, queues)| queues.status());
        let replicas = self.pond.replicas.iter().map(|replica| {
            let open = replica.open.lock().upgrade();
            let at = open.map(|open| (*open.shard.applied().borrow(), *open.shard.committed().borrow()));
            format!("shard {} up {} disk {} at {at:?}", replica.shard, replica.up.is_some(), replica.disk.is_some())
        });
        let replicas: Vec<String> = replicas.collect();
        let followed: Vec<_> = self.followed.iter().map(|known| known.lock().at).collect();
        let over = (self.traffic.is_over(), self.operator.is_over());
        let map = self.pond.map().map(|map| (map.version(), map.moving.clone()));
        let not_opened = &self.pond.not_opened;
        format!(
            "{queues:?} ({not_opened}); {replicas:?}; followed {followed:?}; over: {over:?}; map {map:?}; {:?}",
            self.pond.plan
        )
    }

    /// What must hold of a pond that is done; its documents.
    fn check(&self) -> BTreeMap<String, Copy> {
        self.directory.update(&self.pond);
        let (sent, map) = (self.traffic.sent(), self.pond.map().expect("a map"));
        let filed = Filed::read(&self.pond.ledger, &self.pond.lasts().expect("up"));
        filed.assert_once(&sent);
        let (expected, dead) = model(&sent, &filed);

        let mut copies: BTreeMap<String, Copy> = BTreeMap::new();
        let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for replica in self.directory.all() {
            let shard = replica.shard;
            for document in documents() {
                let owner = map.map.owner(document.slot);
                let wish = Wish { least: owner.since, newest: false, map_version: map.version() };
                let asked = replica.clone();
                let (tag, answer) = (&document.tag, ask(async move { asked.ask(document, wish).await }));
                let given = match answer.expect("up") {
                    Answer::Given(given) if owner.shard == shard => given,
                    Answer::Elsewhere(_) if owner.shard != shard => continue,
                    answer => panic!("{tag} is of shard {}, and shard {shard} says {answer:?}", owner.shard),
                };
                // One that has everything on disk may not have pulled yet.
                assert!(given.behind.as_ref().is_none_or(|behind| behind == "unknown"), "{tag}: {:?}", given.behind);
                if let Some(copy) = given.copy {
                    self.pond.ledger.read(tag, &copy);
                    let elsewhere = copies.entry(tag.clone()).or_insert_with(|| copy.clone());
                    assert_eq!(*elsewhere, copy, "{tag}: two replicas differ");
                    parts.insert(tag.clone(), given.parts);
                }
            }
        }
        let all_held = documents().iter().filter_map(|document| {
            let body = &copies.get(&document.tag)?.body;
            Some((document.tag.clone(), held(&projections()[document.projection], body)))
        });
        let all_held: BTreeMap<String, Value> = all_held.filter(|(_, held)| !is_empty(held)).collect();
        let tags: Vec<&String> = all_held.keys().collect();
        assert_eq!(tags, expected.keys().collect::<Vec<_>>(), "documents that are there");
        for (tag, held) in &all_held {
            assert_eq!(*held, expected[tag], "{tag}");
        }
        for (shard, known) in (0..).zip(&self.followed) {
            let known = known.lock();
            let of_shard = documents().iter().filter(|document| map.map.owner(document.slot).shard == shard);
            for tag in of_shard.map(|document| &document.tag).filter(|tag| copies.contains_key(*tag)) {
                let latest = known.latest(tag, &parts[tag]);
                assert_eq!(latest, Some(copies[tag].version), "{tag}: a follower was not told");
            }
            for (tag, version) in known.fresh() {
                assert_eq!(version, copies[tag].version, "{tag}: a copy that is taken for fresh");
            }
        }

        let (_, queues) = self.pond.queue.up.clone().expect("up");
        let letters: Vec<DeadLetter> = ask(async move { QueueRole::dead(&*queues, usize::MAX).await.expect("read") });
        let found: Vec<_> = letters.iter().map(|letter| (letter.event.id.to_string(), letter.key.shard)).collect();
        assert_eq!(found.len(), dead.len(), "dead letters: {found:?}, expected {dead:?}");
        found.iter().for_each(|_| Simulation::befell(Befell::DeadLetter));
        assert_eq!(found.into_iter().collect::<Dead>(), dead, "dead letters");
        copies
    }
}

/// What `work` comes to, with everything else going on.
fn ask<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    let (answer, mut answered) = oneshot::channel();
    Simulation::spawn(CLIENTS, async move { drop(answer.send(work.await)) });
    let until = Simulation::elapsed() + DONE_WITHIN;
    loop {
        assert!(Simulation::elapsed() < until, "it is never answered");
        Simulation::steps(1);
        if let Ok(outcome) = answered.try_recv() {
            return outcome;
        }
    }
}
