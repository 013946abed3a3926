//! Random frames, flushes, crashes and followers, told again by their seed: `SEED=… cargo test simulation`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use millpond_shared::event::Event;
use millpond_shared::projection::{Projection, document_tag};
use millpond_shared::route::Route;
use millpond_shared::shard_map::ShardMap;
use millpond_shared::version::{Offset, QueueId, Version};
use millpond_shared::wire::{Change, ChangeMessage, Follow};
use parking_lot::Mutex;
use redb::StorageBackend;
use serde_json::{Value, json};

use super::held::CELL_BYTES;
use super::testing::Site;
use super::*;
use crate::projection::keep_of;
use crate::projection::testing::{EDITS_AND_LAST, declared};
use crate::queue::testing::Random;
use crate::render::Rendered;
use crate::store::forgetful::Forgetful;
use crate::store::shard_copy::Page;
use crate::store::shard_file::Write;

const USERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The seeds to run: the one that is asked for, or `count` of them.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (1..=count).collect(),
    }
}

fn site() -> Site {
    Site { shard: 1, map: Arc::new(ShardMap::even(1, 2)), ..Site::new(declared(EDITS_AND_LAST)) }
}

/// Event queues, and a dispatcher that files some rounds twice.
#[derive(Default)]
struct Producer {
    queues: [Vec<Event<'static>>; 2],
    filed: [usize; 2],
}

impl Producer {
    /// Some events with few ids and times, so that many of them collide; some without a usable `order`.
    fn produce(&mut self, random: &mut Random) {
        let queue = random.below(2) as usize;
        for _ in 0..=random.below(5) {
            let user = USERS[random.below(USERS.len() as u64) as usize];
            let n = if random.one_in(8) { json!("none") } else { json!(random.below(6)) };
            self.queues[queue].push(Event {
                id: random.below(30).to_string().into(),
                source: "s".into(),
                kind: "t".into(),
                subject: None,
                time: random.below(20) as i64 * 1_000_000_000,
                received: 1_000 * (1 + random.below(100)),
                data: json!({ "user": user, "n": n }).to_string().into(),
            });
        }
    }

    /// One round of one queue; at times from behind its cursor, as a dispatcher files it that has lost its cursor.
    fn dispatch(&mut self, site: &Site, random: &mut Random) {
        let queue = random.below(2) as usize;
        let back = if random.one_in(4) { random.below(5) as usize } else { 0 };
        let first = self.filed[queue].saturating_sub(back);
        let end = (first + 1 + random.below(6) as usize).min(self.queues[queue].len());
        if first >= end {
            return;
        }
        let frame = site.frame(queue as QueueId, first as Offset + 1, &self.queues[queue][first..end]);
        if !frame.events.is_empty() {
            site.queue.push(&frame);
        }
        self.filed[queue] = self.filed[queue].max(end);
    }

