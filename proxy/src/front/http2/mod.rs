//! HTTP/2 (RFC 9113), on the `h2` crate: over TLS by ALPN, over cleartext by prior knowledge.
//!
//! `wire` is the connection as `h2` reads and writes it; `request` judges a request as `shared::http1` would and makes
//! the same head of it; `hit` answers from the store at once, where the connection is read; what is no plain hit is left
//! to the gateway in a task of its own, and `reply` sends what it answers. `head` makes HTTP/2 fields of heads. `watch`
//! and `hpack` know what RFC 9113 calls the mistakes of clients.

mod head;
mod hit;
mod hpack;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::{Bytes, BytesMut};
use http::Request;
use millpond_shared::clock;
use millpond_shared::http1::{Framing, Refusal, RequestHead};
use pingora_core::protocols::Stream;
use tokio::time::{Sleep, sleep, timeout};

use self::reply::Reply;
use self::wire::{Cork, Wire};
use super::connection::{Around, Arrival};
use super::familiar::ask_of;
use crate::gateway;
use crate::observe::Access;

/// How long the client's connection preface may take (RFC 9113 §3.4); then the connection is closed.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be without a request; it is told after this time, or twice as long at most.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client that was told to go gets to agree; then it is cut off, unless it still has streams.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests at a time on one connection, with those that the client gave up while they were being answered; one more is
/// refused (`REFUSED_STREAM`: the client may ask again).
const STREAMS_MAX: usize = 256;
/// What a client may send of one body, and of all bodies together, before it is read, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Size of a request's fields as RFC 9113 §6.5.2 counts them, in bytes; beyond it 431.
const HEADER_LIST_MAX: u32 = 32 * 1024;
/// Streams that the client reset before they were served; one more ends the connection (`ENHANCE_YOUR_CALM`), since no
/// well-meaning client does that ("rapid reset", CVE-2023-44487).
const RESET_BY_CLIENT_MAX: usize = 100;
/// Streams that we reset because the client erred; one more ends the connection.
const RESET_FOR_ERRORS_MAX: usize = 256;
/// Streams that we reset and of which late frames are still let pass.
const RESET_REMEMBERED_MAX: usize = 64;

/// What all requests of a connection need.
struct Host {
    around: Arc<Around>,
    arrival: Arrival,
}

/// Serves a client until it leaves, errs, is idle for too long, or the proxy drains. `read`: bytes that were read from
/// the stream already.
pub(super) async fn serve(around: &Arc<Around>, stream: Stream, read: BytesMut, arrival: Arrival) {
    let host = Host { around: Arc::clone(around), arrival };
    let (wire, cork) = Wire::new(stream, read);
    let Ok(Ok(connection)) = timeout(PREFACE_TIMEOUT, settings().handshake(wire)).await else { return };
    let scratch = gateway::Scratch::default();
    let mut serving =
        Serving { host: Arc::new(host), connection, cork, scratch, goodbye: Goodbye::NotYet, served: false };
    let (mut drained, mut quiet) = (pin!(around.drain.wait()), pin!(sleep(IDLE_TIMEOUT)));
    std::future::poll_fn(|cx| {
        if serving.goodbye != Goodbye::Drain && drained.as_mut().poll(cx).is_ready() {
            serving.say_goodbye(Goodbye::Drain, quiet.as_mut());
        }
        serving.poll(cx, quiet.as_mut())
    })
    .await;
}

fn settings() -> Builder {
    let mut settings = Builder::new();
    settings
        .max_concurrent_streams(STREAMS_MAX as u32)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buffer_size(reply::SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_REMEMBERED_MAX)
        .max_pending_accept_reset_streams(RESET_BY_CLIENT_MAX)
        .max_local_error_reset_streams(Some(RESET_FOR_ERRORS_MAX));
    settings
}

/// One connection.
struct Serving {
    /// Its count of references is one more than the requests that are being answered.
    host: Arc<Host>,
    connection: Connection<Wire, Bytes>,
    cork: Cork,
    scratch: gateway::Scratch,
    goodbye: Goodbye,
    /// A request came since the idle timer was set.
    served: bool,
}

/// Whether the client was told to open no more streams (GOAWAY, RFC 9113 §6.8).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    NotYet,
    Idle,
    Drain,
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>, mut quiet: Pin<&mut Sleep>) -> Poll<()> {
        loop {
            // Answers to requests that came together leave together.
            self.cork.put_in();
            let mut next = pin!(self.connection.accept()).poll(cx);
            if next.is_pending() {
                self.cork.pull();
                next = pin!(self.connection.accept()).poll(cx);
            }
            match next {
                Poll::Ready(Some(Ok((request, respond)))) => self.take(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an HTTP/2 client erred");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        while quiet.as_mut().poll(cx).is_ready() {
            let busy = self.connection.has_streams() || std::mem::take(&mut self.served);
            match (busy, self.goodbye) {
                (true, Goodbye::NotYet) => quiet.set(sleep(IDLE_TIMEOUT)),
                (true, _) => quiet.set(sleep(GOODBYE_TIMEOUT)),
                (false, Goodbye::NotYet) => {
                    self.say_goodbye(Goodbye::Idle, quiet.as_mut());
                    // What is to be said is written by the next look at the connection.
                    cx.waker().wake_by_ref();
                }
                (false, _) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn say_goodbye(&mut self, goodbye: Goodbye, mut quiet: Pin<&mut Sleep>) {
        if self.goodbye == Goodbye::NotYet {
            self.connection.graceful_shutdown();
        }
        self.goodbye = goodbye;
        quiet.set(sleep(GOODBYE_TIMEOUT));
    }

    /// Answers a request at once, or has it answered.
    fn take(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.served = true;
        // The client's own limit counts open streams only: not those it reset while they were being answered.
        if Arc::strong_count(&self.host) > STREAMS_MAX {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let (parts, body) = request.into_parts();
        let judged = request::judge(&parts, !body.is_end_stream());
        if let Ok((head, framing)) = &judged
            && let Some(ask) = ask_of(head, *framing)
            && hit::answer(&self.host, &mut self.scratch, head, &ask, &mut respond)
        {
            return;
        }
        let reply = Reply::new(respond, body, &parts, &self.host);
        tokio::spawn(answer(Arc::clone(&self.host), judged, reply));
    }
}

/// The gateway's way.
async fn answer(host: Arc<Host>, judged: Result<(RequestHead, Framing), Refusal>, mut reply: Reply) {
    let began = clock::monotonic();
    let (head, record) = match judged {
        Ok((head, framing)) => {
            reply.framed(framing);
            let record = host.around.gateway.serve(&head, &mut reply).await;
            (Some(head), record)
        }
        Err(refusal) => (None, reply.refuse(refusal).await),
    };
    let access = Access { head: head.as_ref(), peer: host.arrival.peer, record: &record, took: began.elapsed() };
    host.around.observer.observe(&access);
}
