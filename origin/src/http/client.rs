//! A small HTTP/1.1 client: one role's address, a pool of kept connections.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use millpond_shared::http1::{self, BodyReader, Framing, Limits, Minor, Refusal, ResponseHead, Step};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Client of the server at one address.
#[derive(Debug)]
pub struct Client {
    authority: String,
    /// Connections that wait for their next request, the last used last.
    idle: Mutex<Vec<Connection>>,
}

/// Connections that are kept; one more is closed after its answer.
const IDLE_MAX: usize = 64;
/// Largest body that is taken, in bytes.
const BODY_MAX: usize = 256 << 20;
/// For a connection to be made, and for the head of a streamed answer.
const OPEN_TIME: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{authority} can't be reached: {error}")]
    Connect { authority: String, error: io::Error },
    #[error("the connection to {authority} broke: {error}")]
    Broken { authority: String, error: io::Error },
    #[error("{authority} closed the connection without an answer")]
    Closed { authority: String },
    #[error("{authority} did not answer within {} s", after.as_secs_f64())]
    TimedOut { authority: String, after: Duration },
    #[error("{authority} answered what is no HTTP/1.1: {refusal}")]
    Malformed { authority: String, refusal: Refusal },
    #[error("{authority} answered with more than {BODY_MAX} bytes")]
    TooLarge { authority: String },
}

impl Client {
    /// `authority`: host and port, as in `127.0.0.1:7000`. Connects when it is first called.
    pub fn new(authority: impl Into<String>) -> Client {
        Client { authority: authority.into(), idle: Mutex::new(Vec::new()) }
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a request and reads the whole answer. Of its URI only path and query count.
    ///
    /// A kept connection that turns out to be closed is replaced once, if the request may be repeated.
    pub async fn call(&self, request: Request<Bytes>, within: Duration) -> Result<Response<Bytes>, ClientError> {
        match timeout(within, self.call_again(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(ClientError::TimedOut { authority: self.authority.clone(), after: within }),
        }
    }

    /// Sends a request on a connection of its own and returns the answer's body as it arrives.
    pub async fn open_stream(
        &self,
        request: Request<Bytes>,
    ) -> Result<(http::response::Parts, BoxStream<'static, Result<Bytes, ClientError>>), ClientError> {
        let opened = async {
            let mut connection = self.connect().await?;
            let head = connection.send(&request).await.map_err(|failure| failure.error)?;
            Ok((connection, head))
        };
        let (mut connection, (head, framing)) = match timeout(OPEN_TIME, opened).await {
            Ok(opened) => opened?,
            Err(_) => return Err(ClientError::TimedOut { authority: self.authority.clone(), after: OPEN_TIME }),
        };
        connection.reader = BodyReader::new(framing);
        let (parts, ()) = response(&head, ()).into_parts();
        let pieces = stream::try_unfold(connection, |mut connection| async move {
            Ok(connection.piece().await?.map(|piece| (piece, connection)))
        });
        Ok((parts, pieces.boxed()))
    }

    async fn call_again(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ClientError> {
        if let Some(kept) = self.kept() {
            match self.exchange(kept, &request).await {
                Err(failure) if failure.unanswered && request.method().is_idempotent() => {}
                outcome => return outcome.map_err(|failure| failure.error),
            }
        }
        let fresh = self.connect().await?;
        self.exchange(fresh, &request).await.map_err(|failure| failure.error)
    }

    async fn exchange(&self, mut connection: Connection, request: &Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let (head, framing) = connection.send(request).await?;
        connection.reader = BodyReader::new(framing);
        let mut body = BytesMut::new();
        while let Some(piece) = connection.piece().await? {
            if body.len() + piece.len() > BODY_MAX {
                return Err(ClientError::TooLarge { authority: self.authority.clone() }.into());
            }
            body.extend_from_slice(&piece);
        }
        let closes = head.fields.list("connection").any(|option| option.eq_ignore_ascii_case("close"));
        let stays = head.minor == Minor::One && !closes && framing != Framing::UntilClose;
        // Bytes behind the answer were not asked for: the next answer could not be trusted.
        if stays && connection.buf.is_empty() {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
        Ok(response(&head, body.freeze()))
    }

    /// A kept connection that the server has not closed meanwhile.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(connection) = idle.pop() {
            let silent = connection.stream.try_read(&mut [0; 1]);
            if silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let unreachable = |error| ClientError::Connect { authority: self.authority.clone(), error };
        let connected = timeout(OPEN_TIME, TcpStream::connect(&self.authority)).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(Connection {
            authority: self.authority.clone(),
            stream,
            buf: BytesMut::new(),
            reader: BodyReader::new(Framing::None),
        })
    }
}

#[derive(Debug)]
struct Connection {
    authority: String,
    stream: TcpStream,
    buf: BytesMut,
    reader: BodyReader,
}

/// An error, and whether not a byte of an answer had come.
struct Failure {
    error: ClientError,
    unanswered: bool,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure { error, unanswered: false }
    }
}

impl Connection {
    /// Sends a request; the head of its final answer, and where its body ends.
    async fn send(&mut self, request: &Request<Bytes>) -> Result<(ResponseHead, Framing), Failure> {
        let bytes = encode(&self.authority, request);
        let unanswered = |error| Failure { error, unanswered: true };
        self.stream.write_all(&bytes).await.map_err(|error| unanswered(self.broken(error)))?;
        let mut answered = false;
        loop {
            let taken = http1::take_response(&mut self.buf, &Limits::default());
            if let Some(head) = taken.map_err(|refusal| self.malformed(refusal))? {
                if head.status.is_informational() {
                    continue;
                }
                let framing = http1::response_framing(request.method(), head.status, &head.fields, head.minor)
                    .map_err(|refusal| self.malformed(refusal))?;
                return Ok((head, framing));
            }
            match self.read().await {
                Ok(true) => answered = true,
                Ok(false) => {
                    let error = ClientError::Closed { authority: self.authority.clone() };
                    return Err(Failure { error, unanswered: !answered });
                }
                Err(error) => return Err(Failure { error, unanswered: !answered }),
            }
        }
    }

    /// The next piece of the body; `None` at its end.
    async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.reader.step(&mut self.buf).map_err(|refusal| self.malformed(refusal))? {
                Step::Data(piece) => return Ok(Some(piece)),
                Step::End { .. } => return Ok(None),
                Step::NeedMore => {
                    if !self.read().await? {
                        self.reader.end_of_stream().map_err(|refusal| self.malformed(refusal))?;
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads some bytes; false at the end of the connection.
    async fn read(&mut self) -> Result<bool, ClientError> {
        self.buf.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buf).await {
            Ok(read) => Ok(read > 0),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: io::Error) -> ClientError {
        ClientError::Broken { authority: self.authority.clone(), error }
    }

    fn malformed(&self, refusal: Refusal) -> ClientError {
        ClientError::Malformed { authority: self.authority.clone(), refusal }
    }
}

fn encode(authority: &str, request: &Request<Bytes>) -> BytesMut {
    let mut out = BytesMut::with_capacity(256 + request.body().len());
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    http1::put_request_line(&mut out, request.method().as_str(), target);
    http1::put_field(&mut out, "host", authority);
    for (name, value) in request.headers() {
        if ![header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name) {
            http1::put_field(&mut out, name.as_str(), value.as_bytes());
        }
    }
    let has_content = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
    if has_content || !request.body().is_empty() {
        http1::put_field_number(&mut out, "content-length", request.body().len() as u64);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(request.body());
    out
}

fn response<B>(head: &ResponseHead, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    for (name, value) in head.fields.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
