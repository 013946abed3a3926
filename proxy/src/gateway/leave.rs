//! A request's leave to be answered, where its rule has a limit.

use std::sync::Arc;

use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::RequestHead;

use super::client::Client;
use super::own::respond;
use super::{Gateway, Snapshot};
use crate::limits::{ClientId, Limiter, Over, Permit};
use crate::outcome::Outcome;
use crate::record::Record;
use crate::rules::Rule;

/// What a request has been let do under the limit of its rule. Dropped when it is answered.
pub(super) struct Leave<'a> {
    limited: Option<(&'a Arc<Limiter>, ClientId)>,
    /// It was counted.
    permit: Option<Permit>,
}

impl<'a> Leave<'a> {
    pub fn of<C: Client>(snapshot: &Snapshot, rule: &'a Rule, request: &RequestHead, client: &C) -> Leave<'a> {
        let limited = rule.limit.as_ref().map(|limiter| {
            let whose = snapshot.rules.forwarding.client(client.peer(), &request.fields);
            (limiter, ClientId::of(whose))
        });
        Leave { limited, permit: None }
    }

    /// To be asked for before anything is sent: where hits count.
    pub fn ask_before_answering(&mut self) -> Result<(), Over> {
        match self.limited {
            Some((limiter, _)) if limiter.limit().hits => self.ask_before_going_on(),
            _ => Ok(()),
        }
    }

    /// To be asked for before the origin is, or before another's fetch is waited for. A request is counted once, however
    /// often it asks.
    pub fn ask_before_going_on(&mut self) -> Result<(), Over> {
        if let (Some((limiter, client)), None) = (self.limited, &self.permit) {
            self.permit = Some(limiter.enter(client, clock::monotonic_ns())?);
        }
        Ok(())
    }
}

impl Gateway {
    /// 429, with the time after which to ask again (RFC 6585 §4).
    pub(super) async fn over_limit<C: Client>(&self, client: &mut C, rule: &Arc<Rule>, over: Over) -> Record {
        let why = rule.limit.as_ref().map(|limiter| limiter.words(over)).unwrap_or_default();
        let status = StatusCode::TOO_MANY_REQUESTS;
        let retry_after = Some(over.retry_after_secs());
        respond(client, Some(rule), Outcome::Refused, (status, retry_after), over.reason(), &why).await
    }
}
