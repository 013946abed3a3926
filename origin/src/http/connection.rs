//! One connection: requests in, answers out, in their order.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use millpond_shared::clock;
use millpond_shared::http1::{self, BodyReader, Framing, Minor, Refusal, RequestHead, Step};
use millpond_shared::wire::{Intake, Taker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, timeout, timeout_at};

use super::end::{End, body_too_slow, no_room, too_large, too_slow};
use super::server::Shared;
use super::{Answer, Share, refusal};

/// Serves one connection until either side ends it.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>, shutdown: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let limits = shared.limits;
    let waiting = Waiting::new(limits.idle_time, shutdown.clone());
    let mut connection = Connection { stream, buf: BytesMut::new(), shared, shutdown, waiting };
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

/// The bytes of an answer after which the connection is closed.
pub(super) fn encode_last(response: &Response<Bytes>) -> BytesMut {
    let mut out = BytesMut::new();
    put_head(&mut out, response.status(), response.headers(), false);
    http1::put_field_number(&mut out, "content-length", response.body().len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(response.body());
    out
}

struct Connection {
    stream: TcpStream,
    /// What was read and not yet understood.
    buf: BytesMut,
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
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

    /// The whole of a body. What came with its head is in the connection's buffer and needs no room of its own; beyond
    /// that a body takes as much as has come of it, whatever it promises.
    async fn body(
        &mut self,
        head: &RequestHead,
        framing: Framing,
        limit: u64,
        share: &mut Share,
    ) -> Result<Bytes, End> {
        if let Framing::Length(length) = framing
            && length > limit
        {
            return Err(too_large(limit));
        }
        self.expectation(head, framing).await?;
        let began = clock::monotonic();
        if let Framing::Length(length @ ..=IN_BUFFER_MAX_BYTES) = framing {
            self.read_whole(length as usize, began, share).await?;
        }
        let mut reader = BodyReader::new(framing);
        let mut whole = Bytes::new();
        let mut parts = BytesMut::new();
        loop {
            match reader.step(&mut self.buf)? {
                Step::Data(data) if whole.is_empty() && parts.is_empty() => whole = data,
                Step::Data(data) => {
                    parts.extend_from_slice(&std::mem::take(&mut whole));
                    parts.extend_from_slice(&data);
                }
                Step::End { .. } if parts.is_empty() => return Ok(whole),
                Step::End { .. } => return Ok(parts.freeze()),
                Step::NeedMore => {
                    self.more_of_body(whole.len() + parts.len(), READ_BYTES, began, share).await?;
                }
            }
            if (whole.len() + parts.len()) as u64 > limit {
                return Err(too_large(limit));
            }
        }
    }

    /// Reads on until a body of `length` bytes is in the connection's buffer, so that it needs not be put together. Room is
    /// made for no more than what is missing, and for no more than has come.
    async fn read_whole(&mut self, length: usize, began: Instant, share: &mut Share) -> Result<(), End> {
        if self.buf.len() >= length {
            return Ok(());
        }
        while self.buf.len() < length {
            let (come, missing) = (self.buf.len(), length - self.buf.len());
            self.more_of_body(come, missing.min(come.max(READ_BYTES)), began, share).await?;
        }
        share.grow_to(length as u64).map_err(no_room)
    }

    /// Reads on in a body of which `come` bytes are here, into `room` bytes or more.
    async fn more_of_body(&mut self, come: usize, room: usize, began: Instant, share: &mut Share) -> Result<(), End> {
        share.grow_to(come as u64).map_err(no_room)?;
        let due = began + self.shared.limits.body_due(come as u64);
        match timeout_at(due.into(), self.more(room)).await {
            Ok(more) => more,
            Err(_) => Err(body_too_slow(&self.shared.limits)),
        }
    }

    /// Hands a body on as it arrives.
    async fn pieces(
        &mut self,
        head: &RequestHead,
        framing: Framing,
        mut taker: Box<dyn Taker + '_>,
    ) -> Result<Response<Bytes>, End> {
        self.expectation(head, framing).await?;
        let mut reader = BodyReader::new(framing);
        let limit = self.shared.limits.piece_time;
        loop {
            match reader.step(&mut self.buf)? {
                Step::Data(piece) => {
                    taker.take(piece).await.map_err(End::Answered)?;
                }
                Step::End { .. } => return Ok(taker.end().await),
                Step::NeedMore => match timeout(limit, self.more(READ_BYTES)).await {
                    Ok(more) => more?,
                    Err(_) => return Err(too_slow("the next piece of the body", limit)),
                },
            }
        }
    }

    /// Answers a request whose body is not wanted: what is here of it is passed over if that is all of it, else the
    /// connection ends.
    fn skip(&mut self, framing: Framing, response: Box<Response<Bytes>>) -> Result<(Answer, Option<Share>), End> {
        let mut reader = BodyReader::new(framing);
        loop {
            match reader.step(&mut self.buf)? {
                Step::Data(_) => {}
                Step::End { .. } => return Ok((Answer::Full(*response), None)),
                Step::NeedMore => return Err(End::Answered(response)),
            }
        }
    }

    /// A client that waits for leave to send its body gets it (RFC 9110 §10.1.1).
    async fn expectation(&mut self, head: &RequestHead, framing: Framing) -> Result<(), End> {
        for expected in head.fields.list("expect") {
            if !expected.eq_ignore_ascii_case("100-continue") {
                let problem = "the Expect field asks for something other than 100-continue";
                let response = refusal(StatusCode::EXPECTATION_FAILED, problem, "leave the field out");
                return Err(End::Refused("expectation", Box::new(response)));
            }
            let body_is_coming = framing != Framing::None && self.buf.is_empty();
            if head.minor == Minor::One && body_is_coming {
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
        }
        Ok(())
    }

    async fn more(&mut self, room: usize) -> Result<(), End> {
        self.buf.reserve(room);
        match self.stream.read_buf(&mut self.buf).await {
            Ok(1..) => Ok(()),
            _ => Err(End::Closed),
        }
    }

    async fn write_full(&mut self, method: &Method, response: &Response<Bytes>, stays: bool) -> Result<(), End> {
        let mut out = BytesMut::with_capacity(256 + response.body().len());
        put_head(&mut out, response.status(), response.headers(), stays);
        let bodiless = bodiless(response.status());
        if !bodiless {
            let length = match response.headers().get(header::CONTENT_LENGTH) {
                Some(length) if *method == Method::HEAD && response.body().is_empty() => length.to_str().ok(),
                _ => None,
            };
            let length = length.and_then(|length| length.parse().ok()).unwrap_or(response.body().len() as u64);
            http1::put_field_number(&mut out, "content-length", length);
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && *method != Method::HEAD {
            out.extend_from_slice(response.body());
        }
        self.write(&out).await
    }

    async fn write_stream(
        &mut self,
        head: &RequestHead,
        parts: http::response::Parts,
        mut pieces: BoxStream<'static, Bytes>,
        stays: bool,
    ) -> Result<(), End> {
        let chunked = head.minor == Minor::One;
        let mut out = BytesMut::new();
        put_head(&mut out, parts.status, &parts.headers, stays);
        if chunked {
            http1::put_field(&mut out, "transfer-encoding", "chunked");
        }
        out.extend_from_slice(b"\r\n");
        self.write(&out).await?;
        if head.method == Method::HEAD || bodiless(parts.status) {
            return Ok(());
        }
        while let Some(piece) = self.next_piece(&mut pieces).await? {
            out.clear();
            if chunked {
                http1::put_chunk(&mut out, &piece);
            } else {
                out.extend_from_slice(&piece);
            }
            self.write(&out).await?;
        }
        if chunked { self.write(http1::LAST_CHUNK).await } else { Ok(()) }
    }

    /// The next piece of a streamed answer. Ends the connection when the client leaves or the server shuts down: a
    /// stream that was cut must not look complete.
    async fn next_piece(&mut self, pieces: &mut BoxStream<'static, Bytes>) -> Result<Option<Bytes>, End> {
        loop {
            // A client that sends its next request meanwhile is not read beyond a buffer of it.
            let reads = self.buf.len() < READ_BYTES;
            let (stream, buf, shutdown) = (&mut self.stream, &mut self.buf, &mut self.shutdown);
            if reads {
                buf.reserve(READ_BYTES);
            }
            tokio::select! {
                piece = pieces.next() => return Ok(piece),
                read = stream.read_buf(buf), if reads => match read {
                    Ok(1..) => {}
                    _ => return Err(End::Closed),
                },
                _ = shutdown.wait_for(|down| *down) => return Err(End::Closed),
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        match timeout(self.shared.limits.write_time, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Closed),
        }
    }

    /// Reads on for a moment after the last answer: closing with unread bytes would reset the connection, and the
    /// client might never see why.
    async fn linger(&mut self) {
        let _ = self.stream.shutdown().await;
        let mut left = LINGER_BYTES;
        let drained = async {
            let mut rest = [0; 4096];
            while left > 0 {
                match self.stream.read(&mut rest).await {
                    Ok(read @ 1..) => left = left.saturating_sub(read),
                    _ => break,
                }
            }
        };
        let _ = timeout(LINGER_TIME, drained).await;
    }
}

/// Room made for each read, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// Longest body that is put together in the connection's buffer, in bytes. A longer one is put together beside it, as it
/// would be moved time and again in there.
const IN_BUFFER_MAX_BYTES: u64 = 64 * 1024;
/// Most that is read and thrown away after a refusal.
const LINGER_BYTES: usize = 16 << 20;
const LINGER_TIME: Duration = Duration::from_secs(2);

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

/// Status line and fields, without those that are the connection's business, and without the empty line.
fn put_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap, stays: bool) {
    http1::put_status_line(out, status);
    for (name, value) in headers {
        if ![header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH].contains(name) {
            http1::put_field(out, name.as_str(), value.as_bytes());
        }
    }
    if !stays {
        http1::put_field(out, "connection", "close");
    }
}

fn bodiless(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}
