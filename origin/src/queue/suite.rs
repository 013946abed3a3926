//! One suite for both engines, and both ways to reach them: called directly, and over HTTP. All must give the same answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millpond_shared::shard_map::{Final, FirstMap, MapState, Owner, Slot, Stage};
use tokio::sync::watch;

use super::limits::FORGET_EVERY_MS;
use super::testing::{Machine, event, is_of, round_frame, taken_ids};
use super::*;
use crate::api::queues::QueuesApi;
use crate::projection::{Item, News, Told};

const TTL: Duration = Duration::from_secs(10);
const WINDOW: Option<Duration> = Some(Duration::from_secs(600));
/// A wait that no test sees the end of, unless it fails.
const LONG: Duration = Duration::from_secs(30);

/// The doors under test.
struct Doors {
    machine: Machine,
    events: Arc<dyn EventQueues>,
    dispatch: Arc<dyn DispatchQueues>,
    shards: Arc<dyn ShardQueues>,
    maps: Arc<dyn ShardMaps>,
    queues: Arc<dyn QueueRole>,
    _server: Option<watch::Sender<bool>>,
}

async fn embedded(machine: Machine) -> Doors {
    directly(machine.open(), machine)
}

async fn embedded_over_http(machine: Machine) -> Doors {
    over_http(machine.open(), machine).await
}

async fn on_nats(mut machine: Machine) -> Doors {
    directly(machine.open_on_nats().await, machine)
}

async fn on_nats_over_http(mut machine: Machine) -> Doors {
    over_http(machine.open_on_nats().await, machine).await
}

fn directly<Q: QueueRole + 'static>(queues: Arc<Q>, machine: Machine) -> Doors {
    let (events, dispatch, shards, maps) = (queues.clone(), queues.clone(), queues.clone(), queues.clone());
    Doors { machine, events, dispatch, shards, maps, queues, _server: None }
}

async fn over_http(queues: Arc<dyn QueueRole>, machine: Machine) -> Doors {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    let (server, down) = watch::channel(false);
    tokio::spawn(crate::http::serve(
        listener,
        Arc::new(QueuesApi::new(queues.clone(), &prometheus::Registry::new()).unwrap()),
        down,
    ));
    let client = Arc::new(QueueClient::new(authority));
    let (events, dispatch, shards, maps) = (client.clone(), client.clone(), client.clone(), client);
    Doors { machine, events, dispatch, shards, maps, queues, _server: Some(server) }
}