    fn dispatch_all(&mut self, site: &Site) {
        for queue in 0..2 {
            let first = self.filed[queue];
            if first < self.queues[queue].len() {
                let events = &self.queues[queue][first..];
                site.queue.push(&site.frame(queue as QueueId, first as Offset + 1, events));
                self.filed[queue] = self.queues[queue].len();
            }
        }
    }
}

/// (order, id) → body.
type Items = BTreeMap<(i64, String), String>;

/// What the documents must hold: (order, id) → item, the greatest body of each, the newest `keep`.
fn model(site: &Site, producer: &Producer) -> BTreeMap<String, Vec<Value>> {
    let mut documents: BTreeMap<String, (usize, Items)> = BTreeMap::new();
    for event in producer.queues.iter().flatten() {
        let data: Value = serde_json::from_str(&event.data).expect("JSON");
        let user = data["user"].as_str().expect("a user");
        for projection in site.projections.iter() {
            if site.map.owner_of(&projection.name, user).shard != site.shard {
                continue;
            }
            let (order, body) = if projection.name == "edits" {
                (Some(event.time), json!({"content_text": user, "id": event.id, "n": data["n"]}))
            } else {
                (data["n"].as_i64(), json!({"id": event.id, "n": data["n"]}))
            };
            let Some(order) = order else { continue };
            let tag = document_tag(&projection.name, user);
            let (_, items) = documents.entry(tag).or_insert((keep_of(&projection.kind), BTreeMap::new()));
            let kept = items.entry((order, event.id.to_string())).or_default();
            *kept = body.to_string().max(std::mem::take(kept));
        }
    }
    let newest = |(keep, items): (usize, Items)| {
        items.into_values().rev().take(keep).map(|body| serde_json::from_str(&body).expect("JSON")).collect()
    };
    documents.into_iter().map(|(tag, document)| (tag, newest(document))).collect()
}

/// Every document, by tag, as it is read.
async fn documents(shard: &Arc<Shard>) -> BTreeMap<String, Rendered> {
    // It is moved by hand: there is no queue to catch up with.
    shard.held_at_start.send_replace(Some(0));
    let mut all = BTreeMap::new();
    for (projection, declared) in shard.projections.iter().enumerate() {
        for user in USERS {
            let route = Route { projection, output: 0, key: user.to_owned() };
            let read = shard.document(&route, None).await.expect("read");
            if let Found::Document(rendered) = read.found {
                all.insert(document_tag(&declared.name, user), rendered.as_ref().clone());
            }
        }
    }
    all
}

fn items(projection: &Projection, rendered: &Rendered) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&rendered.body).expect("JSON");
    if projection.name == "edits" { body["items"].as_array().expect("items").clone() } else { vec![body] }
}

fn apply_all(shard: &Shard, site: &Site) {
    let applied = *shard.applied().borrow();
    shard.apply(&site.queue.frames(applied, usize::MAX)).expect("applied");
}

/// Commits one slice; whether there was one.
fn commit(shard: &Shard, bytes_max: u64) -> bool {
    let write = shard.state.write().slice(bytes_max);
    write.map(|write| shard.commit(write).expect("committed")).is_some()
}

/// A proxy: follows, comes back, and knows the version of every document it was told of.
#[derive(Default)]
struct Proxy {
    stream: Option<BoxStream<'static, ChangeMessage>>,
    at: Option<Position>,
    versions: BTreeMap<String, Version>,
    /// What was announced last since it had to revalidate.
    announced: BTreeMap<String, Version>,
}

impl Proxy {
    fn connect(&mut self, shard: &Shard) {
        self.stream = shard.follow(Follow { after: self.at });
    }

    async fn read(&mut self, shard: &Arc<Shard>) {
        let Some(stream) = &mut self.stream else { return };
        while let Some(message) = tokio::task::unconstrained(stream.next()).now_or_never() {
            match message.expect("not cut off") {
                ChangeMessage::Hello { resumed: true, .. } => {}
                ChangeMessage::Hello { resumed: false, at, .. } => {
                    // Told that it has a gap: it revalidates everything.
                    let all = documents(shard).await;
                    self.versions = all.into_iter().map(|(tag, rendered)| (tag, rendered.version)).collect();
                    self.announced.clear();
                    self.at = Some(at);
                }
                ChangeMessage::Changes { at, documents } => {
                    for Change { tag, version } in documents {
                        assert!(self.at.is_none_or(|seen| version.position > seen), "seen before: {tag} {version}");
                        let before = self.announced.insert(tag.clone(), version);
                        assert!(before.is_none_or(|before| before <= version), "{tag}: {version} after {before:?}");
                        // What it fetched when it revalidated may be later.
                        let known = self.versions.entry(tag).or_default();
                        *known = version.max(*known);
                    }
                    self.at = Some(at);
                }
                ChangeMessage::Tick { at } | ChangeMessage::Map { at, .. } => self.at = self.at.max(Some(at)),
            }
        }
    }
}

