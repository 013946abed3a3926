//! Writes answers to the client, each with its `Cache-Status`, and tells what was sent.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::{Fields, Framing, RequestHead, ResponseHead};

use super::client::{Added, Client, Gone, ReplyFields, ReplyHead};
use super::forms::{self, Choice};
use super::forward;
use super::leave::Leave;
use super::options::ALLOW;
use super::parts::{self, Extract, Share, Window};
use super::{Gateway, Snapshot, Visit, told};
use crate::cache::Entry;
use crate::flight::{Draft, Piece, Reader};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::Rule;
use crate::semantics::coding::Coding;
use crate::semantics::freshness::{self, Times};
use crate::semantics::{cache_status, date, validate};
use crate::upstreams::{Answer, Conditions, OriginError, Outgoing, Payload, Ready};

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

    /// An answer that could not be shared goes to the one who fetched it. `found`: what the cache had.
    pub(super) async fn relay_miss<C: Client>(
        &self,
        client: &mut C,
        visit: &Visit<'_>,
        answer: Answer,
        why: Reason,
        found: Reason,
    ) -> Record {
        // What the request itself forbids to share passes by the cache; the rest was worth a try.
        let by_request = matches!(why, Reason::Authorization | Reason::Cookie | Reason::RequestNoStore | Reason::Range);
        let outcome = if by_request { Outcome::Pass } else { Outcome::Miss };
        relay(client, visit.rule, answer, (outcome, why, Some(found))).await
    }

    /// A HEAD that nothing stored answers is asked as it came, and not stored; but what is stored for a GET may learn
    /// from its answer. The documents of a shard need not: their changes are announced.
    pub(super) async fn forward_head<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        reason: Reason,
        client: &mut C,
    ) -> Record {
        let (sender, (_, inbound)) = (visit.sender.as_ref(), client.inbound());
        let outgoing = Outgoing::new(visit.request, visit.rule, Conditions::Client, self.least(visit), sender);
        // Its head tells of the response to a GET.
        let outgoing = outgoing.to_be_stored();
        let (began, now_ms) = (self.store.purge_seq(), clock::wall_ms());
        let asked = self.ask(visit.snapshot, visit.rule, &outgoing, Payload::none(Some(inbound))).await;
        let fetch = self.fetch_of(visit, now_ms);
        match asked.and_then(|answer| fetch.unless_stale_is_better(answer, stale.as_ref())) {
            Ok(mut answer) => {
                self.note_version(visit.snapshot, visit.rule, visit.request, &answer.head);
                if let Some(stale) = stale.as_ref().filter(|_| !fetch.is_failure(&answer)) {
                    stale.recovered();
                }
                if let Some(stale) = stale.filter(|entry| entry.stamp().is_none())
                    && answer.head.status == StatusCode::OK
                {
                    fetch.learned_from_head(&stale, &answer.head, began);
                }
                answer.head = fetch.as_told(answer.head);
                relay(client, visit.rule, answer, (Outcome::Miss, reason, None)).await
            }
            Err(error) => self.failed(client, visit, stale, reason, &error).await,
        }
    }

    /// Hands the request through, whatever it is.
    pub(super) async fn pass<C: Client>(
        &self,
        snapshot: &Arc<Snapshot>,
        rule: &Arc<Rule>,
        request: &RequestHead,
        reason: Reason,
        leave: &mut Leave<'_>,
        client: &mut C,
    ) -> Record {
        if let Err(over) = leave.ask_before_going_on() {
            return self.over_limit(client, rule, over).await;
        }
        let scheme = client.scheme();
        let least = self.shard(snapshot, rule, request).map_or(0, |shard| self.live.least(shard));
        let sender = snapshot.rules.forwarding.sender(client.peer(), scheme);
        let outgoing = Outgoing::new(request, rule, Conditions::Client, least, sender.as_ref());
        let asked = {
            let (framing, inbound) = client.inbound();
            // A rule's answers are told apart by URL, so an origin is not asked by what a GET carries.
            let framing = match reason {
                Reason::RequestBody if sender.is_some() => Framing::None,
                _ => framing,
            };
            let body_max = snapshot.rules.body_max.unwrap_or(u64::MAX);
            let payload = Payload { framing, client: Some(inbound), body_max };
            self.ask(snapshot, rule, &outgoing, payload).await
        };
        match asked {
            Ok(answer) => {
                self.invalidate(snapshot, request, scheme, &answer.head);
                self.note_version(snapshot, rule, request, &answer.head);
                relay(client, rule, answer, (Outcome::Pass, reason, None)).await
            }
            Err(error) if error.reason() == Reason::BadRequest => {
                let status = match error {
                    OriginError::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    OriginError::RequestTooSlow => StatusCode::REQUEST_TIMEOUT,
                    _ => StatusCode::BAD_REQUEST,
                };
                client.abandon_body();
                self.refuse(client, Some(rule), status, Reason::BadRequest, &error.to_string()).await
            }
            Err(error) => respond_failed(client, rule, &error).await,
        }
    }

    /// A document went to a client without passing the store: nobody gets an older one after it.
    pub(super) fn note_version(&self, snapshot: &Snapshot, rule: &Rule, request: &RequestHead, head: &ResponseHead) {
        let shard = self.shard(snapshot, rule, request);
        if let Some(stamp) = shard.and_then(|shard| self.stamp(shard, &head.fields)) {
            self.live.given(&stamp);
        }
    }

    /// Our own 4xx.
    pub(super) async fn refuse<C: Client>(
        &self,
        client: &mut C,
        rule: Option<&Arc<Rule>>,
        status: StatusCode,
        reason: Reason,
        why: &str,
    ) -> Record {
        own(client, rule, Outcome::Refused, status, reason, why).await
    }

    /// Our own 5xx: there is nothing to send.
    pub(super) async fn fail<C: Client>(
        &self,
        client: &mut C,
        visit: &Visit<'_>,
        status: StatusCode,
        reason: Reason,
    ) -> Record {
        let why = match reason {
            Reason::OnlyIfCached => "nothing stored can be used, and the request allows nothing else",
            Reason::FlightFull => "too many requests wait for this response",
            Reason::NoOrigin | Reason::OriginError | Reason::OriginTimeout => {
                "the stored response must be validated, and the origin can't be reached"
            }
            _ => "the response was overtaken by newer versions again and again",
        };
        own(client, Some(visit.rule), Outcome::Error, status, reason, why).await
    }

    pub(super) async fn origin_failed<C: Client>(
        &self,
        client: &mut C,
        visit: &Visit<'_>,
        error: &OriginError,
    ) -> Record {
        respond_failed(client, visit.rule, error).await
    }
}

