//! The role as a whole: what it refuses, looks at, lays aside, and how it ends.

use super::*;

suite! {
    what_does_not_exist_is_told
    nonsense_is_refused
    waits_end_when_the_role_does
    dead_letters_are_kept_once_and_events_can_be_looked_at
}

async fn what_does_not_exist_is_told(open: impl AsyncFn(Machine) -> Doors) {
    let doors = open(Machine::new(2)).await;
    let no_queue = QueueError::NoQueue { what: "event queue".to_owned(), number: 2, last: 1 };
    assert_eq!(doors.events.append(2, None, vec![event("a", 1)]).await, Err(no_queue.clone()));
    assert_eq!(doors.dispatch.acquire(2, "a", TTL).await, Err(no_queue));
    assert!(matches!(doors.shards.pull(1024, 0, 9, LONG).await, Err(QueueError::NoQueue { number: 1024, .. })));
}

async fn nonsense_is_refused(open: impl AsyncFn(Machine) -> Doors) {
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

async fn waits_end_when_the_role_does(open: impl AsyncFn(Machine) -> Doors) {
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

async fn dead_letters_are_kept_once_and_events_can_be_looked_at(open: impl AsyncFn(Machine) -> Doors) {
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