#[tokio::test]
async fn whatever_happens_the_documents_are_those_of_all_events() {
    for seed in seeds(300) {
        println!("SEED={seed}");
        let mut random = Random::seeded(seed);
        let mut site = site();
        // For all documents, for some, or for none but those that can't be dropped.
        site.settings.memory = [u64::MAX, 4 * CELL_BYTES, 0][random.below(3) as usize];
        let (mut producer, mut proxy) = (Producer::default(), Proxy::default());
        // A reader that names the least version it accepts, by its position.
        let mut reader: (Position, BTreeMap<String, Version>) = Default::default();
        let mut shard = site.open();
        for _ in 0..120 {
            match random.below(10) {
                0..=2 => producer.produce(&mut random),
                3..=4 => producer.dispatch(&site, &mut random),
                5..=6 => {
                    // At times a frame comes again that is applied already.
                    let applied = *shard.applied().borrow();
                    let after = applied.saturating_sub(random.below(2));
                    let most = 1 + random.below(4) as usize;
                    shard.apply(&site.queue.frames(after, most)).expect("applied");
                    assert!(*shard.applied().borrow() >= applied, "SEED={seed}");
                }
                7 => {
                    // Some slices of what is dirty: what comes next may be a crash.
                    for _ in 0..random.below(3) {
                        commit(&shard, 1 + random.below(4 * CELL_BYTES));
                    }
                }
                8 if random.one_in(2) => {
                    drop(shard);
                    site.disk = site.disk.crash();
                    shard = site.open();
                    proxy.stream = None;
                }
                8 => proxy.connect(&shard),
                _ => proxy.read(&shard).await,
            }
            let applied = *shard.applied().borrow();
            if applied >= reader.0 {
                let all = documents(&shard).await;
                for (tag, rendered) in &all {
                    let before = reader.1.get(tag).copied().unwrap_or_default();
                    assert!(rendered.version >= before, "SEED={seed} {tag}: {} after {before}", rendered.version);
                }
                let versions = all.into_iter().map(|(tag, rendered)| (tag, rendered.version)).collect();
                reader = (applied, versions);
            }
        }
        producer.dispatch_all(&site);
        apply_all(&shard, &site);
        let found = documents(&shard).await;

        // A shard that never crashed and takes the queue in one go.
        let fresh = Site { disk: Forgetful::new(), queue: site.queue.clone(), ..self::site() };
        let undisturbed = fresh.open();
        apply_all(&undisturbed, &fresh);
        assert_eq!(found, documents(&undisturbed).await, "SEED={seed}");

        let expected = model(&site, &producer);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "SEED={seed}");
        for (tag, rendered) in &found {
            let projection = site.projections.iter().find(|projection| tag.starts_with(&projection.name));
            assert_eq!(items(projection.expect("it"), rendered), expected[tag], "SEED={seed} {tag}");
        }

        if proxy.stream.is_none() {
            proxy.connect(&shard);
        }
        proxy.read(&shard).await;
        let versions: BTreeMap<_, _> = found.into_iter().map(|(tag, rendered)| (tag, rendered.version)).collect();
        assert_eq!(proxy.versions, versions, "SEED={seed}");
    }
}