async fn respond_failed<C: Client>(client: &mut C, rule: &Arc<Rule>, error: &OriginError) -> Record {
    tracing::warn!(rule = rule.name, origin = rule.origin, %error, "origin failed");
    let status = match error {
        OriginError::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    own(client, Some(rule), Outcome::Error, status, error.reason(), &error.to_string()).await
}

/// Seconds after which to ask again where too many wait, or versions came too fast.
const RETRY_AFTER_SECS: u64 = 1;

/// An answer of our own, in words.
async fn own<C: Client>(
    client: &mut C,
    rule: Option<&Arc<Rule>>,
    outcome: Outcome,
    status: StatusCode,
    reason: Reason,
    why: &str,
) -> Record {
    let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECS);
    respond(client, rule, outcome, (status, retry_after), reason, why).await
}

/// The same; `retry_after`: in how many seconds the client may ask again (RFC 9110 §10.2.3).
pub(super) async fn respond<C: Client>(
    client: &mut C,
    rule: Option<&Arc<Rule>>,
    outcome: Outcome,
    (status, retry_after): (StatusCode, Option<u64>),
    reason: Reason,
    why: &str,
) -> Record {
    let mut fields = vec![
        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
        ("Cache-Control", "no-store".to_owned()),
        ("Date", date::format(clock::wall_secs())),
    ];
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.push(("Allow", ALLOW.to_owned()));
    }
    if let Some(seconds) = retry_after {
        fields.push(("Retry-After", seconds.to_string()));
    }
    let fields: Fields = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let added = vec![("Cache-Status", cache_status::value(outcome, Some(reason), None, None, false, false))];
    let body = Bytes::from(format!("{} {}: {why}\n", status.as_str(), status.canonical_reason().unwrap_or("")));
    let sent = client.whole(ReplyHead { status, fields: ReplyFields::All(&fields), prepared: None, added }, body).await;
    record(client, rule, outcome, Some(reason), status, sent)
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

/// Streams an answer to the one client it is for. The last of the words: what the cache had, where the reason does not
/// tell.
async fn relay<C: Client>(
    client: &mut C,
    rule: &Arc<Rule>,
    mut answer: Answer,
    (outcome, reason, went_for): (Outcome, Reason, Option<Reason>),
) -> Record {
    let reason = Some(reason);
    let status = answer.head.status;
    let mut added =
        vec![("Cache-Status", cache_status::member(outcome, reason, went_for, None, Some(status), false, false))];
    if !answer.head.fields.contains("date") {
        added.push(("Date", date::format(clock::wall_secs())));
    }
    added.push(("Via", forward::via(answer.head.minor).to_owned()));
    // Another answer at the same URL may come in a coding.
    if told::varies_by_coding(rule, &answer.head.fields) {
        added.push(("Vary", "Accept-Encoding".to_owned()));
    }
    let head = ReplyHead { status, fields: ReplyFields::Relayed(&answer.head.fields), prepared: None, added };
    let length = if answer.head_only { declared_length(&answer.head) } else { answer.body.length };
    let sent = async {
        client.begin(head, length);
        loop {
            let next = match answer.body.ready() {
                Ok(Ready::Piece(piece)) => Ok(Some(piece)),
                Ok(Ready::End) => Ok(None),
                Ok(Ready::NotYet) => {
                    client.flush().await?;
                    answer.body.next().await
                }
                Err(error) => Err(error),
            };
            match next {
                Ok(Some(piece)) => client.piece(piece).await?,
                Ok(None) => return client.end().await,
                Err(error) => {
                    client.flush().await?;
                    tracing::warn!(rule = rule.name, origin = rule.origin, %error, "origin broke off");
                    client.cut();
                    return Err(Gone);
                }
            }
        }
    };
    let sent = sent.await;
    record(client, Some(rule), outcome, reason, status, sent)
}

/// The length that an answer to HEAD would have with its body.
fn declared_length(head: &ResponseHead) -> Option<u64> {
    head.fields.get_str("content-length").and_then(|digits| digits.parse().ok())
}

fn record<C: Client>(
    client: &C,
    rule: Option<&Arc<Rule>>,
    outcome: Outcome,
    reason: Option<Reason>,
    status: StatusCode,
    sent: Result<(), Gone>,
) -> Record {
    Record { rule: rule.cloned(), outcome, reason, status, bytes: client.sent(), broken_off: sent.is_err() }
}
