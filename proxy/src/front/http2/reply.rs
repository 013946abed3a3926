//! The answer to one HTTP/2 request, and the request's own body.

use std::net::IpAddr;

use ::h2::server::SendResponse;
use ::h2::{Reason as ResetReason, RecvStream, SendStream};
use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use millpond_shared::clock;
use millpond_shared::http1::{Fields, Framing, Refusal, ResponseHead};
use tokio::time::timeout;

use super::{Host, head};
use crate::front::reply::{BODY_TIMEOUT, WRITE_TIMEOUT};
use crate::gateway::{Client, Gone, ReplyFields, ReplyHead};
use crate::outcome::{Outcome, Reason};
use crate::record::Record;
use crate::semantics::{cache_status, date};
use crate::upstreams::{Inbound, InboundError};

/// Bytes of one answer that wait to be written, at most.
pub(super) const SEND_BUFFER: usize = 64 * 1024;

pub(super) struct Reply {
    respond: SendResponse<Bytes>,
    /// The body, once the head was sent.
    out: Option<SendStream<Bytes>>,
    inbound: RecvStream,
    /// Bytes of the request's body that were taken and not yet let flow again.
    taken: usize,
    framing: Framing,
    scheme: &'static str,
    peer: Option<IpAddr>,
    is_head: bool,
    /// The client waits for a 100 before it sends its body.
    expects: bool,
    mode: Mode,
    /// Something was given to the connection that it had no time to write.
    unwritten: bool,
    sent: u64,
}

/// What of the answer is still to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Head,
    /// This many bytes of the body.
    Length(u64),
    /// A body that ends when it ends.
    Open,
    /// Nothing: the stream has ended.
    Ended,
    /// Nothing: the answer broke off.
    Broken,
}

impl Reply {
    pub fn new(respond: SendResponse<Bytes>, inbound: RecvStream, parts: &Parts, host: &Host) -> Reply {
        let waits = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        let expects = !inbound.is_end_stream() && parts.headers.get(header::EXPECT).is_some_and(waits);
        Reply {
            respond,
            out: None,
            inbound,
            taken: 0,
            framing: Framing::None,
            scheme: host.arrival.scheme,
            peer: host.arrival.peer.map(|peer| peer.ip()),
            is_head: parts.method == Method::HEAD,
            expects,
            mode: Mode::Head,
            unwritten: false,
            sent: 0,
        }
    }

