//! What may be found as fresh, and given to whom, by what was announced and given before.

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::http1::Fields;
use millpond_shared::shard_map::{Final, FirstMap, MapState};
use millpond_shared::version::Version;
use millpond_shared::wire::{CHANGES_FORMAT, Change};

use super::recent::REMEMBERED_MAX;
use super::*;
use crate::cache::{PartTags, StoreLimits};
use crate::semantics::freshness::Times;
use crate::semantics::vary::Selection;

const SHARD: ShardId = 3;

fn live() -> Live {
    Live::new(Arc::new(Store::new(StoreLimits::with_budget(1 << 20))), [SHARD])
}

fn stamp(live: &Live, tag: &str, position: Position, at: Position) -> Stamp {
    let version = Version::new(1, position);
    Stamp {
        shard: SHARD,
        tag: tag.into(),
        parts: PartTags::NONE,
        version,
        at,
        generation: live.generation(SHARD),
        lags_until: 0,
    }
}

fn changed(live: &Live, tag: &str, position: Position) {
    let documents = vec![Change { tag: tag.to_owned(), version: Version::new(1, position) }];
    live.heard(SHARD, &ChangeMessage::Changes { at: position, documents });
}

#[test]
fn nothing_is_fresh_before_the_stream_is_heard_or_after_it_was_lost() {
    let live = live();
    let before = stamp(&live, "p/k", 1, 1);
    assert!(!live.vouches_for(&before, clock::wall_ms()));
    live.heard(SHARD, &ChangeMessage::Hello { format: CHANGES_FORMAT, shard: SHARD, resumed: true, at: 1 });
    assert!(!live.vouches_for(&before, clock::wall_ms()), "admitted while nobody listened");
    let during = stamp(&live, "p/k", 1, 1);
    assert!(live.vouches_for(&during, clock::wall_ms()));
    assert!(!live.vouches_for(&during, clock::wall_ms() + ChangeMessage::SILENCE_MAX_MS + 1000), "silence");
    live.lost(SHARD);
    assert!(!live.vouches_for(&during, clock::wall_ms()));
    live.heard(SHARD, &ChangeMessage::Tick { at: 1 });
    assert!(!live.vouches_for(&during, clock::wall_ms()), "a change may have been missed meanwhile");
    assert!(live.vouches_for(&stamp(&live, "p/k", 1, 1), clock::wall_ms()));
}

#[test]
fn a_gap_makes_every_copy_suspect() {
    let live = live();
    live.heard(SHARD, &ChangeMessage::Tick { at: 1 });
    let copy = stamp(&live, "p/k", 1, 1);
    live.heard(SHARD, &ChangeMessage::Hello { format: CHANGES_FORMAT, shard: SHARD, resumed: true, at: 2 });
    assert!(live.vouches_for(&copy, clock::wall_ms()));
    live.heard(SHARD, &ChangeMessage::Hello { format: CHANGES_FORMAT, shard: SHARD, resumed: false, at: 9 });
    assert!(!live.vouches_for(&copy, clock::wall_ms()));
    assert_eq!(live.least(SHARD).position, 9);
}

#[test]
fn a_fetch_that_was_overtaken_is_not_admitted_and_no_client_goes_back() {
    let live = live();
    live.heard(SHARD, &ChangeMessage::Tick { at: 4 });
    let asked_at = live.least(SHARD).position;
    let slow = stamp(&live, "p/k", 3, 4);
    changed(&live, "p/k", 5);
    assert_eq!(live.judge(&slow, asked_at), Verdict::Superseded, "asked before the change: may have it");
    assert_eq!(live.judge(&slow, live.least(SHARD).position), Verdict::Older, "asked after it: must not");
    assert_eq!(live.judge(&stamp(&live, "p/k", 5, 5), asked_at), Verdict::Current);
    assert_eq!(live.judge(&slow, asked_at), Verdict::Older, "version 5 was given out");
    assert_eq!(live.judge(&stamp(&live, "p/other", 2, 4), asked_at), Verdict::Current);
}

#[test]
fn what_was_served_is_asked_for_at_least() {
    let live = live();
    assert_eq!(live.judge(&stamp(&live, "p/k", 7, 8), 0), Verdict::Current);
    assert_eq!(live.least(SHARD).position, 7);
}

#[test]
fn who_has_just_started_asks_for_the_newest_until_it_knows_where_that_is() {
    let live = live();
    assert_eq!(live.least(SHARD), Least { position: 0, newest: true });
    // A shard that is cut off from its queue announces, and is asked, and knows of nothing newer.
    live.heard(SHARD, &ChangeMessage::Tick { at: 4 });
    assert_eq!(live.judge(&stamp(&live, "p/k", 3, 4), 0), Verdict::Current);
    assert_eq!(live.least(SHARD), Least { position: 4, newest: true });
    live.learnt(SHARD, 9);
    assert_eq!(live.least(SHARD), Least { position: 9, newest: false });
    live.learnt(SHARD, 7);
    assert_eq!(live.least(SHARD), Least { position: 9, newest: false }, "of two that were asked at once");
    assert_eq!(live.least(SHARD + 1), Least::default(), "another's");
}

