//! One connection: requests in, answers out, in their order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use millpond_shared::clock;
use millpond_shared::http1::{self, Framing, Minor, Refusal, RequestHead};
use millpond_shared::wire::Intake;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, timeout};

use super::Answer;
use super::answering::encode_last;
use super::end::{End, too_slow};
use super::server::Shared;

/// Serves one connection until either side ends it.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, shutdown: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let limits = shared.limits;
    let waiting = Waiting::new(limits.idle_time, shutdown.clone());
    let buf = BytesMut::new();
    let mut connection = Connection { stream, buf, held_a_body: false, shared, shutdown, waiting };
    let last = match connection.run().await {
        End::Closed => None,
        End::Answered(response) => Some(response),
        End::Refused(reason, response) => {
            connection.shared.handler.refused(reason);
            Some(response)
        }
    };
    if let Some(response) = last {
        let bytes = encode_last(&response);
        let _ = timeout(limits.write_time, connection.stream.write_all(&bytes)).await;
        connection.linger().await;
    }
}

pub(super) struct Connection {
    pub stream: TcpStream,
    /// What was read and not yet understood.
    pub buf: BytesMut,
    /// It was made larger for a body.
    pub held_a_body: bool,
    pub shared: Arc<Shared>,
    pub shutdown: watch::Receiver<bool>,
    waiting: Waiting,
}

/// What ends the wait for a request. Kept from one request to the next: to register for both anew costs locks that all
/// connections share.
struct Waiting {
    down: Pin<Box<dyn Future<Output = ()> + Send>>,
    timer: Pin<Box<Sleep>>,
    idle_time: Duration,
}

impl Waiting {
    fn new(idle_time: Duration, mut shutdown: watch::Receiver<bool>) -> Waiting {
        let down = async move {
            let _ = shutdown.wait_for(|down| *down).await;
        };
        Waiting { down: Box::pin(down), timer: Box::pin(tokio::time::sleep(idle_time)), idle_time }
    }

    /// Returns when the server shuts down, or the connection has been idle since `since_ms` for too long.
    async fn over(&mut self, since_ms: u64) {
        loop {
            tokio::select! {
                biased;
                () = &mut self.down => return,
                () = &mut self.timer => {
                    let idle = Duration::from_millis(clock::coarse_ms().saturating_sub(since_ms));
                    let left = self.idle_time.saturating_sub(idle);
                    if left.is_zero() {
                        return;
                    }
                    self.timer.as_mut().reset((clock::monotonic() + left).into());
                }
            }
        }
    }
}

impl Connection {
    async fn run(&mut self) -> End {
        loop {
            match self.one_request().await {
                Ok(true) => {}
                Ok(false) => return End::Closed,
                Err(end) => return end,
            }
        }
    }

    /// Reads a request, has it answered, writes the answer; whether another may follow.
    async fn one_request(&mut self) -> Result<bool, End> {
        self.first_byte().await?;
        let head = match timeout(self.shared.limits.head_time, self.head()).await {
            Ok(head) => head?,
            Err(_) => return Err(too_slow("the head", self.shared.limits.head_time)),
        };
        if head.method == Method::CONNECT {
            return Err(Refusal { status: StatusCode::NOT_IMPLEMENTED, why: "this server opens no tunnels" }.into());
        }
        let framing = http1::request_framing(&head.fields, head.minor)?;
        let length = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let handler = Arc::clone(&self.shared.handler);
        let (answer, share) = match handler.intake(&head, length) {
            Intake::Nothing(response) => self.skip(framing, response)?,
            Intake::Pieces(taker) => (self.pieces(&head, framing, taker).await?.into(), None),
            Intake::Whole { max_bytes } => {
                let mut share = self.shared.bodies.share();
                let body = self.body(&head, framing, max_bytes, &mut share).await?;
                (handler.handle_parsed(&head, body).await?, Some(share))
            }
        };
        drop(share);
        let asks_to_close = head.fields.list("connection").any(|option| option.eq_ignore_ascii_case("close"));
        let stays = head.minor == Minor::One && !asks_to_close && !*self.shutdown.borrow();
        match answer {
            Answer::Full(response) => self.write_full(&head.method, &response, stays).await?,
            Answer::Stream(parts, pieces) => self.write_stream(&head, parts, pieces, stays).await?,
        }
        Ok(stays)
    }

    /// Waits for a request to begin.
    async fn first_byte(&mut self) -> Result<(), End> {
        // Who waits holds no more than one that never sent a body.
        if std::mem::take(&mut self.held_a_body) {
            self.buf = BytesMut::from(self.buf.as_ref());
        }
        if !self.buf.is_empty() {
            return Ok(());
        }
        let (stream, buf) = (&mut self.stream, &mut self.buf);
        buf.reserve(READ_BYTES);
        tokio::select! {
            biased;
            read = stream.read_buf(buf) => match read {
                Ok(1..) => Ok(()),
                _ => Err(End::Closed),
            },
            () = self.waiting.over(clock::coarse_ms()) => Err(End::Closed),
        }
    }

    async fn head(&mut self) -> Result<RequestHead, End> {
        loop {
            if let Some(head) = http1::take_request(&mut self.buf, &self.shared.limits.head)? {
                return Ok(head);
            }
            self.more(READ_BYTES).await?;
        }
    }
}

/// Room made for each read, in bytes.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// The request as most handlers want it.
pub(super) fn request(head: &RequestHead, body: Bytes) -> Result<Request<Bytes>, Refusal> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    let malformed = |_| Refusal { status: StatusCode::BAD_REQUEST, why: "the request target is no URI" };
    *request.uri_mut() = head.target.path_and_query().parse().map_err(malformed)?;
    for (name, value) in head.fields.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}
