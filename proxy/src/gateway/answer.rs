//! Sends what is stored, or on its way into the store, each with its `Cache-Status`, and tells what was sent.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::Fields;

use super::client::{Added, Client, Gone, ReplyFields, ReplyHead};
use super::forms::{self, Choice};
use super::parts::{self, Extract, Share, Window};
use super::{Gateway, Visit};
use crate::cache::Entry;
use crate::flight::{Draft, Piece, Reader};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::Rule;
use crate::semantics::coding::Coding;
use crate::semantics::freshness::{self, Times};
use crate::semantics::{cache_status, date, validate};
use crate::upstreams::OriginError;

/// What is told of an answer from the store, or on its way into it.
pub(super) struct Account {
    pub outcome: Outcome,
    pub reason: Option<Reason>,
    /// What the cache had when the request went forward, where `reason` does not tell.
    pub went_for: Option<Reason>,
    /// What the origin answered, where neither outcome nor answer tell.
    pub answered: Option<StatusCode>,
    /// Fields that are for this client alone.
    pub withheld: Fields,
}

impl Account {
    pub fn of(outcome: Outcome, reason: Option<Reason>) -> Account {
        Account { outcome, reason, went_for: None, answered: None, withheld: Fields::default() }
    }

    /// Stored fields with those that are for this client alone.
    fn complete<'a>(&self, stored: &'a Fields) -> Cow<'a, Fields> {
        if self.withheld.is_empty() {
            return Cow::Borrowed(stored);
        }
        Cow::Owned(stored.iter().chain(self.withheld.iter()).collect())
    }
}

impl Gateway {
    /// A stored response, or 304 if the client has it.
    pub(super) async fn stored<C: Client>(
        &self,
        client: &mut C,
        visit: &Visit<'_>,
        entry: &Arc<Entry>,
        account: Account,
    ) -> Record {
        self.share(client, visit, entry, Share::of_whole(visit, entry), account).await
    }

    /// What a request has a share in of a stored response, or 304 if the client has it.
    pub(super) async fn share<C: Client>(
        &self,
        client: &mut C,
        visit: &Visit<'_>,
        entry: &Arc<Entry>,
        share: Share,
        account: Account,
    ) -> Record {
        let Account { outcome, reason, .. } = account;
        let added = added(&entry.times, &account, entry.status, entry.is_restated());
        let fields = entry.fields();
        let fields = account.complete(&fields);
        let choice = Choice::of(visit.rule, &visit.ask, &visit.request.fields, entry);
        if let Some(coding) = choice.wanted {
            self.compressor.make(visit.key.as_str(), entry, coding);
        }
        if let Some(coding) = choice.not_modified(&visit.request.fields, entry.status, fields.iter()) {
            return not_modified(client, visit, &fields, coding, added, outcome, reason).await;
        }
        let (status, sent) = match (share, choice.form) {
            (Share::Whole, Some((coding, form))) => {
                let fields = forms::fields_in(coding, &fields);
                let (status, fields) = (entry.status, ReplyFields::All(&fields));
                let prepared = Some(&form.head).filter(|_| account.withheld.is_empty());
                let head = ReplyHead { status, fields, prepared, added };
                (status, client.whole(head, form.body.clone()).await)
            }
            (Share::Whole, None) => {
                let (status, fields) = (entry.status, ReplyFields::All(&fields));
                let prepared = Some(&entry.head).filter(|_| account.withheld.is_empty());
                let head = ReplyHead { status, fields, prepared, added };
                (status, client.whole(head, entry.body.clone()).await)
            }
            (Share::Parts(parts), _) => Box::pin(parts::send(client, &fields, parts, added)).await,
            (Share::Unsatisfiable, _) => {
                Box::pin(parts::send_unsatisfiable(client, entry.complete_length(), added)).await
            }
        };
        record(client, Some(visit.rule), outcome, reason, status, sent)
    }

