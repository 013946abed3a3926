//! A stored response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use millpond_shared::http1::{Fields, put_field};

use super::charge::{self, Charge};
use super::forms::Forms;
use super::head;
use super::original::Original;
use super::part::Part;
use super::stamp::Stamp;
use crate::semantics::coding::Coding;
use crate::semantics::freshness::Times;
use crate::semantics::range::{self, Span};
use crate::semantics::validate::{self, Validators};
use crate::semantics::vary::Selection;

/// A response, with its head serialised once: complete, unless [`Entry::part`] says otherwise. The store finds
/// incomplete ones only for whoever asks for parts.
///
/// Kept small: there may be a million of them. The fields are not stored beside the head, but read back from it where
/// they are needed, and what few responses have is behind one pointer.
#[derive(Debug)]
pub struct Entry {
    pub status: StatusCode,
    /// Status line and fields as they go out, `Content-Length` included, without the empty line: `Age` and
    /// `Cache-Status` follow on each use.
    pub head: Bytes,
    pub body: Bytes,
    pub times: Times,
    details: Option<Box<Details>>,
    /// Whether a request has to be compared with the selection.
    varies: bool,
    /// Which lines of the head a 304 carries: the bit of a line is its number. Later lines are looked at by name.
    in_304: u32,
    is_part: bool,
    is_restated: bool,
    /// Whether it has an `ETag` or a `Last-Modified` to ask the origin with.
    validatable: bool,
    mark: AtomicU8,
    /// How often in a row the origin has failed to replace it.
    failures: AtomicU8,
    /// Somebody asks the origin whether it still fails.
    probing: AtomicBool,
    /// When the origin may be asked again, in milliseconds since the epoch; 0: it has not failed.
    probe_at: AtomicU64,
}

/// What only some responses have.
#[derive(Debug)]
struct Details {
    selection: Selection,
    tags: Box<[Box<str>]>,
    stamp: Option<Stamp>,
    original: Option<Box<Original>>,
    part: Option<Part>,
    forms: Option<Box<Forms>>,
}

impl Details {
    fn none() -> Details {
        Details {
            selection: Selection::NONE,
            tags: Box::default(),
            stamp: None,
            original: None,
            part: None,
            forms: None,
        }
    }
}

/// What has happened to an entry since it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    None,
    /// Its document has a newer version.
    Changed,
    /// A soft purge: it must be validated before it is used again, whatever else.
    Purged,
}

impl Entry {
    /// `fields` are those to store: hop-by-hop ones and framing already left out.
    pub fn new(
        status: StatusCode,
        fields: Fields,
        body: Bytes,
        times: Times,
        selection: Selection,
        tags: Vec<Box<str>>,
        stamp: Option<Stamp>,
    ) -> Entry {
        let varies = !selection.is_none();
        let plain = !varies && tags.is_empty() && stamp.is_none();
        Entry {
            status,
            head: shareable(head::serialised(status, &fields, body.len())),
            body: shareable(body),
            times,
            details: (!plain).then(|| Box::new(Details { selection, tags: tags.into(), stamp, ..Details::none() })),
            varies,
            is_part: false,
            is_restated: false,
            in_304: in_304(&fields),
            validatable: Validators::of(&fields).any(),
            mark: AtomicU8::new(Mark::None as u8),
            failures: AtomicU8::new(0),
            probing: AtomicBool::new(false),
            probe_at: AtomicU64::new(0),
        }
    }

    /// Keeps what the origin said where the head says something else.
    pub fn instead_of(mut self, original: Option<Box<Original>>) -> Entry {
        if original.is_some() {
            self.details_mut().original = original;
        }
        self
    }

    /// The fields as the origin sent them: what an update from the origin is applied to.
    pub fn original_fields(&self) -> Fields {
        match self.details.as_ref().and_then(|details| details.original.as_deref()) {
            Some(original) => original.restored(self.lines()),
            None => self.fields(),
        }
    }

    /// The lifetime that clients are told is the rule's, and counts from each answer: the head has no `Date`, and the
    /// answer no age.
    pub fn restated(mut self, is_restated: bool) -> Entry {
        self.is_restated = is_restated;
        self
    }

    pub fn is_restated(&self) -> bool {
        self.is_restated
    }

    /// The same as a response that is sent in codings as well, once it was made in them.
    pub fn in_codings(mut self) -> Entry {
        self.details_mut().forms = Some(Box::default());
        self
    }