macro_rules! suite {
    ($($name:ident)*) => {
        mod called_directly { $(#[tokio::test] async fn $name() { super::$name(super::embedded).await; })* }
        mod called_over_http { $(#[tokio::test] async fn $name() { super::$name(super::embedded_over_http).await; })* }
        mod on_nats { $(#[tokio::test] async fn $name() { super::$name(super::on_nats).await; })* }
        mod on_nats_over_http { $(#[tokio::test] async fn $name() { super::$name(super::on_nats_over_http).await; })* }
    };
}

suite! {
    events_are_appended_taken_and_pushed
    a_repeated_id_is_stored_once
    a_full_queue_refuses_and_takes_again_once_there_is_room
    what_documents_tell_each_other_gets_into_a_full_queue
    a_take_waits_for_an_event
    leases_exclude_and_fence
    rounds_leave_no_gap_and_double_nothing
    a_pull_waits_and_ends_by_bytes
    a_pull_counts_the_events_after_its_position
    where_a_shard_queue_ends_is_told
    what_all_consumers_passed_is_trimmed
    a_full_shard_queue_refuses_rounds
    what_does_not_exist_is_told
    nonsense_is_refused
    waits_end_when_the_role_does
    dead_letters_are_kept_once_and_events_can_be_looked_at
    a_shard_map_begins_once_and_is_told_of_when_it_changes
    slots_move_in_steps_that_nobody_can_pass
}

fn offsets(fates: &[Fate]) -> Vec<u64> {
    fates.iter().map(|fate| if let Fate::Stored { offset } = fate { *offset } else { 0 }).collect()
}

fn frame(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn lease(doors: &Doors, queue: u16) -> Lease {
    doors.dispatch.acquire(queue, "a", TTL).await.unwrap()
}

async fn events_are_appended_taken_and_pushed<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(2)).await;
    assert_eq!(doors.events.count().await, Ok(2));
    assert_eq!(doors.dispatch.count().await, Ok(2));
    let fates = doors.events.append(1, WINDOW, vec![event("a", 1), event("b", 2)]).await.unwrap();
    assert_eq!(offsets(&fates), [1, 2]);
    let fates = doors.events.append(1, WINDOW, vec![event("c", 3)]).await.unwrap();
    assert_eq!(offsets(&fates), [3]);
    let fates = doors.events.append(0, WINDOW, vec![event("d", 4)]).await.unwrap();
    assert_eq!(offsets(&fates), [1], "every queue counts for itself");

    let lease = lease(&doors, 1).await;
    let taken = doors.dispatch.take(lease, 2, LONG).await.unwrap().unwrap();
    assert!(taken.frames.iter().all(|frame| is_of(1, frame)));
    assert_eq!(taken_ids(&taken), [(1, "a".to_owned()), (2, "b".to_owned())]);
    assert_eq!(doors.dispatch.take(lease, 2, LONG).await.unwrap(), Some(taken), "taking changes nothing");

    let round = Round {
        first: 1,
        last: 2,
        map_version: 1,
        frames: vec![round_frame(0, 1, "zero"), round_frame(7, 2, "seven")],
    };
    doors.dispatch.push(lease, round).await.unwrap();
    let taken = doors.dispatch.take(lease, 9, LONG).await.unwrap().unwrap();
    assert_eq!(taken_ids(&taken), [(3, "c".to_owned())]);

    let pulled = doors.shards.pull(7, 0, 1 << 20, LONG).await.unwrap();
    assert_eq!(pulled, Pulled { frames: vec![(1, frame("seven"))], last: 1, events_after: 2 });
    let status = doors.queues.status().await.unwrap();
    assert_eq!(status.event_queues.iter().map(|queue| (queue.last, queue.filed)).collect::<Vec<_>>(), [(1, 0), (3, 2)]);
}

async fn a_repeated_id_is_stored_once<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    let append = async |events| doors.events.append(0, WINDOW, events).await.unwrap();
    let batch = vec![event("a", 1), event("a", 2), event("b", 3)];
    assert_eq!(append(batch.clone()).await, [Fate::Stored { offset: 1 }, Fate::Duplicate, Fate::Stored { offset: 2 }]);
    assert_eq!(append(batch).await, [Fate::Duplicate; 3]);
    let mut other_source = event("a", 4);
    other_source.source = "t".into();
    assert_eq!(append(vec![other_source]).await, [Fate::Stored { offset: 3 }], "ids are unique within a source");
    let twice = vec![event("x", 5), event("x", 5)];
    let fates = doors.events.append(0, None, twice).await.unwrap();
    assert_eq!(offsets(&fates), [4, 5], "without a window nothing is recognised");

    doors.machine.pass_ms(599_999);
    assert_eq!(append(vec![event("a", 6)]).await, [Fate::Duplicate]);
    doors.machine.pass_ms(1 + FORGET_EVERY_MS);
    assert_eq!(append(vec![event("a", 6)]).await, [Fate::Stored { offset: 6 }], "its window is over");
}

async fn a_full_queue_refuses_and_takes_again_once_there_is_room<F: Future<Output = Doors>>(
    open: impl Fn(Machine) -> F,
) {
    let mut machine = Machine::new(1);
    machine.limits.depth_max_events = 3;
    let doors = open(machine).await;
    let append = async |ids: &[&str]| {
        let events = ids.iter().map(|id| event(*id, 0)).collect();
        doors.events.append(0, WINDOW, events).await.unwrap()
    };
    let fates = append(&["a", "b", "a", "c", "d"]).await;
    assert_eq!(offsets(&fates), [1, 2, 0, 3, 0]);
    assert_eq!((fates[2], fates[4]), (Fate::Duplicate, Fate::Full));
    assert_eq!(append(&["a", "d"]).await, [Fate::Duplicate, Fate::Full], "what is known is known in a full queue too");
    let lease = lease(&doors, 0).await;
    doors.dispatch.push(lease, Round { first: 1, last: 2, map_version: 1, frames: vec![] }).await.unwrap();
    assert_eq!(offsets(&append(&["d", "e", "f"]).await), [4, 5, 0], "a refused id was not remembered");
}

async fn what_documents_tell_each_other_gets_into_a_full_queue<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    const HOPS: usize = 80;
    let mut machine = Machine::new(1);
    (machine.limits.depth_max_events, machine.limits.depth_max_bytes) = (2, 1_000);
    let doors = open(machine).await;
    let append = async |events| doors.events.append(0, None, events).await.unwrap();
    assert_eq!(offsets(&append(vec![event("a", 0), event("b", 0), event("c", 0)]).await), [1, 2, 0]);
    // Far more than any room beside that which events have.
    let item = Arc::new(Item::new(1, "i", &"x".repeat(100_000)));
    let hop = Told::News(News { feed: "f".into(), items: [item].into() }).event("home", &["k"], 7);
    let fates = append(vec![hop; HOPS]).await;
    assert_eq!(offsets(&fates), (3..3 + HOPS as u64).collect::<Vec<_>>());
    assert_eq!(append(vec![event("d", 0)]).await, [Fate::Full]);
}

async fn a_take_waits_for_an_event<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    let lease = lease(&doors, 0).await;
    assert_eq!(doors.dispatch.take(lease, 9, Duration::from_millis(1)).await.unwrap(), None);
    let waiting = doors.dispatch.take(lease, 9, LONG);
    let appending = doors.events.append(0, None, vec![event("a", 1)]);
    let (taken, _) = tokio::join!(waiting, appending);
    assert_eq!(taken_ids(&taken.unwrap().unwrap()), [(1, "a".to_owned())]);
}

async fn leases_exclude_and_fence<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(2)).await;
    doors.events.append(0, None, vec![event("a", 1), event("b", 2)]).await.unwrap();
    let first = doors.dispatch.acquire(0, "a", TTL).await.unwrap();
    let held = Err(QueueError::Held { queue: 0, for_ms: 10_000 });
    assert_eq!(doors.dispatch.acquire(0, "b", TTL).await, held);
    assert!(doors.dispatch.acquire(1, "b", TTL).await.is_ok(), "another queue is another lease");
    doors.machine.pass_ms(9_999);
    doors.dispatch.renew(first, TTL).await.unwrap();
    doors.machine.pass_ms(9_999);
    doors
        .dispatch
        .push(first, Round { first: 1, last: 1, map_version: 1, frames: vec![round_frame(0, 1, "by a")] })
        .await
        .unwrap();

    doors.machine.pass_ms(1);
    let fenced = QueueError::Fenced { queue: 0, token: first.token };
    let round = |text| Round { first: 2, last: 2, map_version: 1, frames: vec![round_frame(0, 1, text)] };
    assert_eq!(doors.dispatch.push(first, round("late")).await, Err(fenced.clone()), "it ran out");
    assert_eq!(doors.dispatch.renew(first, TTL).await, Err(fenced.clone()));
    let second = doors.dispatch.acquire(0, "b", TTL).await.unwrap();
    assert!(second.token > first.token);
    assert_eq!(doors.dispatch.push(first, round("late")).await, Err(fenced.clone()), "it was passed on");
    assert_eq!(doors.dispatch.take(first, 9, LONG).await, Err(fenced.clone()));
    assert_eq!(doors.dispatch.release(first).await, Err(fenced));
    doors.dispatch.push(second, round("by b")).await.unwrap();
    doors.dispatch.release(second).await.unwrap();
    assert!(doors.dispatch.acquire(0, "c", TTL).await.unwrap().token > second.token);

    let pulled = doors.shards.pull(0, 0, 1 << 20, LONG).await.unwrap();
    assert_eq!(pulled.frames, [(1, frame("by a")), (2, frame("by b"))], "nothing twice, nothing late");
}

async fn rounds_leave_no_gap_and_double_nothing<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    doors.events.append(0, None, (0..5).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    let push = |first, last| {
        doors.dispatch.push(lease, Round { first, last, map_version: 1, frames: vec![round_frame(0, 1, "x")] })
    };
    let not_next = |first, expected| Err(QueueError::NotNext { queue: 0, first, expected });
    assert_eq!(push(2, 3).await, not_next(2, 1));
    assert_eq!(push(1, 2).await, Ok(()));
    assert_eq!(push(1, 2).await, not_next(1, 3));
    assert!(matches!(push(3, 6).await, Err(QueueError::Invalid { .. })), "beyond the end of the queue");
    assert!(matches!(push(3, 2).await, Err(QueueError::Invalid { .. })), "of no event");
    assert_eq!(push(3, 5).await, Ok(()));
    assert_eq!(doors.shards.pull(0, 0, 1 << 20, LONG).await.unwrap().last, 2);
}

async fn a_pull_waits_and_ends_by_bytes<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    assert_eq!(doors.shards.pull(3, 0, 9, Duration::from_millis(1)).await.unwrap(), Pulled::default());
    doors.events.append(0, None, (0..3).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    let push = |n, text| {
        doors.dispatch.push(lease, Round { first: n, last: n, map_version: 1, frames: vec![round_frame(3, 1, text)] })
    };
    let (pulled, pushed) = tokio::join!(doors.shards.pull(3, 0, 1, LONG), push(1, "first"));
    pushed.unwrap();
    let first = Pulled { frames: vec![(1, frame("first"))], last: 1, events_after: 1 };
    assert_eq!(pulled.unwrap(), first, "one frame at least");
    push(2, "second").await.unwrap();
    push(3, "third").await.unwrap();
    let pulled = doors.shards.pull(3, 1, 7, LONG).await.unwrap();
    assert_eq!(pulled, Pulled { frames: vec![(2, frame("second"))], last: 3, events_after: 2 });
}

async fn a_pull_counts_the_events_after_its_position<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    doors.events.append(0, None, (0..112).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let held = lease(&doors, 0).await;
    for (first, last) in [(1, 1), (2, 11), (12, 111)] {
        let frames = vec![round_frame(3, last + 1 - first, "x"), round_frame(4, 1, "of another shard")];
        doors.dispatch.push(held, Round { first, last, map_version: 1, frames }).await.unwrap();
    }
    let counted = async |doors: &Doors, after, max_bytes| {
        let pulled = doors.shards.pull(3, after, max_bytes, Duration::ZERO).await.unwrap();
        (pulled.frames.len(), pulled.events_after)
    };
    assert_eq!(counted(&doors, 0, 1 << 20).await, (3, 111));
    assert_eq!(counted(&doors, 0, 2).await, (2, 111), "those behind the frames count too");
    assert_eq!(counted(&doors, 1, 1).await, (1, 110));
    assert_eq!(counted(&doors, 3, 1).await, (0, 0), "there is nothing after the last");

    // Trimming and a restart change nothing about what is left.
    doors.shards.committed(3, "primary", 2).await.unwrap();
    doors.dispatch.renew(held, TTL).await.unwrap();
    assert!(matches!(doors.shards.pull(3, 1, 1, LONG).await, Err(QueueError::Trimmed { trimmed: 2, .. })));
    assert_eq!(counted(&doors, 2, 1).await, (1, 100));
    doors.queues.close().await;
    let doors = open(doors.machine.crash()).await;
    assert_eq!(counted(&doors, 2, 1).await, (1, 100));
    doors.machine.pass_ms(TTL.as_millis() as u64);
    let round = Round { first: 112, last: 112, map_version: 1, frames: vec![round_frame(3, 1, "x")] };
    doors.dispatch.push(lease(&doors, 0).await, round).await.unwrap();
    assert_eq!(counted(&doors, 2, 1).await, (1, 101));
    assert_eq!(counted(&doors, 3, 1).await, (1, 1));
}

async fn where_a_shard_queue_ends_is_told<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    assert_eq!(doors.shards.newest(3).await, Ok(0));
    doors.events.append(0, None, (0..3).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    let push = |n| {
        doors.dispatch.push(lease, Round { first: n, last: n, map_version: 1, frames: vec![round_frame(3, 1, "x")] })
    };
    push(1).await.unwrap();
    assert_eq!(doors.shards.newest(3).await, Ok(1));
    // A place that was kept, with frames read ahead, knows nothing of what came later.
    assert_eq!(doors.shards.pull(3, 0, 1, LONG).await.unwrap().last, 1);
    push(2).await.unwrap();
    push(3).await.unwrap();
    assert_eq!((doors.shards.newest(3).await, doors.shards.newest(2).await), (Ok(3), Ok(0)));
    doors.shards.committed(3, "a", 3).await.unwrap();
    assert_eq!(doors.shards.newest(3).await, Ok(3), "trimming moves its other end");
    assert!(matches!(doors.shards.newest(1024).await, Err(QueueError::NoQueue { number: 1024, .. })));
}

async fn what_all_consumers_passed_is_trimmed<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    doors.events.append(0, None, (1..5).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    for n in 1..4 {
        let round = Round { first: n, last: n, map_version: 1, frames: vec![round_frame(0, 1, "x")] };
        doors.dispatch.push(lease, round).await.unwrap();
    }
    doors.shards.committed(0, "spare/1", 1).await.unwrap();
    doors.shards.committed(0, "primary", 3).await.unwrap();
    // A push is written after what consumers said before it.
    doors
        .dispatch
        .push(lease, Round { first: 4, last: 4, map_version: 1, frames: vec![round_frame(0, 1, "x")] })
        .await
        .unwrap();
    let trimmed = doors.shards.pull(0, 0, 1 << 20, LONG).await;
    assert_eq!(trimmed, Err(QueueError::Trimmed { shard: 0, after: 0, trimmed: 1 }), "the slowest one decides");
    assert_eq!(doors.shards.pull(0, 1, 1 << 20, LONG).await.unwrap().frames.len(), 3);
    let ahead = QueueError::Ahead { shard: 0, after: 5, last: 4 };
    assert_eq!(doors.shards.pull(0, 5, 1 << 20, LONG).await, Err(ahead.clone()));
    assert_eq!(doors.shards.committed(0, "primary", 5).await, Err(ahead));
    doors.machine.pass_ms(7);
    doors.shards.committed(0, "primary", 3).await.unwrap();
    doors.machine.pass_ms(5);
    let heard =
        |status: Status| status.shard_queues.into_iter().flat_map(|queue| queue.heard_ms_ago).collect::<Vec<_>>();
    let expected = [("primary".to_owned(), 5), ("spare/1".to_owned(), 12)];
    assert_eq!(heard(doors.queues.status().await.unwrap()), expected, "said again counts as said");
    assert_eq!(doors.queues.remove_consumer(0, "spare/1").await, Ok(true));
    assert_eq!(heard(doors.queues.status().await.unwrap()), expected[..1]);
    assert_eq!(doors.queues.remove_consumer(0, "spare/1").await, Ok(false));
}

async fn a_full_shard_queue_refuses_rounds<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let mut machine = Machine::new(1);
    // Engines count what they store with a frame as well.
    machine.limits.shard_depth_max_bytes = 2_000;
    let doors = open(machine).await;
    doors.events.append(0, None, (0..4).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    let large = "x".repeat(2_001);
    let push = |n, text| {
        let frames = vec![round_frame(1, 1, "x"), round_frame(0, 1, text)];
        doors.dispatch.push(lease, Round { first: n, last: n, map_version: 1, frames })
    };
    push(1, &large).await.unwrap();
    assert_eq!(push(2, "b").await, Err(QueueError::ShardFull { shard: 0 }));
    assert_eq!(doors.shards.pull(1, 0, 99, LONG).await.unwrap().last, 1, "a refused round leaves nothing anywhere");
    doors.shards.committed(0, "primary", 1).await.unwrap();
    doors.dispatch.renew(lease, TTL).await.unwrap();
    push(2, "b").await.unwrap();
}

async fn what_does_not_exist_is_told<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(2)).await;
    let no_queue = QueueError::NoQueue { what: "event queue".to_owned(), number: 2, last: 1 };
    assert_eq!(doors.events.append(2, None, vec![event("a", 1)]).await, Err(no_queue.clone()));
    assert_eq!(doors.dispatch.acquire(2, "a", TTL).await, Err(no_queue));
    assert!(matches!(doors.shards.pull(1024, 0, 9, LONG).await, Err(QueueError::NoQueue { number: 1024, .. })));
}

