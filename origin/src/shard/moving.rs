//! Slots that move between two shards while events flow and documents tell each other, and whoever is at work is
//! killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use millpond_shared::clock;
use millpond_shared::event::Event;
use millpond_shared::projection::Projection;
use millpond_shared::shard_map::{FirstMap, MapState, SLOTS, Slot, Slots};
use millpond_shared::version::{ShardId, Version};
use millpond_shared::wire::{Origin, headers};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::outbox::Attached;
use super::{Opening, Shard, ShardMetrics, ShardSettings};
use crate::api::documents::Documents;
use crate::database::{Database, DatabaseError, DatabaseRow};
use crate::dispatch::{Dispatcher, DispatcherSettings};
use crate::projection::testing::{declared, event, home_feeds};
use crate::queue::testing::{Machine, Random};
use crate::queue::{EventQueues, KnownMap, MapChange, QueueError, Queues, ShardMaps};
use crate::store::Place;
use crate::store::forgetful::Forgetful;

const FIRST: FirstMap = FirstMap { version: 1, shards: 2 };
const USERS: u64 = 40;
/// Users whose feeds are followed.
const POPULAR: u64 = 8;
/// Items that a home feed keeps, and the feeds that it gathers from.
const HOME_KEEP: usize = 5;
/// Followers of a feed that is not great.
const FANOUT_MAX: usize = 4;
/// A feed of all that happens, which is sent to another database.
const ALL: &str = r#"
    [[projection]]
    name = "p"
    kind = "feed"
    keep = 1000
    key = "{data.user}"
    item = { id = "{id}" }
    [[projection.output]]
    path = "/p/{key}"
    format = "json"
"#;
/// A wait that no test sees the end of, unless it fails.
const LONG: Duration = Duration::from_secs(30);

/// Another database, which all shards send the documents of the first projection to.
#[derive(Default)]
struct Table {
    /// By key, in the order in which they came: version, number of items.
    rows: Mutex<BTreeMap<String, Vec<(Version, usize)>>>,
    /// What was written while it was still another shard's.
    early: Mutex<Vec<(DatabaseRow, Arc<MapState>)>>,
}

/// The table, as one run of the shards knows it.
struct Connected {
    table: Arc<Table>,
    known: KnownMap,
}

#[async_trait]
impl Database for Connected {
    async fn put(&self, rows: &[DatabaseRow]) -> Result<(), DatabaseError> {
        for row in rows {
            let slot = Slot::of(&row.projection, &row.key);
            let is_early = |state: &Arc<MapState>| {
                let comes = |epoch, slots: &Slots| slots.contains(slot) && row.version.epoch >= epoch;
                state.moving.as_ref().is_some_and(|moving| comes(moving.epoch, &moving.slots))
            };
            self.table.early.lock().extend(self.known.get().filter(is_early).map(|state| (row.clone(), state)));
            let document: serde_json::Value = serde_json::from_str(&row.document).expect("JSON");
            let items = document["items"].as_array().expect("items").len();
            self.table.rows.lock().entry(row.key.clone()).or_default().push((row.version, items));
        }
        Ok(())
    }
}

impl Table {
    /// The last version of each document, with the number of its items, by path; and how many there were.
    fn newest(&self) -> BTreeMap<String, (Version, usize)> {
        let rows = self.rows.lock();
        rows.iter().filter_map(|(key, all)| Some((format!("/p/{key}"), *all.iter().max()?))).collect()
    }

    /// Versions that came more than once.
    fn repeated(&self) -> Vec<(String, Version)> {
        let rows = self.rows.lock();
        let repeated = |(key, all): (&String, &Vec<(Version, usize)>)| {
            let mut seen = BTreeSet::new();
            let again = all.iter().filter(|(version, _)| !seen.insert(*version));
            again.map(|(version, _)| (key.clone(), *version)).collect::<Vec<_>>()
        };
        rows.iter().flat_map(repeated).collect()
    }
}

