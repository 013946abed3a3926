//! Requests for parts: what they get of stored and of coming responses, and their way where no whole is stored
//! (RFC 9110 §14, RFC 9111 §3.3, §3.4).

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::{Fields, FieldsBuilder, ResponseHead};

use super::answer::Account;
use super::client::{Added, Client, Gone, ReplyFields, ReplyHead};
use super::fetch::Fetch;
use super::fill::Fill;
use super::forward;
use super::multipart::Multipart;
use super::told::Told;
use super::{Again, Gateway, Visit};
use crate::cache::{Entry, Part, Store};
use crate::flight::Draft;
use crate::key::Key;
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::semantics::range::{self, ContentRange, Resolved, Span};
use crate::semantics::reuse::{self, Reuse};
use crate::semantics::{date, validate};
use crate::upstreams::{Answer, Conditions, Inbound, OriginError, Outgoing, Payload};

/// What a request gets of a stored response.
pub(super) enum Share {
    Whole,
    Parts(Parts),
    Unsatisfiable,
}

/// Parts of a stored response, to be sent as a 206.
pub(super) enum Parts {
    One(ContentRange, Bytes),
    Several(Multipart),
}

impl Share {
    /// Of a complete entry.
    pub fn of_whole(visit: &Visit<'_>, entry: &Entry) -> Share {
        match asked_of(visit, entry.status, entry.lines(), entry.complete_length()) {
            Resolved::Whole => Share::Whole,
            Resolved::Unsatisfiable => Share::Unsatisfiable,
            Resolved::Parts(spans) => Parts::of(entry, &spans).map_or(Share::Whole, Share::Parts),
        }
    }

    /// Of an incomplete one; `None` unless it holds all that is asked for (RFC 9111 §3.3).
    fn of_part(visit: &Visit<'_>, entry: &Entry) -> Option<Share> {
        match asked_of(visit, entry.status, entry.lines(), entry.complete_length()) {
            Resolved::Whole | Resolved::Unsatisfiable => None,
            Resolved::Parts(spans) => Parts::of(entry, &spans).map(Share::Parts),
        }
    }
}

/// The parts that a request asks of a response; the whole where its `Range` does not count, which it does for a 200
/// only (RFC 9110 §14.2).
fn asked_of<'a>(
    visit: &Visit<'_>,
    status: StatusCode,
    lines: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    length: u64,
) -> Resolved {
    match &visit.ask.range {
        Some(ranges) if status == StatusCode::OK && range::if_range_holds(&visit.request.fields, lines) => {
            ranges.resolve(length)
        }
        _ => Resolved::Whole,
    }
}

impl Parts {
    fn of(entry: &Entry, spans: &[Span]) -> Option<Parts> {
        let complete = entry.complete_length();
        let parts: Option<Vec<(Span, Bytes)>> =
            spans.iter().map(|span| Some((span.clone(), entry.slice(span)?))).collect();
        let parts = parts?;
        if let [(span, bytes)] = &*parts {
            let range = ContentRange { span: span.clone(), complete: Some(complete) };
            return Some(Parts::One(range, bytes.clone()));
        }
        let content_type = entry.lines().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        Multipart::of(&parts, complete, content_type.map(|(_, value)| value)).map(Parts::Several)
    }
}

/// Sends parts; `fields` are those of the whole.
pub(super) async fn send<C: Client>(
    client: &mut C,
    fields: &Fields,
    parts: Parts,
    added: Added,
) -> (StatusCode, Result<(), Gone>) {
    let status = StatusCode::PARTIAL_CONTENT;
    let sent = match parts {
        Parts::One(range, bytes) => {
            let fields = fields_of_one(fields, &range);
            client.whole(ReplyHead { status, fields: ReplyFields::All(&fields), prepared: None, added }, bytes).await
        }
        Parts::Several(multipart) => {
            let fields = fields_with(fields, "Content-Type", &multipart.content_type);
            let length = Some(multipart.length());
            client.begin(ReplyHead { status, fields: ReplyFields::All(&fields), prepared: None, added }, length);
            send_pieces(client, multipart.pieces).await
        }
    };
    (status, sent)
}

async fn send_pieces<C: Client>(client: &mut C, pieces: Vec<Bytes>) -> Result<(), Gone> {
    for piece in pieces {
        client.piece(piece).await?;
    }
    client.end().await
}

/// Sends a 416 (RFC 9110 §15.5.17) for a representation of `length` bytes.
pub(super) async fn send_unsatisfiable<C: Client>(
    client: &mut C,
    length: u64,
    added: Added,
) -> (StatusCode, Result<(), Gone>) {
    let status = StatusCode::RANGE_NOT_SATISFIABLE;
    let fields = [
        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
        ("Cache-Control", "no-store".to_owned()),
        ("Date", date::format(clock::wall_secs())),
        ("Content-Range", range::unsatisfied(length)),
    ];
    let fields: Fields = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = Bytes::from(format!("416 Range Not Satisfiable: there are {length} bytes\n"));
    let added = added.into_iter().filter(|(name, _)| *name != "Age").collect();
    (status, client.whole(ReplyHead { status, fields: ReplyFields::All(&fields), prepared: None, added }, body).await)
}

