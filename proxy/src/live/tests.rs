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
    assert_eq!(live.judge(&stamp(&live, "p/ahead", 20, 9), 0), Verdict::Current);
    assert_eq!(live.least(SHARD).position, 9, "others can't be asked to be as far as a document that is ahead");
    assert_eq!(live.judge(&stamp(&live, "p/ahead", 19, 30), 30), Verdict::Older, "it does not go back itself");
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
    let times = Times { lifetime: 60, ..Times::default() };
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
    let old = stamp(&live, "p/2", 2, 5);
    live.given(&old);
    assert!(live.overtaken(&old), "that it was given does not tell that it has not changed");
}

const HOME: &str = "home/ann";
const PARTS: [&str; 2] = ["posts/3*", "posts/3*bob"];

/// A home feed that was merged from two parts.
fn merged(live: &Live, position: Position, at: Position) -> Stamp {
    Stamp { parts: PartTags::of(PARTS.into_iter()), ..stamp(live, HOME, position, at) }
}

#[test]
fn what_was_merged_is_overtaken_by_a_change_of_any_part() {
    for (tag, concerned) in [(HOME, true), (PARTS[0], true), (PARTS[1], true), ("posts/3*carl", false)] {
        let live = live();
        live.heard(SHARD, &ChangeMessage::Tick { at: 57 });
        let (asked_at, slow) = (live.least(SHARD).position, merged(&live, 57, 57));
        changed(&live, tag, 57);
        assert!(!live.overtaken(&slow), "the change of {tag} is in it");
        changed(&live, tag, 60);
        assert_eq!(live.overtaken(&slow), concerned, "{tag}");
        let asked_after = live.least(SHARD).position;
        let expected = match concerned {
            true => [Verdict::Superseded, Verdict::Older],
            false => [Verdict::Current, Verdict::Current],
        };
        assert_eq!([asked_at, asked_after].map(|asked_at| live.judge(&slow, asked_at)), expected, "{tag}");
        let new = merged(&live, 60, 60);
        assert_eq!((live.overtaken(&new), live.judge(&new, asked_after)), (false, Verdict::Current), "{tag}");
    }
}

/// One part has changed before the client asked, another since: the later change does not hide the earlier.
#[test]
fn of_the_changes_of_several_parts_the_first_counts() {
    for (first, second) in [(PARTS[0], PARTS[1]), (PARTS[1], PARTS[0]), (HOME, PARTS[1]), (PARTS[0], HOME)] {
        let live = live();
        let slow = merged(&live, 57, 57);
        changed(&live, first, 60);
        changed(&live, second, 80);
        assert_eq!(live.judge(&slow, 59), Verdict::Superseded, "{first}, {second}");
        assert_eq!(live.judge(&slow, 70), Verdict::Older, "{first}, {second}");
    }
}

#[test]
fn what_was_given_of_the_merged_document_says_nothing_of_its_parts() {
    let live = live();
    assert_eq!(live.judge(&merged(&live, 57, 57), 57), Verdict::Current);
    assert_eq!(live.judge(&merged(&live, 56, 57), 57), Verdict::Older);
    for part in PARTS {
        assert_eq!(live.judge(&stamp(&live, part, 40, 57), 57), Verdict::Current, "{part}");
    }
    live.given(&stamp(&live, PARTS[0], 90, 90));
    assert_eq!(live.judge(&merged(&live, 57, 57), 57), Verdict::Current, "nobody was given a newer home feed");
    // Somebody is given one that a part has overtaken: an older one is for nobody from then on.
    changed(&live, PARTS[1], 95);
    assert_eq!(live.judge(&merged(&live, 60, 90), 90), Verdict::Superseded);
    assert_eq!(live.judge(&merged(&live, 57, 90), 90), Verdict::Older);
}

#[test]
fn a_forgotten_change_of_a_part_is_not_taken_for_none() {
    let live = live();
    let forgotten_at = REMEMBERED_MAX as u64 + 1;
    changed(&live, "p/first", 1);
    changed(&live, HOME, 2);
    (3..forgotten_at).for_each(|position| changed(&live, &format!("p/{position}"), position));
    changed(&live, "p/first", forgotten_at);
    changed(&live, "p/last", forgotten_at + 1);
    let before = forgotten_at - 1;
    let alone = stamp(&live, HOME, 2, before);
    assert_eq!((live.overtaken(&alone), live.judge(&alone, 0)), (false, Verdict::Current), "its own is remembered");
    assert!(live.overtaken(&merged(&live, 2, before)));
    assert_eq!(live.judge(&merged(&live, 2, before), before), Verdict::Superseded);
    assert_eq!(live.judge(&merged(&live, 2, before), forgotten_at), Verdict::Older);
    let after = merged(&live, 2, forgotten_at);
    assert_eq!((live.overtaken(&after), live.judge(&after, forgotten_at)), (false, Verdict::Current));
}

#[test]
fn a_merged_copy_lags_behind_its_parts_as_behind_its_own_document() {
    let live = live();
    live.heard(SHARD, &ChangeMessage::Tick { at: 4 });
    let now = clock::wall_ms();
    let lagging = |position| Stamp { lags_until: now + 100, ..merged(&live, position, position) };
    let copy = entry(lagging(4));
    live.given(&lagging(4));
    changed(&live, PARTS[0], 6);
    copy.set_mark(Mark::Changed);
    assert_eq!((live.invalidated(&copy, now), live.invalidated(&copy, now + 100)), (None, Some(Reason::Changed)));
    live.given(&stamp(&live, PARTS[0], 6, 6));
    assert_eq!(live.invalidated(&copy, now), None, "nobody was given a newer home feed");
    live.given(&lagging(6));
    assert_eq!(live.invalidated(&copy, now), Some(Reason::Changed));
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

    // It comes back, and an answer was on its way all the time.
    let ended = Some(Final { offsets: Vec::new(), position: Some(9) });
    let back = moved.begin([slot].into_iter().collect(), from).and_then(|state| state.hold(state.version(), ended));
    let back = back.and_then(|state| state.complete(moved.version() + 1, 30)).expect("moved back");
    live.heard(from, &ChangeMessage::Map { at: 30, map: back.map.clone() });
    let slow = of(from, "p/k", Version::new(1, 9));
    assert_eq!((live.judge(&slow, 9), live.overtaken(&slow)), (Verdict::Older, true));
    let now = Stamp { at: 30, ..of(from, "p/k", Version::new(back.version(), 29)) };
    assert_eq!(live.judge(&now, 30), Verdict::Current);
}
