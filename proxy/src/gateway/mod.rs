//! The gateway: what becomes of a request, from its head to the last byte of its answer.
//!
//! [`Gateway::serve`] is the walk; a reader sees here in which order things happen.
//!
//! | module | what |
//! |---|---|
//! | `early` | finds hits before anything is waited for |
//! | `refusals` | which requests are refused by their heads alone |
//! | `leave` | which requests are let through where there is a limit |
//! | `cookies`, `languages` | which requests go without their cookies, or with one language alone |
//! | `remembered` | which keys are not worth waiting for |
//! | `fetch`, `fill` | asks the origin; brings the body into the cache |
//! | `complete` | has only the rest fetched of what is stored in part |
//! | `landing` | what those do who wait for another's fetch |
//! | `answer`, `parts` | sends what is stored or on its way there: the whole; parts (several at once as `multipart` makes them) |
//! | `shards`, `stamp` | which shard a document is of, and how far its answer must be; which document an answer is |
//! | `stale` | what is sent though it is stale |
//! | `relay`, `own`, `options` | answers that are for one client alone; our own; what is asked of the proxy itself |
//! | `forward`, `told`, `forms` | heads for the store and for clients; where a rule has these differ; content codings |
//! | `invalidate` | takes out what is no longer true |

mod answer;
mod client;
mod complete;
mod cookies;
mod early;
mod fetch;
mod fill;
mod forms;
mod forward;
mod invalidate;
mod landing;
mod languages;
mod leave;
mod multipart;
mod options;
mod own;
mod parts;
mod refusals;
mod relay;
mod remembered;
mod shards;
mod stale;
mod stamp;
mod told;

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use millpond_shared::clock;
use millpond_shared::http1::RequestHead;
use millpond_shared::version::Position;

pub use client::{Added, Client, Gone, ReplyFields, ReplyHead};
pub use early::{Asked, Hit, Scratch};
pub use multipart::Multipart;

use crate::cache::{Entry, Lookup, Store};
use crate::counters::Counters;
use crate::flight::{Flights, Join, Lead, Limits};
use crate::key::Key;
use crate::live::Live;
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::{Rule, RuleSet, Sender};
use crate::semantics::policy::Cookies;
use crate::semantics::request::{self, Ask, RequestVerdict};
use crate::semantics::reuse::{self, Reuse};
use crate::upstreams::Upstreams;
use answer::Account;
use complete::Beginning;
use cookies::without_cookies;
use fetch::{Fetch, Fetched};
use forms::Compressor;
use landing::{Again, Alone, Landing};
use languages::with_one_language;
use leave::Leave;
use refusals::{is_misdirected, not_served, unacceptable};
use remembered::Remembered;
use stale::goes_on_alone;

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
    compressor: Compressor,
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

