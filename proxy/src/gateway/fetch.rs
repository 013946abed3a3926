//! Asks the origin on behalf of a flight: validates, stores, begins the fill.

use std::sync::Arc;

use http::{Method, StatusCode};
use millpond_shared::clock;
use millpond_shared::http1::{Fields, RequestHead, ResponseHead};
use millpond_shared::version::ShardId;

use super::complete::{Beginning, Continued};
use super::fill::{Fill, hold_back};
use super::stale::may_be_sent_on_error;
use super::told::{self, Told};
use super::{Gateway, Snapshot, forms, forward, stamp};
use crate::cache::{Entry, Mark, Mode, PurgeSeq, Stamp};
use crate::flight::{Draft, Flight, Lead};
use crate::key::Key;
use crate::live::Least;
use crate::outcome::{Outcome, Reason};
use crate::rules::{Rule, Sender};
use crate::semantics::request::Ask;
use crate::semantics::vary::Selection;
use crate::semantics::{failure, freshness, storability, validate};
use crate::upstreams::{Answer, Conditions, Inbound, OriginError, Outgoing, Payload};

impl Gateway {
    /// Takes a fetched response into the store; `began`: the last purge before its fetch. `false`: it is too large.
    pub(super) fn admit(&self, key: &Key, entry: &Arc<Entry>, began: PurgeSeq) -> bool {
        let overtaken = || entry.stamp().is_some_and(|stamp| self.live.overtaken(stamp));
        let is_stored = self.store.admit(key, Arc::clone(entry), began, overtaken);
        if !is_stored {
            self.counters.rejected();
        } else if let Some(stamp) = entry.stamp().filter(|_| entry.mark() == Mark::None) {
            self.live.given(stamp);
        }
        is_stored
    }
}

/// One fetch. What has to outlive the request that caused it is in its [`Fill`].
pub struct Fetch<'a> {
    pub gateway: &'a Arc<Gateway>,
    pub snapshot: &'a Snapshot,
    pub rule: &'a Rule,
    pub request: &'a RequestHead,
    pub ask: &'a Ask,
    /// Nothing is stored that the client's conditions could be compared with: they go to the origin.
    pub conditional: bool,
    /// What is stored of the response already: only the rest is asked for.
    pub beginning: Option<Beginning>,
    pub key: &'a Key,
    /// The shard that owns the document, where the origin is the shards.
    pub shard: Option<ShardId>,
    /// What the answer must have reached at least.
    pub least: Least,
    /// The client, if origins are told of clients.
    pub sender: Option<&'a Sender>,
    /// When the origin is asked, in seconds since the Unix epoch.
    pub asked: u64,
}

/// What a fetch came to. The flight is settled, or a fill goes on settling it.
pub enum Fetched {
    /// Everyone reads it from the flight; the fields are for the one alone who fetched.
    Shared(Outcome, Arc<Flight>, Fields),
    /// The same, where the origin sent a 206 with the rest of what was stored in part.
    Completed(Arc<Flight>, Fields),
    /// Not for sharing: the one who fetched gets it, and nobody else.
    Own(Answer, Reason),
    /// The same, of a stored response that a 304 confirmed.
    OwnEntry(Arc<Entry>, Reason),
    Failed(OriginError),
}

