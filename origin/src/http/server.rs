//! A small HTTP/1.1 server: accepts, counts connections, and ends them in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{Request, Response, StatusCode};
use millpond_shared::http1::{Limits, Refusal, RequestHead};
use millpond_shared::wire::Intake;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::answering::encode_last;
use super::{Room, connection};

/// What answers the requests of a server.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Its URI is the request target, in origin form.
    async fn handle(&self, request: Request<Bytes>) -> Answer;

    /// Answers one request from its head as it was parsed; unless something better is known, by [`Handler::handle`].
    async fn handle_parsed(&self, head: &RequestHead, body: Bytes) -> Result<Answer, Refusal> {
        Ok(self.handle(connection::request(head, body)?).await)
    }

    /// Largest body that a request for `target` may have, in bytes; beyond it the server answers 413 itself.
    fn body_limit(&self, target: &str) -> u64;

    /// What it wants of the body of a request, by its head and the length of the body in bytes, if that is known.
    fn intake(&self, head: &RequestHead, _length: Option<u64>) -> Intake<'_> {
        Intake::Whole { max_bytes: self.body_limit(head.target.path_and_query()) }
    }

    /// A request or connection was refused by the server itself; `reason` is one of a few words.
    fn refused(&self, _reason: &'static str) {}
}

/// An answer.
pub enum Answer {
    /// All at once, with `Content-Length`.
    Full(Response<Bytes>),
    /// Piece by piece, each sent as soon as it is there. Ends when the stream does, the client leaves, or the server
    /// shuts down.
    Stream(http::response::Parts, BoxStream<'static, Bytes>),
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Answer {
        Answer::Full(response)
    }
}

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Open connections; one more is answered 503 and closed.
    pub connections: usize,
    /// Bytes of the bodies of all requests in flight, as far as they have come and but for what came with their heads; a
    /// body that does not fit is answered 503.
    pub bodies: u64,
    /// Of a request head; see there.
    pub head: Limits,
    /// From the first byte of a head to its last; beyond it 408.
    pub head_time: Duration,
    /// From the end of a head to the last byte of the body, and a second more for each `body_rate` bytes that have come;
    /// beyond it 408.
    pub body_time: Duration,
    /// Slowest that a body may come, in bytes a second.
    pub body_rate: u64,
    /// Between two pieces of a body that is taken as it arrives; beyond it 408.
    pub piece_time: Duration,
    /// Between requests; then the connection is closed.
    pub idle_time: Duration,
    /// Until a piece of an answer is taken by the client; then the connection is closed.
    pub write_time: Duration,
    /// For requests in flight to end once the server shuts down; then their connections are closed.
    pub drain_time: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            connections: 10_000,
            bodies: 512 << 20,
            head: Limits::default(),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            body_rate: 16 << 10,
            piece_time: Duration::from_secs(60),
            idle_time: Duration::from_secs(75),
            write_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(10),
        }
    }
}

impl ServerLimits {
    /// How long after its head more of a body must come, of which so many bytes have come.
    pub fn body_due(&self, come: u64) -> Duration {
        self.body_time + Duration::from_millis(come.saturating_mul(1000) / self.body_rate.max(1))
    }

    /// 408: a body was not there when it was due.
    pub fn too_slow(&self) -> Response<Bytes> {
        let (rate, after) = (self.body_rate, self.body_time.as_secs_f64());
        let problem = format!("the body comes slower than {rate} bytes a second, {after} s after it began");
        super::refusal(StatusCode::REQUEST_TIMEOUT, problem, "send it faster, or in smaller parts")
    }
}

/// What all connections of a server share.
pub(super) struct Shared {
    pub handler: Arc<dyn Handler>,
    pub limits: ServerLimits,
    pub bodies: Room,
}

/// Serves until `shutdown` becomes true (or its sender is gone), then drains and returns.
pub async fn serve(listener: TcpListener, handler: Arc<dyn Handler>, shutdown: watch::Receiver<bool>) {
    serve_within(ServerLimits::default(), listener, handler, shutdown).await;
}

/// [`serve`] with other limits.
pub async fn serve_within(
    limits: ServerLimits,
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    mut shutdown: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let shared = Arc::new(Shared { handler, limits, bodies: Room::of(limits.bodies) });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|down| *down) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match room.clone().try_acquire_owned() {
                Ok(place) => {
                    let served = connection::serve(stream, shared.clone(), shutdown.clone());
                    connections.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(_) => {
                    shared.handler.refused("connections");
                    turn_away(&stream, peer, limits.connections);
                }
            },
            Err(error) => {
                // Out of descriptors, as a rule: some are given back soon.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain_time, drained).await.is_err() {
        tracing::warn!(left = connections.len(), "requests did not end in time; their connections are closed");
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Says why in one try: a client that does not take it at once is not waited for.
fn turn_away(stream: &TcpStream, peer: SocketAddr, limit: usize) {
    tracing::warn!(%peer, limit, "a connection was turned away: the limit is reached");
    let response = super::refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the server has {limit} connections, its limit"),
        "try again later",
    );
    let bytes = encode_last(&response);
    let _ = stream.try_write(&bytes);
}
