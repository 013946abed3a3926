//! The gateway: what becomes of a request, from its head to the last byte of its answer.
//!
//! [`Gateway::serve`] is the walk; a reader sees here in which order things happen. `forward` (pure) makes the heads
//! that go into the store and to the client, `early` finds hits before anything is waited for, `fetch` asks the origin,
//! `fill` brings the body into the cache, `stale` has what is sent though it is stale, `answer` writes to the client,
//! `parts` does both for requests with a `Range` (several at once as `multipart` makes them), `complete` has only the
//! rest fetched of what is stored in part, `options` answers
//! what is asked of the proxy itself, `invalidate` takes out what is no longer true, `remembered` knows which keys are
//! not worth waiting for, `leave` which requests are let through where there is a limit.

mod answer;
mod client;
mod complete;
mod early;
mod fetch;
mod fill;
mod forward;
mod invalidate;
mod leave;
mod multipart;
mod options;
mod parts;
mod remembered;
mod stale;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use millpond_shared::clock;
use millpond_shared::http1::{Fields, Framing, Minor, RequestHead};
use millpond_shared::version::Position;
use tokio::time::timeout;

pub use client::{Added, Client, Gone, ReplyFields, ReplyHead};
pub use early::{Asked, Hit, Scratch};

use crate::cache::{Entry, Lookup, Store};
use crate::counters::Counters;
use crate::flight::{Flight, Flights, Join, Lead, Limits, Seen, Waiting};
use crate::key::Key;
use crate::live::{Live, Verdict};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::{Rule, RuleSet, Sender};
use crate::semantics::expectation::Expectation;
use crate::semantics::request;
use crate::semantics::request::{Ask, RequestVerdict};
use crate::semantics::reuse::{self, Reuse};
use crate::upstreams::{Answer, OriginError, Outgoing, Payload, Upstreams};
use answer::Account;
use complete::Beginning;
use fetch::{Fetch, Fetched};
use leave::Leave;
use remembered::Remembered;
use stale::{goes_on_alone, may_be_sent_on_error};

/// Longest that a request waits for another's fetch to be answered; then 504.
const WAIT_TIMEOUT: Duration = Duration::from_secs(75);
/// How often a request starts over because what it waited for was overtaken by a newer version.
const STARTS_MAX: usize = 8;

/// Rules and origins, in one immutable snapshot behind one pointer: a reload swaps it whole.
pub struct Snapshot {
    pub rules: RuleSet,
    pub upstreams: Upstreams,
}

pub struct Gateway {
    snapshot: ArcSwap<Snapshot>,
    store: Arc<Store>,
    live: Arc<Live>,
    flights: Arc<Flights>,
    remembered: Remembered,
    counters: Arc<Counters>,
}

/// A request that may use the cache, and the rule it came under.
struct Visit<'a> {
    snapshot: &'a Arc<Snapshot>,
    rule: &'a Arc<Rule>,
    request: &'a RequestHead,
    /// The client, if origins are told of clients.
    sender: Option<Sender>,
    ask: Ask,
    key: Key,
}

/// What a flight brought to one of its clients.
struct Landing {
    flight: Arc<Flight>,
    seen: Seen,
    /// The position that the client's answer must have reached at least.
    asked_at: Position,
    outcome: Outcome,
    reason: Reason,
    /// Fields of the origin's answer that are for this client alone.
    withheld: Fields,
    /// What the origin answered, where it is not what the client gets.
    answered: Option<StatusCode>,
}

/// Why a request starts over.
enum Again {
    /// What it waited for was overtaken by a version that somebody was given already.
    Newer,
    /// It can't share another's fetch, for this reason.
    Alone(Reason),
}