/// A spare copies page after page of a file that is written meanwhile, and replays from the position of the first.
#[tokio::test]
async fn a_copy_of_a_shard_that_goes_on_comes_to_the_same_documents() {
    let projections = [declared(EDITS_AND_LAST), declared(&EDITS_AND_LAST.replace("keep = 3", "keep = 4"))];
    for seed in seeds(60) {
        println!("SEED={seed}");
        let (site, mut random, mut producer) = (site(), Random::seeded(seed), Producer::default());
        let primary = site.open();
        let mut goes_on = |random: &mut Random| {
            for _ in 0..random.below(6) {
                producer.produce(random);
                producer.dispatch(&site, random);
            }
            let applied = *primary.applied().borrow();
            primary.apply(&site.queue.frames(applied, 1 + random.below(4) as usize)).expect("applied");
            if random.one_in(2) {
                commit(&primary, 1 + random.below(4 * CELL_BYTES));
            }
        };
        for _ in 0..10 {
            goes_on(&mut random);
        }
        let spare = Site { disk: Forgetful::new(), queue: site.queue.clone(), ..self::site() };
        let identity = Identity { shard: site.shard, map_version: 1 };
        let open =
            |projections| ShardFile::open(Place::Backend(Box::new(spare.disk.clone())), 1 << 20, identity, projections);
        let (file, _) = open(&projections[0]).expect("opened");
        let mut page = primary.file.page(None, 1).expect("a page");
        let (committed, marks, taking) = (page.committed, page.marks.clone(), Some(page.taking));
        loop {
            file.adopt(&Page::decode(&page.encode()).expect("a page")).expect("adopted");
            goes_on(&mut random);
            let Some(last) = page.rows.last().filter(|_| page.more) else { break };
            page = primary.file.page(Some((&last.projection, &last.key)), 1).expect("a page");
        }
        file.commit(Write { committed, marks, taking, ..Write::default() }).expect("committed");
        drop(file);

        producer.dispatch_all(&site);
        apply_all(&primary, &site);
        let copied = spare.open();
        assert_eq!(*copied.applied().borrow(), committed, "SEED={seed}");
        apply_all(&copied, &spare);
        assert_eq!(documents(&copied).await, documents(&primary).await, "SEED={seed}");

        let (other, _) =
            ShardFile::open(Place::Backend(Box::new(Forgetful::new())), 1 << 20, identity, &projections[1])
                .expect("opened");
        let refused = other.adopt(&primary.file.page(None, 1).expect("a page")).expect_err("another declaration");
        assert!(refused.to_string().contains("`edits`"), "{refused}");
    }
}

/// A disk that remembers what a power cut would have left after each of its syncs.
#[derive(Clone, Debug, Default)]
struct Cuts {
    disk: Forgetful,
    cuts: Arc<Mutex<Vec<Forgetful>>>,
}

impl StorageBackend for Cuts {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync_data()?;
        self.cuts.lock().push(self.disk.crash());
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(offset, data)
    }
}

/// The opening: a shard commits a few times, and the power is cut after each single sync of each commit, the first
/// ones of a new file included. The end: every one of these shards, reopened, comes to the same bytes.
#[tokio::test]
async fn after_a_power_cut_at_any_sync_the_replayed_shard_is_the_same() {
    let seed = seeds(1)[0];
    println!("SEED={seed}");
    let (site, mut random, mut producer) = (site(), Random::seeded(seed), Producer::default());
    let disk = Cuts::default();
    let shard = site.open_on(Place::Backend(Box::new(disk.clone()))).expect("opened");
    for _ in 0..12 {
        for _ in 0..4 {
            producer.produce(&mut random);
            producer.dispatch(&site, &mut random);
        }
        apply_all(&shard, &site);
        while commit(&shard, 2 * CELL_BYTES) {}
    }
    producer.dispatch_all(&site);
    apply_all(&shard, &site);
    let expected = documents(&shard).await;

    let mut cuts = disk.cuts.lock().clone();
    // redb writes its magic number with the second sync of a file's life: before that there is no file to open, and
    // nothing was in it.
    cuts.remove(0);
    let mut restarts = BTreeSet::new();
    for (index, cut) in cuts.iter().enumerate() {
        let reopened = site.open_on(Place::Backend(Box::new(cut.clone())));
        let reopened = reopened.unwrap_or_else(|error| panic!("SEED={seed} cut {index}: {error}"));
        restarts.insert(*reopened.applied().borrow());
        apply_all(&reopened, &site);
        assert_eq!(documents(&reopened).await, expected, "SEED={seed} cut {index}");
    }
    assert!(restarts.len() >= 12, "the cuts lie between many commits: {restarts:?}");
}