fn entry(stamp: Stamp) -> Entry {
    let times = Times {
        received: 0,
        initial_age: 0,
        lifetime: 60,
        stale_revalidate: 0,
        stale_error: 0,
        stale_disconnected: false,
        must_revalidate: false,
        no_cache: false,
    };
    Entry::new(StatusCode::OK, Fields::default(), Bytes::new(), times, Selection::NONE, Vec::new(), Some(stamp))
}

#[test]
fn a_copy_lags_as_long_as_it_may_and_nobody_has_a_newer_one() {
    let live = live();
    live.heard(SHARD, &ChangeMessage::Tick { at: 4 });
    let now = clock::wall_ms();
    let lagging = |position| Stamp { lags_until: now + 100, ..stamp(&live, "p/k", position, position) };
    let (copy, other, strict) = (entry(lagging(4)), entry(lagging(4)), entry(stamp(&live, "p/k", 4, 4)));
    changed(&live, "p/k", 6);
    for one in [&copy, &other, &strict] {
        one.set_mark(Mark::Changed);
    }
    assert_eq!(live.invalidated(&strict, now), Some(Reason::Changed));
    assert_eq!((live.invalidated(&copy, now), live.invalidated(&copy, now + 99)), (None, None));
    assert_eq!(live.invalidated(&copy, now + 100), Some(Reason::Changed));
    other.set_mark(Mark::Purged);
    assert_eq!(live.invalidated(&other, now), Some(Reason::Purged), "purged is purged");

    // A fetch that was overtaken itself is given to somebody, and may then lag itself.
    let overtaken = lagging(5);
    assert_eq!(live.judge(&overtaken, 4), Verdict::Superseded);
    assert_eq!(live.invalidated(&copy, now), Some(Reason::Changed), "no client goes back");
    let overtaken = entry(overtaken);
    overtaken.set_mark(Mark::Changed);
    assert_eq!(live.invalidated(&overtaken, now), None);
    live.lost(SHARD);
    assert_eq!(live.invalidated(&overtaken, now), Some(Reason::Changed), "nobody knows what was missed");
}

#[test]
fn forgotten_changes_are_not_taken_for_none() {
    let live = live();
    for position in 1..=(REMEMBERED_MAX as u64 + 10) {
        changed(&live, &format!("p/{position}"), position);
    }
    assert_eq!(live.judge(&stamp(&live, "p/1", 0, 5), 0), Verdict::Superseded);
    assert_eq!(live.judge(&stamp(&live, "p/1", 1, 11), 0), Verdict::Current, "rendered after all that is forgotten");
}

#[test]
fn what_has_moved_is_neither_fresh_nor_given_by_the_shard_that_had_it() {
    let first = MapState::first(FirstMap { version: 1, shards: 4 });
    let live = Live::new(Arc::new(Store::new(StoreLimits::with_budget(1 << 20))), 0..4).with_map(first.map.clone());
    let slot = Slot::of("p", "k");
    let from = first.map.owner(slot).shard;
    let (to, other) = ((from + 1) % 4, (from + 2) % 4);
    for shard in 0..4 {
        live.heard(shard, &ChangeMessage::Tick { at: 9 });
    }
    let of = |shard, tag: &str, version| Stamp {
        shard,
        tag: tag.into(),
        parts: PartTags::NONE,
        version,
        at: 9,
        generation: live.generation(shard),
        lags_until: 0,
    };
    let before = of(from, "p/k", Version::new(1, 9));
    let elsewhere = of(other, "p/elsewhere", Version::new(1, 9));
    assert_eq!((live.judge(&before, 9), live.vouches_for(&before, clock::wall_ms())), (Verdict::Current, true));

    let ended = Some(Final { offsets: Vec::new(), position: Some(9) });
    let moved = first.begin([slot].into_iter().collect(), to).and_then(|state| state.hold(2, ended));
    let moved = moved.and_then(|state| state.complete(2, 5)).expect("moved");
    live.heard(to, &ChangeMessage::Map { at: 9, map: moved.map.clone() });
    assert!(!live.vouches_for(&before, clock::wall_ms()));
    assert!(live.vouches_for(&elsewhere, clock::wall_ms()), "the others' copies are as good as before");
    let late = of(from, "p/k", Version::new(1, 9));
    assert_eq!((live.judge(&late, 9), live.overtaken(&late)), (Verdict::Older, true));
    assert_eq!(live.judge(&of(to, "p/k", Version::new(2, 5)), 9), Verdict::Current);
    live.heard(from, &ChangeMessage::Map { at: 9, map: first.map });
    assert_eq!(live.map().expect("a map").version(), moved.version(), "an older map changes nothing");
}
