//! What becomes of those who wait for another's fetch, and of what a flight brings.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::Fields;
use millpond_shared::version::Position;
use tokio::time::{Instant, timeout_at};

use super::answer::Account;
use super::client::Client;
use super::stale::may_be_sent_on_error;
use super::{Gateway, Visit};
use crate::cache::{Entry, PurgeSeq};
use crate::flight::{Flight, Seen, Turn, Waiting};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::semantics::request::Ask;
use crate::semantics::reuse::{self, Reuse};
use crate::upstreams::OriginError;

/// How much longer than an origin may stay silent a request waits: for another's fetch to be answered, then 504; and for
/// its turn to ask the origin itself once that was in vain, then 503.
const WAIT_MARGIN: Duration = Duration::from_secs(15);

/// What a flight brought to one of its clients.
pub(super) struct Landing {
    pub flight: Arc<Flight>,
    pub seen: Seen,
    /// The position that the client's answer must have reached at least.
    pub asked_at: Position,
    pub outcome: Outcome,
    pub reason: Reason,
    /// Fields of the origin's answer that are for this client alone.
    pub withheld: Fields,
    /// What the origin answered, where it is not what the client gets.
    pub answered: Option<StatusCode>,
}

/// Why a request starts over.
pub(super) enum Again {
    /// What it waited for was overtaken by a version that somebody was given already.
    Newer,
    /// It can't share another's fetch.
    Alone(Alone),
}

/// Why a request does not wait for another's fetch.
pub(super) struct Alone {
    pub reason: Reason,
    /// Its leave to ask the origin now, if it has waited in vain.
    pub turn: Option<Turn>,
}

impl Again {
    fn alone(reason: Reason) -> Again {
        Again::Alone(Alone { reason, turn: None })
    }
}

impl Gateway {
    /// Waits for another's fetch; then for leave to ask the origin, if that fetch was in vain.
    pub(super) async fn wait<C: Client>(
        self: &Arc<Self>,
        visit: &Visit<'_>,
        stale: Option<Arc<Entry>>,
        reason: Reason,
        waiting: Waiting,
        client: &mut C,
    ) -> Result<Record, Again> {
        let until = Instant::from(clock::monotonic() + visit.rule.timeout + WAIT_MARGIN);
        let (asked_at, joined) = (self.least(visit).position, self.store.purge_seq());
        let flight = Arc::clone(&waiting.flight);
        let (mut waiting, mut counted) = (Some(waiting), Some(self.counters.waiting()));
        let seen = timeout_at(until, flight.seen()).await.unwrap_or(Seen::Failed(OriginError::Timeout));
        let alone = match self.may_share(visit, &flight, &seen, joined) {
            Ok(()) => {
                (waiting, counted) = (None, None);
                let (flight, outcome, withheld) = (Arc::clone(&flight), Outcome::Collapsed, Fields::default());
                let landing = Landing { flight, seen, asked_at, outcome, reason, withheld, answered: None };
                match self.read(visit, stale, landing, client).await {
                    Err(Again::Alone(alone)) => alone,
                    read => return read,
                }
            }
            Err(Again::Alone(alone)) => alone,
            Err(Again::Newer) => return Err(Again::Newer),
        };
        let _waits = (waiting, counted.unwrap_or_else(|| self.counters.waiting()));
        match timeout_at(until, flight.turn()).await {
            Ok(turn) => Err(Again::Alone(Alone { turn: Some(turn), ..alone })),
            Err(_) => Ok(self.fail(client, visit, StatusCode::SERVICE_UNAVAILABLE, Reason::FlightFull).await),
        }
    }

    /// Whether a request that has waited for a flight can have what it brings. `joined`: the last purge before it came.
    fn may_share(&self, visit: &Visit<'_>, flight: &Arc<Flight>, seen: &Seen, joined: PurgeSeq) -> Result<(), Again> {
        let (selection, times, stamp, tags) = match seen {
            Seen::Body(draft) | Seen::Late(draft) => {
                (&draft.selection, &draft.times, draft.stamp.as_ref(), draft.tags.as_slice())
            }
            Seen::Complete(entry) => (entry.selection(), &entry.times, entry.stamp(), entry.tags()),
            // Not for sharing: then everyone for itself.
            Seen::Unshared(why) => return Err(Again::alone(*why)),
            Seen::Failed(_) => return Ok(()),
        };
        if !selection.matches(&visit.request.fields) {
            return Err(Again::alone(Reason::VaryMiss));
        }
        // A response that has to be validated before every use, or is stale already, is for its own request only
        // (RFC 9111 §4). Not so a document of a shard, whose changes are announced.
        if stamp.is_none()
            && let Reuse::Validate { reason, .. } = reuse::judge(times, &Ask::plain(), clock::wall_secs(), None)
        {
            return Err(Again::alone(reason));
        }
        // A purge between its fetch and this request: the answer is not for those who came after it.
        if self.store.purged_between(flight.began(), joined, &visit.key, tags).is_some() {
            self.flights.unlist(visit.key.hash(), flight);
            return Err(Again::Newer);
        }
        Ok(())
    }

    /// Sends what a flight brings.
    pub(super) async fn read<C: Client>(
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
        if self.is_older(stamp, asked_at) {
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
                None => Err(Again::alone(Reason::BodyTooLarge)),
            },
            // Its own fetch, given up as the body is too large and nobody seemed to read it.
            Seen::Unshared(why) => Err(Again::alone(why)),
            Seen::Failed(error) => Ok(self.failed(client, visit, stale, reason, &error).await),
        }
    }
}
