//! The gateway: what becomes of a request, from its head to the last byte of its answer.
//!
//! [`Gateway::serve`] is the walk; a reader sees here in which order things happen. `forward` (pure) makes the heads
//! that go to the origin and into the store, `early` finds hits before anything is waited for, `fetch` asks the origin
//! and fills the cache, `answer` writes to the client, `parts` does both for requests with a `Range` (several at once
//! as `multipart` makes them), `remembered` knows which keys are not worth waiting for.

mod answer;
mod client;
mod early;
mod fetch;
mod forward;
mod multipart;
mod parts;
mod remembered;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use millpond_shared::clock;
use millpond_shared::http1::{Authority, RequestHead, ResponseHead, Target};
use millpond_shared::version::Position;
use tokio::time::timeout;

pub use client::{Added, Client, Gone, ReplyFields, ReplyHead};
pub use early::{Asked, Hit, Scratch};

use crate::cache::{Entry, Lookup, Mode, Purged, Store};
use crate::counters::Counters;
use crate::flight::{Flight, Flights, Join, Lead, Limits, Seen, Waiting};
use crate::key::Key;
use crate::live::{Live, Verdict};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::{Rule, RuleSet, path_of};
use crate::semantics::request::{Ask, RequestVerdict};
use crate::semantics::reuse::{self, Reuse};
use crate::semantics::{invalidation, request};
use crate::upstreams::{Answer, OriginError, Outgoing, Payload, Upstreams};
use fetch::{Fetch, Fetched};
use remembered::Remembered;

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
        if rule.bypasses(&request.fields, request.target.path_and_query()) {
            return Box::pin(self.pass(&snapshot, rule, request, Reason::RuleBypass, client)).await;
        }
        let ask = match request::judge(request) {
            RequestVerdict::Pass(reason) => return Box::pin(self.pass(&snapshot, rule, request, reason, client)).await,
            RequestVerdict::Lookup(ask) => ask,
        };
        let key = Key::of(rule, request, client.scheme());
        let visit = Visit { snapshot: &snapshot, rule, request, ask, key };
        let mut alone = None;
        for _ in 0..STARTS_MAX {
            match self.visit(&visit, alone, client).await {
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
        client: &mut C,
    ) -> Result<Record, Again> {
        let now_ms = clock::wall_ms();
        let (stale, reason) = match self.store.lookup(&visit.key, &visit.request.fields) {
            Lookup::Nothing => (None, Reason::NotCached),
            Lookup::OtherVariant => (None, Reason::VaryMiss),
            Lookup::Found(entry) => {
                let verdict =
                    reuse::judge(&entry.times, &visit.ask, now_ms / 1000, self.live.invalidated(&entry, now_ms));
                match verdict {
                    Reuse::Fresh { .. } => return Ok(self.stored(client, visit, &entry, Outcome::Hit, None).await),
                    Reuse::StaleRevalidate { .. } => {
                        self.refresh_behind(visit, &entry, now_ms);
                        let reason = Some(Reason::NotFresh);
                        return Ok(self.stored(client, visit, &entry, Outcome::Stale, reason).await);
                    }
                    // The origin failed a moment ago: it is probed, not hammered.
                    Reuse::Validate { error_until: Some(_), .. } if !entry.may_probe(now_ms) => {
                        let reason = Some(Reason::OriginError);
                        return Ok(self.stored(client, visit, &entry, Outcome::Stale, reason).await);
                    }
                    Reuse::Validate { reason, .. } => (Some(entry), reason),
                }
            }
        };
        if visit.ask.range.is_some() && stale.is_none() {
            return Box::pin(self.parts(visit, reason, now_ms, client)).await;
        }
        if let Some((status, reason)) = reuse::only_if_cached(&visit.ask, None) {
            return Ok(self.fail(client, visit, status, reason).await);
        }
        if visit.ask.head_only {
            return Ok(Box::pin(self.forward_head(visit, reason, client)).await);
        }
        let remembered = || self.remembered.holds(visit.key.hash(), now_ms).then_some(Reason::Remembered);
        let own = (!visit.ask.collapse).then_some(reason);
        if let Some(reason) = alone.or(own).or_else(remembered) {
            let lead = self.flights.alone(self.store.purge_seq());
            return self.lead(visit, stale, reason, lead, now_ms, client).await;
        }
        match self.flights.join(visit.key.hash(), self.store.purge_seq()) {
            Join::Lead(lead) => self.lead(visit, stale, reason, lead, now_ms, client).await,
            Join::Wait(waiting) => Box::pin(self.wait(visit, stale, reason, waiting, client)).await,
            Join::Full => Ok(self.fail(client, visit, StatusCode::SERVICE_UNAVAILABLE, Reason::FlightFull).await),
        }
    }

    /// Fetches, and reads the answer like everybody else.
    async fn lead<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        reason: Reason,
        lead: Lead,
        now_ms: u64,
        client: &mut C,
    ) -> Result<Record, Again> {
        let fetch = self.fetch_of(visit, now_ms);
        let fetched = fetch.run(stale.as_ref(), lead).await;
        self.fetched(visit, stale, reason, fetch.least, fetched, client).await
    }

    /// Sends what a client's own fetch came to. `asked_at`: the position that its answer must have reached at least.
    async fn fetched<C: Client>(
        &self,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        reason: Reason,
        asked_at: Position,
        fetched: Fetched,
        client: &mut C,
    ) -> Result<Record, Again> {
        match fetched {
            Fetched::Shared(outcome, flight) => {
                let seen = flight.seen().await;
                self.read(visit, stale, Landing { flight, seen, asked_at, outcome, reason }, client).await
            }
            Fetched::Own(answer, why) => Ok(self.relay_miss(client, visit, answer, why).await),
            Fetched::OwnEntry(entry, why) => {
                Ok(self.stored(client, visit, &entry, Outcome::Revalidated, Some(why)).await)
            }
            Fetched::Failed(error) => Ok(self.failed(client, visit, stale, &error).await),
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
            Seen::Body(draft) => (Some(&draft.selection), draft.tags.as_slice()),
            Seen::Complete(entry) => (Some(entry.selection()), entry.tags()),
            Seen::Unshared(_) | Seen::Failed(_) => (None, [].as_slice()),
        };
        if selection.is_some_and(|selection| !selection.matches(&visit.request.fields)) {
            return Err(Again::Alone(Reason::VaryMiss));
        }
        // A purge between its fetch and this request: the answer is not for those who came after it.
        if self.store.purged_between(flight.began(), joined, &visit.key, tags).is_some() {
            self.flights.unlist(visit.key.hash(), &flight);
            return Err(Again::Newer);
        }
        let outcome = Outcome::Collapsed;
        self.read(visit, stale, Landing { flight, seen, asked_at, outcome, reason }, client).await
    }

    /// Sends what a flight brings.
    async fn read<C: Client>(
        &self,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        landing: Landing,
        client: &mut C,
    ) -> Result<Record, Again> {
        let Landing { flight, seen, asked_at, outcome, reason } = landing;
        let stamp = match &seen {
            Seen::Body(draft) => draft.stamp.as_ref(),
            Seen::Complete(entry) => entry.stamp(),
            Seen::Unshared(_) | Seen::Failed(_) => None,
        };
        if stamp.is_some_and(|stamp| self.live.judge(stamp, asked_at) == Verdict::Older) {
            // Nobody else should wait for it either.
            self.flights.unlist(visit.key.hash(), &flight);
            return Err(Again::Newer);
        }
        match seen {
            Seen::Complete(entry) => Ok(self.stored(client, visit, &entry, outcome, Some(reason)).await),
            Seen::Body(draft) => match flight.reader() {
                Some(reader) => Ok(self.draft(client, visit, &draft, reader, outcome, Some(reason)).await),
                // Too large to be held for a latecomer.
                None => Err(Again::Alone(Reason::BodyTooLarge)),
            },
            // Not for sharing: then everyone for itself.
            Seen::Unshared(why) => Err(Again::Alone(why)),
            Seen::Failed(error) => Ok(self.failed(client, visit, stale, &error).await),
        }
    }

    /// The origin failed: the stale copy if its window allows, else an error.
    async fn failed<C: Client>(
        &self,
        client: &mut C,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        error: &OriginError,
    ) -> Record {
        let now_ms = clock::wall_ms();
        let usable = stale.filter(|entry| {
            let age = crate::semantics::freshness::age(&entry.times, now_ms / 1000);
            reuse::may_serve_on_error(&entry.times, age)
        });
        match usable {
            Some(entry) => {
                entry.hold_off_until(now_ms + fetch::PROBE_PAUSE_MS);
                self.stored(client, visit, &entry, Outcome::Stale, Some(error.reason())).await
            }
            None => self.origin_failed(client, visit, error).await,
        }
    }

    fn refresh_behind(self: &Arc<Self>, visit: &Visit<'_>, entry: &Arc<Entry>, now_ms: u64) {
        if !entry.may_probe(now_ms) {
            return;
        }
        let Some(lead) = self.flights.lead(visit.key.hash(), self.store.purge_seq()) else { return };
        // For everybody, not for this client: its credentials and wishes have no part in it.
        let (gateway, snapshot, rule) = (Arc::clone(self), Arc::clone(visit.snapshot), Arc::clone(visit.rule));
        let (request, key) = (forward::refreshing(visit.request), visit.key.clone());
        let entry = Arc::clone(entry);
        tokio::spawn(async move {
            let visit = Visit { snapshot: &snapshot, rule: &rule, request: &request, ask: Ask::plain(), key };
            let failed = match gateway.fetch_of(&visit, now_ms).run(Some(&entry), lead).await {
                Fetched::Failed(_) => true,
                Fetched::Own(answer, _) => forward::is_failure(answer.head.status),
                Fetched::Shared(..) | Fetched::OwnEntry(..) => false,
            };
            gateway.counters.refreshed(!failed);
            if failed {
                entry.hold_off_until(clock::wall_ms() + fetch::PROBE_PAUSE_MS);
            }
        });
    }

    fn fetch_of<'a>(self: &'a Arc<Self>, visit: &'a Visit<'_>, now_ms: u64) -> Fetch<'a> {
        Fetch {
            gateway: self,
            snapshot: visit.snapshot,
            rule: visit.rule,
            request: visit.request,
            ask: &visit.ask,
            key: &visit.key,
            shard: self.shard(visit.snapshot, visit.rule, visit.request),
            least: self.least(visit),
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

    /// Purges what `url` names: `http://host/path?query`, or a path with the host beside it.
    pub fn purge_url(&self, scheme: &str, host: &str, path: &str, mode: Mode) -> Option<Purged> {
        let snapshot = self.snapshot();
        let (bare, path) = (Authority::parse(host)?, snapshot.rules.path(path).ok()?);
        let (_, rule) = snapshot.rules.find_for(&Method::GET, bare.host(), path_of(&path))?;
        Some(self.store.purge_key(&Key::build(rule, scheme, bare.normal(scheme), &path), mode))
    }

    /// An unsafe request succeeded: what it named is gone (RFC 9111 §4.4).
    fn invalidate(&self, snapshot: &Snapshot, request: &RequestHead, scheme: &str, head: &ResponseHead) {
        for path in invalidation::invalidated(request, scheme, head) {
            let host = request.authority.normal(scheme);
            let Ok(path) = snapshot.rules.path(&path) else { continue };
            if let Some((_, rule)) = snapshot.rules.find_for(&Method::GET, request.authority.host(), path_of(&path)) {
                self.store.purge_key(&Key::build(rule, scheme, host, &path), Mode::Delete);
            }
        }
    }
}

/// Requests that no rule can ask for.
fn not_served(request: &RequestHead) -> Option<(StatusCode, &'static str)> {
    match (&request.method, &request.target) {
        (&Method::CONNECT, _) => Some((StatusCode::METHOD_NOT_ALLOWED, "this proxy opens no tunnels")),
        (&Method::TRACE, _) => Some((StatusCode::METHOD_NOT_ALLOWED, "TRACE is not answered")),
        (_, Target::Asterisk) => Some((StatusCode::NOT_FOUND, "OPTIONS * is for no resource here")),
        _ => None,
    }
}