async fn nonsense_is_refused<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    let invalid = |error: Option<QueueError>| matches!(error, Some(QueueError::Invalid { .. }));
    assert!(invalid(doors.dispatch.acquire(0, "", TTL).await.err()));
    assert!(invalid(doors.dispatch.acquire(0, &"x".repeat(129), TTL).await.err()));
    assert!(invalid(doors.dispatch.acquire(0, "a", Duration::ZERO).await.err()));
    assert!(invalid(doors.dispatch.acquire(0, "a", Duration::from_secs(301)).await.err()));
    assert!(invalid(doors.shards.committed(0, &"x".repeat(129), 0).await.err()));
    for n in 0..16 {
        doors.shards.committed(0, &format!("consumer {n}"), 0).await.unwrap();
    }
    assert!(invalid(doors.shards.committed(0, "one too many", 0).await.err()));
    assert_eq!(doors.events.append(0, None, Vec::new()).await, Ok(Vec::new()));
}

async fn waits_end_when_the_role_does<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    let lease = lease(&doors, 0).await;
    let (taken, pulled, ()) =
        tokio::join!(doors.dispatch.take(lease, 9, LONG), doors.shards.pull(0, 0, 9, LONG), async {
            doors.queues.end_waits()
        });
    assert_eq!((taken, pulled), (Err(QueueError::Closed), Err(QueueError::Closed)));
    assert!(doors.events.append(0, None, vec![event("a", 1)]).await.is_ok(), "what can be finished is");
    doors.queues.close().await;
    assert_eq!(doors.events.append(0, None, vec![event("b", 1)]).await, Err(QueueError::Closed));
    assert_eq!(doors.dispatch.renew(lease, TTL).await, Err(QueueError::Closed));
}

