//! Events on their way in: stored once, as long as there is room.

use super::super::limits::FORGET_EVERY_MS;
use super::super::testing::is_of;
use super::*;
use crate::projection::{Item, News, Told};

suite! {
    events_are_appended_taken_and_pushed
    a_repeated_id_is_stored_once
    a_full_queue_refuses_and_takes_again_once_there_is_room
    what_documents_tell_each_other_gets_into_a_full_queue
}

async fn events_are_appended_taken_and_pushed(open: impl AsyncFn(Machine) -> Doors) {
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

    let round = round_of(1..=2, vec![round_frame(0, 1, "zero"), round_frame(7, 2, "seven")]);
    doors.dispatch.push(lease, round).await.unwrap();
    let taken = doors.dispatch.take(lease, 9, LONG).await.unwrap().unwrap();
    assert_eq!(taken_ids(&taken), [(3, "c".to_owned())]);

    let pulled = doors.shards.pull(7, 0, 1 << 20, LONG).await.unwrap();
    assert_eq!(pulled, Pulled { frames: vec![(1, frame("seven"))], last: 1, events_after: 2 });
    let status = doors.queues.status().await.unwrap();
    assert_eq!(status.event_queues.iter().map(|queue| (queue.last, queue.filed)).collect::<Vec<_>>(), [(1, 0), (3, 2)]);
}

async fn a_repeated_id_is_stored_once(open: impl AsyncFn(Machine) -> Doors) {
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

async fn a_full_queue_refuses_and_takes_again_once_there_is_room(open: impl AsyncFn(Machine) -> Doors) {
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
    doors.dispatch.push(lease, round_of(1..=2, vec![])).await.unwrap();
    assert_eq!(offsets(&append(&["d", "e", "f"]).await), [4, 5, 0], "a refused id was not remembered");
}

async fn what_documents_tell_each_other_gets_into_a_full_queue(open: impl AsyncFn(Machine) -> Doors) {
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
