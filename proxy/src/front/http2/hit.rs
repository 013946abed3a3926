//! Hits: answered while the connection is read, without a task.

use std::sync::Arc;

use ::h2::server::SendResponse;
use bytes::{Bytes, BytesMut};
use millpond_shared::clock;
use millpond_shared::http1::RequestHead;

use super::Host;
use super::head;
use super::reply::{self, SEND_BUFFER};
use crate::gateway::{Asked, Scratch};
use crate::observe::Access;
use crate::outcome::Outcome;
use crate::record::Record;
use crate::semantics::request::Ask;

/// Room for what comes behind a stored head, in bytes: `Cache-Status` and `Age`, and `Date` at times.
const ADDED_BYTES: usize = 128;

/// Answers a request if a fresh stored response does; `false`: nothing was sent.
pub(super) fn answer(
    host: &Arc<Host>,
    scratch: &mut Scratch,
    request: &RequestHead,
    ask: &Ask,
    respond: &mut SendResponse<Bytes>,
) -> bool {
    let began = clock::monotonic();
    let target = request.target.path_and_query();
    let (scheme, peer) = (host.arrival.scheme, host.arrival.peer.map(|peer| peer.ip()));
    let asked = Asked { head: request, target, ask, scheme, peer, now_ms: clock::wall_ms() };
    let found = host.around.gateway.early_hit(&asked, scratch, |hit| {
        let mut head = BytesMut::with_capacity(hit.head_bytes() + ADDED_BYTES);
        hit.put_head(&mut head);
        let body = hit.body(&request.method).cloned().unwrap_or_default();
        let (rule, status) = (Some(Arc::clone(hit.rule)), hit.status());
        let record = Record { rule, outcome: Outcome::Hit, reason: None, status, bytes: 0, broken_off: false };
        (head.freeze(), body, record)
    });
    let Some((head, body, mut record)) = found else { return false };
    let (response, size) = head::prepared(record.status, &head);
    record.bytes = size;
    match respond.send_response(response, body.is_empty()) {
        Err(_) => record.broken_off = true,
        Ok(_) if body.is_empty() => {}
        Ok(mut out) => {
            out.reserve_capacity(body.len().min(SEND_BUFFER));
            if out.capacity() < body.len() {
                let (host, request) = (Arc::clone(host), request.clone());
                tokio::spawn(async move {
                    let (sent, whole) = reply::put_body(&mut out, body, true).await;
                    record.bytes += sent;
                    record.broken_off = whole.is_err();
                    let access = Access {
                        head: Some(&request),
                        peer: host.arrival.peer,
                        record: &record,
                        took: began.elapsed(),
                    };
                    host.around.observer.observe(&access);
                });
                return true;
            }
            record.bytes += body.len() as u64;
            record.broken_off = out.send_data(body, true).is_err();
        }
    }
    let access = Access { head: Some(request), peer: host.arrival.peer, record: &record, took: began.elapsed() };
    host.around.observer.observe(&access);
    true
}
