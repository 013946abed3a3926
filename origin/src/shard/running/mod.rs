//! Shards that run. Here: pulling, applying, and what is in memory; `committing`, `reading` and `failing` are what they say.

mod committing;
mod failing;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use millpond_shared::route::Route;
use millpond_shared::version::Version;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::testing::{Call, Site, TestQueue};
use super::*;
use crate::projection::testing::{declared, event, feed};

fn site(flush_every: Duration) -> Site {
    let settings = ShardSettings { flush_every, ..ShardSettings::default() };
    Site { settings, ..Site::new(feed(2)) }
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
