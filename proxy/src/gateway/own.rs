//! Answers of our own: refusals and failures, in words.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use millpond_shared::clock;
use millpond_shared::http1::Fields;

use super::answer::record;
use super::client::{Client, ReplyFields, ReplyHead};
use super::options::ALLOW;
use super::{Gateway, Visit};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::rules::Rule;
use crate::semantics::{cache_status, date};
use crate::upstreams::OriginError;

/// Seconds after which to ask again where too many wait, or versions came too fast.
const RETRY_AFTER_SECS: u64 = 1;

impl Gateway {
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

pub(super) async fn respond_failed<C: Client>(client: &mut C, rule: &Arc<Rule>, error: &OriginError) -> Record {
    tracing::warn!(rule = rule.name, origin = rule.origin, %error, "origin failed");
    let status = match error {
        OriginError::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    own(client, Some(rule), Outcome::Error, status, error.reason(), &error.to_string()).await
}

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