impl Gateway {
    pub fn new(snapshot: Snapshot, store: Arc<Store>, live: Arc<Live>, counters: Arc<Counters>) -> Arc<Gateway> {
        Arc::new(Gateway {
            snapshot: ArcSwap::from_pointee(snapshot),
            flights: Flights::new(Limits::default(), Arc::clone(&store)),
            store,
            live,
            remembered: Remembered::default(),
            counters,
        })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub fn swap(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Answers one request. The client may be gone at any point; the record tells what was sent until then.
    pub async fn serve<C: Client>(self: &Arc<Self>, request: &RequestHead, client: &mut C) -> Record {
        let snapshot = self.snapshot();
        if let Some((status, why)) = not_served(request) {
            return self.refuse(client, None, status, Reason::Method, why).await;
        }
        if options::is_for_us(request) {
            return options::answer(client).await;
        }
        if let Some((status, why)) = unacceptable(request, client.inbound().0, snapshot.rules.body_max) {
            client.abandon_body();
            return self.refuse(client, None, status, Reason::BadRequest, why).await;
        }
        let renamed = match snapshot.rules.path(request.target.path_and_query()) {
            Ok(Cow::Borrowed(_)) => None,
            Ok(Cow::Owned(path)) => Some(request.with_path(path)),
            Err(refusal) => return self.refuse(client, None, refusal.status, Reason::BadRequest, refusal.why).await,
        };
        let request = renamed.as_ref().unwrap_or(request);
        let Some((_, rule)) = snapshot.rules.find(request) else {
            let why = "no rule matches this host, path and method";
            return self.refuse(client, None, StatusCode::NOT_FOUND, Reason::NoRule, why).await;
        };
        let mut leave = Leave::of(&snapshot, rule, request, client);
        if let Err(over) = leave.ask_before_answering() {
            return self.held_back(client, rule, over).await;
        }
        if rule.bypasses(&request.fields, request.target.path_and_query()) {
            return Box::pin(self.pass(&snapshot, rule, request, Reason::RuleBypass, &mut leave, client)).await;
        }
        let ask = match request::judge(request) {
            RequestVerdict::Pass(reason) => {
                return Box::pin(self.pass(&snapshot, rule, request, reason, &mut leave, client)).await;
            }
            RequestVerdict::Lookup(ask) => ask.heeded(&rule.policy.client).into_owned(),
        };
        let key = Key::of(rule, request, client.scheme());
        let sender = snapshot.rules.forwarding.sender(client.peer(), client.scheme());
        let visit = Visit { snapshot: &snapshot, rule, request, sender, ask, key };
        let mut alone = None;
        for _ in 0..STARTS_MAX {
            match self.visit(&visit, alone, &mut leave, client).await {
                Ok(record) => return record,
                Err(Again::Newer) => alone = None,
                Err(Again::Alone(reason)) => alone = Some(reason),
            }
        }
        self.fail(client, &visit, StatusCode::SERVICE_UNAVAILABLE, Reason::OlderVersion).await
    }

    /// Look up, and fetch if need be. `alone`: why the request does not wait for another's fetch.
    async fn visit<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        alone: Option<Reason>,
        leave: &mut Leave<'_>,
        client: &mut C,
    ) -> Result<Record, Again> {
        let now_ms = clock::wall_ms();
        let mut part = None;
        let (stale, reason) = match self.store.lookup(&visit.key, &visit.request.fields) {
            Lookup::Nothing => (None, Reason::NotCached),
            Lookup::OtherVariant => (None, Reason::VaryMiss),
            Lookup::Part(entry) => {
                part = Some(entry);
                (None, Reason::Partial)
            }
            Lookup::Found(entry) => {
                let verdict =
                    reuse::judge(&entry.times, &visit.ask, now_ms / 1000, self.live.invalidated(&entry, now_ms));
                match verdict {
                    Reuse::Fresh { .. } => {
                        return Ok(self.stored(client, visit, &entry, Account::of(Outcome::Hit, None)).await);
                    }
                    Reuse::StaleRevalidate { .. } => {
                        self.refresh_behind(visit, &entry, now_ms);
                        let account = Account::of(Outcome::Stale, Some(Reason::NotFresh));
                        return Ok(self.stored(client, visit, &entry, account).await);
                    }
                    // The origin failed a moment ago: it is probed, not hammered.
                    Reuse::Validate { error_until, .. }
                        if !entry.may_probe(now_ms) && (error_until.is_some() || was_disconnected(&entry, now_ms)) =>
                    {
                        let account = Account::of(Outcome::Stale, Some(Reason::OriginError));
                        return Ok(self.stored(client, visit, &entry, account).await);
                    }
                    Reuse::Validate { reason, .. } => (Some(entry), reason),
                }
            }
        };
        if let Err(over) = leave.ask_before_going_on() {
            return Ok(self.held_back(client, visit.rule, over).await);
        }
        if visit.ask.range.is_some() && stale.is_none() {
            return Box::pin(self.parts(visit, part, reason, now_ms, client)).await;
        }
        if let Some((status, reason)) = reuse::only_if_cached(&visit.ask, None) {
            return Ok(self.fail(client, visit, status, reason).await);
        }
        if visit.ask.head_only {
            return Ok(Box::pin(self.forward_head(visit, stale, reason, client)).await);
        }
        let found = reason;
        let remembered = || self.remembered.holds(visit.key.hash(), now_ms).then_some(Reason::Remembered);
        // What comes of it is for this client alone: for its conditions, or because the response has to be validated
        // for everyone.
        let is_own = !visit.ask.collapse
            || visit.is_conditional(stale.as_ref())
            || stale.as_ref().is_some_and(|entry| entry.times.no_cache);
        let own = is_own.then_some(reason);
        if let Some(reason) = alone.or(own).or_else(remembered) {
            let lead = self.flights.alone(self.store.purge_seq());
            return self.lead(visit, (stale, part), (found, reason), lead, client).await;
        }
        match self.flights.join(visit.key.hash(), self.store.purge_seq()) {
            Join::Lead(lead) => self.lead(visit, (stale, part), (found, reason), lead, client).await,
            Join::Wait(waiting) => Box::pin(self.wait(visit, stale, reason, waiting, client)).await,
            Join::Full => Ok(self.fail(client, visit, StatusCode::SERVICE_UNAVAILABLE, Reason::FlightFull).await),
        }
    }

    /// Fetches, and reads the answer like everybody else. `stale`, `part`: what is stored, whole or incomplete. `found`:
    /// what the cache had; `reason`: what is told of it.
    async fn lead<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        (stale, part): (Option<Arc<Entry>>, Option<Arc<Entry>>),
        (found, reason): (Reason, Reason),
        lead: Lead,
        client: &mut C,
    ) -> Result<Record, Again> {
        let conditional = visit.is_conditional(stale.as_ref());
        let beginning = part.filter(|_| !conditional).and_then(|part| Beginning::of(&part));
        let fetch = Fetch { conditional, beginning, ..self.fetch_of(visit, clock::wall_ms()) };
        let (_, inbound) = client.inbound();
        let fetched = fetch.run(stale.as_ref(), lead, Some(inbound)).await;
        self.fetched(visit, stale, (found, reason), fetch.least, fetched, client).await
    }

