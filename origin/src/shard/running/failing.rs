//! What ends a shard, what it gets over, and what is on disk then.

use std::sync::Arc;

use millpond_shared::wire::{HandedDocument, Handover};
use prometheus::Registry;

use super::*;
use crate::projection::Document;
use crate::queue::testing::{Machine, round_of};
use crate::queue::{DispatchQueues, EventQueues, Queues, RoundFrame};

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
        queues.push(lease, round_of(first..=first, vec![frame])).await.expect("pushed");
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
