//! Entries: what they answer, for how long they are of use, and how small they are.

use super::*;

const TIMES: Times = Times {
    received: 1_000,
    initial_age: 10,
    lifetime: 60,
    stale_revalidate: 30,
    stale_error: 300,
    stale_disconnected: false,
    must_revalidate: false,
    no_cache: false,
};

fn entry(fields: &[(&str, &str)], times: Times) -> Entry {
    let fields = fields.iter().copied().collect();
    Entry::new(StatusCode::OK, fields, Bytes::from_static(b"body"), times, Selection::NONE, Vec::new(), None)
}

#[test]
fn the_fields_are_read_back_from_the_head() {
    let written = [("ETag", "\"a: b\""), ("X-Empty", ""), ("Link", "</a>"), ("link", "</b>")];
    let entry = entry(&written, TIMES);
    assert!(entry.head.starts_with(b"HTTP/1.1 200 OK\r\nETag: \"a: b\"\r\n"), "{:?}", entry.head);
    assert!(entry.head.ends_with(b"\r\nContent-Length: 4\r\n"), "{:?}", entry.head);
    let read: Vec<(&str, &[u8])> = entry.lines().collect();
    assert_eq!(read, written.map(|(name, value)| (name, value.as_bytes())));
    let fields = entry.fields();
    assert_eq!(fields.iter().collect::<Vec<_>>(), read);
    assert!(
        Entry::new(StatusCode::OK, Fields::default(), Bytes::new(), TIMES, Selection::NONE, vec![], None)
            .lines()
            .next()
            .is_none()
    );
}

#[test]
fn a_304_carries_its_lines_whichever_place_they_have() {
    for before in [0, 1, 30, 31, 32, 40] {
        let others = (0..before).map(|number| (format!("X-{number}"), "x"));
        let ours = [("ETag", "\"a\""), ("X", "y"), ("vary", "Accept"), ("Cache-Control", "max-age=1")];
        let all = others.chain(ours.map(|(name, value)| (name.to_owned(), value)));
        let fields: Vec<(String, &str)> = all.collect();
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let mut out = BytesMut::new();
        entry(&fields, TIMES).put_fields_of_304(&mut out, None);
        assert_eq!(out, "ETag: \"a\"\r\nvary: Accept\r\nCache-Control: max-age=1\r\n", "{before} before");
    }
}

#[test]
fn a_part_answers_requests_for_parts_only() {
    let request = Fields::default();
    let whole = entry(&[("ETag", "\"a\"")], TIMES);
    assert!(whole.answers(&request) && !whole.answers_in_part(&request));
    assert_eq!((whole.complete_length(), whole.slice(&(1..3))), (4, Some(Bytes::from_static(b"od"))));
    assert_eq!(whole.slice(&(1..5)), None);
    let part = whole.holding(Part::of(6..10, 20).expect("a part"));
    assert!(!part.answers(&request) && part.answers_in_part(&request));
    assert_eq!((part.complete_length(), part.slice(&(7..9))), (20, Some(Bytes::from_static(b"od"))));
    assert_eq!(part.slice(&(1..3)), None);
    assert_eq!(part.useful_until(), u64::MAX);
    let weak = entry(&[("ETag", "W/\"a\"")], TIMES).holding(Part::of(0..4, 20).expect("a part"));
    assert_eq!(weak.useful_until(), 1_350);
}

#[test]
fn how_long_an_entry_is_of_use() {
    let until = |times: Times| entry(&[], times).useful_until();
    let marked = |times: Times| {
        let entry = entry(&[], times);
        entry.set_mark(Mark::Purged);
        entry.useful_until()
    };
    // Received at 1,000 at the age of 10: its lifetime of 60 is over at 1,050.
    assert_eq!(until(TIMES), 1_350);
    assert_eq!(until(Times { stale_error: 0, ..TIMES }), 1_080);
    assert_eq!(until(Times { stale_error: 0, stale_revalidate: 0, ..TIMES }), 1_050);
    assert_eq!(until(Times { must_revalidate: true, ..TIMES }), 1_050);
    assert_eq!(until(Times { no_cache: true, ..TIMES }), 0);
    assert_eq!(marked(TIMES), 1_350, "the origin may fail");
    assert_eq!(marked(Times { stale_error: 0, ..TIMES }), 0);
    assert_eq!(until(Times { lifetime: u64::MAX, ..TIMES }), u64::MAX);
    assert_eq!(entry(&[("ETag", "\"a\"")], Times { no_cache: true, ..TIMES }).useful_until(), u64::MAX);
}

#[test]
fn a_failing_origin_is_asked_by_one_at_a_time_and_ever_more_rarely() {
    let entry = entry(&[], TIMES);
    let pause = |failures: u8| 1_000 << failures;
    let claims = |now| (0..3).filter(|_| entry.claim_probe(now, 500)).count();
    assert_eq!(claims(5), 3, "it has not failed");
    for (failed_at, again_at) in [(100, 1_100), (1_200, 3_200), (3_200, 7_200)] {
        // Those who had asked before the first of them failed.
        (0..3).for_each(|_| entry.hold_off(failed_at, pause));
        assert_eq!([claims(failed_at), claims(again_at - 1), claims(again_at)], [0, 0, 1], "{again_at}");
    }
    assert_eq!([claims(7_699), claims(7_700)], [0, 1], "the one who asked has not come back");
    entry.recovered();
    assert_eq!(claims(7_700), 3);
    entry.hold_off(10_000, pause);
    assert_eq!([claims(10_999), claims(11_000)], [0, 1], "it begins anew");
}

#[test]
fn the_struct_stays_small() {
    assert!(size_of::<Entry>() <= 144, "{}", size_of::<Entry>());
    // The allocator's block for it ends there.
    assert!(size_of::<Details>() <= 160, "{}", size_of::<Details>());
}
