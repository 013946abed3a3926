//! What readers are given: of which position, and what they are told of that.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use millpond_shared::wire::{ChangeMessage, Follow};

use super::*;

#[tokio::test]
async fn a_document_without_events_is_nothing_yet() {
    let site = site(NEVER);
    let read = site.open().document(&route("x"), None).await.expect("read");
    assert!(matches!(read.found, Found::Nothing(version) if version == Version::new(1, 0)), "{read:?}");
}

#[tokio::test]
async fn a_reader_waits_for_its_position_but_not_for_ever() {
    let site = site(NEVER);
    let running = run(site.open());
    let waiting = tokio::spawn({
        let shard = running.shard.clone();
        async move { shard.document(&route("x"), Some(1)).await.map(|read| read.position) }
    });
    site.push(event("a", 1, r#"{"user":"x"}"#));
    assert_eq!(waiting.await.expect("no panic").expect("read"), 1);
    let behind = running.shard.document(&route("x"), Some(2)).await.expect_err("behind");
    assert!(matches!(behind, NotRead::Behind { applied: 1, least: 2 }), "{behind}");
    running.stopped().await.expect("stopped");
}

#[tokio::test]
async fn what_is_read_after_a_crash_is_not_older_than_before() {
    let site = site(NEVER);
    let running = run(site.open());
    let last = site.push(event("a", 1, r#"{"user":"x"}"#));
    running.body("x", last).await;

    // Nothing was committed; the queue has it still.
    let site = Site { disk: site.disk.crash(), ..site };
    let shard = site.open();
    let reading = tokio::spawn({
        let shard = shard.clone();
        async move { shard.document(&route("x"), None).await }
    });
    while shard.held_at_start.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    let running = run(shard);
    let read = reading.await.expect("no panic").expect("read");
    assert!(
        matches!(read, Read { position, behind: Behind::Nothing, found: Found::Document(_), .. } if position == last),
        "{read:?}"
    );
    running.stopped().await.expect("stopped");
}

/// It may have given newer documents before: nobody knows what its queue holds.
#[tokio::test(start_paused = true)]
async fn a_shard_that_was_started_and_can_not_reach_its_queue_says_so() {
    let site = site(NEVER);
    let shard = site.open();
    site.push(event("a", 1, r#"{"user":"x"}"#));
    let read = shard.document(&route("x"), None).await.expect("read");
    assert!(matches!(&read, Read { position: 0, behind: Behind::Unknown, found: Found::Nothing(_), .. }), "{read:?}");
    shard.take(site.queue.pulled(0, 1).into()).await.expect("applied");
    let read = shard.document(&route("x"), None).await.expect("read");
    assert!(matches!(&read, Read { position: 1, behind: Behind::Nothing, found: Found::Document(_), .. }), "{read:?}");
}

#[tokio::test]
async fn a_shard_that_has_to_catch_up_gives_older_documents_and_says_so() {
    let site = site(NEVER);
    let first = site.push(event("a", 1, r#"{"user":"x"}"#));
    let shard = site.open();
    shard.take(site.queue.pulled(0, 1).into()).await.expect("applied");
    for id in ["b", "c"] {
        site.push(event(id, 2, r#"{"user":"x"}"#));
    }
    // What it is told by the first pull after a restart: there is more than came with it.
    shard.held_at_start.send_replace(Some(first + 2));
    let read = shard.document(&route("x"), Some(first)).await.expect("read");
    assert!(
        matches!(&read, Read { position: 1, behind: Behind::Positions(2), found: Found::Document(_), .. }),
        "{read:?}"
    );
    let read = shard.document(&route("y"), None).await.expect("read");
    assert!(
        matches!(&read, Read { position: 1, behind: Behind::Positions(2), found: Found::Nothing(_), .. }),
        "{read:?}"
    );
    let refused = shard.document(&route("x"), Some(first + 1)).await.expect_err("a client was given more before");
    assert!(matches!(refused, NotRead::Behind { applied: 1, least: 2 }), "{refused}");
    shard.take(site.queue.pulled(1, 2).into()).await.expect("applied");
    let read = shard.document(&route("x"), None).await.expect("read");
    assert!(matches!(&read, Read { position: 3, behind: Behind::Nothing, .. }), "{read:?}");
}

/// Whoever knows of no position asks for all that the queue holds, and is told where that was not to be had.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_cut_off_from_its_queue_says_so_to_who_asks_for_the_newest() {
    let site = site(NEVER);
    let shard = site.open();
    site.push(event("a", 1, r#"{"user":"x"}"#));
    shard.take(site.queue.pulled(0, 1).into()).await.expect("applied");
    let read = async || {
        let newest = shard.newest().await;
        (newest, shard.document(&route("x"), None).await.expect("read").for_newest(newest))
    };
    assert!(matches!(read().await, (Some(1), Read { position: 1, behind: Behind::Nothing, .. })));
    site.queue.is_cut_off.store(true, Ordering::Relaxed);
    site.push(event("b", 2, r#"{"user":"x"}"#));
    assert!(matches!(
        read().await,
        (None, Read { position: 1, behind: Behind::Unknown, found: Found::Document(_), .. })
    ));
    let plain = shard.document(&route("x"), None).await.expect("read");
    assert!(matches!(plain, Read { position: 1, behind: Behind::Nothing, .. }), "nobody asked the queue");
    site.queue.is_cut_off.store(false, Ordering::Relaxed);
    assert!(
        matches!(read().await, (Some(2), Read { position: 1, behind: Behind::Positions(1), .. })),
        "not pulled yet"
    );
    let waiting = tokio::spawn({
        let shard = shard.clone();
        async move { shard.newest().await }
    });
    let asked = || site.queue.calls.lock().iter().filter(|call| **call == Call::Other("newest")).count();
    while asked() < 4 {
        tokio::task::yield_now().await;
    }
    shard.take(site.queue.pulled(1, 1).into()).await.expect("applied");
    assert_eq!((waiting.await.expect("no panic"), *shard.applied().borrow()), (Some(2), 2), "it waits a little");
    // Readers that come together are answered together.
    let before = asked();
    let readers = futures_util::future::join_all((0..100).map(|_| shard.newest())).await;
    assert!(readers.iter().all(|newest| *newest == Some(2)) && asked() - before <= 2, "{} times", asked() - before);
}

#[tokio::test]
async fn a_shard_whose_queue_is_away_gives_what_it_has() {
    let site = site(NEVER);
    let running = run(site.open());
    let last = site.push(event("a", 1, r#"{"user":"x"}"#));
    running.body("x", last).await;
    running.stopped().await.expect("stopped");
    let read = site.open().document(&route("x"), None).await.expect("read");
    assert!(matches!(read.found, Found::Document(_)), "{read:?}");
}

#[tokio::test]
async fn an_output_is_rendered_once_for_a_version() {
    let site = site(NEVER);
    let running = run(site.open());
    let metrics = &running.shard.metrics;
    let position = site.push(event("a", 1, r#"{"user":"x"}"#));
    for _ in 0..3 {
        running.body("x", position).await;
    }
    let before = (metrics.rendered.get(), metrics.memoised.get());
    let position = site.push(event("b", 1, r#"{"user":"x"}"#));
    running.body("x", position).await;
    assert_eq!((before, metrics.rendered.get()), ((1, 2), 2));
    running.stopped().await.expect("stopped");
}

#[tokio::test]
async fn a_large_document_is_rendered_all_the_same() {
    let site = Site::new(declared(
        "name = \"p\"\nkind = \"latest\"\nkey = \"{data.user}\"\nitem = { text = \"{data.text}\" }",
    ));
    let running = run(site.open());
    let text = "x".repeat(400_000);
    let position = site.push(event("a", 1, &format!(r#"{{"user":"x","text":"{text}"}}"#)));
    assert_eq!(running.body("x", position).await, format!(r#"{{"text":"{text}"}}"#));
    running.stopped().await.expect("stopped");
}

#[tokio::test]
async fn an_announced_change_can_be_read() {
    let site = site(NEVER);
    let running = run(site.open());
    let mut stream = running.shard.follow(Follow::default()).expect("a stream");
    let mut versions: BTreeMap<String, Version> = BTreeMap::new();
    for id in 0..50 {
        let position = site.push(event(&id.to_string(), id, r#"{"user":"x"}"#));
        while versions.get("p/x").is_none_or(|version| version.position < position) {
            match stream.next().await.expect("a message") {
                ChangeMessage::Changes { documents, .. } => {
                    for change in documents {
                        let read = running.shard.document(&route("x"), None).await.expect("read");
                        let Found::Document(rendered) = read.found else { panic!("announced, not there") };
                        assert!(rendered.version >= change.version);
                        versions.insert(change.tag, change.version);
                    }
                }
                ChangeMessage::Hello { .. } | ChangeMessage::Tick { .. } | ChangeMessage::Map { .. } => {}
            }
        }
    }
    running.stopped().await.expect("stopped");
    while stream.next().await.is_some() {}
}
