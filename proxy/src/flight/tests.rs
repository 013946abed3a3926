use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use millpond_shared::http1::Fields;

use super::filler::AHEAD_MAX;
use super::log::RELEASED_MAX;
use super::*;
use crate::cache::{PurgeSeq, Store, StoreLimits};
use crate::key::KeyHash;
use crate::outcome::Reason;
use crate::semantics::freshness::Times;
use crate::semantics::vary::Selection;

const KEY: KeyHash = KeyHash(7);

fn store() -> Store {
    Store::new(StoreLimits::with_budget(64 << 20))
}

fn flights(limits: Limits) -> Arc<Flights> {
    Flights::new(limits, Arc::new(store()))
}

fn no_purge() -> PurgeSeq {
    store().purge_seq()
}

fn lead(flights: &Arc<Flights>) -> Lead {
    match flights.join(KEY, no_purge()) {
        Join::Lead(lead) => lead,
        Join::Wait(_) | Join::Full => panic!("somebody leads"),
    }
}

fn waiting(flights: &Arc<Flights>) -> Option<Waiting> {
    match flights.join(KEY, no_purge()) {
        Join::Wait(waiting) => Some(waiting),
        Join::Full => None,
        Join::Lead(_) => panic!("nobody leads"),
    }
}

fn draft() -> Arc<Draft> {
    let times = Times { lifetime: 60, ..Times::default() };
    Arc::new(Draft {
        status: StatusCode::OK,
        fields: Fields::default(),
        times,
        selection: Selection::NONE,
        tags: Vec::new(),
        stamp: None,
        original: None,
        is_restated: false,
        coded_from: None,
        preferred: None,
        length: None,
    })
}

#[test]
fn waiters_are_so_many_at_most() {
    let flights = flights(Limits { waiters_max: 2, ..Limits::default() });
    let _lead = lead(&flights);
    let (first, second) = (waiting(&flights), waiting(&flights));
    assert!(first.is_some() && second.is_some() && waiting(&flights).is_none());
    drop(first);
    assert!(waiting(&flights).is_some(), "there is room again");
}

#[tokio::test]
async fn those_who_waited_in_vain_take_turns() {
    let flights = flights(Limits::default());
    let lead = lead(&flights);
    let flight = waiting(&flights).map(|waiting| Arc::clone(&waiting.flight)).expect("there is room");
    lead.unshared(Reason::Private);
    let mut turns = Vec::new();
    for _ in 0..RELEASED_MAX {
        turns.push(flight.turn().now_or_never().expect("at once"));
    }
    let (mut next, mut last) = (Box::pin(flight.turn()), Box::pin(flight.turn()));
    assert!((&mut next).now_or_never().is_none() && (&mut last).now_or_never().is_none());
    // The leave goes with the flight that it is for, and comes back when that is settled.
    let own = flights.alone(no_purge(), turns.pop());
    assert!((&mut next).now_or_never().is_none());
    own.unshared(Reason::Private);
    let its_turn = (&mut next).now_or_never();
    assert!(its_turn.is_some() && (&mut last).now_or_never().is_none());
    turns.clear();
    assert!((&mut last).now_or_never().is_some());
}

/// Appends until the log has no room, and reads as much with `reader`, if there is one.
async fn filled(filler: &mut Filler, mut reader: Option<&mut Reader>) -> usize {
    let mut bytes = 0;
    while bytes < AHEAD_MAX {
        let piece = Bytes::from(vec![b'x'; AHEAD_MAX / 8]);
        bytes += piece.len();
        assert!(!filler.push(piece), "it is too large to be stored");
        if let Some(reader) = &mut reader {
            assert!(matches!(reader.next().await, Piece::Data(_)));
        }
    }
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_keeps_others_waiting_is_left_behind() {
    let flights = flights(Limits::default());
    let mut lead = lead(&flights);
    let flight = lead.flight();
    let mut filler = Filler::new(&flight, 0);
    flight.begin(draft());
    let (mut slow, mut fast) = (flight.reader().expect("from the start"), flight.reader().expect("from the start"));
    for _ in 0..3 {
        filled(&mut filler, Some(&mut fast)).await;
        assert!(filler.room().await, "the fast one gets on");
    }
    assert!(matches!(slow.next().await, Piece::LeftBehind), "and the slow one can tell");
    assert!(flight.reader().is_none(), "the start is gone");
    drop(slow);
    lead.passed_on();
    assert!(matches!(fast.next().await, Piece::End));
}

/// Everybody is as fast as this one: nobody waits for it.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_alone_is_waited_for() {
    let flights = flights(Limits::default());
    let mut lead = lead(&flights);
    let flight = lead.flight();
    let mut filler = Filler::new(&flight, 0);
    flight.begin(draft());
    let mut slow = flight.reader().expect("from the start");
    filled(&mut filler, None).await;
    assert!(filler.room().now_or_never().is_none());
    let waits = tokio::time::timeout(std::time::Duration::from_secs(3600), filler.room()).await;
    assert!(waits.is_err(), "however long");
    while let Some(Piece::Data(_)) = slow.ready() {}
    assert!(filler.room().await);
    drop(slow);
    filled(&mut filler, None).await;
    assert!(!filler.room().await, "nobody reads any more");
}

/// The first reader may only just have been told that there is something to read.
#[tokio::test(start_paused = true)]
async fn a_fill_waits_for_its_first_reader_a_little() {
    let flights = flights(Limits::default());
    let mut lead = lead(&flights);
    let flight = lead.flight();
    let mut filler = Filler::new(&flight, 0);
    filled(&mut filler, None).await;
    flight.begin(draft());
    let mut reader = None;
    let (room, ()) = tokio::join!(filler.room(), async {
        tokio::task::yield_now().await;
        let mut first = flight.reader().expect("nothing is gone");
        while let Some(Piece::Data(_)) = first.ready() {}
        reader = Some(first);
    });
    assert!(room && reader.is_some());

    let mut lead = flights.alone(no_purge(), None);
    let mut filler = Filler::new(&lead.flight(), 0);
    filled(&mut filler, None).await;
    assert!(!filler.room().await, "nobody comes");
}
