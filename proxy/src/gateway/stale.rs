//! What is sent though it is stale, and how it becomes fresh again behind that.

use std::sync::Arc;

use http::StatusCode;
use millpond_shared::clock;

use super::answer::Account;
use super::client::Client;
use super::cookies::without_cookies;
use super::fetch::Fetched;
use super::{Gateway, Visit, forward};
use crate::cache::{Entry, Mark};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::Sender;
use crate::semantics::request::Ask;
use crate::semantics::{failure, freshness, reuse};
use crate::upstreams::OriginError;

/// How long a failing origin is not asked again for a response of which a stale copy can be sent, in milliseconds;
/// doubled with each further failure.
const PAUSE_MS: u64 = 1_000;
/// Longest of these pauses, in milliseconds.
const PAUSE_MAX_MS: u64 = 30_000;
/// Longest that an origin is not asked because it says so (`Retry-After`), in seconds.
const RETRY_AFTER_MAX: u64 = 600;
/// How long the one who looks whether the origin still fails keeps others from it, in milliseconds; they send what is
/// stale.
const PROBE_MS: u64 = 10_000;

impl Gateway {
    /// Whether the origin may be asked, though there is something stale to send: one that failed a moment ago is probed,
    /// not hammered. Else why not.
    pub(super) fn may_probe(&self, visit: &Visit<'_>, entry: &Entry, now_ms: u64) -> Result<(), Reason> {
        if !entry.may_probe(now_ms) {
            return Err(Reason::OriginError);
        }
        if !visit.snapshot.upstreams.may_probe(&visit.rule.origin, now_ms) {
            return Err(Reason::NoOrigin);
        }
        if entry.claim_probe(now_ms, PROBE_MS) { Ok(()) } else { Err(Reason::OriginError) }
    }

    /// The origin failed: the stale copy if its window allows, else an error.
    pub(super) async fn failed<C: Client>(
        &self,
        client: &mut C,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        found: Reason,
        error: &OriginError,
    ) -> Record {
        let now_ms = clock::wall_ms();
        // Without contact a response that must be validated is answered for by a 504 (RFC 9111 §5.2.2.2).
        let unvalidated = error.is_disconnected() && stale.as_ref().is_some_and(|entry| entry.times.must_revalidate);
        let usable = stale.filter(|entry| {
            may_be_sent_on_error(entry, &visit.ask) || (error.is_disconnected() && goes_on_alone(entry, now_ms))
        });
        match usable {
            Some(entry) => {
                let (answered, retry_after) = match error {
                    OriginError::Failed { status, retry_after } => (Some(*status), *retry_after),
                    _ => (None, None),
                };
                // Not where it answers, and only this client accepts what is stored.
                if error.is_disconnected() || entry.times.stale_error > 0 {
                    hold_off(&entry, now_ms, retry_after);
                }
                let went_for = Some(found).filter(|_| !matches!(error, OriginError::Unreachable(_)));
                let account = Account::of(Outcome::Stale, Some(error.reason()));
                self.stored(client, visit, &entry, Account { answered, went_for, ..account }).await
            }
            None if unvalidated => self.fail(client, visit, StatusCode::GATEWAY_TIMEOUT, error.reason()).await,
            None => self.origin_failed(client, visit, error).await,
        }
    }

    /// Refreshes a stale response that has just been sent.
    pub(super) fn refresh_behind(self: &Arc<Self>, visit: &Visit<'_>, entry: &Arc<Entry>, now_ms: u64) {
        if self.may_probe(visit, entry, now_ms).is_err() {
            return;
        }
        let Some(lead) = self.flights.lead(visit.key.hash(), self.store.purge_seq()) else { return };
        // For everybody, not for this client: its credentials and wishes have no part in it.
        let (gateway, snapshot, rule) = (Arc::clone(self), Arc::clone(visit.snapshot), Arc::clone(visit.rule));
        let (mut request, key) = (forward::refreshing(visit.request), visit.key.clone());
        let mut ask = Ask { cookies: visit.ask.cookies, ..Ask::plain() };
        if visit.goes_without_cookies(entry) {
            (request, ask) = (without_cookies(&request), Ask::plain());
        }
        let entry = Arc::clone(entry);
        let nobody = visit.sender.clone().map(|sender| Sender { address: None, trusted: false, ..sender });
        tokio::spawn(async move {
            let (snapshot, rule, request) = (&snapshot, &rule, &request);
            let visit = Visit { snapshot, rule, request, sender: nobody, ask, key };
            let fetch = gateway.fetch_of(&visit, now_ms);
            let mut retry_after = None;
            let failed = match fetch.run(Some(&entry), lead, None).await {
                Fetched::Failed(error) => {
                    if let OriginError::Failed { retry_after: told, .. } = error {
                        retry_after = told;
                    }
                    true
                }
                Fetched::Own(answer, _) => {
                    retry_after = failure::retry_after(&answer.head.fields, clock::wall_secs());
                    fetch.is_failure(&answer)
                }
                // Until its replacement is complete the stored response stays.
                Fetched::Shared(_, flight, _) | Fetched::Completed(flight, _) => !flight.ended().await,
                Fetched::OwnEntry(..) => false,
            };
            gateway.counters.refreshed(!failed);
            if failed {
                hold_off(&entry, clock::wall_ms(), retry_after);
            }
        });
    }
}

/// The origin failed, and wants to be asked again after so many seconds, if it said so.
fn hold_off(entry: &Entry, now_ms: u64, retry_after: Option<u64>) {
    let wanted = retry_after.unwrap_or(0).min(RETRY_AFTER_MAX) * 1000;
    entry.hold_off(now_ms, |failures| (PAUSE_MS << failures.min(8)).min(PAUSE_MAX_MS).max(wanted));
}

/// Whether a stored response may be sent, if the origin fails, to a client that asked so.
pub(super) fn may_be_sent_on_error(entry: &Entry, ask: &Ask) -> bool {
    let accepted = ask.directives.stale_if_error.filter(|_| entry.mark() == Mark::None);
    reuse::may_serve_on_error(&entry.times, accepted, freshness::age(&entry.times, clock::wall_secs()))
}

/// Whether a stored response is sent while the origin can't be reached, though nobody named a window for that. Not one
/// that was made invalid, nor a document of a shard: of those it is known when they change.
pub(super) fn goes_on_alone(entry: &Entry, now_ms: u64) -> bool {
    let age = freshness::age(&entry.times, now_ms / 1000);
    entry.mark() == Mark::None && entry.stamp().is_none() && reuse::may_serve_disconnected(&entry.times, age)
}
