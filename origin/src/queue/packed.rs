//! Events encoded where they are appended, and the frames that are put together of them (pure).
//!
//! An event is half a dozen texts, each a block of memory of its own, which the thread that made it has at hand and the
//! writer's would have to fetch, to read and to free. So none gets there: a call brings one block with all of its events
//! as they stand in a frame, and a frame is pieces of such blocks.

use std::ops::Range;

use millpond_shared::event::Event;
use millpond_shared::version::{Offset, QueueId};
use millpond_shared::wire::EventFrame;

use crate::projection::is_hop;

/// The events of one call.
#[derive(Default)]
pub(super) struct Packed {
    /// One behind the other, each as it stands in a frame.
    bytes: Vec<u8>,
    events: Vec<PackedEvent>,
}

/// What the writer has to know of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PackedEvent {
    /// Of its id, if it is to be recognised.
    pub hash: Option<u128>,
    /// [`Event::frame_bytes`], which limits are counted in.
    pub frame_bytes: u64,
    /// When ingest took it, in ms.
    pub received: u64,
    pub is_hop: bool,
    /// Where it stands in the block of its call.
    place: Range<usize>,
}

impl Packed {
    /// Encodes events whose [`Event::frame_bytes`] add up to `frame_bytes`. `hash`: of an id, if it is to be recognised.
    pub fn new(events: Vec<Event<'static>>, frame_bytes: u64, hash: impl Fn(&Event<'_>) -> Option<u128>) -> Packed {
        let room = usize::try_from(frame_bytes).unwrap_or(0);
        let mut packed = Packed { bytes: Vec::with_capacity(room), events: Vec::with_capacity(events.len()) };
        for event in events {
            let start = packed.bytes.len();
            EventFrame::put_event(&event, &mut packed.bytes);
            packed.events.push(PackedEvent {
                hash: hash(&event),
                frame_bytes: event.frame_bytes(),
                received: event.received,
                is_hop: is_hop(&event),
                place: start..packed.bytes.len(),
            });
        }
        packed
    }

    pub fn events(&self) -> &[PackedEvent] {
        &self.events
    }
}

/// A frame that is being put together.
#[derive(Default)]
pub(super) struct OpenFrame<'a> {
    /// Blocks, and what of each the frame has.
    runs: Vec<(&'a [u8], Range<usize>)>,
    count: usize,
    frame_bytes: u64,
    received: Option<u64>,
}

impl<'a> OpenFrame<'a> {
    /// Adds an event of `call`. Neighbours there become one run.
    pub fn add(&mut self, call: &'a Packed, event: &PackedEvent) {
        self.count += 1;
        self.frame_bytes += event.frame_bytes;
        self.received.get_or_insert(event.received);
        match self.runs.last_mut() {
            Some((block, run)) if std::ptr::eq(*block, call.bytes.as_slice()) && run.end == event.place.start => {
                run.end = event.place.end;
            }
            _ => self.runs.push((&call.bytes, event.place.clone())),
        }
    }

    /// How many events it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The sum of their [`Event::frame_bytes`].
    pub fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    /// When the first of them was taken; `None` if there is none.
    pub fn received(&self) -> Option<u64> {
        self.received
    }

    /// The encoded `EventFrame`.
    pub fn encode(&self, queue: QueueId, first: Offset) -> Vec<u8> {
        let runs = self.runs.iter().map(|(block, run)| block.get(run.clone()).unwrap_or_default());
        EventFrame::join(queue, first, self.count, runs)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::projection::{News, Told};
    use crate::queue::testing;

    fn event() -> impl Strategy<Value = Event<'static>> {
        let texts = (".{0,200}", "[a-z]{1,3}", ".{0,8}", proptest::option::of(".{0,140}"), ".{0,300}");
        (texts, any::<i64>(), any::<u64>()).prop_map(|((id, source, kind, subject, data), time, received)| Event {
            id: id.into(),
            source: source.into(),
            kind: kind.into(),
            subject: subject.map(Into::into),
            time,
            received,
            data: data.into(),
        })
    }

    fn packed(events: Vec<Event<'static>>) -> Packed {
        let frame_bytes = events.iter().map(Event::frame_bytes).sum();
        Packed::new(events, frame_bytes, |_| None)
    }

    proptest! {
        /// Calls, and of each event whether it is stored.
        #[test]
        fn a_frame_has_the_bytes_of_the_events_that_were_added(
            calls in prop::collection::vec(prop::collection::vec((event(), any::<bool>()), 0..12), 0..5),
            (queue, first) in any::<(u16, u64)>(),
        ) {
            let blocks: Vec<Packed> =
                calls.iter().map(|call| packed(call.iter().map(|(event, _)| event.clone()).collect())).collect();
            let mut frame = OpenFrame::default();
            for (call, block) in calls.iter().zip(&blocks) {
                for ((_, is_stored), event) in call.iter().zip(block.events()) {
                    if *is_stored {
                        frame.add(block, event);
                    }
                }
            }
            let events: Vec<_> = calls.into_iter().flatten().filter(|(_, is_stored)| *is_stored).collect();
            let events: Vec<Event<'_>> = events.into_iter().map(|(event, _)| event).collect();
            prop_assert_eq!(frame.count(), events.len());
            prop_assert_eq!(frame.frame_bytes(), events.iter().map(Event::frame_bytes).sum::<u64>());
            prop_assert_eq!(frame.received(), events.first().map(|event| event.received));
            prop_assert_eq!(frame.encode(queue, first), EventFrame { queue, first, events }.encode());
        }
    }

    #[test]
    fn neighbours_become_one_run() {
        let blocks = [0, 1].map(|_| packed((0..5).map(|n| testing::event("a", n)).collect()));
        let mut frame = OpenFrame::default();
        for (block, at) in [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0), (1, 1)] {
            frame.add(&blocks[block], &blocks[block].events()[at]);
        }
        assert_eq!((frame.runs.len(), frame.count()), (3, 6));
    }

    #[test]
    fn the_writer_is_told_what_it_judges_by() {
        let hashes = HashMap::from([("a", 7), ("b", 9)]);
        let news = Told::News(News { feed: "f".into(), items: [].into() });
        let hop = Event { id: "b".into(), received: 5, ..news.event("home", &["k"], 7) };
        let events = vec![testing::event("a", 1), hop];
        let sizes: Vec<u64> = events.iter().map(Event::frame_bytes).collect();
        let packed = Packed::new(events, sizes.iter().sum(), |event| hashes.get(event.id.as_ref()).copied());
        let told: Vec<_> = packed.events().iter().map(|event| (event.hash, event.frame_bytes, event.is_hop)).collect();
        assert_eq!(told, [(Some(7), sizes[0], false), (Some(9), sizes[1], true)]);
        assert_eq!(packed.events()[1].received, 5);
    }
}
