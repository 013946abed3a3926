//! When a shard commits, and what waits for that.

use super::*;

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

#[tokio::test]
async fn pulling_waits_while_too_much_is_not_on_disk() {
    let settings = || ShardSettings { flush_every: AT_ONCE, ..ShardSettings::default() };
    for settings in [ShardSettings { uncommitted_events: 3, ..settings() }, ShardSettings { memory: 100, ..settings() }]
    {
        pulling_waits(settings).await;
    }
}

async fn pulling_waits(settings: ShardSettings) {
    let site = Site { settings, ..Site::new(feed(2)) };
    let shard = site.open();
    let held = site.disk.hold_syncs();
    let events: Vec<_> = (0..4).map(|id| event(&id.to_string(), id, r#"{"user":"x"}"#)).collect();
    let first = site.queue.push(&site.frame(0, 1, &events));
    let running = run(shard);
    running.body("x", first).await;

    let waiting = tokio::task::spawn_blocking(move || {
        held.until_one_waits();
        held
    });
    let held = waiting.await.expect("no panic");
    let second = site.push(event("late", 9, r#"{"user":"x"}"#));
    site.queue.calls.lock().push(Call::Other("syncs go on"));
    drop(held);
    running.body("x", second).await;
    running.stopped().await.expect("stopped");

    let calls = site.queue.calls.lock().clone();
    let place = |call: Call| calls.iter().position(|made| *made == call).expect("made");
    assert!(place(Call::Other("syncs go on")) < place(Call::Pull { after: first }), "{calls:?}");
}