    /// Sends what a client's own fetch came to. `found`: what the cache had, and `reason` why it was asked; `asked_at`: the
    /// position that its answer must have reached at least.
    async fn fetched<C: Client>(
        &self,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        (found, reason): (Reason, Reason),
        asked_at: Position,
        fetched: Fetched,
        client: &mut C,
    ) -> Result<Record, Again> {
        match fetched {
            Fetched::Shared(outcome, flight, withheld) => {
                let seen = flight.seen().await;
                let landing = Landing { flight, seen, asked_at, outcome, reason, withheld, answered: None };
                self.read(visit, stale, landing, client).await
            }
            Fetched::Completed(flight, withheld) => {
                let (seen, answered) = (flight.seen().await, Some(StatusCode::PARTIAL_CONTENT));
                let landing = Landing { flight, seen, asked_at, outcome: Outcome::Miss, reason, withheld, answered };
                self.read(visit, stale, landing, client).await
            }
            Fetched::Own(answer, why) => Ok(self.relay_miss(client, visit, answer, why, found).await),
            Fetched::OwnEntry(entry, why) => {
                let account = Account { went_for: Some(found), ..Account::of(Outcome::Revalidated, Some(why)) };
                Ok(self.stored(client, visit, &entry, account).await)
            }
            Fetched::Failed(error) => Ok(self.failed(client, visit, stale, found, &error).await),
        }
    }

