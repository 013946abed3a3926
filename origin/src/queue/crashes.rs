//! Power cuts and failing disks: what was acknowledged is there afterwards, what was filed is filed once.

use std::sync::Arc;
use std::time::Duration;

use millpond_shared::event::Event;
use millpond_shared::version::Offset;
use millpond_shared::wire::EventFrame;
use parking_lot::Mutex;

use super::testing::{Machine, Random, event, round_frame, round_of, taken_ids};
use super::*;

const TTL: Duration = Duration::from_secs(10);
const WINDOW: Option<Duration> = Some(Duration::from_secs(600));
const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_moment_takes_nothing_that_was_acknowledged() {
    let machine = Machine::new(1);
    let queues = machine.open();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let (queues, acknowledged) = (queues.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for n in 0..40 {
                    let id = format!("{producer}-{n}");
                    let fates = queues.append(0, WINDOW, vec![event(id.as_str(), n)]).await.unwrap();
                    assert!(matches!(fates[..], [Fate::Stored { .. }]));
                    acknowledged.lock().push(id);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    // The power is cut at many moments while the producers are at it; each time another machine starts from there.
    let mut cuts = Vec::new();
    while producers.iter().any(|producer| !producer.is_finished()) {
        let known = acknowledged.lock().clone();
        cuts.push((known, machine.crash()));
        queues.append(0, WINDOW, vec![event(format!("cut {}", cuts.len()), 0)]).await.unwrap();
    }
    cuts.push((acknowledged.lock().clone(), machine.crash()));
    assert_eq!(cuts.last().unwrap().0.len(), 160);
    for (known, machine) in cuts {
        let queues = machine.open();
        let lease = queues.acquire(0, "a", TTL).await.unwrap();
        let found = match queues.take(lease, usize::MAX, Duration::ZERO).await.unwrap() {
            Some(taken) => taken_ids(&taken),
            None => Vec::new(),
        };
        assert!(found.iter().map(|(offset, _)| *offset).eq(1..=found.len() as u64), "no gap, from 1 on");
        for id in &known {
            assert_eq!(found.iter().filter(|(_, found)| found == id).count(), 1, "{id}");
        }
        let again = known.iter().map(|id| event(id.as_str(), 0)).collect();
        let fates = queues.append(0, WINDOW, again).await.unwrap();
        assert!(fates.iter().all(|fate| *fate == Fate::Duplicate), "a repeat is recognised after the cut");
        queues.close().await;
    }
}

#[tokio::test]
async fn nobody_is_answered_before_the_sync_and_no_more_may_wait_than_allowed() {
    let mut machine = Machine::new(1);
    machine.limits.waiting_max_calls = 1;
    machine.limits.waiting_max_bytes = 1_000;
    let queues = machine.open();
    let held = machine.events[0].hold_syncs();
    let append = |id: String, bytes: usize| {
        let queues = queues.clone();
        let event = Event { data: "x".repeat(bytes).into(), ..event(id, 1) };
        tokio::spawn(async move { queues.append(0, WINDOW, vec![event]).await.unwrap() })
    };
    // The writer is stuck in the commit of the first calls; one more waits; for others there is no place.
    let mut calls = Vec::new();
    let mut refused = 0;
    while refused < 100 {
        let call = append(format!("{}", calls.len()), 1);
        tokio::task::yield_now().await;
        if call.is_finished() {
            assert_eq!(call.await.unwrap(), [Fate::Full]);
            refused += 1;
        } else {
            calls.push(call);
        }
    }
    assert_eq!(append("large".to_owned(), 2_000).await.unwrap(), [Fate::Full]);
    assert!(calls.iter().all(|call| !call.is_finished()));
    assert_eq!(queues.status().event_queues[0].last, 0, "what is not on disk is not there");
    let cut = machine.crash().open();
    assert_eq!(cut.status().event_queues[0].last, 0);

    drop(held);
    for (offset, call) in (1..).zip(calls) {
        assert_eq!(call.await.unwrap(), [Fate::Stored { offset }]);
    }
    assert!(matches!(append("d".to_owned(), 1).await.unwrap()[..], [Fate::Stored { .. }]), "there is room again");
}

/// Random appends, rounds, trims and power cuts against a model that remembers what was acknowledged.
#[tokio::test]
async fn whatever_happens_every_event_is_filed_once_and_in_order() {
    let mut random = Random::new(7);
    let mut machine = Machine::new(1);
    let mut queues = machine.open();
    let (mut appended, mut filed) = (0, 0);
    // What a shard that never fails has pulled: the first and last offset of each round.
    let (mut applied, mut position) = (Vec::<(u64, u64)>::new(), 0);
    for step in 0..400 {
        match random.below(10) {
            0..=3 => {
                let count = 1 + random.below(5);
                let events = (0..count).map(|n| event(format!("{step}-{n}"), n)).collect();
                let fates = queues.append(0, WINDOW, events).await.unwrap();
                let stored: Vec<Fate> = (1..=count).map(|n| Fate::Stored { offset: appended + n }).collect();
                assert_eq!(fates, stored);
                appended += count;
            }
            4..=6 => {
                let lease = queues.acquire(0, "dispatcher", TTL).await.unwrap();
                let max_events = 1 + random.below(6) as usize;
                if let Some(taken) = queues.take(lease, max_events, Duration::ZERO).await.unwrap() {
                    assert_eq!(taken.first, filed + 1, "a take starts behind what was filed");
                    let events = taken.last + 1 - taken.first;
                    let frame = round_frame(0, events, &format!("{}-{}", taken.first, taken.last));
                    let round = round_of(taken.first..=taken.last, vec![frame]);
                    queues.push(lease, round).await.unwrap();
                    filed = taken.last;
                } else {
                    assert_eq!(filed, appended);
                }
                queues.release(lease).await.unwrap();
            }
            7 | 8 => {
                let pulled = queues.pull(0, position, 1 + random.below(40) as usize, Duration::ZERO).await.unwrap();
                let done = applied.last().map_or(0, |(_, last)| *last);
                assert_eq!(pulled.events_after, filed - done, "what was filed and is not applied");
                for (at, frame) in pulled.frames {
                    assert_eq!(at, position + 1, "positions have no gap");
                    position = at;
                    let text = String::from_utf8(frame.to_vec()).unwrap();
                    let (first, last) = text.split_once('-').unwrap();
                    applied.push((first.parse().unwrap(), last.parse().unwrap()));
                }
                queues.committed(0, "shard", position).await.unwrap();
            }
            _ => {
                let after = machine.crash();
                drop(queues);
                machine = after;
                queues = machine.open();
            }
        }
    }
    let pulled = queues.pull(0, position, 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!(pulled.last, position + pulled.frames.len() as u64);
    let mut next = 1;
    for (first, last) in applied {
        assert_eq!(first, next);
        next = last + 1;
    }
    assert!(filed > 100 && position > 30, "the walk went somewhere: {filed}, {position}");
}

#[tokio::test]
async fn a_failed_commit_fails_the_role_and_reopening_tells_the_truth() {
    let machine = Machine::new(1);
    let queues = machine.open();
    queues.append(0, WINDOW, vec![event("kept", 1)]).await.unwrap();
    machine.events[0].fail();
    let failed = queues.append(0, WINDOW, vec![event("lost", 2)]).await;
    assert!(matches!(failed, Err(QueueError::Failed { .. })), "{failed:?}");
    assert!(matches!(queues.failed().await, QueueError::Failed { .. }));
    let failed = queues.append(0, WINDOW, vec![event("lost", 2)]).await;
    assert!(matches!(failed, Err(QueueError::Failed { .. })), "it stays failed: {failed:?}");
    queues.close().await;
    drop(queues);

    let queues = machine.crash().open();
    let events = vec![event("kept", 1), event("lost", 2)];
    let fates = queues.append(0, WINDOW, events).await.unwrap();
    assert_eq!(fates, [Fate::Duplicate, Fate::Stored { offset: 2 }]);
}

#[tokio::test]
async fn a_failed_push_fails_the_role_too() {
    let machine = Machine::new(1);
    let queues = machine.open();
    queues.append(0, WINDOW, vec![event("a", 1)]).await.unwrap();
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    machine.shards.fail();
    let round = round_of(1..=1, vec![round_frame(0, 1, "x")]);
    assert!(matches!(queues.push(lease, round).await, Err(QueueError::Failed { .. })));
    assert!(matches!(queues.failed().await, QueueError::Failed { .. }));

    let queues = machine.crash().open();
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    assert_eq!(queues.take(lease, 9, LONG).await.unwrap().unwrap().first, 1, "it is taken again");
}

#[tokio::test]
async fn what_was_filed_is_trimmed_and_still_known_by_its_id() {
    let machine = Machine::new(1);
    let queues = machine.open();
    queues.append(0, WINDOW, vec![event("a", 1), event("b", 2)]).await.unwrap();
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    queues.push(lease, round_of(1..=2, vec![])).await.unwrap();
    queues.close().await;
    let queues = machine.crash().open();
    let status = queues.status().event_queues[0];
    assert_eq!((status.last, status.filed, status.bytes), (2, 2, 0));
    let fates = queues.append(0, WINDOW, vec![event("a", 1), event("c", 3)]).await.unwrap();
    assert_eq!(fates, [Fate::Duplicate, Fate::Stored { offset: 3 }], "offsets go on, ids are known");
}

#[tokio::test]
async fn files_that_do_not_belong_together_are_refused() {
    let mut machine = Machine::new(1);
    let queues = machine.open();
    for (n, id) in ["a", "b"].into_iter().enumerate() {
        queues.append(0, WINDOW, vec![event(id, 1)]).await.unwrap();
        let lease = queues.acquire(0, "a", TTL).await.unwrap();
        let offset = n as u64 + 1;
        queues.push(lease, round_of(offset..=offset, vec![])).await.unwrap();
        queues.release(lease).await.unwrap();
    }
    queues.close().await;
    machine = machine.crash();
    let kept = std::mem::take(&mut machine.shards);
    let words = machine.try_open().map(drop).unwrap_err().to_string();
    assert!(words.contains("do not belong together"), "{words}");

    // The other way round, events that were filed are not missed: offsets go on behind them.
    machine.shards = kept.crash();
    machine.events[0] = Default::default();
    let queues = machine.open();
    let fates = queues.append(0, WINDOW, vec![event("c", 1)]).await.unwrap();
    assert_eq!(fates, [Fate::Stored { offset: 3 }]);
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    assert_eq!(taken_ids(&queues.take(lease, 9, LONG).await.unwrap().unwrap()), [(3, "c".to_owned())]);
}

#[tokio::test]
async fn a_dispatcher_that_died_with_the_process_is_not_waited_for() {
    let machine = Machine::new(2);
    let queues = machine.open();
    let here = queues.acquire(0, "here", TTL).await.unwrap();
    let elsewhere = queues.acquire_from_elsewhere(1, "elsewhere", TTL).await.unwrap();
    let queues = machine.crash().open();
    assert!(queues.acquire(0, "here again", TTL).await.unwrap().token > here.token);
    assert!(matches!(queues.acquire(1, "b", TTL).await, Err(QueueError::Held { .. })));
    assert_eq!(queues.renew(elsewhere, TTL).await, Ok(()), "one in another process goes on");
}

/// The queue is trimmed as far as every consumer has come that it knows: one that it forgot would be trimmed away from.
#[tokio::test]
async fn a_consumer_that_was_told_that_it_is_known_is_known_after_a_power_cut() {
    let mut machine = Machine::new(1);
    machine.limits.tidy_every = Duration::from_secs(3600);
    let queues = machine.open();
    queues.append(0, None, vec![event("a", 1)]).await.unwrap();
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    queues.push(lease, round_of(1..=1, vec![round_frame(3, 1, "x")])).await.unwrap();
    let known = |machine: &Machine| {
        let status = machine.open().status();
        status.shard_queues[0].consumers.iter().map(|(name, at)| (name.clone(), *at)).collect::<Vec<_>>()
    };
    queues.committed(3, "slow", 0).await.unwrap();
    assert_eq!(known(&machine.crash()), [("slow".to_owned(), 0)]);
    queues.committed(3, "slow", 1).await.unwrap();
    queues.committed(3, "slow", 0).await.unwrap();
    assert_eq!(known(&machine.crash()), [("slow".to_owned(), 0)], "one that starts anew goes back");
}

#[tokio::test]
async fn the_oldest_ids_are_forgotten_when_there_are_too_many() {
    let mut machine = Machine::new(1);
    machine.limits.ids_max = 2;
    let queues = machine.open();
    for id in ["a", "b", "c", "d"] {
        queues.append(0, WINDOW, vec![event(id, 0)]).await.unwrap();
        machine.pass_ms(1);
    }
    let fates = queues.append(0, WINDOW, vec![event("d", 0), event("a", 0)]).await.unwrap();
    assert_eq!(fates, [Fate::Duplicate, Fate::Stored { offset: 5 }]);
}

#[tokio::test]
async fn large_groups_become_several_frames() {
    let machine = Machine::new(1);
    let queues = machine.open();
    let large = |n: u64| Event { data: "x".repeat(700_000).into(), ..event(n.to_string(), n) };
    let fates = queues.append(0, None, (1..=5).map(large).collect()).await.unwrap();
    assert_eq!(fates.len(), 5);
    let lease = queues.acquire(0, "a", TTL).await.unwrap();
    let taken = queues.take(lease, 9, LONG).await.unwrap().unwrap();
    assert_eq!((taken.first, taken.last), (1, 5));
    let firsts: Vec<Offset> = taken.frames.iter().map(|bytes| EventFrame::decode(bytes).unwrap().first).collect();
    assert_eq!(firsts, [1, 3, 5], "a frame ends with the event that passes its limit");
    assert_eq!(taken_ids(&taken).len(), 5);
}
