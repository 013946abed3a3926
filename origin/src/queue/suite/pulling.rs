//! What a shard does: it pulls, and says how far it is.

use super::*;

suite! {
    a_pull_waits_and_ends_by_bytes
    a_pull_counts_the_events_after_its_position
    where_a_shard_queue_ends_is_told
    what_all_consumers_passed_is_trimmed
}

async fn a_pull_waits_and_ends_by_bytes(open: impl AsyncFn(Machine) -> Doors) {
    let doors = open(Machine::new(1)).await;
    assert_eq!(doors.shards.pull(3, 0, 9, Duration::from_millis(1)).await.unwrap(), Pulled::default());
    doors.events.append(0, None, (0..3).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    let push = |n, text| doors.dispatch.push(lease, round_of(n..=n, vec![round_frame(3, 1, text)]));
    let (pulled, pushed) = tokio::join!(doors.shards.pull(3, 0, 1, LONG), push(1, "first"));
    pushed.unwrap();
    let first = Pulled { frames: vec![(1, frame("first"))], last: 1, events_after: 1 };
    assert_eq!(pulled.unwrap(), first, "one frame at least");
    push(2, "second").await.unwrap();
    push(3, "third").await.unwrap();
    let pulled = doors.shards.pull(3, 1, 7, LONG).await.unwrap();
    assert_eq!(pulled, Pulled { frames: vec![(2, frame("second"))], last: 3, events_after: 2 });
}

async fn a_pull_counts_the_events_after_its_position(open: impl AsyncFn(Machine) -> Doors) {
    let doors = open(Machine::new(1)).await;
    doors.events.append(0, None, (0..112).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let held = lease(&doors, 0).await;
    for (first, last) in [(1, 1), (2, 11), (12, 111)] {
        let frames = vec![round_frame(3, last + 1 - first, "x"), round_frame(4, 1, "of another shard")];
        doors.dispatch.push(held, round_of(first..=last, frames)).await.unwrap();
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
    let round = round_of(112..=112, vec![round_frame(3, 1, "x")]);
    doors.dispatch.push(lease(&doors, 0).await, round).await.unwrap();
    assert_eq!(counted(&doors, 2, 1).await, (1, 101));
    assert_eq!(counted(&doors, 3, 1).await, (1, 1));
}

async fn where_a_shard_queue_ends_is_told(open: impl AsyncFn(Machine) -> Doors) {
    let doors = open(Machine::new(1)).await;
    assert_eq!(doors.shards.newest(3).await, Ok(0));
    doors.events.append(0, None, (0..3).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    let push = |n| doors.dispatch.push(lease, round_of(n..=n, vec![round_frame(3, 1, "x")]));
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

async fn what_all_consumers_passed_is_trimmed(open: impl AsyncFn(Machine) -> Doors) {
    let doors = open(Machine::new(1)).await;
    doors.events.append(0, None, (1..5).map(|n| event(n.to_string(), n)).collect()).await.unwrap();
    let lease = lease(&doors, 0).await;
    for n in 1..4 {
        let round = round_of(n..=n, vec![round_frame(0, 1, "x")]);
        doors.dispatch.push(lease, round).await.unwrap();
    }
    doors.shards.committed(0, "spare/1", 1).await.unwrap();
    doors.shards.committed(0, "primary", 3).await.unwrap();
    // A push is written after what consumers said before it.
    doors.dispatch.push(lease, round_of(4..=4, vec![round_frame(0, 1, "x")])).await.unwrap();
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