/// Disks, which outlive what runs on them.
struct World {
    machine: Machine,
    disks: Vec<Forgetful>,
    table: Arc<Table>,
    projections: Arc<Vec<Projection>>,
    /// Events by user.
    events: BTreeMap<String, BTreeSet<String>>,
    /// Numbers of the events that are posts, by user.
    posts: BTreeMap<String, BTreeSet<u64>>,
    /// Whom each user follows.
    follows: BTreeMap<String, BTreeSet<String>>,
    made: u64,
    /// The last version of each document that a reader was given, by path.
    seen: BTreeMap<String, Version>,
    /// How long shards may take to write what they have applied.
    flush_every: Duration,
}

/// Everything in one process, which ends as in a power cut when this is dropped.
struct Running {
    queues: Arc<Queues>,
    known: KnownMap,
    documents: Documents,
    shards: Vec<Arc<Shard>>,
    _tasks: JoinSet<()>,
    _stop: watch::Sender<bool>,
}

impl World {
    fn new() -> World {
        World {
            machine: Machine::new(2),
            disks: (0..FIRST.shards).map(|_| Forgetful::new()).collect(),
            table: Arc::default(),
            projections: Arc::new(declared(&format!("{ALL}{}", home_feeds(HOME_KEEP, FANOUT_MAX)))),
            events: BTreeMap::new(),
            posts: BTreeMap::new(),
            follows: BTreeMap::new(),
            made: 0,
            seen: BTreeMap::new(),
            flush_every: Duration::from_millis(3),
        }
    }

    fn start(&self) -> Running {
        let queues = self.machine.open();
        let known = KnownMap::new(queues.clone(), FIRST);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let following = known.clone();
        tasks.spawn(async move { panic!("{}", following.follow().await) });
        let metrics = ShardMetrics::register(&Registry::new()).expect("metrics");
        let database = Arc::new(Connected { table: self.table.clone(), known: known.clone() });
        let mut shards = Vec::new();
        for (shard, disk) in (0..).zip(&self.disks) {
            let settings = ShardSettings { flush_every: self.flush_every, ..ShardSettings::default() };
            let opening = Opening {
                shard,
                map_version: FIRST.version,
                projections: self.projections.clone(),
                place: Place::Backend(Box::new(disk.clone())),
                queues: queues.clone(),
                events: Some(queues.clone()),
                settings,
                attached: vec![Attached { name: "table".to_owned(), projections: vec![0], database: database.clone() }],
            };
            let shard = Shard::open(opening, &metrics).expect("opened");
            let (running, stopped_too) = (shard.clone(), stopped.clone());
            tasks.spawn(async move { drop(running.run(stopped_too).await) });
            let following = shard.clone().follow_map(known.clone(), stopped.clone());
            tasks.spawn(async move { drop(following.await) });
            shards.push(shard);
        }
        let settings = DispatcherSettings { max_events: 7, ..DispatcherSettings::default() };
        let registry = Registry::new();
        let dispatcher = Dispatcher::new(queues.clone(), self.projections.clone(), known.clone(), settings, &registry)
            .expect("metrics");
        tasks.spawn(dispatcher.run(stopped));
        let documents = Documents::new(self.projections.clone(), known.clone(), shards.clone());
        Running { queues, known, documents, shards, _tasks: tasks, _stop: stop }
    }

    /// The same disks after a power cut.
    fn crash(self, running: Running) -> World {
        // All at one moment: what each has synced by then was known to those behind it in this order.
        let all = self.machine.events.iter().chain([&self.machine.shards]).chain(&self.disks);
        let still: Vec<_> = all.map(Forgetful::hold_syncs).collect();
        let (machine, disks) = (self.machine.crash(), self.disks.iter().map(Forgetful::crash).collect());
        drop(still);
        drop(running);
        // Claims of the dead dispatcher run out.
        machine.pass_ms(60_000);
        World { machine, disks, ..self }
    }

