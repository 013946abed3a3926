//! A frame that is to be appended, and what becomes of each event if it is (pure).

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use millpond_shared::event::Event;
use millpond_shared::version::Offset;
use millpond_shared::wire::EventFrame;

use super::event_log::Known;
use super::heads::{EventHead, FORMAT};
use crate::projection::is_hop;
use crate::queue::Fate;

/// Events of one append.
pub struct Call {
    pub window: Option<Duration>,
    pub events: Vec<Event<'static>>,
    /// Of the first of them.
    pub fates: Vec<Fate>,
}

pub struct Draft {
    /// Sequence of the message that was the last one when this was judged.
    pub behind: u64,
    pub head: EventHead,
    pub frame: Bytes,
    /// Hashes to remember, and until when in ms.
    pub ids: Vec<(u64, u128)>,
    /// What becomes of the events that were looked at, in their order.
    fates: Vec<Fate>,
}

/// What an event takes in a frame beyond [`Event::frame_bytes`], at most.
const EVENT_OVERHEAD: u64 = 32;
/// Runs of events with different windows in one frame: they stand in its head.
const WINDOWS_MAX: usize = 64;

impl Call {
    pub fn new(window: Option<Duration>, events: Vec<Event<'static>>) -> Call {
        Call { window, fates: Vec::with_capacity(events.len()), events }
    }

    pub fn is_judged(&self) -> bool {
        self.fates.len() == self.events.len()
    }
}

impl Draft {
    /// Judges events until a frame is full. `place`: the writer, and its number for the frame.
    pub fn new<'a>(known: &Known, place: (u64, u64), calls: impl Iterator<Item = &'a Call>, frame_max: u64) -> Draft {
        let (runtime, queue) = (&known.log().runtime, known.log().queue);
        let (limits, now_ms, filed) = (&runtime.limits, runtime.now_ms(), known.filed());
        let (mut events, mut ids, mut fates) = (Vec::new(), Vec::new(), Vec::new());
        let mut windows: Vec<(u64, u32)> = Vec::new();
        let (mut in_frame, mut bytes, mut last) = (HashSet::new(), 0, known.last());
        'calls: for call in calls {
            let ends_ms = call.window.map_or(0, |window| now_ms.saturating_add(milliseconds(window)));
            for event in &call.events[call.fates.len().min(call.events.len())..] {
                let hash = call.window.map(|_| known.log().hasher.hash(&event.source, &event.id));
                let size = event.frame_bytes() + EVENT_OVERHEAD;
                let depth_bytes = known.depth_bytes() + bytes + size;
                let is_full =
                    last.saturating_sub(filed) >= limits.depth_max_events || depth_bytes > limits.depth_max_bytes;
                let fate = if hash.is_some_and(|hash| known.remembers(hash) || in_frame.contains(&hash)) {
                    Fate::Duplicate
                } else if size > frame_max {
                    Fate::TooLarge
                } else if is_full && !is_hop(event) {
                    // Hops come of events that were let in. If they waited for room here, their shard would wait for
                    // room that may only come once it has told them and commits.
                    Fate::Full
                } else if bytes + size > frame_max || (windows.len() == WINDOWS_MAX && !runs_on(&windows, ends_ms)) {
                    break 'calls;
                } else {
                    last += 1;
                    bytes += size;
                    in_frame.extend(hash);
                    ids.extend(hash.map(|hash| (ends_ms, hash)));
                    match windows.last_mut().filter(|(other, _)| *other == ends_ms) {
                        Some((_, count)) => *count += 1,
                        None => windows.push((ends_ms, 1)),
                    }
                    events.push(borrowed(event));
                    Fate::Stored { offset: last }
                };
                fates.push(fate);
            }
        }
        let first: Offset = known.last() + 1;
        let received = events.first().map_or(0, |event| event.received);
        let frame = EventFrame { queue, first, events }.encode();
        let (writer, group) = place;
        let head = EventHead { format: FORMAT, first, last, received, writer, group, windows };
        Draft { behind: known.sequence(), head, frame: frame.into(), ids, fates }
    }

    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.head.last < self.head.first
    }

    /// There is no room for it after all.
    pub fn refuse(&mut self) {
        for fate in self.fates.iter_mut().filter(|fate| matches!(fate, Fate::Stored { .. })) {
            *fate = Fate::Full;
        }
    }

    /// Gives the events of the calls, in the order they were judged in, their fates.
    pub fn settle<'a>(self, calls: impl Iterator<Item = &'a mut Call>) {
        let mut fates = self.fates.into_iter();
        for call in calls {
            let missing = call.events.len() - call.fates.len();
            call.fates.extend(fates.by_ref().take(missing));
        }
    }
}

fn runs_on(windows: &[(u64, u32)], ends_ms: u64) -> bool {
    windows.last().is_some_and(|(other, _)| *other == ends_ms)
}

fn borrowed<'a>(event: &'a Event<'static>) -> Event<'a> {
    Event {
        id: event.id.as_ref().into(),
        source: event.source.as_ref().into(),
        kind: event.kind.as_ref().into(),
        subject: event.subject.as_deref().map(Into::into),
        time: event.time,
        received: event.received,
        data: event.data.as_ref().into(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