/// The fields of a 206 with one part, given those of the whole.
///
/// All of them, also for a request with `If-Range`, whose sender has them already: RFC 9110 §15.3.7 would rather leave
/// some out then, but clients are used to a `Content-Type`.
pub(super) fn fields_of_one(whole: &Fields, range: &ContentRange) -> Fields {
    fields_with(whole, "Content-Range", &range.to_string())
}

fn fields_with(whole: &Fields, name: &str, value: &str) -> Fields {
    let mut fields = FieldsBuilder::new();
    let kept = whole.iter().filter(|(other, _)| !tells_of_content(other) && !other.eq_ignore_ascii_case(name));
    kept.for_each(|(name, value)| {
        fields.push(name, value);
    });
    fields.push(name, value);
    fields.build()
}

/// Whether a field tells of the bytes of one message, rather than of the representation: then it is true of the whole
/// or of a part, and not of both.
fn tells_of_content(name: &str) -> bool {
    ["content-range", "content-digest", "content-md5"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// What a request gets of a response whose body is still coming.
pub(super) enum Extract {
    /// Also where several parts are asked for, or the length is not known yet: a server may.
    Whole,
    Part(ContentRange),
    /// With the length of the whole in bytes.
    Unsatisfiable(u64),
}

impl Extract {
    pub fn of(visit: &Visit<'_>, draft: &Draft) -> Extract {
        let Some(length) = draft.length else { return Extract::Whole };
        match asked_of(visit, draft.status, draft.fields.iter(), length) {
            Resolved::Unsatisfiable => Extract::Unsatisfiable(length),
            Resolved::Parts(spans) => match <[Span; 1]>::try_from(spans) {
                Ok([span]) => Extract::Part(ContentRange { span, complete: Some(length) }),
                Err(_) => Extract::Whole,
            },
            Resolved::Whole => Extract::Whole,
        }
    }
}

/// Cuts bytes out of a body as its pieces come.
pub(super) struct Window {
    /// Bytes before it.
    pub skip: u64,
    /// Bytes of it that are still to come.
    pub left: u64,
}

impl Window {
    pub const ALL: Window = Window { skip: 0, left: u64::MAX };

    /// What of the next piece lies in it.
    pub fn of(&mut self, mut piece: Bytes) -> Bytes {
        let skipped = self.skip.min(piece.len() as u64);
        self.skip -= skipped;
        // Neither is more than the length of the piece.
        let mut rest = piece.split_off(skipped as usize);
        rest.truncate(self.left.min(rest.len() as u64) as usize);
        self.left -= rest.len() as u64;
        rest
    }
}

/// What is done with the origin's answer to a request for parts.
enum Kind {
    /// It is as good as one to a request for the whole.
    Whole,
    /// One part of a representation of known length, which may be stored.
    Part,
    /// It is for the one who asked.
    Own(Reason),
}

impl Gateway {
    /// The way of a request for parts of what is not stored whole: from the parts that are stored, or from the origin,
    /// asked as the client asked. Nobody waits for another's fetch here: it is likely to be for another part.
    pub(super) async fn parts<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        part: Option<Arc<Entry>>,
        reason: Reason,
        now_ms: u64,
        client: &mut C,
    ) -> Result<Record, Again> {
        if let Some(entry) = part.filter(|part| self.is_fresh(visit, part, now_ms))
            && let Some(share) = Share::of_part(visit, &entry)
        {
            return Ok(self.share(client, visit, &entry, share, Account::of(Outcome::Hit, None)).await);
        }
        if let Some((status, reason)) = reuse::only_if_cached(&visit.ask, None) {
            return Ok(self.fail(client, visit, status, reason).await);
        }
        let fetch = self.fetch_of(visit, now_ms);
        let mut lead = self.flights.alone(self.store.purge_seq(), None);
        let began = lead.began();
        let (_, inbound) = client.inbound();
        let answer = match fetch.ask_as_it_came(inbound).await {
            Ok(answer) => answer,
            Err(error) => return Ok(self.origin_failed(client, visit, &error).await),
        };
        match fetch.kind(&answer) {
            Kind::Own(why) => {
                if why == Reason::BodyTooLarge {
                    self.counters.rejected();
                }
                self.note_version(visit.snapshot, visit.rule, visit.request, &answer.head);
                Ok(self.relay_miss(client, visit, answer, why, reason).await)
            }
            Kind::Whole => {
                let fetched = fetch.answered(answer, began, lead, false);
                self.fetched(visit, None, (reason, reason), fetch.least.position, fetched, client).await
            }
            Kind::Part => {
                let draft = fetch.draft(&as_whole(&answer.head), answer.body.length);
                let fields = forward::stored_fields(&answer.head.fields, clock::wall_secs(), Some(answer.head.minor));
                let Told { fields, .. } = Told::of(visit.rule, &as_whole(&answer.head), fields, &draft.tags);
                let draft = Arc::new(Draft { status: StatusCode::PARTIAL_CONTENT, fields, ..draft });
                // Before the fill begins: nothing of its start is dropped then.
                let reader = lead.flight().reader();
                Fill::start(self, &visit.key, Arc::clone(&draft), answer.body, began, lead, false);
                match reader {
                    Some(reader) => {
                        Ok(self.draft(client, visit, &draft, reader, Account::of(Outcome::Miss, Some(reason))).await)
                    }
                    None => Err(Again::Newer),
                }
            }
        }
    }

    fn is_fresh(&self, visit: &Visit<'_>, entry: &Entry, now_ms: u64) -> bool {
        let invalidated = self.live.invalidated(entry, now_ms);
        matches!(reuse::judge(&entry.times, &visit.ask, now_ms / 1000, invalidated), Reuse::Fresh { .. })
    }
}

impl Fetch<'_> {
    async fn ask_as_it_came(&self, inbound: &mut dyn Inbound) -> Result<Answer, OriginError> {
        let outgoing = Outgoing::new(self.request, self.rule, Conditions::Client, self.least, self.sender);
        let outgoing = outgoing.to_be_stored();
        self.gateway.ask(self.snapshot, self.rule, &outgoing, Payload::none(Some(inbound))).await
    }

    fn kind(&self, answer: &Answer) -> Kind {
        let head = &answer.head;
        match head.status {
            StatusCode::PARTIAL_CONTENT => {}
            // About what this client has, or asked for, alone.
            StatusCode::NOT_MODIFIED | StatusCode::RANGE_NOT_SATISFIABLE => return Kind::Own(Reason::Range),
            _ => return Kind::Whole,
        }
        // Documents have versions, of which the newest is wanted, and not a part of an older one.
        let Some(part) = part_of(&head.fields).filter(|_| self.shard.is_none()) else {
            return Kind::Own(Reason::Range);
        };
        if answer.body.length.is_some_and(|length| length != part.held()) {
            return Kind::Own(Reason::Range);
        }
        if part.held() > self.gateway.store.limits().object_max_bytes {
            return Kind::Own(Reason::BodyTooLarge);
        }
        match self.may_be_stored(&self.request.method, self.ask, &as_whole(head)) {
            Ok(()) => Kind::Part,
            Err(why) => Kind::Own(why),
        }
    }
}