async fn dead_letters_are_kept_once_and_events_can_be_looked_at<F: Future<Output = Doors>>(
    open: impl Fn(Machine) -> F,
) {
    let doors = open(Machine::new(2)).await;
    doors.events.append(1, WINDOW, vec![event("a", 1), event("b", 2), event("c", 3)]).await.unwrap();
    let peeked = doors.queues.peek(1, 1, 1).await.unwrap().unwrap();
    assert_eq!(taken_ids(&peeked), [(2, "b".to_owned())]);
    assert_eq!(doors.queues.peek(1, 3, 9).await, Ok(None));
    assert_eq!(doors.queues.peek(0, 0, 9).await, Ok(None));

    let key = |offset, shard| DeadKey { queue: 1, offset, shard };
    let letter = |offset, shard| DeadLetter::new(key(offset, shard), "why", &event("a", 1));
    assert_eq!(doors.dispatch.bury(vec![letter(2, None), letter(1, Some(3))]).await, Ok(0));
    assert_eq!(doors.shards.bury(vec![letter(1, Some(3))]).await, Ok(0), "once is enough");
    let mut keys: Vec<String> = doors.queues.dead(9).await.unwrap().iter().map(|dead| dead.key.to_string()).collect();
    keys.sort();
    assert_eq!(keys, ["1:1:3", "1:2"]);
    assert_eq!(doors.queues.dead(1).await.unwrap().len(), 1);
    let found = doors.queues.dead_letter(key(2, None)).await.unwrap().unwrap();
    assert_eq!(found, DeadLetter { buried_ms: doors.machine.now_ms(), ..letter(2, None) });
    assert_eq!(doors.queues.dead_letter(key(2, Some(3))).await, Ok(None));
    assert_eq!(doors.queues.status().await.unwrap().dead, 2);
    assert_eq!(doors.queues.unbury(key(2, None)).await, Ok(true));
    assert_eq!(doors.queues.unbury(key(2, None)).await, Ok(false));
    doors.queues.close().await;
    let doors = open(doors.machine.crash()).await;
    assert_eq!(doors.queues.status().await.unwrap().dead, 1);
    assert_eq!(doors.queues.dead(9).await.unwrap()[0].key, key(1, Some(3)));
}