    /// Waits for another's fetch.
    async fn wait<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        reason: Reason,
        waiting: Waiting,
        client: &mut C,
    ) -> Result<Record, Again> {
        let (asked_at, joined) = (self.least(visit), self.store.purge_seq());
        let flight = Arc::clone(&waiting.flight);
        let seen = {
            let _counted = self.counters.waiting();
            timeout(WAIT_TIMEOUT, flight.seen()).await.unwrap_or(Seen::Failed(OriginError::Timeout))
        };
        drop(waiting);
        let (selection, tags) = match &seen {
            Seen::Body(draft) | Seen::Late(draft) => (Some(&draft.selection), draft.tags.as_slice()),
            Seen::Complete(entry) => (Some(entry.selection()), entry.tags()),
            Seen::Unshared(_) | Seen::Failed(_) => (None, [].as_slice()),
        };
        if selection.is_some_and(|selection| !selection.matches(&visit.request.fields)) {
            return Err(Again::Alone(Reason::VaryMiss));
        }
        // A response that has to be validated before every use, or is stale already, is for its own request only
        // (RFC 9111 §4). Not so a document of a shard, whose changes are announced.
        let times = match &seen {
            Seen::Body(draft) | Seen::Late(draft) if draft.stamp.is_none() => Some(&draft.times),
            Seen::Complete(entry) if entry.stamp().is_none() => Some(&entry.times),
            _ => None,
        };
        if let Some(times) = times
            && let Reuse::Validate { reason, .. } = reuse::judge(times, &Ask::plain(), clock::wall_secs(), None)
        {
            return Err(Again::Alone(reason));
        }
        // A purge between its fetch and this request: the answer is not for those who came after it.
        if self.store.purged_between(flight.began(), joined, &visit.key, tags).is_some() {
            self.flights.unlist(visit.key.hash(), &flight);
            return Err(Again::Newer);
        }
        let (outcome, withheld) = (Outcome::Collapsed, Fields::default());
        let landing = Landing { flight, seen, asked_at, outcome, reason, withheld, answered: None };
        self.read(visit, stale, landing, client).await
    }

    /// Sends what a flight brings.
    async fn read<C: Client>(
        &self,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        landing: Landing,
        client: &mut C,
    ) -> Result<Record, Again> {
        let Landing { flight, seen, asked_at, outcome, reason, withheld, answered } = landing;
        let account = Account { withheld, answered, ..Account::of(outcome, Some(reason)) };
        let stamp = match &seen {
            Seen::Body(draft) | Seen::Late(draft) => draft.stamp.as_ref(),
            Seen::Complete(entry) => entry.stamp(),
            Seen::Unshared(_) | Seen::Failed(_) => None,
        };
        if stamp.is_some_and(|stamp| self.live.judge(stamp, asked_at) == Verdict::Older) {
            // Nobody else should wait for it either.
            self.flights.unlist(visit.key.hash(), &flight);
            return Err(Again::Newer);
        }
        match seen {
            Seen::Complete(entry) => Ok(self.stored(client, visit, &entry, account).await),
            Seen::Late(_) if stale.as_ref().is_some_and(|entry| may_be_sent_on_error(entry, &visit.ask)) => {
                Ok(self.failed(client, visit, stale, reason, &OriginError::Timeout).await)
            }
            Seen::Body(draft) | Seen::Late(draft) => match flight.reader() {
                Some(reader) => Ok(self.draft(client, visit, &draft, reader, account).await),
                // Too large to be held for a latecomer.
                None => Err(Again::Alone(Reason::BodyTooLarge)),
            },
            // Not for sharing: then everyone for itself.
            Seen::Unshared(why) => Err(Again::Alone(why)),
            Seen::Failed(error) => Ok(self.failed(client, visit, stale, reason, &error).await),
        }
    }

    fn fetch_of<'a>(self: &'a Arc<Self>, visit: &'a Visit<'_>, now_ms: u64) -> Fetch<'a> {
        Fetch {
            gateway: self,
            snapshot: visit.snapshot,
            rule: visit.rule,
            request: visit.request,
            ask: &visit.ask,
            conditional: false,
            beginning: None,
            key: &visit.key,
            shard: self.shard(visit.snapshot, visit.rule, visit.request),
            least: self.least(visit),
            sender: visit.sender.as_ref(),
            asked: now_ms / 1000,
        }
    }

    /// Asks the origin of the rule.
    async fn ask(
        &self,
        snapshot: &Snapshot,
        rule: &Rule,
        outgoing: &Outgoing<'_>,
        payload: Payload<'_>,
    ) -> Result<Answer, OriginError> {
        snapshot.upstreams.ask(&rule.origin, outgoing, payload, rule.retry, &self.counters).await
    }

    /// The position that an answer to this request must have reached at least.
    fn least(&self, visit: &Visit<'_>) -> Position {
        self.shard(visit.snapshot, visit.rule, visit.request).map_or(0, |shard| self.live.least(shard))
    }

    fn shard(&self, snapshot: &Snapshot, rule: &Rule, request: &RequestHead) -> Option<u16> {
        snapshot.upstreams.shards(&rule.origin)?.owner(request.target.path_and_query())
    }
}

