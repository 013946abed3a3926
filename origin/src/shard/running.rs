//! Shards that run: pulling, committing, stopping, failing.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use millpond_shared::projection::Projection;
use millpond_shared::route::Route;
use millpond_shared::version::Version;
use millpond_shared::wire::{ChangeMessage, Follow, HandedDocument, Handover};
use parking_lot::{Condvar, Mutex};
use prometheus::Registry;
use redb::StorageBackend;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::testing::{Call, Site, TestQueue};
use super::*;
use crate::projection::Document;
use crate::projection::testing::{declared, event};
use crate::queue::testing::Machine;
use crate::queue::{DispatchQueues, EventQueues, Queues, Round, RoundFrame};
use crate::store::forgetful::Forgetful;

fn feed() -> Vec<Projection> {
    declared("name = \"p\"\nkind = \"feed\"\nkeep = 2\nkey = \"{data.user}\"\nitem = { id = \"{id}\" }")
}

fn site(flush_every: Duration) -> Site {
    let settings = ShardSettings { flush_every, ..ShardSettings::default() };
    Site { settings, ..Site::new(feed()) }
}

const NEVER: Duration = Duration::from_secs(3600);
const AT_ONCE: Duration = Duration::from_millis(1);

struct Running {
    shard: Arc<Shard>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), ShardError>>,
}

fn run(shard: Arc<Shard>) -> Running {
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn({
        let shard = shard.clone();
        async move { shard.run(stopped).await }
    });
    Running { shard, stop, task }
}

impl Running {
    async fn stopped(self) -> Result<(), ShardError> {
        self.stop.send_replace(true);
        self.task.await.expect("no panic")
    }

    async fn body(&self, key: &str, least: Position) -> String {
        let read = self.shard.document(&route(key), Some(least)).await.expect("read");
        let Found::Document(rendered) = read.found else { panic!("{read:?}") };
        assert!(read.position >= least);
        String::from_utf8(rendered.body.to_vec()).expect("text")
    }
}

/// Runs a shard until it has applied this much, and committed it.
async fn run_to(site: &Site, position: Position) {
    let running = run(site.open());
    running.shard.applied().wait_for(|applied| *applied == position).await.expect("applied");
    running.stopped().await.expect("stopped");
}

fn route(key: &str) -> Route {
    Route { projection: 0, output: 0, key: key.to_owned() }
}

