//! Slices, positions and what is dropped from memory, step by step.

use super::*;
use crate::projection::testing::feed;
use crate::projection::{Effect, Item};
use crate::shard::held::CELL_BYTES;

fn state(is_empty: bool) -> State {
    State::restored(&feed(2), Opened { is_empty, ..Opened::default() })
}

fn frame(position: Position, last: Offset, items: &[(&str, i64)]) -> Prepared {
    let mut frame = Prepared { position, last, events: items.len() as u64, ..Prepared::default() };
    for (place, (key, order)) in (0..).zip(items) {
        frame.arrive(0, key, Effect::Item(Item::new(*order, "x", "{}")), (last * 10 + place, 0));
    }
    frame
}

fn merge(state: &mut State, mut frame: Prepared) {
    assert!(state.find(&mut frame).is_empty(), "nothing is cold");
    state.merge(frame);
}

fn keys(write: &Write) -> Vec<&str> {
    write.documents.iter().map(|(_, key, _)| &**key).collect()
}

fn here(state: &State, key: &str) -> Arc<Document> {
    let Looked::Here(document) = state.look(0, key) else { panic!("{key} is not there") };
    document
}

const ALL: u64 = u64::MAX;

#[test]
fn a_slice_holds_what_changed_since_it_was_written() {
    let mut state = state(true);
    assert!(state.slice(ALL).is_none());
    merge(&mut state, frame(1, 10, &[("a", 1), ("b", 1)]));
    merge(&mut state, frame(2, 11, &[("a", 2)]));
    let changes = announcements(3, state.take_changed(), &feed(2));
    let listed: Vec<_> = changes.iter().map(|change| (change.tag.as_str(), change.version.position)).collect();
    assert_eq!(listed, [("p/a", 2), ("p/b", 1)]);
    assert!(state.take_changed().is_empty());

    let write = state.slice(ALL).expect("something to write");
    assert_eq!((write.committed, write.marks.get(&0), keys(&write)), (2, Some(&11), vec!["a", "b"]));
    assert_eq!((state.dirty_bytes(), state.events_since_slice(), state.uncommitted_events()), (0, 0, 3));

    let written = write.documents[1].2.clone();
    merge(&mut state, frame(3, 12, &[("b", 2), ("b", 3)]));
    assert_eq!(written.version.position, 1, "what is being written does not change");
    state.committed();
    assert_eq!(state.uncommitted_events(), 2);
    let write = state.slice(ALL).expect("something to write");
    assert_eq!((write.committed, keys(&write)), (3, vec!["b"]));
    assert!(state.slice(ALL).is_none());
    state.committed();
    assert!(!state.is_unwritten());
}

/// The position of a slice is the last before the first change of what is still dirty, with the marks of that time.
#[test]
fn a_slice_reaches_to_the_first_change_of_the_oldest_that_is_left() {
    let mut state = state(true);
    let frames: [&[(&str, i64)]; 5] = [&[("a", 1)], &[("b", 1), ("c", 1)], &[("a", 2)], &[("d", 1)], &[("b", 2)]];
    for (position, items) in (1..).zip(frames) {
        merge(&mut state, frame(position, position * 10, items));
    }
    let mut slices = Vec::new();
    while let Some(write) = state.slice(1) {
        let marks = write.marks.get(&0).copied();
        slices.push((keys(&write).concat(), write.committed, marks, state.uncommitted_events()));
        state.committed();
    }
    let expected = [("a", 1, Some(10), 6), ("b", 1, Some(10), 5), ("c", 3, Some(30), 5), ("d", 5, Some(50), 2)];
    assert_eq!(slices, expected.map(|(keys, reached, marks, events)| (keys.to_owned(), reached, marks, events)));
    assert_eq!(state.uncommitted_events(), 0);
}

#[test]
fn what_changes_while_it_is_written_is_written_again() {
    let mut state = state(true);
    merge(&mut state, frame(1, 1, &[("a", 1), ("b", 1)]));
    assert_eq!(keys(&state.slice(1).expect("a slice")), ["a"]);
    merge(&mut state, frame(2, 2, &[("a", 2)]));
    state.committed();
    let write = state.slice(1).expect("a slice");
    assert_eq!((keys(&write), write.committed), (vec!["b"], 1), "a is dirty since frame 2");
    state.committed();
    let write = state.slice(1).expect("a slice");
    assert_eq!((keys(&write), write.committed), (vec!["a"], 2));
}

#[test]
fn dirty_bytes_are_those_of_the_dirty_documents() {
    let mut state = state(true);
    for (position, order) in (1..).zip([5, 6, 7, 1, 7]) {
        merge(&mut state, frame(position, position, &[("a", order), ("b", 1)]));
    }
    let expected: u64 = ["a", "b"].map(|key| CELL_BYTES + 1 + here(&state, key).weight() as u64).iter().sum();
    assert_eq!((state.dirty_bytes(), state.bytes()), (expected, expected));
    state.slice(1);
    assert!(state.dirty_bytes() < expected);
    assert_eq!(state.bytes(), expected);
}

#[test]
fn a_frame_that_changes_nothing_moves_position_and_mark() {
    let mut state = state(true);
    merge(&mut state, frame(1, 10, &[]));
    assert_eq!((state.applied(), state.mark(0), state.mark(1)), (1, 10, 0));
    merge(&mut state, frame(2, 4, &[]));
    assert_eq!(state.mark(0), 10, "a mark never goes back");
    assert_eq!(state.slice(ALL).expect("a position to write").committed, 2);
}

#[test]
fn what_is_on_disk_is_dropped_and_has_to_be_brought_before_it_changes() {
    let mut state = state(true);
    merge(&mut state, frame(1, 1, &[("a", 1), ("b", 1)]));
    state.take_changed();
    assert!(state.shrink(0).is_empty(), "not on disk yet");
    let row = state.slice(1).expect("a slice").documents.remove(0);
    assert!(state.shrink(0).is_empty(), "not known to be on disk yet");
    state.committed();
    assert_eq!(state.shrink(0).len(), 1);
    assert!(matches!(state.look(0, "a"), Looked::MayBeCold(1)) && matches!(state.look(0, "b"), Looked::Here(_)));

    let mut next = frame(2, 2, &[("a", 2), ("b", 2), ("a", 3)]);
    assert!(!state.has_all(&next) && state.has_all(&frame(2, 2, &[("b", 2)])));
    assert_eq!(state.find(&mut next), [(0, "a".into())]);
    state.bring(vec![row]);
    assert!(state.has_all(&next));
    state.merge(next);
    assert_eq!(here(&state, "a").items().map(|item| item.order).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn what_a_reader_brings_back_late_or_without_room_is_not_kept() {
    let mut state = state(false);
    let Looked::MayBeCold(commits) = state.look(0, "a") else { panic!("nothing is in memory") };
    let row: Row = (0, "a".into(), Arc::new(Document::empty(&feed(2)[0].kind)));
    state.bring_back(row.clone(), commits, 0);
    assert_eq!(state.documents(), 0, "no room");
    merge_cold(&mut state, frame(1, 1, &[("b", 1)]));
    state.slice(ALL);
    state.committed();
    state.bring_back(row.clone(), commits, ALL);
    assert_eq!(state.documents(), 1, "a commit may have written another since");
    state.bring_back(row, commits + 1, ALL);
    assert_eq!(state.documents(), 2);
}

/// What is missing is in the file neither.
fn merge_cold(state: &mut State, mut frame: Prepared) {
    state.find(&mut frame);
    state.merge(frame);
}
