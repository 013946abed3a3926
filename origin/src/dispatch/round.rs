//! How much of what was taken makes a round.

use millpond_shared::wire::EventFrame;

use super::route::{Routed, Routing};
use crate::projection::{addressees, is_hop};
use crate::queue::{QueueError, Taken};

/// Bytes of frames in one round; what becomes more is halved, down to one event.
const ROUND_MAX_BYTES: usize = 32 << 20;
/// Documents that the hops of one round tell something: a shard applies its part of a round at once, while nobody reads.
const ROUND_MAX_TOLD: usize = 50_000;

/// What a round may have.
#[derive(Clone, Copy)]
pub struct RoundLimits {
    /// Bytes of all its frames together.
    round_bytes: usize,
    /// Bytes of each.
    frame_bytes: usize,
}

impl RoundLimits {
    /// Of a round whose frames have so many bytes each, at most.
    pub fn of_frames(frame_bytes: usize) -> RoundLimits {
        RoundLimits { round_bytes: ROUND_MAX_BYTES, frame_bytes }
    }

    fn hold(&self, routed: &Routed) -> bool {
        routed.bytes() <= self.round_bytes && routed.frames.iter().all(|frame| frame.bytes.len() <= self.frame_bytes)
    }
}

/// Routes what was taken, or as much of it as makes a round within these limits: one event at least. Fails where a frame
/// can't be read.
pub fn route(routing: &Routing, taken: &Taken, token: u64, limits: RoundLimits) -> Result<Routed, QueueError> {
    let decoded: Result<Vec<_>, _> = taken.frames.iter().map(|bytes| EventFrame::decode(bytes)).collect();
    let frames = decoded.map_err(|error| QueueError::Invalid { problem: error.to_string() })?;
    let mut last = last_told(&frames, taken);
    loop {
        let routed = routing.route(&frames, taken.first, last, token);
        if limits.hold(&routed) || last <= taken.first {
            return Ok(routed);
        }
        last = taken.first + (last - taken.first) / 2;
    }
}

/// The last event of a round that tells no more than [`ROUND_MAX_TOLD`] documents something; at least the first event.
fn last_told(frames: &[EventFrame<'_>], taken: &Taken) -> u64 {
    let mut told = 0;
    for frame in frames {
        let placed = (frame.first..).zip(&frame.events).filter(|(_, event)| is_hop(event));
        for (offset, event) in placed.filter(|(offset, _)| (taken.first..=taken.last).contains(offset)) {
            told += addressees(event).1.count();
            if told > ROUND_MAX_TOLD && offset > taken.first {
                return offset - 1;
            }
        }
    }
    taken.last
}

#[cfg(test)]
mod tests {
    use super::super::route::tests::{event, routing};
    use super::*;
    use crate::projection::{News, Told};

    #[test]
    fn a_round_that_grows_too_large_is_halved_down_to_one_event() {
        let events = (1..9).map(|n| event(n, "{\"user\":\"u\"}".to_owned())).collect();
        let frame = EventFrame { queue: 0, first: 11, events }.encode();
        let taken = Taken { first: 11, last: 18, frames: vec![frame.into()] };
        let last = |round_bytes, frame_bytes| {
            route(&routing(1), &taken, 1, RoundLimits { round_bytes, frame_bytes }).ok().unwrap().last
        };
        assert_eq!((last(1 << 20, 1 << 20), last(150, 1 << 20), last(1, 1 << 20)), (18, 14, 11));
        assert_eq!((last(1 << 20, 150), last(1 << 20, 1)), (14, 11), "no frame may be too large either");
    }

    #[test]
    fn a_round_tells_only_so_many_documents() {
        let keys: Vec<String> = (0..ROUND_MAX_TOLD / 2).map(|n| n.to_string()).collect();
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let news = Told::News(News { feed: "f".into(), items: [].into() });
        let events = vec![
            news.event("users", &names, 0),
            event(1, "{}".to_owned()),
            news.event("users", &names, 0),
            news.event("users", &names, 0),
        ];
        let frame = EventFrame { queue: 0, first: 5, events };
        let last = |first| last_told(std::slice::from_ref(&frame), &Taken { first, last: 8, frames: Vec::new() });
        assert_eq!((last(5), last(6), last(8)), (7, 8, 8));
    }

    #[test]
    fn a_frame_that_can_not_be_read_is_not_passed_over() {
        let taken = Taken { first: 1, last: 1, frames: vec![bytes::Bytes::from_static(&[9, 1])] };
        assert!(matches!(
            route(&routing(1), &taken, 1, RoundLimits { round_bytes: 99, frame_bytes: 99 }),
            Err(QueueError::Invalid { .. })
        ));
    }
}