const FIRST: FirstMap = FirstMap { version: 1, shards: 4 };

async fn a_shard_map_begins_once_and_is_told_of_when_it_changes<F: Future<Output = Doors>>(
    open: impl Fn(Machine) -> F,
) {
    let doors = open(Machine::new(1)).await;
    let maps = &doors.maps;
    assert_eq!(maps.map(0, Duration::ZERO).await, Ok(None));
    let nothing = maps.change_map(MapChange::Stop).await;
    assert!(matches!(nothing, Err(QueueError::Map { .. })), "{nothing:?}");
    let begun = maps.change_map(MapChange::First(FIRST)).await.unwrap();
    assert_eq!(begun, MapState::first(FIRST));
    assert_eq!(maps.change_map(MapChange::First(FIRST)).await.as_ref(), Ok(&begun), "a second process agrees");
    for other in [FirstMap { version: 2, ..FIRST }, FirstMap { shards: 3, ..FIRST }] {
        let refused = maps.change_map(MapChange::First(other)).await;
        assert!(matches!(&refused, Err(QueueError::Map { .. })), "{refused:?}");
    }
    assert_eq!(maps.map(0, LONG).await, Ok(Some(begun)));
    assert_eq!(maps.map(1, Duration::ZERO).await, Ok(None));
    let (told, changed) = tokio::join!(maps.map(1, LONG), async {
        maps.change_map(MapChange::First(FirstMap { shards: 5, ..FIRST })).await.unwrap()
    });
    assert_eq!((told, changed.version(), changed.map.shards()), (Ok(Some(changed.clone())), 2, 5));
    let begin = MapChange::Begin { slots: "0-9".parse().unwrap(), to: 9 };
    let refused = maps.change_map(begin).await.unwrap_err().to_string();
    assert!(refused.contains("no shard 9"), "{refused}");
}