impl Visit<'_> {
    /// Whether the client's conditions go to the origin, as there is nothing stored that they could be compared with
    /// (RFC 9111 §4.3.2).
    fn is_conditional(&self, stale: Option<&Arc<Entry>>) -> bool {
        let has = |name| self.request.fields.contains(name);
        self.rule.policy.forwards_conditions && stale.is_none() && (has("if-none-match") || has("if-modified-since"))
    }
}

/// Whether the pause after a failure is one without contact to the origin: one after a refresh that failed may be
/// another.
fn was_disconnected(entry: &Entry, now_ms: u64) -> bool {
    entry.times.stale_revalidate == 0 && goes_on_alone(entry, now_ms)
}

/// Requests that no rule can ask for.
fn not_served(request: &RequestHead) -> Option<(StatusCode, &'static str)> {
    match request.method {
        Method::CONNECT => Some((StatusCode::METHOD_NOT_ALLOWED, "this proxy opens no tunnels")),
        Method::TRACE => Some((StatusCode::METHOD_NOT_ALLOWED, "TRACE is not answered")),
        _ => None,
    }
}

/// Requests whose head alone says that they can't be served, whatever they ask for.
fn unacceptable(request: &RequestHead, framing: Framing, body_max: Option<u64>) -> Option<(StatusCode, &'static str)> {
    let expectation = || Expectation::of(&request.fields);
    match framing {
        Framing::Length(length) if body_max.is_some_and(|max| length > max) => {
            Some((StatusCode::PAYLOAD_TOO_LARGE, "the request body is larger than the limit"))
        }
        _ if request.minor == Minor::One && expectation() == Expectation::Unknown => {
            Some((StatusCode::EXPECTATION_FAILED, "the Expect field asks for something other than 100-continue"))
        }
        _ => None,
    }
}