    fn make(&mut self, random: &mut Random) -> (u16, Event<'static>) {
        self.made += 1;
        let (id, user) = (format!("e{}", self.made), format!("u{}", random.below(USERS)));
        let whom = format!("u{}", random.below(POPULAR));
        let what = ["post", "post", "follow", "follow", "unfollow"][random.below(5) as usize];
        let data = format!(r#"{{"user":"{user}","what":"{what}","whom":"{whom}"}}"#);
        let event = event(&id, i64::try_from(self.made).unwrap_or(0), &data);
        match what {
            "post" => self.posts.entry(user.clone()).or_default().insert(self.made),
            "follow" => self.follows.entry(user.clone()).or_default().insert(whom),
            _ => self.follows.entry(user.clone()).or_default().remove(&whom),
        };
        self.events.entry(user.clone()).or_default().insert(id);
        (u16::try_from(user.len() % 2).unwrap_or(0), event)
    }

    async fn append(&mut self, running: &Running, random: &mut Random) {
        let (queue, event) = self.make(random);
        running.queues.append(queue, None, vec![event]).await.expect("appended");
    }

    /// Reads a document as clients do: it never goes back.
    async fn read(&mut self, running: &Running, path: &str) -> Option<BTreeSet<String>> {
        let request = Request::get(path).body(Bytes::new()).expect("a request");
        let answer = running.documents.answer(request).await;
        let field = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        if field(headers::BEHIND).is_some() || !answer.status().is_success() {
            return None;
        }
        let version: Version = field(headers::VERSION).and_then(|version| version.parse().ok()).expect("a version");
        let before = self.seen.insert(path.to_owned(), version);
        assert!(before.is_none_or(|before| before <= version), "{path}: {version} after {before:?}");
        let body: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        let ids =
            body["items"].as_array().expect("items").iter().map(|item| item["id"].as_str().expect("an id").to_owned());
        let ids: Vec<String> = ids.collect();
        let set: BTreeSet<String> = ids.iter().cloned().collect();
        assert_eq!(set.len(), ids.len(), "nothing is there twice");
        Some(set)
    }

    /// Reads a document of some user.
    async fn look(&mut self, running: &Running, random: &mut Random) {
        let projection = ["p", "home"][random.below(2) as usize];
        let path = format!("/{projection}/u{}", random.below(USERS));
        self.read(running, &path).await;
    }

    /// What the documents have to hold in the end, by path.
    fn model(&self) -> BTreeMap<String, BTreeSet<String>> {
        let all = self.events.iter().map(|(user, ids)| (format!("/p/{user}"), ids.clone()));
        let home = |(user, whom): (&String, &BTreeSet<String>)| {
            let mut posts: Vec<u64> = whom.iter().filter_map(|user| self.posts.get(user)).flatten().copied().collect();
            posts.sort_unstable();
            let newest: BTreeSet<String> = posts.iter().rev().take(HOME_KEEP).map(|made| format!("e{made}")).collect();
            (format!("/home/{user}"), newest)
        };
        all.chain(self.follows.iter().map(home)).collect()
    }

    /// Waits until every document holds all that it has to, and nothing else, and the table has them too.
    async fn compare(&mut self, running: &Running) {
        let began = clock::monotonic();
        for (path, ids) in self.model() {
            loop {
                let found = self.read(running, &path).await;
                // A home feed of which nothing has come yet is no document.
                if found.as_ref() == Some(&ids) || (found.is_none() && ids.is_empty()) {
                    break;
                }
                assert!(
                    began.elapsed() < LONG,
                    "{path}: {found:?}, not {ids:?}; map {:?}",
                    running.known.get().map(|map| map.version())
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let expected = |(path, ids): (String, BTreeSet<String>)| {
            let version = *self.seen.get(&path)?;
            path.starts_with("/p/").then_some((path, (version, ids.len())))
        };
        let expected: BTreeMap<_, _> = self.model().into_iter().filter_map(expected).collect();
        while self.table.newest() != expected {
            assert!(began.elapsed() < LONG, "{:?} and not {expected:?}", self.table.newest());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let early = self.table.early.lock();
        assert!(early.is_empty(), "written while it was handed over: {early:?}");
    }
}

impl Running {
    async fn state(&self) -> Arc<MapState> {
        assert!(self.known.known_within(LONG).await);
        self.known.get().expect("known")
    }

    /// Begins to move half of what a shard has, unless something moves already.
    async fn begin(&self, from: ShardId) {
        let owned = self.state().await.map.slots_of(from).len();
        self.begin_with(from, owned.div_ceil(2)).await;
    }

    /// The same with so many of its slots.
    async fn begin_with(&self, from: ShardId, count: usize) {
        let slots: Slots = self.state().await.map.slots_of(from).iter().take(count).collect();
        match self.queues.change_map(MapChange::Begin { slots, to: 1 - from }).await {
            Ok(state) => self.known.tell(state),
            Err(QueueError::Map { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn until_moved(&self) {
        let mut told = self.known.watch();
        let is_over = |told: &Option<Arc<MapState>>| told.as_ref().is_some_and(|state| state.moving.is_none());
        tokio::time::timeout(LONG, told.wait_for(is_over)).await.expect("in time").expect("followed");
    }
}

#[tokio::test]
async fn slots_move_to_and_fro_while_events_flow() {
    let mut random = Random::new(1);
    let mut world = World::new();
    let running = world.start();
    for round in 0..6 {
        for _ in 0..60 {
            world.append(&running, &mut random).await;
        }
        running.begin(round % 2).await;
        for _ in 0..60 {
            world.append(&running, &mut random).await;
            world.look(&running, &mut random).await;
        }
        running.until_moved().await;
    }
    world.compare(&running).await;
    let repeated = world.table.repeated();
    assert!(repeated.is_empty(), "both shards wrote it: {repeated:?}");
    let state = running.state().await;
    assert!(state.map.slots_of(0).len() != 512, "they have moved: {state:?}");
}

/// A shard without slots is not told of great feeds: what it then takes must have been merged before.
#[tokio::test]
async fn home_feeds_take_what_great_feeds_told_along_to_a_shard_that_had_no_slots() {
    let mut random = Random::new(3);
    let mut world = World::new();
    let running = world.start();
    for from in [1, 0, 1] {
        running.begin_with(from, SLOTS).await;
        running.until_moved().await;
        world.compare(&running).await;
        for _ in 0..300 {
            world.append(&running, &mut random).await;
            world.look(&running, &mut random).await;
        }
        world.compare(&running).await;
    }
    let merged: u64 = running.shards.iter().map(|shard| shard.metrics.merged.get()).sum();
    assert!(merged > 0, "there were great feeds");
}

#[tokio::test]
async fn a_power_cut_at_any_moment_of_a_move_loses_and_doubles_nothing() {
    let mut random = Random::new(7);
    let mut world = World::new();
    for _ in 0..30 {
        let running = world.start();
        let from = ShardId::try_from(random.below(2)).unwrap_or(0);
        for _ in 0..random.below(30) {
            world.append(&running, &mut random).await;
        }
        running.begin(from).await;
        for _ in 0..random.below(60) {
            world.append(&running, &mut random).await;
            world.look(&running, &mut random).await;
        }
        world = world.crash(running);
    }
    let running = world.start();
    world.compare(&running).await;
    running.state().await;
    running.until_moved().await;
    world.compare(&running).await;
}

/// The shard that takes slots is to give them on, and replays what it was given when it begins with that.
#[tokio::test]
async fn slots_that_are_given_on_by_a_shard_that_is_catching_up_lose_nothing() {
    let mut random = Random::new(9);
    let mut world = World::new();
    world.flush_every = Duration::from_millis(50);
    for round in 0..10 {
        let (from, to) = (round % 2, 1 - round % 2);
        let running = world.start();
        running.begin_with(from, SLOTS).await;
        for _ in 0..60 {
            world.append(&running, &mut random).await;
        }
        running.until_moved().await;
        running.begin_with(to, SLOTS).await;
        world = world.crash(running);
        let running = world.start();
        running.until_moved().await;
        running.begin_with(from, SLOTS).await;
        running.until_moved().await;
        world.compare(&running).await;
        world = world.crash(running);
    }
}