    /// How the body of the request is framed.
    pub fn framed(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// Answers a request that is not one.
    pub async fn refuse(&mut self, refusal: Refusal) -> Record {
        let reason = Some(Reason::BadRequest);
        let fields: Fields = [
            ("content-type", "text/plain; charset=utf-8".to_owned()),
            ("date", date::format(clock::wall_secs())),
            ("cache-status", cache_status::value(Outcome::Refused, reason, None, None, false, false)),
        ]
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
        let status = refusal.status;
        let phrase = status.canonical_reason().unwrap_or("");
        let body = Bytes::from(format!("{} {phrase}: {}\n", status.as_str(), refusal.why));
        let head = ReplyHead { status, fields: ReplyFields::All(&fields), prepared: None, added: Vec::new() };
        let broken_off = self.whole(head, body).await.is_err();
        Record { rule: None, outcome: Outcome::Refused, reason, status, bytes: self.sent, broken_off }
    }

    /// Sends the head, and with it the end where no body follows.
    fn put_head(&mut self, head: &ReplyHead<'_>, length: Option<u64>) {
        let (response, size) = head::response(head, length);
        let bodiless = self.is_head
            || length == Some(0)
            || head.status == StatusCode::NO_CONTENT
            || head.status == StatusCode::NOT_MODIFIED;
        self.mode = match (self.respond.send_response(response, bodiless), length) {
            (Err(_), _) => Mode::Broken,
            (Ok(_), _) if bodiless => Mode::Ended,
            (Ok(out), length) => {
                self.out = Some(out);
                length.map_or(Mode::Open, Mode::Length)
            }
        };
        self.sent += size;
        self.unwritten = true;
    }

    async fn put_body(&mut self, body: Bytes, is_last: bool) -> Result<(), Gone> {
        let Some(out) = &mut self.out else { return Err(self.broken()) };
        let (sent, whole) = put_body(out, body, is_last).await;
        self.sent += sent;
        self.unwritten |= sent > 0;
        whole.map_err(|Gone| self.broken())
    }

    fn broken(&mut self) -> Gone {
        self.mode = Mode::Broken;
        Gone
    }

    fn reset(&mut self, reason: ResetReason) {
        self.mode = Mode::Broken;
        match &mut self.out {
            Some(out) => out.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

/// Sends a part of a body as fast as the client lets it flow; how many bytes, and whether it was all.
pub(super) async fn put_body(out: &mut SendStream<Bytes>, mut body: Bytes, is_last: bool) -> (u64, Result<(), Gone>) {
    let mut sent = 0;
    while !body.is_empty() {
        out.reserve_capacity(body.len().min(SEND_BUFFER));
        let mut granted = out.capacity();
        if granted == 0 {
            let more = std::future::poll_fn(|cx| out.poll_capacity(cx));
            granted = match timeout(WRITE_TIMEOUT, more).await {
                Ok(Some(Ok(granted))) => granted,
                Ok(Some(Err(_)) | None) => return (sent, Err(Gone)),
                Err(_) => {
                    out.send_reset(ResetReason::CANCEL);
                    return (sent, Err(Gone));
                }
            };
        }
        let part = body.split_to(granted.min(body.len()));
        let bytes = part.len() as u64;
        if out.send_data(part, is_last && body.is_empty()).is_err() {
            return (sent, Err(Gone));
        }
        sent += bytes;
    }
    (sent, Ok(()))
}

impl Client for Reply {
    fn scheme(&self) -> &'static str {
        self.scheme
    }

    fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The rest of the stream is nobody else's; what is not read is reset with it.
    fn abandon_body(&mut self) {}

    fn inbound(&mut self) -> (Framing, &mut dyn Inbound) {
        (self.framing, self)
    }

    async fn whole(&mut self, head: ReplyHead<'_>, body: Bytes) -> Result<(), Gone> {
        self.put_head(&head, Some(body.len() as u64));
        match self.mode {
            Mode::Ended => Ok(()),
            Mode::Broken => Err(Gone),
            _ => {
                self.put_body(body, true).await?;
                self.mode = Mode::Ended;
                Ok(())
            }
        }
    }

    fn begin(&mut self, head: ReplyHead<'_>, length: Option<u64>) {
        self.put_head(&head, length);
    }

    async fn piece(&mut self, piece: Bytes) -> Result<(), Gone> {
        match self.mode {
            Mode::Length(left) => match left.checked_sub(piece.len() as u64) {
                Some(0) => {
                    self.put_body(piece, true).await?;
                    self.mode = Mode::Ended;
                }
                Some(left) => {
                    self.put_body(piece, false).await?;
                    self.mode = Mode::Length(left);
                }
                None => {
                    self.cut();
                    return Err(Gone);
                }
            },
            Mode::Open => self.put_body(piece, false).await?,
            // The answer to a HEAD, say: its body goes nowhere.
            Mode::Ended => {}
            Mode::Head | Mode::Broken => return Err(self.broken()),
        }
        Ok(())
    }

    /// The connection writes by itself. It gets a turn here, so that what came before a reset is not lost with it.
    async fn flush(&mut self) -> Result<(), Gone> {
        if std::mem::take(&mut self.unwritten) {
            tokio::task::yield_now().await;
        }
        if self.mode == Mode::Broken { Err(Gone) } else { Ok(()) }
    }

    async fn end(&mut self) -> Result<(), Gone> {
        match (self.mode, &mut self.out) {
            (Mode::Ended, _) => Ok(()),
            (Mode::Open, Some(out)) => {
                let ended = out.send_data(Bytes::new(), true);
                self.mode = if ended.is_ok() { Mode::Ended } else { Mode::Broken };
                ended.map_err(|_| Gone)
            }
            // The body was shorter than its head said.
            _ => {
                self.cut();
                Err(Gone)
            }
        }
    }

    fn cut(&mut self) {
        self.reset(ResetReason::INTERNAL_ERROR);
    }

    fn sent(&self) -> u64 {
        self.sent
    }
}

#[async_trait]
impl Inbound for Reply {
    async fn next(&mut self) -> Result<Option<Bytes>, InboundError> {
        if std::mem::take(&mut self.expects) {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::CONTINUE;
            self.respond.send_informational(response).map_err(|_| InboundError::Malformed)?;
        }
        // What was taken before is through: the client may send as much again.
        let taken = std::mem::take(&mut self.taken);
        if taken > 0 && self.inbound.flow_control().release_capacity(taken).is_err() {
            return Err(InboundError::Malformed);
        }
        match timeout(BODY_TIMEOUT, self.inbound.data()).await {
            Ok(Some(Ok(piece))) => {
                self.taken = piece.len();
                Ok(Some(piece))
            }
            Ok(None) => Ok(None),
            Ok(Some(Err(_))) => Err(InboundError::Malformed),
            Err(_) => Err(InboundError::TooSlow),
        }
    }

    async fn interim(&mut self, head: &ResponseHead) {
        if head.status == StatusCode::CONTINUE && !std::mem::take(&mut self.expects) {
            return;
        }
        // A client that is gone is noticed with the final answer.
        let _ = self.respond.send_informational(head::interim(head));
        self.unwritten = true;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use http::Request;
    use tokio::time::sleep;

    use super::*;

    /// A client with a window of ten bytes, and the body that is sent to it.
    async fn stream() -> (SendStream<Bytes>, RecvStream) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let mut settings = ::h2::client::Builder::new();
        let client = settings.initial_window_size(10).handshake::<_, Bytes>(theirs);
        let (client, server) = tokio::join!(client, ::h2::server::handshake(ours));
        let ((mut requests, connection), mut server) = (client.expect("HTTP/2"), server.expect("HTTP/2"));
        tokio::spawn(connection);
        let request = Request::get("http://a/").body(()).expect("a request");
        let (response, _) = requests.send_request(request, true).expect("sent");
        let (_, mut respond) = server.accept().await.expect("a request").expect("a request");
        let out = respond.send_response(Response::new(()), false).expect("it is there");
        tokio::spawn(async move { while server.accept().await.is_some() {} });
        (out, response.await.expect("an answer").into_body())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_lets_nothing_flow_is_reset_in_time() {
        let (mut out, mut body) = stream().await;
        let put = put_body(&mut out, Bytes::from_static(&[b'x'; 30]), true);
        let mut put = pin!(put);
        assert!(timeout(WRITE_TIMEOUT - Duration::from_secs(1), put.as_mut()).await.is_err(), "too early");
        let (sent, whole) = timeout(Duration::from_secs(2), put).await.expect("in time");
        assert_eq!((sent, whole.is_err()), (10, true));
        // What had come before is read, or lost with the reset.
        let mut reset = None;
        while let Some(part) = body.data().await {
            if let Err(error) = part {
                reset = error.reason();
                break;
            }
        }
        assert_eq!(reset, Some(ResetReason::CANCEL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_lets_a_little_flow_gets_it_all() {
        let (mut out, mut body) = stream().await;
        let reads = async {
            let mut read = 0;
            while let Some(part) = body.data().await {
                let part = part.expect("no reset");
                read += part.len();
                sleep(WRITE_TIMEOUT - Duration::from_secs(1)).await;
                body.flow_control().release_capacity(part.len()).expect("it was taken");
            }
            read
        };
        let (put, read) = tokio::join!(put_body(&mut out, Bytes::from_static(&[b'x'; 30]), true), reads);
        assert_eq!((put.0, put.1.is_ok(), read), (30, true, 30));
    }
}