#[tokio::test]
async fn what_is_pulled_is_served_and_what_was_applied_is_on_disk_after_a_stop() {
    let site = site(NEVER);
    let running = run(site.open());
    site.push(event("a", 1, r#"{"user":"x"}"#));
    let last = site.push(event("b", 2, r#"{"user":"x"}"#));
    assert_eq!(running.body("x", last).await, r#"{"key":"x","title":"x","items":[{"id":"b"},{"id":"a"}]}"#);
    running.stopped().await.expect("stopped");
    assert_eq!(*site.queue.committed.borrow(), Some(last));

    let registered = Call::Committed { consumer: "primary".to_owned(), position: 0 };
    assert_eq!(site.queue.calls.lock()[0], registered, "a consumer makes itself known before it pulls");

    let site = Site { disk: site.disk.crash(), queue: TestQueue::new(), ..site };
    let shard = site.open();
    assert_eq!(*shard.applied().borrow(), last);
    let read = shard.document(&route("x"), Some(last)).await.expect("read");
    assert!(matches!(read.found, Found::Document(rendered) if rendered.version == Version::new(1, last)));
}

#[tokio::test]
async fn commits_go_on_by_time_and_by_amount() {
    let by_time = site(AT_ONCE);
    let mut by_bytes = site(NEVER);
    by_bytes.settings.flush_bytes = 1;
    let mut by_events = site(NEVER);
    by_events.settings.flush_events = 1;
    for site in [by_time, by_bytes, by_events] {
        let running = run(site.open());
        for id in ["a", "b", "c"] {
            let position = site.push(event(id, 1, r#"{"user":"x"}"#));
            let mut told = site.queue.committed.subscribe();
            told.wait_for(|told| *told >= Some(position)).await.expect("committed");
        }
        running.stopped().await.expect("stopped");
    }
}

/// What it would write changes again at once, and the queue holds it still.
#[tokio::test]
async fn a_shard_that_catches_up_writes_later() {
    let mut site = site(NEVER);
    (site.settings.flush_events, site.settings.uncommitted_events, site.settings.memory) = (1, 1_000, 1_000);
    for id in ["a", "b", "c"] {
        site.push(event(id, 1, r#"{"user":"x"}"#));
    }
    let shard = site.open();
    assert!(shard.is_flush_due(0, 1, 1), "it does not know that there is more");
    shard.take(site.queue.pulled(0, 1).into()).await.expect("applied");
    let due = [(0, 500, 500), (400, 1, 1), (501, 1, 1), (0, 1, 751)];
    let is_due = |(dirty, events, uncommitted)| shard.is_flush_due(dirty, events, uncommitted);
    assert_eq!(due.map(is_due), [false, false, true, true]);
    shard.take(site.queue.pulled(1, 2).into()).await.expect("applied");
    assert_eq!(due.map(is_due), [true; 4]);
}

/// Its queue went away before it had caught up: nobody knows for how long.
#[tokio::test]
async fn a_shard_that_does_not_come_on_writes_what_it_has() {
    let site = site(AT_ONCE);
    for id in ["a", "b", "c"] {
        site.push(event(id, 1, r#"{"user":"x"}"#));
    }
    let shard = site.open();
    shard.take(site.queue.pulled(0, 1).into()).await.expect("applied");
    let (_over, is_over) = watch::channel(false);
    let mut committed = shard.committed();
    tokio::select! {
        ended = shard.flush_loop(is_over) => panic!("{ended:?}"),
        told = committed.wait_for(|committed| *committed == 1) => assert!(told.is_ok()),
    }
}

/// A change of thread would cost more than applying it. That the file may hold other documents makes no difference.
#[tokio::test]
async fn a_small_batch_about_documents_in_memory_is_applied_at_once() {
    let site = site(NEVER);
    let first = site.push(event("a", 1, r#"{"user":"x"}"#));
    run_to(&site, first).await;
    let site = Site { disk: site.disk.crash(), ..site };
    let shard = site.open();
    for id in ["b", "c"] {
        site.push(event(id, 2, r#"{"user":"x"}"#));
    }
    shard.take(site.queue.pulled(first, 1).into()).await.expect("applied");
    assert!(shard.state.read().is_cold());
    let taken = shard.take(site.queue.pulled(first + 1, 1).into()).now_or_never();
    taken.expect("at once").expect("applied");
    let read = shard.document(&route("x"), Some(first + 2)).await.expect("read");
    assert!(matches!(read.found, Found::Document(rendered) if rendered.version == Version::new(1, first + 2)));
}

#[tokio::test]
async fn lag_is_the_events_in_the_queue_that_are_not_applied() {
    let site = site(NEVER);
    let events: Vec<_> = (0..6).map(|n| event(&n.to_string(), n, r#"{"user":"x"}"#)).collect();
    for (first, events) in [(1, &events[..3]), (4, &events[3..4]), (5, &events[4..])] {
        site.queue.push(&site.frame(0, first, events));
    }
    let shard = site.open();
    let take = async |after, most| {
        shard.take(site.queue.pulled(after, most).into()).await.expect("applied");
        (*shard.applied().borrow(), shard.metrics.lag.get())
    };
    assert_eq!(take(0, 0).await, (0, 6), "nothing of it is applied");
    assert_eq!(take(0, 1).await, (1, 3));
    assert_eq!(take(1, 2).await, (3, 0));
    let repeated = site.queue.push(&site.frame(0, 5, &events[4..]));
    assert_eq!(take(3, 0).await, (3, 2));
    assert_eq!(take(3, 1).await, (repeated, 0), "what changes nothing is done with too");
}

#[tokio::test]
async fn what_can_not_be_applied_is_laid_aside_before_the_position_behind_it_is_told() {
    let mut site = Site::new(declared(
        "name = \"p\"\nkind = \"feed\"\nkey = \"{data.user}\"\norder = \"{data.o}\"\nitem = { id = \"{id}\" }",
    ));
    site.settings.flush_every = AT_ONCE;
    let running = run(site.open());
    site.push(event("dead", 1, r#"{"user":"x","o":"none"}"#));
    let last = site.push(event("alive", 2, r#"{"user":"x","o":7}"#));
    assert!(running.body("x", last).await.contains("alive"), "nothing waits for it");
    let mut told = site.queue.committed.subscribe();
    told.wait_for(|told| *told >= Some(last)).await.expect("committed");
    running.stopped().await.expect("stopped");
    let dead = site.queue.dead.lock().clone();
    let [letter] = dead.as_slice() else { panic!("{dead:?}") };
    assert_eq!((letter.key.to_string().as_str(), letter.event.id.as_ref()), ("0:1:0", "dead"));
    assert!(letter.reason.starts_with("not in p/x: its `order` is neither"), "{}", letter.reason);
    let calls = site.queue.calls.lock().clone();
    let buried = calls.iter().position(|call| *call == Call::Other("bury"));
    let told = calls.iter().position(|call| matches!(call, Call::Committed { position: 1.., .. }));
    assert!(buried.is_some() && buried < told, "{calls:?}");
}

#[tokio::test]
async fn a_document_without_events_is_nothing_yet() {
    let site = site(NEVER);
    let read = site.open().document(&route("x"), None).await.expect("read");
    assert!(matches!(read.found, Found::Nothing(version) if version == Version::new(1, 0)), "{read:?}");
}

#[tokio::test]
async fn a_reader_waits_for_its_position_but_not_for_ever() {
    let site = site(NEVER);
    let running = run(site.open());
    let waiting = tokio::spawn({
        let shard = running.shard.clone();
        async move { shard.document(&route("x"), Some(1)).await.map(|read| read.position) }
    });
    site.push(event("a", 1, r#"{"user":"x"}"#));
    assert_eq!(waiting.await.expect("no panic").expect("read"), 1);
    let behind = running.shard.document(&route("x"), Some(2)).await.expect_err("behind");
    assert!(matches!(behind, NotRead::Behind { applied: 1, least: 2 }), "{behind}");
    running.stopped().await.expect("stopped");
}

#[tokio::test]
async fn what_is_read_after_a_crash_is_not_older_than_before() {
    let site = site(NEVER);
    let running = run(site.open());
    let last = site.push(event("a", 1, r#"{"user":"x"}"#));
    running.body("x", last).await;

    // Nothing was committed; the queue has it still.
    let site = Site { disk: site.disk.crash(), ..site };
    let shard = site.open();
    let reading = tokio::spawn({
        let shard = shard.clone();
        async move { shard.document(&route("x"), None).await }
    });
    while shard.held_at_start.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    let running = run(shard);
    let read = reading.await.expect("no panic").expect("read");
    assert!(
        matches!(read, Read { position, behind: Behind::Nothing, found: Found::Document(_), .. } if position == last),
        "{read:?}"
    );
    running.stopped().await.expect("stopped");
}

/// It may have given newer documents before: nobody knows what its queue holds.
#[tokio::test(start_paused = true)]
async fn a_shard_that_was_started_and_can_not_reach_its_queue_says_so() {
    let site = site(NEVER);
    let shard = site.open();
    site.push(event("a", 1, r#"{"user":"x"}"#));
    let read = shard.document(&route("x"), None).await.expect("read");
    assert!(matches!(&read, Read { position: 0, behind: Behind::Unknown, found: Found::Nothing(_), .. }), "{read:?}");
    shard.take(site.queue.pulled(0, 1).into()).await.expect("applied");
    let read = shard.document(&route("x"), None).await.expect("read");
    assert!(matches!(&read, Read { position: 1, behind: Behind::Nothing, found: Found::Document(_), .. }), "{read:?}");
}

#[tokio::test]
async fn a_shard_that_has_to_catch_up_gives_older_documents_and_says_so() {
    let site = site(NEVER);
    let first = site.push(event("a", 1, r#"{"user":"x"}"#));
    let shard = site.open();
    shard.take(site.queue.pulled(0, 1).into()).await.expect("applied");
    for id in ["b", "c"] {
        site.push(event(id, 2, r#"{"user":"x"}"#));
    }
    // What it is told by the first pull after a restart: there is more than came with it.
    shard.held_at_start.send_replace(Some(first + 2));
    let read = shard.document(&route("x"), Some(first)).await.expect("read");
    assert!(
        matches!(&read, Read { position: 1, behind: Behind::Positions(2), found: Found::Document(_), .. }),
        "{read:?}"
    );
    let read = shard.document(&route("y"), None).await.expect("read");
    assert!(
        matches!(&read, Read { position: 1, behind: Behind::Positions(2), found: Found::Nothing(_), .. }),
        "{read:?}"
    );
    let refused = shard.document(&route("x"), Some(first + 1)).await.expect_err("a client was given more before");
    assert!(matches!(refused, NotRead::Behind { applied: 1, least: 2 }), "{refused}");
    shard.take(site.queue.pulled(1, 2).into()).await.expect("applied");
    let read = shard.document(&route("x"), None).await.expect("read");
    assert!(matches!(&read, Read { position: 3, behind: Behind::Nothing, .. }), "{read:?}");
}

/// Whoever knows of no position asks for all that the queue holds, and is told where that was not to be had.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_cut_off_from_its_queue_says_so_to_who_asks_for_the_newest() {
    let site = site(NEVER);
    let shard = site.open();
    site.push(event("a", 1, r#"{"user":"x"}"#));
    shard.take(site.queue.pulled(0, 1).into()).await.expect("applied");
    let read = async || {
        let newest = shard.newest().await;
        (newest, shard.document(&route("x"), None).await.expect("read").for_newest(newest))
    };
    assert!(matches!(read().await, (Some(1), Read { position: 1, behind: Behind::Nothing, .. })));
    site.queue.is_cut_off.store(true, Ordering::Relaxed);
    site.push(event("b", 2, r#"{"user":"x"}"#));
    assert!(matches!(
        read().await,
        (None, Read { position: 1, behind: Behind::Unknown, found: Found::Document(_), .. })
    ));
    let plain = shard.document(&route("x"), None).await.expect("read");
    assert!(matches!(plain, Read { position: 1, behind: Behind::Nothing, .. }), "nobody asked the queue");
    site.queue.is_cut_off.store(false, Ordering::Relaxed);
    assert!(
        matches!(read().await, (Some(2), Read { position: 1, behind: Behind::Positions(1), .. })),
        "not pulled yet"
    );
    let waiting = tokio::spawn({
        let shard = shard.clone();
        async move { shard.newest().await }
    });
    let asked = || site.queue.calls.lock().iter().filter(|call| **call == Call::Other("newest")).count();
    while asked() < 4 {
        tokio::task::yield_now().await;
    }
    shard.take(site.queue.pulled(1, 1).into()).await.expect("applied");
    assert_eq!((waiting.await.expect("no panic"), *shard.applied().borrow()), (Some(2), 2), "it waits a little");
    // Readers that come together are answered together.
    let before = asked();
    let readers = futures_util::future::join_all((0..100).map(|_| shard.newest())).await;
    assert!(readers.iter().all(|newest| *newest == Some(2)) && asked() - before <= 2, "{} times", asked() - before);
}

/// A shard with 50 documents on disk and memory for few, and what it has dropped of them.
#[tokio::test]
async fn documents_that_do_not_fit_into_memory_are_read_back_when_they_are_needed() {
    let mut site = site(AT_ONCE);
    let all: Vec<_> = (0..50).map(|n| event("a", n, &format!(r#"{{"user":"u{n}"}}"#))).collect();
    let first = site.queue.push(&site.frame(0, 1, &all));
    let one = 400;
    site.settings.memory = 10 * one;
    let running = run(site.open());
    let mut told = site.queue.committed.subscribe();
    told.wait_for(|told| *told >= Some(first)).await.expect("committed");
    // With the next batch the loop makes room.
    let second = site.queue.push(&site.frame(0, 51, &[event("b", 99, r#"{"user":"u7"}"#)]));
    for n in 0..50 {
        let items = if n == 7 { r#"[{"id":"b"},{"id":"a"}]"# } else { r#"[{"id":"a"}]"# };
        let key = format!("u{n}");
        let expected = format!(r#"{{"key":"{key}","title":"{key}","items":{items}}}"#);
        assert_eq!(running.body(&key, second).await, expected);
        assert!(running.shard.state.read().bytes() <= site.settings.memory + one, "{key}");
    }
    let metrics = &running.shard.metrics;
    assert!(metrics.dropped.get() > 30 && metrics.read.get() > 30, "{} {}", metrics.dropped.get(), metrics.read.get());
    assert!(matches!(
        running.shard.document(&route("nobody"), None).await.expect("read"),
        Read { found: Found::Nothing(_), .. }
    ));
    running.stopped().await.expect("stopped");
}

/// A restart reads nothing but the position; what is asked for, or changes, is read then.
#[tokio::test]
async fn an_opened_shard_has_nothing_in_memory() {
    let site = site(NEVER);
    let running = run(site.open());
    let all: Vec<_> = (0..9).map(|n| event("a", n, &format!(r#"{{"user":"u{n}"}}"#))).collect();
    let first = site.queue.push(&site.frame(0, 1, &all));
    running.body("u1", first).await;
    running.stopped().await.expect("stopped");
    let site = Site { disk: site.disk.crash(), ..site };
    let running = run(site.open());
    assert_eq!((*running.shard.applied().borrow(), running.shard.state.read().documents()), (first, 0));
    let second = site.queue.push(&site.frame(0, 10, &[event("b", 99, r#"{"user":"u1"}"#)]));
    assert_eq!(running.body("u1", second).await, r#"{"key":"u1","title":"u1","items":[{"id":"b"},{"id":"a"}]}"#);
    assert_eq!(running.body("u2", second).await, r#"{"key":"u2","title":"u2","items":[{"id":"a"}]}"#);
    assert_eq!(running.shard.state.read().documents(), 2);
    running.stopped().await.expect("stopped");
}

#[tokio::test]
async fn a_shard_whose_queue_is_away_gives_what_it_has() {
    let site = site(NEVER);
    let running = run(site.open());
    let last = site.push(event("a", 1, r#"{"user":"x"}"#));
    running.body("x", last).await;
    running.stopped().await.expect("stopped");
    let read = site.open().document(&route("x"), None).await.expect("read");
    assert!(matches!(read.found, Found::Document(_)), "{read:?}");
}

#[tokio::test]
async fn an_output_is_rendered_once_for_a_version() {
    let site = site(NEVER);
    let running = run(site.open());
    let metrics = &running.shard.metrics;
    let position = site.push(event("a", 1, r#"{"user":"x"}"#));
    for _ in 0..3 {
        running.body("x", position).await;
    }
    let before = (metrics.rendered.get(), metrics.memoised.get());
    let position = site.push(event("b", 1, r#"{"user":"x"}"#));
    running.body("x", position).await;
    assert_eq!((before, metrics.rendered.get()), ((1, 2), 2));
    running.stopped().await.expect("stopped");
}

#[tokio::test]
async fn a_large_document_is_rendered_all_the_same() {
    let site = Site::new(declared(
        "name = \"p\"\nkind = \"latest\"\nkey = \"{data.user}\"\nitem = { text = \"{data.text}\" }",
    ));
    let running = run(site.open());
    let text = "x".repeat(400_000);
    let position = site.push(event("a", 1, &format!(r#"{{"user":"x","text":"{text}"}}"#)));
    assert_eq!(running.body("x", position).await, format!(r#"{{"text":"{text}"}}"#));
    running.stopped().await.expect("stopped");
}

#[tokio::test]
async fn an_announced_change_can_be_read() {
    let site = site(NEVER);
    let running = run(site.open());
    let mut stream = running.shard.follow(Follow::default()).expect("a stream");
    let mut versions: BTreeMap<String, Version> = BTreeMap::new();
    for id in 0..50 {
        let position = site.push(event(&id.to_string(), id, r#"{"user":"x"}"#));
        while versions.get("p/x").is_none_or(|version| version.position < position) {
            match stream.next().await.expect("a message") {
                ChangeMessage::Changes { documents, .. } => {
                    for change in documents {
                        let read = running.shard.document(&route("x"), None).await.expect("read");
                        let Found::Document(rendered) = read.found else { panic!("announced, not there") };
                        assert!(rendered.version >= change.version);
                        versions.insert(change.tag, change.version);
                    }
                }
                ChangeMessage::Hello { .. } | ChangeMessage::Tick { .. } | ChangeMessage::Map { .. } => {}
            }
        }
    }
    running.stopped().await.expect("stopped");
    while stream.next().await.is_some() {}
}

#[tokio::test]
async fn a_failed_commit_stops_the_shard_with_an_error() {
    let site = site(AT_ONCE);
    let running = run(site.open());
    site.disk.fail();
    site.push(event("a", 1, r#"{"user":"x"}"#));
    let error = running.task.await.expect("no panic").expect_err("stopped");
    assert!(matches!(error, ShardError::Commit { shard: 0, .. }), "{error}");
    assert!(running.shard.follow(Follow::default()).is_none());
}

#[tokio::test]
async fn a_queue_that_is_away_is_tried_again_and_one_that_lost_data_is_not() {
    let site = site(NEVER);
    let away = || QueueError::Unreachable { problem: "refused".to_owned() };
    site.queue.errors.lock().extend([away(), away()]);
    let running = run(site.open());
    let position = site.push(event("a", 1, r#"{"user":"x"}"#));
    running.body("x", position).await;

    site.queue.errors.lock().push(QueueError::Ahead { shard: 0, after: 9, last: 1 });
    site.push(event("b", 1, r#"{"user":"x"}"#));
    let error = running.task.await.expect("no panic").expect_err("stopped");
    assert!(matches!(error, ShardError::Queue(QueueError::Ahead { .. })), "{error}");
    assert_eq!(*site.queue.committed.borrow(), Some(site.queue.last()), "what was applied is on disk");
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_stops_the_shard_behind_the_one_before() {
    let site = site(NEVER);
    site.push(event("a", 1, r#"{"user":"x"}"#));
    let mut blob = Document::empty(&site.projections[0].kind).encode();
    blob[0] = 99;
    let document = HandedDocument { projection: 0, key: "x".into(), blob: blob.into() };
    let fingerprint = site.projections[0].state_fingerprint();
    let projections = vec![("p".into(), fingerprint)];
    site.queue.hand_over(&Handover { epoch: 2, from: 1, is_last: true, projections, documents: vec![document] });
    let running = run(site.open());
    let error = running.task.await.expect("no panic").expect_err("stopped");
    assert!(error.to_string().contains("position 2") && error.to_string().contains("format 99"), "{error}");
    assert_eq!(*site.queue.committed.borrow(), Some(1));
}

/// A disk whose syncs wait at a gate while it is shut.
#[derive(Clone, Debug, Default)]
struct Gated {
    disk: Forgetful,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Debug, Default)]
struct Gate {
    shut: bool,
    waiting: bool,
}

impl Gated {
    fn set(&self, change: impl FnOnce(&mut Gate)) {
        change(&mut self.gate.0.lock());
        self.gate.1.notify_all();
    }

    fn wait_until(&self, reached: impl Fn(&Gate) -> bool) {
        let mut gate = self.gate.0.lock();
        self.gate.1.wait_while(&mut gate, |gate| !reached(gate));
    }
}

impl StorageBackend for Gated {
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
        self.set(|gate| gate.waiting = gate.shut);
        self.wait_until(|gate| !gate.shut);
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(offset, data)
    }
}

#[tokio::test]
async fn pulling_waits_while_too_much_is_not_on_disk() {
    let settings = || ShardSettings { flush_every: AT_ONCE, ..ShardSettings::default() };
    for settings in [ShardSettings { uncommitted_events: 3, ..settings() }, ShardSettings { memory: 100, ..settings() }]
    {
        pulling_waits(settings).await;
    }
}

async fn pulling_waits(settings: ShardSettings) {
    let site = Site { settings, ..Site::new(feed()) };
    let disk = Gated::default();
    let shard = site.open_on(Place::Backend(Box::new(disk.clone()))).expect("opened");
    disk.set(|gate| gate.shut = true);
    let events: Vec<_> = (0..4).map(|id| event(&id.to_string(), id, r#"{"user":"x"}"#)).collect();
    let first = site.queue.push(&site.frame(0, 1, &events));
    let running = run(shard);
    running.body("x", first).await;

    let at_the_gate = disk.clone();
    let reached = tokio::task::spawn_blocking(move || at_the_gate.wait_until(|gate| gate.waiting));
    reached.await.expect("no panic");
    let second = site.push(event("late", 9, r#"{"user":"x"}"#));
    site.queue.calls.lock().push(Call::Other("the gate opens"));
    disk.set(|gate| gate.shut = false);
    running.body("x", second).await;
    running.stopped().await.expect("stopped");

    let calls = site.queue.calls.lock().clone();
    let place = |call: Call| calls.iter().position(|made| *made == call).expect("made");
    assert!(place(Call::Other("the gate opens")) < place(Call::Pull { after: first }), "{calls:?}");
}

/// The queue role, its disk, and one shard of it, all of which lose their power together.
#[tokio::test]
async fn a_shard_and_its_embedded_queue_survive_a_power_cut() {
    let site = site(AT_ONCE);
    let machine = Machine::new(1);
    let queues = machine.open();
    let lease = queues.acquire(0, "dispatcher", Duration::from_secs(60)).await.expect("a lease");
    let events: Vec<_> = (0..4).map(|n| event(&n.to_string(), n, r#"{"user":"x"}"#)).collect();
    queues.append(0, None, events.clone()).await.expect("appended");

    let open = |site: &Site, queues: Arc<Queues>| {
        let metrics = ShardMetrics::register(&Registry::new()).expect("metrics");
        Shard::open(Opening { queues, ..site.opening(Place::Backend(Box::new(site.disk.clone()))) }, &metrics)
    };
    let running = run(open(&site, queues.clone()).expect("opened"));
    for (first, events) in (1..).zip(events.chunks(1)) {
        let bytes = site.frame(0, first, events).encode().into();
        let frame = RoundFrame { shard: 0, events: 1, bytes };
        queues.push(lease, Round { first, last: first, map_version: 1, frames: vec![frame] }).await.expect("pushed");
    }
    let mut committed = running.shard.committed();
    committed.wait_for(|committed| *committed >= 2).await.expect("committed");
    let body = running.body("x", 4).await;

    let (machine, site) = (machine.crash(), Site { disk: site.disk.crash(), ..site });
    let again = run(open(&site, machine.open()).expect("opened"));
    assert_eq!(again.body("x", 4).await, body);
    assert_eq!(body, r#"{"key":"x","title":"x","items":[{"id":"3"},{"id":"2"}]}"#);
    running.stopped().await.expect("stopped");
    again.stopped().await.expect("stopped");
    queues.close().await;
}