async fn slots_move_in_steps_that_nobody_can_pass<F: Future<Output = Doors>>(open: impl Fn(Machine) -> F) {
    let doors = open(Machine::new(1)).await;
    let (maps, dispatch) = (&doors.maps, &doors.dispatch);
    doors.events.append(0, None, (1..=4).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let held = lease(&doors, 0).await;
    let push = |n, map_version, shard| {
        dispatch.push(held, Round { first: n, last: n, map_version, frames: vec![round_frame(shard, 1, "x")] })
    };
    maps.change_map(MapChange::First(FIRST)).await.unwrap();
    push(1, 1, 0).await.unwrap();
    let begin = || maps.change_map(MapChange::Begin { slots: "0-9".parse().unwrap(), to: 3 });
    let refused = begin().await.unwrap_err().to_string();
    assert!(refused.contains("no shard server serves shard 3"), "{refused}");
    doors.shards.committed(3, "primary", 0).await.unwrap();
    assert_eq!(begin().await.unwrap().version(), 2);
    push(2, 2, 0).await.unwrap();

    let hand = |epoch, after, text| maps.hand_over(HandedOver { epoch, after, bytes: frame(text) });
    let first = hand(2, None, "one").await.unwrap();
    let late = hand(1, None, "of no attempt").await;
    assert!(matches!(late, Err(QueueError::Map { .. })), "{late:?}");
    assert_eq!(hand(2, None, "another replica's").await, Err(QueueError::Overtaken { shard: 3 }));
    let last = hand(2, Some(first), "two").await.unwrap();
    assert_eq!(hand(2, Some(first), "a late one").await, Err(QueueError::Overtaken { shard: 3 }));

    let complete = |epoch, since| maps.change_map(MapChange::Complete { epoch, since });
    let too_early = complete(2, last).await;
    assert!(matches!(too_early, Err(QueueError::Map { .. })), "{too_early:?}");
    let hold = || maps.change_map(MapChange::Hold { epoch: 2, taken: first });
    assert_eq!(hold().await, Err(QueueError::ShardFull { shard: 3 }), "it has written nothing yet");
    doors.shards.committed(3, "primary", first).await.unwrap();
    let held = loop {
        let state = hold().await.unwrap();
        match &state.moving.as_ref().unwrap().stage {
            Stage::Held(Some(Final { position: Some(position), .. })) => break (*position, state.version()),
            // What is filed is written down while a dispatcher waits for more.
            _ => drop(dispatch.take(held, 1, Duration::from_millis(50)).await.unwrap()),
        }
    };
    assert!(held.0 >= 2, "both rounds are before the end: {held:?}");
    let stale = push(3, 2, 0).await;
    assert!(matches!(stale, Err(QueueError::MapChanged { version }) if version > 2), "{stale:?}");
    assert!(matches!(complete(2, first).await, Err(QueueError::Map { .. })), "something was handed over behind it");
    let done = complete(2, last).await.unwrap();
    assert_eq!(done.map.owner(Slot(9)), Owner { shard: 3, since: last });
    push(3, done.version(), 3).await.unwrap();
    let there = doors.shards.pull(3, first, 1 << 20, LONG).await.unwrap();
    let texts: Vec<&[u8]> = there.frames.iter().map(|(_, bytes)| &bytes[..]).collect();
    let texts: Vec<&[u8]> = texts.into_iter().filter(|text| [&b"two"[..], b"x"].contains(text)).collect();
    assert_eq!(texts, [&b"two"[..], b"x"], "documents come before the first event that is filed there");
    let late = hand(2, Some(last), "too late").await;
    assert!(matches!(late, Err(QueueError::Map { .. })), "{late:?}");
}