    /// Takes over what was made of a response that had the same body.
    pub fn with_forms_of(mut self, other: &Entry) -> Entry {
        if let Some(forms) = other.forms() {
            let forms = forms.taken_over(&self.head);
            self.details_mut().forms = Some(Box::new(forms));
        }
        self
    }

    /// What was made of it in codings; `None`: it is not sent in any.
    pub fn forms(&self) -> Option<&Forms> {
        self.details.as_ref()?.forms.as_deref()
    }

    fn details_mut(&mut self) -> &mut Details {
        self.details.get_or_insert_with(|| Box::new(Details::none()))
    }

    /// The same as an incomplete response: its body is what `part` says of it. It is of use as long as it is fresh, or
    /// others can be put together with it.
    pub fn holding(mut self, part: Part) -> Entry {
        self.is_part = true;
        self.validatable = range::strong_tag(&self.fields()).is_some();
        self.details_mut().part = Some(part);
        self
    }

    /// Name and value of each stored field, read off the head; without `Content-Length`, as all framing.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        head::lines(&self.head).filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"))
    }

    /// Appends the field lines that a 304 carries, with the tag of its form in `coding`.
    pub fn put_fields_of_304(&self, out: &mut BytesMut, coding: Option<Coding>) {
        let mut starts = memchr::memchr_iter(b'\n', &self.head).map(|end| end + 1);
        let mut start = starts.next().unwrap_or(self.head.len());
        for (number, end) in starts.enumerate() {
            let line = self.head.get(start..end).unwrap_or_default();
            let kept = match number < u32::BITS as usize {
                true => self.in_304 >> number & 1 == 1,
                false => head::name(line).is_some_and(validate::belongs_in_304),
            };
            match coding.filter(|_| kept && head::name(line).is_some_and(|name| name.eq_ignore_ascii_case("etag"))) {
                Some(coding) => head::lines_of(line).for_each(|(name, tag)| put_field(out, name, coding.tag(tag))),
                None if kept => out.extend_from_slice(line),
                None => {}
            }
            start = end;
        }
    }

    /// The same as fields of their own: for what is done with the origin, not for every hit.
    pub fn fields(&self) -> Fields {
        self.lines().collect()
    }

    /// Which requests it answers.
    pub fn selection(&self) -> &Selection {
        const EVERY: &Selection = &Selection::NONE;
        self.details.as_ref().map_or(EVERY, |details| &details.selection)
    }

    /// Whether it answers this request, which has its key, with the whole.
    pub fn answers(&self, request: &Fields) -> bool {
        !self.is_part && self.is_selected_by(request)
    }

    /// The same for a request for parts, of which it may have some.
    pub fn answers_in_part(&self, request: &Fields) -> bool {
        self.is_part && self.is_selected_by(request)
    }

    fn is_selected_by(&self, request: &Fields) -> bool {
        !self.varies || self.selection().matches(request)
    }

    /// What it holds, if not the whole.
    pub fn part(&self) -> Option<&Part> {
        self.details.as_ref()?.part.as_ref()
    }

    /// Bytes of the whole representation.
    pub fn complete_length(&self) -> u64 {
        self.part().map_or(self.body.len() as u64, Part::complete)
    }

    /// A span of the representation, if it is held; shares the memory of the body.
    pub fn slice(&self, span: &Span) -> Option<Bytes> {
        if let Some(part) = self.part() {
            return part.slice(&self.body, span);
        }
        let (start, end) = (usize::try_from(span.start).ok()?, usize::try_from(span.end).ok()?);
        (start <= end && end <= self.body.len()).then(|| self.body.slice(start..end))
    }

    pub fn tags(&self) -> &[Box<str>] {
        self.details.as_ref().map_or(&[], |details| &details.tags)
    }

    /// Where it came from, if from a shard.
    pub fn stamp(&self) -> Option<&Stamp> {
        self.details.as_ref()?.stamp.as_ref()
    }

    pub fn mark(&self) -> Mark {
        match self.mark.load(Ordering::Acquire) {
            0 => Mark::None,
            1 => Mark::Changed,
            _ => Mark::Purged,
        }
    }

    pub fn set_mark(&self, mark: Mark) {
        self.mark.fetch_max(mark as u8, Ordering::AcqRel);
    }

    /// The origin failed: it is not to be asked again for this for a while, in milliseconds, which `pause` gives for the
    /// number of failures before. Of requests that fail together only the first counts.
    pub fn hold_off(&self, now: u64, pause: impl Fn(u8) -> u64) {
        let was_probe = self.probing.swap(false, Ordering::Relaxed);
        if was_probe || self.probe_at.load(Ordering::Relaxed) <= now {
            let before = self.failures.load(Ordering::Relaxed);
            self.failures.store(before.saturating_add(1), Ordering::Relaxed);
            self.probe_at.store(now.saturating_add(pause(before)), Ordering::Relaxed);
        }
    }

    /// The origin has answered: it may be asked at any time.
    pub fn recovered(&self) {
        if self.failures.swap(0, Ordering::Relaxed) > 0 {
            self.probing.store(false, Ordering::Relaxed);
            self.probe_at.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the origin may be asked, though this could be sent.
    pub fn may_probe(&self, now: u64) -> bool {
        self.probe_at.load(Ordering::Relaxed) <= now
    }

    /// The same, by one request at a time after a failure: it keeps others from it for `claim` milliseconds.
    pub fn claim_probe(&self, now: u64, claim: u64) -> bool {
        let (at, relaxed) = (self.probe_at.load(Ordering::Relaxed), Ordering::Relaxed);
        if at == 0 {
            return true;
        }
        let claimed =
            at <= now && self.probe_at.compare_exchange(at, now.saturating_add(claim), relaxed, relaxed).is_ok();
        if claimed {
            self.probing.store(true, Ordering::Relaxed);
        }
        claimed
    }

    /// The last second, since the Unix epoch, in which it can still be of use: sent fresh, sent stale, or confirmed by
    /// the origin.
    pub(super) fn useful_until(&self) -> u64 {
        let times = &self.times;
        if self.validatable {
            return u64::MAX;
        }
        let on_error = if times.must_revalidate || times.no_cache { 0 } else { times.stale_error };
        let must_be_fetched = times.no_cache || self.mark() != Mark::None;
        let window = match (must_be_fetched, times.must_revalidate) {
            (true, _) if on_error == 0 => return 0,
            (true, _) | (false, true) => on_error,
            (false, false) => on_error.max(times.stale_revalidate),
        };
        let oldest = times.lifetime.saturating_add(window);
        times.received.saturating_add(oldest.saturating_sub(times.initial_age))
    }

    /// Bytes that it takes beside those of its slot.
    pub(super) fn charge(&self) -> Charge {
        let head = charge::allocated(self.head.len()) + charge::SHARED;
        let details = self.details.as_ref().map_or(0, |details| {
            let selection = if self.varies { details.selection.weight() + 64 } else { 0 };
            let stamp = details.stamp.as_ref().map_or(0, Stamp::charge);
            let original = details.original.iter().flat_map(|original| original.allocations());
            let original: u64 = original.map(charge::allocated).sum();
            let part = details.part.as_ref().map_or(0, |part| charge::allocated(part.weight()));
            charge::allocated(size_of::<Details>()) + selection as u64 + stamp + original + part
        });
        let forms = self.forms().map_or_else(Charge::default, Forms::charge);
        let tags = self.tags().iter().map(|tag| charge::allocated(tag.len()) + charge::TAG).sum();
        Charge {
            body: charge::allocated(self.body.len()) + charge::SHARED,
            meta: charge::allocated(size_of::<Entry>() + charge::ARC) + head + details,
            index: 0,
            tags,
        } + forms
    }

    /// When the origin generated or confirmed it, in seconds since the Unix epoch.
    pub(super) fn generated(&self) -> u64 {
        self.times.received.saturating_sub(self.times.initial_age)
    }

    /// Seconds since it was received.
    pub(super) fn stored_for(&self, now: u64) -> u64 {
        now.saturating_sub(self.times.received)
    }
}

/// The first clone of [`Bytes`] allocates the count that clones share. Done here, a hit never allocates, and what the
/// entry takes is known.
pub(super) fn shareable(bytes: Bytes) -> Bytes {
    drop(bytes.clone());
    bytes
}

/// The bits of [`Entry::in_304`].
fn in_304(fields: &Fields) -> u32 {
    let kept =
        fields.iter().take(u32::BITS as usize).enumerate().filter(|(_, (name, _))| validate::belongs_in_304(name));
    kept.fold(0, |bits, (number, _)| bits | 1 << number)
}

/// Those that a new entry takes the place of, or that must go for it: of the same selection.
pub(super) fn is_replaced_by(old: &Arc<Entry>, new: &Arc<Entry>) -> bool {
    old.selection() == new.selection()
}

#[cfg(test)]
mod tests;