impl Gateway {
    pub fn new(snapshot: Snapshot, store: Arc<Store>, live: Arc<Live>, counters: Arc<Counters>) -> Arc<Gateway> {
        Arc::new(Gateway {
            snapshot: ArcSwap::from_pointee(snapshot),
            flights: Flights::new(Limits::default(), Arc::clone(&store)),
            compressor: Compressor::new(Arc::clone(&store), Arc::clone(&counters)),
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

    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Answers one request. The client may be gone at any point; the record tells what was sent until then.
    pub async fn serve<C: Client>(self: &Arc<Self>, request: &RequestHead, client: &mut C) -> Record {
        let snapshot = self.snapshot();
        if let Some((status, why)) = not_served(request) {
            if request.method == Method::CONNECT {
                // What comes next may be meant for the tunnel, and is no request.
                client.abandon_body();
            }
            return self.refuse(client, None, status, Reason::Method, why).await;
        }
        if options::is_for_us(request) {
            return options::answer(client).await;
        }
        if is_misdirected(request, client, &snapshot.rules.forwarding) {
            let why = "an https URL was asked for over a connection without TLS";
            return self.refuse(client, None, StatusCode::MISDIRECTED_REQUEST, Reason::BadRequest, why).await;
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
            return self.over_limit(client, rule, over).await;
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
        let bare = (ask.cookies && rule.policy.cookies == Cookies::Ignored).then(|| without_cookies(request));
        let request = bare.as_ref().unwrap_or(request);
        let reduced = rule.reduces(&request.fields).then(|| with_one_language(request, &rule.languages));
        let request = reduced.as_ref().unwrap_or(request);
        let key = Key::of(rule, request, client.scheme());
        let sender = snapshot.rules.forwarding.sender(client.peer(), client.scheme());
        let visit = Visit { snapshot: &snapshot, rule, request, sender, ask, key };
        let mut alone = None;
        for _ in 0..STARTS_MAX {
            match self.visit(&visit, alone.take(), &mut leave, client).await {
                Ok(record) => return record,
                Err(Again::Newer) => {}
                Err(Again::Alone(why)) => alone = Some(why),
            }
        }
        self.fail(client, &visit, StatusCode::SERVICE_UNAVAILABLE, Reason::OlderVersion).await
    }

    /// Look up, and fetch if need be.
    async fn visit<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        alone: Option<Alone>,
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
                    Reuse::Validate { reason, error_until, .. } => {
                        let may_be_sent = error_until.is_some() || was_disconnected(&entry, now_ms);
                        if may_be_sent && let Err(why) = self.may_probe(visit, &entry, now_ms) {
                            let account = Account::of(Outcome::Stale, Some(why));
                            return Ok(self.stored(client, visit, &entry, account).await);
                        }
                        (Some(entry), reason)
                    }
                }
            }
        };
        if let Err(over) = leave.ask_before_going_on() {
            return Ok(self.over_limit(client, visit.rule, over).await);
        }
        if let Some(entry) = stale.as_ref().filter(|entry| visit.goes_without_cookies(entry)) {
            let (request, ask) = (without_cookies(visit.request), Ask { cookies: false, ..visit.ask.clone() });
            let (key, sender) = (visit.key.clone(), visit.sender.clone());
            let visit = Visit { request: &request, ask, key, sender, ..*visit };
            let stored = (Some(Arc::clone(entry)), None);
            return Box::pin(self.forward(&visit, stored, reason, alone, now_ms, client)).await;
        }
        self.forward(visit, (stale, part), reason, alone, now_ms, client).await
    }

    /// The way of a request that nothing stored answers. `stale`, `part`: what is stored, whole or incomplete;
    /// `reason`: why it does not answer.
    async fn forward<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        (stale, part): (Option<Arc<Entry>>, Option<Arc<Entry>>),
        reason: Reason,
        alone: Option<Alone>,
        now_ms: u64,
        client: &mut C,
    ) -> Result<Record, Again> {
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
        // What comes of it is for this client alone: for its conditions or its cookies, or because the response has to
        // be validated for everyone.
        let is_own = !visit.ask.collapse
            || (stale.is_none() && visit.has_own_cookies())
            || visit.is_conditional(stale.as_ref())
            || stale.as_ref().is_some_and(|entry| entry.times.no_cache);
        let own = is_own.then_some(reason);
        let (waited, turn) = alone.map_or((None, None), |alone| (Some(alone.reason), alone.turn));
        if let Some(reason) = waited.or(own).or_else(remembered) {
            let lead = self.flights.alone(self.store.purge_seq(), turn);
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
        self.fetched(visit, stale, (found, reason), fetch.least.position, fetched, client).await
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
            Fetched::Own(answer, why) => {
                let shard = self.shard(visit.snapshot, visit.rule, visit.request);
                let stamp = shard.and_then(|shard| self.stamp(shard, &answer.head.fields));
                if self.is_older(stamp.as_ref(), asked_at) {
                    return Err(Again::Newer);
                }
                Ok(self.relay_miss(client, visit, answer, why, found).await)
            }
            Fetched::OwnEntry(entry, _) if self.is_older(entry.stamp(), asked_at) => Err(Again::Newer),
            Fetched::OwnEntry(entry, why) => {
                let account = Account { went_for: Some(found), ..Account::of(Outcome::Revalidated, Some(why)) };
                Ok(self.stored(client, visit, &entry, account).await)
            }
            Fetched::Failed(error) => Ok(self.failed(client, visit, stale, found, &error).await),
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
