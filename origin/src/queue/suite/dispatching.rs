//! What a dispatcher does: it leases, takes, and pushes rounds.

use super::*;

suite! {
    a_take_waits_for_an_event
    leases_exclude_and_fence
    rounds_leave_no_gap_and_double_nothing
    a_full_shard_queue_refuses_rounds
}

async fn a_take_waits_for_an_event(open: impl AsyncFn(Machine) -> Doors) {
    let doors = open(Machine::new(1)).await;
    let lease = lease(&doors, 0).await;
    assert_eq!(doors.dispatch.take(lease, 9, Duration::from_millis(1)).await.unwrap(), None);
    let waiting = doors.dispatch.take(lease, 9, LONG);
    let appending = doors.events.append(0, None, vec![event("a", 1)]);
    let (taken, _) = tokio::join!(waiting, appending);
    assert_eq!(taken_ids(&taken.unwrap().unwrap()), [(1, "a".to_owned())]);
}

async fn leases_exclude_and_fence(open: impl AsyncFn(Machine) -> Doors) {
    let doors = open(Machine::new(2)).await;
    doors.events.append(0, None, vec![event("a", 1), event("b", 2)]).await.unwrap();
    let first = doors.dispatch.acquire(0, "a", TTL).await.unwrap();
    let held = Err(QueueError::Held { queue: 0, for_ms: 10_000 });
    assert_eq!(doors.dispatch.acquire(0, "b", TTL).await, held);
    assert!(doors.dispatch.acquire(1, "b", TTL).await.is_ok(), "another queue is another lease");
    doors.machine.pass_ms(9_999);
    doors.dispatch.renew(first, TTL).await.unwrap();
    doors.machine.pass_ms(9_999);
    doors.dispatch.push(first, round_of(1..=1, vec![round_frame(0, 1, "by a")])).await.unwrap();

    doors.machine.pass_ms(1);
    let fenced = QueueError::Fenced { queue: 0, token: first.token };
    let round = |text| round_of(2..=2, vec![round_frame(0, 1, text)]);
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

async fn rounds_leave_no_gap_and_double_nothing(open: impl AsyncFn(Machine) -> Doors) {
    let doors = open(Machine::new(1)).await;
    doors.events.append(0, None, (0..5).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    let push = |first, last| doors.dispatch.push(lease, round_of(first..=last, vec![round_frame(0, 1, "x")]));
    let not_next = |first, expected| Err(QueueError::NotNext { queue: 0, first, expected });
    assert_eq!(push(2, 3).await, not_next(2, 1));
    assert_eq!(push(1, 2).await, Ok(()));
    assert_eq!(push(1, 2).await, not_next(1, 3));
    assert!(matches!(push(3, 6).await, Err(QueueError::Invalid { .. })), "beyond the end of the queue");
    assert!(matches!(push(3, 2).await, Err(QueueError::Invalid { .. })), "of no event");
    assert_eq!(push(3, 5).await, Ok(()));
    assert_eq!(doors.shards.pull(0, 0, 1 << 20, LONG).await.unwrap().last, 2);
}

async fn a_full_shard_queue_refuses_rounds(open: impl AsyncFn(Machine) -> Doors) {
    let mut machine = Machine::new(1);
    // Engines count what they store with a frame as well.
    machine.limits.shard_depth_max_bytes = 2_000;
    let doors = open(machine).await;
    doors.events.append(0, None, (0..4).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    let large = "x".repeat(2_001);
    let push = |n, text| {
        let frames = vec![round_frame(1, 1, "x"), round_frame(0, 1, text)];
        doors.dispatch.push(lease, round_of(n..=n, frames))
    };
    push(1, &large).await.unwrap();
    assert_eq!(push(2, "b").await, Err(QueueError::ShardFull { shard: 0 }));
    assert_eq!(doors.shards.pull(1, 0, 99, LONG).await.unwrap().last, 1, "a refused round leaves nothing anywhere");
    doors.shards.committed(0, "primary", 1).await.unwrap();
    doors.dispatch.renew(lease, TTL).await.unwrap();
    push(2, "b").await.unwrap();
}