    /// A response whose body is still coming.
    pub(super) async fn draft<C: Client>(
        &self,
        client: &mut C,
        visit: &Visit<'_>,
        draft: &Draft,
        reader: Reader,
        account: Account,
    ) -> Record {
        let Account { outcome, reason, .. } = account;
        let added = added(&draft.times, &account, draft.status, draft.is_restated);
        let fields = account.complete(&draft.fields);
        let choice = Choice::of_draft(draft);
        if let Some(coding) = choice.not_modified(&visit.request.fields, draft.status, fields.iter()) {
            return not_modified(client, visit, &fields, coding, added, outcome, reason).await;
        }
        let (status, sent) = match Extract::of(visit, draft) {
            Extract::Whole => {
                let (status, fields) = (draft.status, ReplyFields::All(&fields));
                client.begin(ReplyHead { status, fields, prepared: None, added }, draft.length);
                (status, stream(client, Window::ALL, reader).await)
            }
            Extract::Part(range) => {
                let (status, fields) = (StatusCode::PARTIAL_CONTENT, parts::fields_of_one(&fields, &range));
                let (fields, length) = (ReplyFields::All(&fields), range.span.end - range.span.start);
                client.begin(ReplyHead { status, fields, prepared: None, added }, Some(length));
                (status, stream(client, Window { skip: range.span.start, left: length }, reader).await)
            }
            Extract::Unsatisfiable(length) => {
                let (status, sent) = Box::pin(parts::send_unsatisfiable(client, length, added)).await;
                (status, sent.map_err(Stopped::from))
            }
        };
        let (sent, reason) = match sent {
            Ok(()) => (Ok(()), reason),
            Err(Stopped::Gone) => (Err(Gone), reason),
            Err(Stopped::Cut(error)) => (Err(Gone), Some(error.reason())),
            Err(Stopped::LeftBehind) => (Err(Gone), Some(Reason::ClientTooSlow)),
        };
        record(client, Some(visit.rule), outcome, reason, status, sent)
    }
}

/// `Age` and `Cache-Status` of what comes from the store or goes into it. `is_restated`: the lifetime that the client is
/// told is the rule's, and counts from now.
fn added(times: &Times, account: &Account, status: StatusCode, is_restated: bool) -> Added {
    let now = clock::wall_secs();
    let Account { outcome, reason, went_for, .. } = *account;
    let answered = account.answered.or(match outcome {
        Outcome::Revalidated => Some(StatusCode::NOT_MODIFIED),
        Outcome::Miss => Some(status),
        _ => None,
    });
    let ttl = Some(freshness::ttl(times, now));
    let value = cache_status::member(outcome, reason, went_for, ttl, answered, outcome == Outcome::Miss, false);
    let mut added = vec![("Cache-Status", value)];
    if is_restated {
        added.extend([("Date", date::format(now)), ("Age", "0".to_owned())]);
        return added;
    }
    // A response that was just generated or validated has no age (RFC 9111 §5.1), unless it has come from another cache;
    // anything else from the store has one (§4).
    let is_new = matches!(outcome, Outcome::Miss | Outcome::Revalidated);
    if !is_new || freshness::age(times, now) > 0 {
        added.push(("Age", freshness::age(times, now).to_string()));
    }
    added
}

async fn not_modified<C: Client>(
    client: &mut C,
    visit: &Visit<'_>,
    stored: &Fields,
    coding: Option<Coding>,
    added: Added,
    outcome: Outcome,
    reason: Option<Reason>,
) -> Record {
    let kept: Fields = stored.iter().filter(|(name, _)| validate::belongs_in_304(name)).collect();
    let fields = coding.map_or(kept.clone(), |coding| forms::fields_tagged(coding, &kept));
    let status = StatusCode::NOT_MODIFIED;
    let head = ReplyHead { status, fields: ReplyFields::All(&fields), prepared: None, added };
    let sent = client.whole(head, Bytes::new()).await;
    record(client, Some(visit.rule), outcome, reason, status, sent)
}

/// Why a body stopped before its end.
enum Stopped {
    Gone,
    Cut(OriginError),
    /// Others would have had to wait for the client any longer.
    LeftBehind,
}

impl From<Gone> for Stopped {
    fn from(_: Gone) -> Stopped {
        Stopped::Gone
    }
}

/// Sends the bytes of a window, as they come; the head was sent before.
async fn stream<C: Client>(client: &mut C, mut window: Window, mut reader: Reader) -> Result<(), Stopped> {
    loop {
        if window.left == 0 {
            return Ok(client.end().await?);
        }
        let piece = match reader.ready() {
            Some(piece) => piece,
            None => {
                client.flush().await?;
                reader.next().await
            }
        };
        match piece {
            Piece::Data(piece) => {
                let piece = window.of(piece);
                if !piece.is_empty() {
                    client.piece(piece).await?;
                }
            }
            Piece::End => return Ok(client.end().await?),
            Piece::Cut(error) => {
                // What came is sent, so that the client sees how far it got.
                client.flush().await?;
                client.cut();
                return Err(Stopped::Cut(error));
            }
            Piece::LeftBehind => {
                client.cut();
                return Err(Stopped::LeftBehind);
            }
        }
    }
}

pub(super) fn record<C: Client>(
    client: &C,
    rule: Option<&Arc<Rule>>,
    outcome: Outcome,
    reason: Option<Reason>,
    status: StatusCode,
    sent: Result<(), Gone>,
) -> Record {
    Record { rule: rule.cloned(), outcome, reason, status, bytes: client.sent(), broken_off: sent.is_err() }
}
