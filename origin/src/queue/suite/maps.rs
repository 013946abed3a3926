//! The shard map that is kept beside the queues.

use millpond_shared::shard_map::{Final, FirstMap, MapState, Owner, Slot, Stage};

use super::*;

suite! {
    a_shard_map_begins_once_and_is_told_of_when_it_changes
    slots_move_in_steps_that_nobody_can_pass
}

const FIRST: FirstMap = FirstMap { version: 1, shards: 4 };

async fn a_shard_map_begins_once_and_is_told_of_when_it_changes(open: impl AsyncFn(Machine) -> Doors) {
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

async fn slots_move_in_steps_that_nobody_can_pass(open: impl AsyncFn(Machine) -> Doors) {
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
