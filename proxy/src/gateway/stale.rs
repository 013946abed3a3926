//! What is sent though it is stale, and how it becomes fresh again behind that.

use std::sync::Arc;

use http::StatusCode;
use millpond_shared::clock;

use super::answer::Account;
use super::client::Client;
use super::fetch::{Fetched, PROBE_PAUSE_MS};
use super::{Gateway, Visit, forward};
use crate::cache::{Entry, Mark};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::Sender;
use crate::semantics::request::Ask;
use crate::semantics::{freshness, reuse};
use crate::upstreams::OriginError;

impl Gateway {
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
                // Not where it answers, and only this client accepts what is stored.
                if error.is_disconnected() || entry.times.stale_error > 0 {
                    entry.hold_off_until(now_ms + PROBE_PAUSE_MS);
                }
                let answered = match error {
                    OriginError::Failed(status) => Some(*status),
                    _ => None,
                };
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
        if !entry.may_probe(now_ms) {
            return;
        }
        let Some(lead) = self.flights.lead(visit.key.hash(), self.store.purge_seq()) else { return };
        // For everybody, not for this client: its credentials and wishes have no part in it.
        let (gateway, snapshot, rule) = (Arc::clone(self), Arc::clone(visit.snapshot), Arc::clone(visit.rule));
        let (request, key) = (forward::refreshing(visit.request), visit.key.clone());
        let entry = Arc::clone(entry);
        let nobody = visit.sender.clone().map(|sender| Sender { address: None, trusted: false, ..sender });
        tokio::spawn(async move {
            let (snapshot, rule, request, ask) = (&snapshot, &rule, &request, Ask::plain());
            let visit = Visit { snapshot, rule, request, sender: nobody, ask, key };
            let failed = match gateway.fetch_of(&visit, now_ms).run(Some(&entry), lead, None).await {
                Fetched::Failed(_) => true,
                Fetched::Own(answer, _) => forward::is_failure(answer.head.status),
                // Until its replacement is complete the stored response stays.
                Fetched::Shared(_, flight, _) | Fetched::Completed(flight, _) => !flight.ended().await,
                Fetched::OwnEntry(..) => false,
            };
            gateway.counters.refreshed(!failed);
            if failed {
                entry.hold_off_until(clock::wall_ms() + PROBE_PAUSE_MS);
            }
        });
    }
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