impl Fetch<'_> {
    /// `stale`: the stored response to validate. `client`: who hears the origin's interim answers.
    pub async fn run(
        &self,
        stale: Option<&Arc<Entry>>,
        lead: Lead,
        mut client: Option<&mut (dyn Inbound + '_)>,
    ) -> Fetched {
        let began = lead.began();
        let stored = stale.map(|entry| entry.fields());
        let conditions = match (&stored, &self.beginning) {
            (Some(stored), _) => Conditions::Stored(stored),
            (None, _) if self.conditional => Conditions::Client,
            (None, Some(beginning)) => beginning.conditions(),
            (None, None) => Conditions::None,
        };
        let mut answer = self.ask_origin(conditions, client.as_deref_mut()).await;
        if let (Ok(got), Some(entry), Some(stored)) = (&answer, stale, &stored)
            && got.head.status == StatusCode::NOT_MODIFIED
        {
            if validate::confirms(stored, &got.head.fields) {
                return self.revalidated(entry, &got.head, began, lead);
            }
            // It confirms something that is not stored here: the whole response is needed.
            answer = Box::pin(self.ask_origin(Conditions::None, client)).await;
        } else if let Some(beginning) = &self.beginning {
            answer = match answer.map(|answer| beginning.continued(answer)) {
                Ok(Continued::Joined(answer)) => {
                    return match self.answered(answer, began, lead, false) {
                        Fetched::Shared(_, flight, withheld) => Fetched::Completed(flight, withheld),
                        other => other,
                    };
                }
                Ok(Continued::Whole(answer)) => Ok(answer),
                Ok(Continued::Other) => Box::pin(self.ask_origin(Conditions::None, client)).await,
                Err(error) => Err(error),
            };
        }
        match answer.and_then(|answer| self.unless_stale_is_better(answer, stale)) {
            Err(error) => {
                lead.failed(error.clone());
                Fetched::Failed(error)
            }
            // It tells what the client has, and nothing that could be stored.
            Ok(answer) if answer.head.status == StatusCode::NOT_MODIFIED && self.conditional => {
                lead.unshared(Reason::NotCached);
                Fetched::Own(answer, Reason::NotCached)
            }
            Ok(answer) if answer.head.status == StatusCode::NOT_MODIFIED => {
                let error = OriginError::Malformed("it answered 304 to a request without conditions");
                lead.failed(error.clone());
                Fetched::Failed(error)
            }
            Ok(answer) => {
                let hold = stale.is_some_and(|entry| may_be_sent_on_error(entry, self.ask));
                let mut fetched = self.answered(answer, began, lead, hold);
                if let (Fetched::Own(answer, _), Some(entry)) = (&mut fetched, stale) {
                    if hold && let Err(error) = hold_back(&mut answer.body).await {
                        return Fetched::Failed(error);
                    }
                    // What is stored stays, since nothing takes its place.
                    if !self.is_failure(answer) {
                        entry.recovered();
                    }
                }
                fetched
            }
        }
    }

    async fn ask_origin(
        &self,
        conditions: Conditions<'_>,
        client: Option<&mut (dyn Inbound + '_)>,
    ) -> Result<Answer, OriginError> {
        let outgoing = Outgoing::new(self.request, self.rule, conditions, self.least, self.sender).to_be_stored();
        self.gateway.ask(self.snapshot, self.rule, &outgoing, Payload::none(client)).await
    }

    /// Whether the origin says that it failed.
    pub fn is_failure(&self, answer: &Answer) -> bool {
        self.rule.policy.failures.hold(answer.head.status)
    }

    /// The answer, unless it says that the origin failed, and there is a stale response for that case.
    pub fn unless_stale_is_better(&self, answer: Answer, stale: Option<&Arc<Entry>>) -> Result<Answer, OriginError> {
        match stale {
            Some(entry) if self.is_failure(&answer) && may_be_sent_on_error(entry, self.ask) => {
                let retry_after = failure::retry_after(&answer.head.fields, clock::wall_secs());
                Err(OriginError::Failed { status: answer.head.status, retry_after })
            }
            _ => Ok(answer),
        }
    }

    /// A 304: the stored response is as good as new, with the fields that the 304 brought (RFC 9111 §4.3.4).
    fn revalidated(&self, stale: &Arc<Entry>, head: &ResponseHead, began: PurgeSeq, mut lead: Lead) -> Fetched {
        let now = clock::wall_secs();
        let (entry, updated) = self.updated(stale, head, now);
        // A 304 may forbid what the first response allowed: then it is for the one who asked, and nobody else.
        match self.may_be_stored(&self.request.method, self.ask, &updated) {
            Ok(()) => {
                self.gateway.admit(self.key, &entry, began);
                let flight = lead.flight();
                lead.complete(entry);
                Fetched::Shared(Outcome::Revalidated, flight, forward::withheld_fields(&updated.fields))
            }
            Err(reason) => {
                let nobody_may = self.may_be_stored(&Method::GET, &Ask::plain(), &updated).is_err();
                if nobody_may {
                    self.gateway.store.purge_key(self.key, Mode::Delete);
                }
                stale.recovered();
                lead.unshared(reason);
                Fetched::OwnEntry(entry, reason)
            }
        }
    }

    /// The stored response with the fields that a 304, or the answer to a HEAD, brought; and its head as it is to be
    /// judged.
    fn updated(&self, stale: &Entry, head: &ResponseHead, now: u64) -> (Arc<Entry>, ResponseHead) {
        let fields = validate::updated(&stale.original_fields(), &head.fields);
        let updated = ResponseHead { status: stale.status, minor: head.minor, fields };
        let times = freshness::times(&updated, &self.rule.policy, self.asked, now);
        // Where the 304 has no Via, that of the stored response stays, with us in it.
        let through = head.fields.contains("via").then_some(head.minor);
        let fields = forward::stored_fields(&updated.fields, now, through);
        let selection = told::selection(self.rule, &updated.fields, &self.request.fields);
        let selection = selection.unwrap_or_else(|| stale.selection().clone());
        let stamp = self.stamp(&head.fields).or_else(|| stale.stamp().cloned());
        let tags = self.tags(&fields, stamp.as_ref());
        let Told { fields, original, is_restated } = Told::of(self.rule, &updated, fields, &tags);
        let entry = Entry::new(stale.status, fields, stale.body.clone(), times, selection, tags, stamp);
        let entry = entry.instead_of(original).restated(is_restated);
        let coded_from = told::coded_from(self.rule, stale.status, &updated.fields);
        let entry = match told::is_sent_in_codings(&entry, coded_from) {
            true => entry.in_codings().with_forms_of(stale),
            false => entry,
        };
        (Arc::new(entry), updated)
    }

    /// The origin answered 200 to a client's HEAD: what is stored for its GET is updated from that, or has to be
    /// validated before it is used again (RFC 9111 §4.3.5). `began`: the last purge before the origin was asked.
    pub fn learned_from_head(&self, stale: &Entry, head: &ResponseHead, began: PurgeSeq) {
        let length = stale.body.len() as u64;
        let confirmed = stale.status == head.status && validate::head_confirms(&stale.fields(), length, &head.fields);
        let (entry, updated) = self.updated(stale, head, clock::wall_secs());
        let ask = Ask { head_only: false, ..self.ask.clone() };
        if confirmed && self.may_be_stored(&Method::GET, &ask, &updated).is_ok() {
            self.gateway.admit(self.key, &entry, began);
        } else {
            stale.set_mark(Mark::Purged);
        }
    }

    /// What becomes of an answer. `hold`: a stale response might still be sent instead.
    pub(super) fn answered(&self, answer: Answer, began: PurgeSeq, lead: Lead, hold: bool) -> Fetched {
        let head = &answer.head;
        let store_max = self.gateway.store.limits().object_max_bytes;
        let verdict = self.may_be_stored(&self.request.method, self.ask, head);
        let too_large = answer.body.length.is_some_and(|length| length > store_max);
        let verdict = verdict.and(if too_large { Err(Reason::BodyTooLarge) } else { Ok(()) });
        if let Err(reason) = verdict {
            if reason == Reason::BodyTooLarge {
                self.gateway.counters.rejected();
            }
            // Another client's request may fare better, and a failing origin is not to be asked by all at once.
            if !caused_by_request(reason) && !self.is_failure(&answer) {
                self.gateway.remembered.add(self.key.hash(), clock::wall_ms());
            }
            lead.unshared(reason);
            return Fetched::Own(answer, reason);
        }
        self.gateway.remembered.remove(self.key.hash());
        let withheld = forward::withheld_fields(&head.fields);
        let draft = Arc::new(self.draft(head, answer.body.length));
        let flight = Fill::start(self.gateway, self.key, draft, answer.body, began, lead, hold);
        Fetched::Shared(Outcome::Miss, flight, withheld)
    }

    /// The head of an answer to HEAD as clients are told that of the GET.
    pub fn as_told(&self, head: ResponseHead) -> ResponseHead {
        let ask = Ask { head_only: false, ..self.ask.clone() };
        if !self.rule.downstream.is_any() || self.may_be_stored(&Method::GET, &ask, &head).is_err() {
            return head;
        }
        let tags = self.tags(&head.fields, self.stamp(&head.fields).as_ref());
        let Told { fields, is_restated, .. } = Told::of(self.rule, &head, head.fields.clone(), &tags);
        // Its lifetime counts from now: whoever hands it on gives it a new date.
        let kept = fields.iter().filter(|(name, _)| !(is_restated && name.eq_ignore_ascii_case("age")));
        ResponseHead { fields: kept.collect(), ..head }
    }

    /// What HTTP says, then whether changes of it would be heard of, and then the rule.
    pub(super) fn may_be_stored(&self, method: &Method, ask: &Ask, head: &ResponseHead) -> Result<(), Reason> {
        storability::judge(method, ask, head, &self.rule.policy)?;
        if self.shard.is_some() && !stamp::names_all_parts(&head.fields) {
            return Err(Reason::TooManyParts);
        }
        if self.rule.stores(head.fields.get("content-type")) { Ok(()) } else { Err(Reason::ContentType) }
    }

    pub(super) fn draft(&self, head: &ResponseHead, length: Option<u64>) -> Draft {
        let now = clock::wall_secs();
        let selection = told::selection(self.rule, &head.fields, &self.request.fields).unwrap_or(Selection::NONE);
        let stamp = self.stamp(&head.fields);
        let fields = forward::stored_fields(&head.fields, now, Some(head.minor));
        let times = freshness::times(head, &self.rule.policy, self.asked, now);
        let tags = self.tags(&fields, stamp.as_ref());
        let Told { fields, original, is_restated } = Told::of(self.rule, head, fields, &tags);
        let coded_from = told::coded_from(self.rule, head.status, &head.fields);
        let preferred = forms::preferred(self.rule, self.ask, &self.request.fields);
        let status = head.status;
        Draft { status, fields, times, selection, tags, stamp, original, is_restated, coded_from, preferred, length }
    }

    fn tags(&self, fields: &Fields, stamp: Option<&Stamp>) -> Vec<Box<str>> {
        forward::tags(self.rule, fields, stamp.into_iter().flat_map(Stamp::tags), self.key.uri_origin())
    }

    fn stamp(&self, fields: &Fields) -> Option<Stamp> {
        self.gateway.stamp(self.shard?, fields)
    }
}

/// Whether it is the request, and not the response, that forbids to share.
fn caused_by_request(reason: Reason) -> bool {
    matches!(reason, Reason::Authorization | Reason::Cookie | Reason::RequestNoStore | Reason::Method)
}
