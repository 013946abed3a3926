//! Which bytes of its representation an incomplete entry holds (RFC 9111 §3.3), and how more are added (§3.4).

use bytes::Bytes;

use crate::semantics::range::Span;

/// Spans that one entry may hold apart; one more, and it starts over with that one.
const SPANS_MAX: usize = 64;

/// What is held of a representation. The bytes themselves stand one span behind the other in the body of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// In their order; none empty, no two overlap or touch.
    spans: Box<[Span]>,
    /// Bytes of the whole representation.
    complete: u64,
}

impl Part {
    /// One span of a representation of `complete` bytes; `None`: it is empty, or does not lie in it.
    pub fn of(span: Span, complete: u64) -> Option<Part> {
        (span.start < span.end && span.end <= complete).then(|| Part { spans: Box::new([span]), complete })
    }

    /// Bytes of the whole representation.
    pub fn complete(&self) -> u64 {
        self.complete
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        matches!(&*self.spans, [only] if *only == (0..self.complete))
    }

    /// Bytes held from the first one on, without a gap.
    pub fn beginning(&self) -> u64 {
        self.spans.first().filter(|span| span.start == 0).map_or(0, |span| span.end)
    }

    /// Bytes held.
    pub fn held(&self) -> u64 {
        self.spans.iter().map(|span| span.end - span.start).sum()
    }

    /// The bytes of a span, if all of them are held in `body`.
    pub fn slice(&self, body: &Bytes, span: &Span) -> Option<Bytes> {
        let mut at = 0;
        for held in &self.spans {
            if held.start <= span.start && span.end <= held.end && span.start <= span.end {
                let start = at + (span.start - held.start);
                let range = usize::try_from(start).ok()?..usize::try_from(start + (span.end - span.start)).ok()?;
                return (range.end <= body.len()).then(|| body.slice(range));
            }
            at += held.end - held.start;
        }
        None
    }

    /// What is held of one representation in two entries, with its bytes; what both hold is taken from the newer. The
    /// newer alone if they can't be put together.
    pub fn joined(older: (&Part, &Bytes), newer: (&Part, &Bytes)) -> (Part, Bytes) {
        let complete = newer.0.complete;
        let alone = || (newer.0.clone(), newer.1.clone());
        if older.0.complete != complete {
            return alone();
        }
        let mut bounds: Vec<u64> =
            older.0.spans.iter().chain(&newer.0.spans).flat_map(|span| [span.start, span.end]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        // Between two bounds, each of the two holds all or nothing.
        let (mut spans, mut body): (Vec<Span>, Vec<u8>) = (Vec::new(), Vec::new());
        for (&start, &end) in bounds.iter().zip(bounds.iter().skip(1)) {
            let span = start..end;
            let Some(bytes) = newer.0.slice(newer.1, &span).or_else(|| older.0.slice(older.1, &span)) else { continue };
            body.extend_from_slice(&bytes);
            match spans.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => spans.push(span),
            }
        }
        if spans.len() > SPANS_MAX {
            return alone();
        }
        (Part { spans: spans.into(), complete }, body.into())
    }

    /// Bytes that it takes beside itself.
    pub(super) fn weight(&self) -> usize {
        size_of_val(&*self.spans)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte `at` of the representation that all parts are of.
    fn byte(at: u64) -> u8 {
        (at * 7 + 3) as u8
    }

    fn part(span: Span, complete: u64) -> (Part, Bytes) {
        let body: Vec<u8> = span.clone().map(byte).collect();
        (Part::of(span, complete).expect("a part"), body.into())
    }

    fn spans(part: &Part) -> &[Span] {
        &part.spans
    }

    #[test]
    fn a_part_lies_in_its_representation() {
        assert!(Part::of(0..1, 1).is_some_and(|part| part.is_whole()));
        for (span, complete) in [(0..0, 0), (3..3, 9), (0..2, 1), (Span { start: 5, end: 4 }, 9)] {
            assert_eq!(Part::of(span, complete), None);
        }
    }

    #[test]
    fn parts_grow_together() {
        let (first, bytes) = part(10..20, 40);
        assert_eq!((first.held(), first.is_whole()), (10, false));
        assert_eq!(first.slice(&bytes, &(12..14)), Some(Bytes::from(vec![byte(12), byte(13)])));
        for missing in [9..12, 18..21, 0..1, 30..31] {
            assert_eq!(first.slice(&bytes, &missing), None, "{missing:?}");
        }
        let apart = Part::joined((&first, &bytes), (&part(30..40, 40).0, &part(30..40, 40).1));
        assert_eq!(spans(&apart.0), [10..20, 30..40]);
        assert_eq!(apart.0.slice(&apart.1, &(15..35)), None);
        let (gap, more) = part(15..31, 40);
        let filled = Part::joined((&apart.0, &apart.1), (&gap, &more));
        assert_eq!(spans(&filled.0).len(), 1);
        let (start, more) = part(0..11, 40);
        let (whole, body) = Part::joined((&filled.0, &filled.1), (&start, &more));
        assert!(whole.is_whole() && body == (0..40).map(byte).collect::<Vec<u8>>());
    }

    #[test]
    fn another_length_is_another_representation() {
        let ((old, of_old), (new, of_new)) = (part(0..10, 40), part(10..20, 41));
        assert_eq!(Part::joined((&old, &of_old), (&new, &of_new)), (new, of_new));
    }

    #[test]
    fn too_many_spans_start_over() {
        let mut held = part(0..1, 1000);
        for at in 1..SPANS_MAX as u64 {
            let (next, more) = part(at * 2..at * 2 + 1, 1000);
            held = Part::joined((&held.0, &held.1), (&next, &more));
        }
        assert_eq!(spans(&held.0).len(), SPANS_MAX);
        let (next, more) = part(900..901, 1000);
        assert_eq!(spans(&Part::joined((&held.0, &held.1), (&next, &more)).0).len(), 1);
    }

    proptest! {
        /// Against a set of bytes, held one by one.
        #[test]
        fn what_is_joined_is_what_came(came in prop::collection::vec((0u64..60, 1u64..20), 1..12)) {
            let mut has = [false; 80];
            let mut held: Option<(Part, Bytes)> = None;
            for (start, count) in came {
                let next = part(start..start + count, 80);
                (start..start + count).for_each(|at| has[at as usize] = true);
                held = Some(match held {
                    None => next,
                    Some(held) => Part::joined((&held.0, &held.1), (&next.0, &next.1)),
                });
                let (part, body) = held.as_ref().expect("something came");
                prop_assert_eq!(part.held(), body.len() as u64);
                for (at, has) in has.iter().enumerate() {
                    let at = at as u64;
                    let expected = has.then(|| Bytes::from(vec![byte(at)]));
                    prop_assert_eq!(part.slice(body, &(at..at + 1)), expected);
                }
            }
        }
    }
}