/// What is stored of a part that came, together with the parts that are stored already (RFC 9110 §15.3.7.3): complete if
/// it is all there then. `None`: a whole is there by now.
pub(super) fn with_parts_held(
    store: &Store,
    key: &Key,
    draft: &Draft,
    mut part: Part,
    mut body: Bytes,
) -> Option<Entry> {
    let mut fields: Fields = draft.fields.iter().filter(|(name, _)| !tells_of_content(name)).collect();
    if let Some(held) = store.of_selection(key, &draft.selection) {
        let held_part = held.part()?;
        if range::strong_tag(&fields).is_some_and(|tag| range::strong_tag(&held.fields()) == Some(tag)) {
            fields = validate::updated(&held.fields(), &fields);
            (part, body) = Part::joined((held_part, &held.body), (&part, &body));
        }
    }
    let (times, selection, tags) = (draft.times, draft.selection.clone(), draft.tags.clone());
    let entry = Entry::new(StatusCode::OK, fields, body, times, selection, tags, None);
    Some(if part.is_whole() { entry } else { entry.holding(part) })
}

/// The one part of a representation of known length that a 206 says to hold.
pub(super) fn part_of(fields: &Fields) -> Option<Part> {
    let several = fields
        .get_str("content-type")
        .is_some_and(|kind| kind.get(..20).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/byteranges")));
    let range = ContentRange::of(fields).filter(|_| !several)?;
    Part::of(range.span, range.complete?)
}

/// A 206 as the 200 that it is a part of: so it is judged and stored (RFC 9111 §3.3).
pub(super) fn as_whole(head: &ResponseHead) -> ResponseHead {
    let fields = head.fields.iter().filter(|(name, _)| !tells_of_content(name)).collect();
    ResponseHead { status: StatusCode::OK, minor: head.minor, fields }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_cuts_across_pieces() {
        let body: Vec<u8> = (0..100).collect();
        for (skip, left) in [(0, 100), (0, 1), (99, 1), (10, 20), (7, 7), (33, 40), (0, 0)] {
            for size in [1, 3, 7, 10, 100] {
                let mut window = Window { skip, left };
                let cut: Vec<u8> =
                    body.chunks(size).flat_map(|piece| window.of(Bytes::copy_from_slice(piece))).collect();
                assert!(cut.iter().copied().eq(skip as u8..(skip + left) as u8), "{skip} {left} in pieces of {size}");
                assert_eq!((window.skip, window.left), (0, 0));
            }
        }
    }
}
