//! `OPTIONS` that is for us: for the server as a whole, or forwarded as often as it may be.

use bytes::Bytes;
use http::{Method, StatusCode};
use millpond_shared::clock;
use millpond_shared::http1::{Fields, RequestHead};

use super::client::{Client, ReplyFields, ReplyHead};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::semantics::{cache_status, date, hop};

/// Methods that a rule can ask an origin for; what origins understand is theirs to say.
pub const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Whether an `OPTIONS` names no resource (RFC 9112 §3.2.4), or may not be forwarded (`Max-Forwards: 0`, RFC 9110
/// §7.6.2).
pub fn is_for_us(request: &RequestHead) -> bool {
    request.method == Method::OPTIONS
        && (request.target.path_and_query() == "*" || hop::max_forwards(request) == Some(0))
}

/// 204 with what is possible here.
pub async fn answer<C: Client>(client: &mut C) -> Record {
    let (outcome, reason, status) = (Outcome::Refused, Some(Reason::Method), StatusCode::NO_CONTENT);
    let date = date::format(clock::wall_secs());
    let fields: Fields = [("Allow", ALLOW), ("Date", date.as_str())].into_iter().collect();
    let added = vec![("Cache-Status", cache_status::value(outcome, reason, None, None, false, false))];
    let head = ReplyHead { status, fields: ReplyFields::All(&fields), prepared: None, added };
    let sent = client.whole(head, Bytes::new()).await;
    Record { rule: None, outcome, reason, status, bytes: client.sent(), broken_off: sent.is_err() }
}
