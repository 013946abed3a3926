//! Answers that are for one client alone: asked for and handed on, without passing the store.

use std::sync::Arc;

use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::{Framing, RequestHead, ResponseHead};

use super::answer::record;
use super::client::{Client, Gone, ReplyFields, ReplyHead};
use super::leave::Leave;
use super::own::respond_failed;
use super::{Gateway, Snapshot, Visit, forward, told};
use crate::cache::Entry;
use crate::live::Least;
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::Rule;
use crate::semantics::{cache_status, date, hop};
use crate::upstreams::{Answer, Conditions, OriginError, Outgoing, Payload, Ready};

impl Gateway {
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
        let least = self.shard(snapshot, rule, request).map_or_else(Least::default, |shard| self.live.least(shard));
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
    // One that `Connection` names ends here, like any other.
    if !hop::end_to_end(&answer.head.fields).any(|(name, _)| name.eq_ignore_ascii_case("date")) {
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
