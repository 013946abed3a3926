//! One connection: sends a request when it is due, waits for the answer, counts it.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, Uri};
use millpond_origin::api::ingest::auth::{Secrets, signature};
use millpond_shared::clock;
use millpond_shared::http1::{self, BodyReader, Limits, ResponseHead, Step};
use millpond_shared::splitmix::SplitMix64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::PATIENCE;
use super::events::Events;
use super::pace::Pace;
use super::tally::Tally;
use crate::Failure;

/// What a connection sends, and where to.
#[derive(Clone)]
pub struct Job {
    pub target: Target,
    /// What requests are signed with; `None`: they are not.
    pub secrets: Option<Secrets>,
    pub events: Arc<Events>,
    /// Events of one request.
    pub batch: u32,
}

/// The two halves of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port.
    pub authority: String,
    pub path: String,
}

impl Target {
    /// `option` names where the URL was written.
    pub fn of(option: &str, url: &str) -> Result<Target, Failure> {
        let uri: Option<Uri> = url.parse().ok();
        let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?, uri.path_and_query()?)));
        match parts {
            Some(("http", authority, path)) => {
                let port = if authority.port().is_some() { "" } else { ":80" };
                Ok(Target { authority: format!("{authority}{port}"), path: path.to_string() })
            }
            _ => Err(Failure::Refused(format!("{option}: `{url}` is no URL like http://127.0.0.1:7000/events/wiki"))),
        }
    }
}

const READ_BYTES: usize = 16 * 1024;

/// Runs so many connections on this thread until the pace ends; what became of what they sent.
pub fn run_all(connections: u32, job: &Job, pace: &Arc<Pace>) -> Result<Tally, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from_display)?;
    runtime.block_on(async {
        let mut all = JoinSet::new();
        for number in 0..connections {
            all.spawn(run(SplitMix64::new(u64::from(number)), job.clone(), Arc::clone(pace)));
        }
        let mut tally = Tally::new()?;
        while let Some(ended) = all.join_next().await {
            tally.add(&ended.map_err(Failure::from_display)??);
        }
        Ok(tally)
    })
}

async fn run(mut random: SplitMix64, job: Job, pace: Arc<Pace>) -> Result<Tally, Failure> {
    let mut tally = Tally::new()?;
    let mut connection: Option<Connection> = None;
    let mut request = Request::default();
    while let Some(due) = pace.next().await {
        job.put_request(&mut request, &mut random);
        let asked = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(&job.target).await?,
            };
            let answer = open.ask(&request.bytes, Method::POST).await?;
            Ok::<_, Broken>((open, answer))
        };
        match timeout(PATIENCE, asked).await.unwrap_or(Err(Broken::Silent)) {
            Ok((open, (head, body))) => {
                tally.answered(u64::from(job.batch), head.status, &body, passed(due));
                let closes = head.fields.list("connection").any(|option| option.eq_ignore_ascii_case("close"));
                connection = (!closes).then_some(open);
            }
            Err(broken) => {
                tally.broke(&broken);
                // A server that is gone would be asked again and again.
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }
    Ok(tally)
}

const RECONNECT_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

fn passed(since: Instant) -> std::time::Duration {
    clock::monotonic().saturating_duration_since(since)
}

/// A request, in memory that the next one takes over.
#[derive(Default)]
pub struct Request {
    /// All that is sent.
    pub bytes: Vec<u8>,
    body: Vec<u8>,
    id: Vec<u8>,
}

impl Job {
    /// Writes the next request over the last one.
    pub fn put_request(&self, request: &mut Request, random: &mut SplitMix64) {
        let Request { bytes, body, id } = request;
        let first = self.events.number();
        body.clear();
        for nth in 0..self.batch {
            if self.batch > 1 {
                body.push(if nth == 0 { b'[' } else { b',' });
            }
            let number = if nth == 0 { first } else { self.events.number() };
            self.events.put(body, number, self.events.key(random));
        }
        if self.batch > 1 {
            body.push(b']');
        }
        id.clear();
        self.events.put_id(id, first);
        self.put_post(bytes, id, body);
    }

    /// Writes a POST of `body`, signed as `id` if requests are signed.
    pub fn put_post(&self, out: &mut Vec<u8>, id: &[u8], body: &[u8]) {
        let Target { authority, path } = &self.target;
        out.clear();
        // Writing to a Vec can't fail.
        let _ = write!(out, "POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n");
        if let Some(secrets) = &self.secrets {
            let (id, timestamp) = (format!("msg_{}", String::from_utf8_lossy(id)), clock::wall_secs());
            let signature = signature(secrets, &id, timestamp, body);
            let _ =
                write!(out, "webhook-id: {id}\r\nwebhook-timestamp: {timestamp}\r\nwebhook-signature: {signature}\r\n");
        }
        let _ = write!(out, "content-length: {}\r\n\r\n", body.len());
        out.extend_from_slice(body);
    }
}

/// An open connection.
pub struct Connection {
    stream: TcpStream,
    buf: BytesMut,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the connection was closed before the answer was complete")]
    Closed,
    #[error("the answer is no HTTP/1.1: {0}")]
    Malformed(#[from] http1::Refusal),
    #[error("there was no answer within {} s", PATIENCE.as_secs())]
    Silent,
}

impl Connection {
    pub async fn open(target: &Target) -> Result<Connection, Broken> {
        let stream = TcpStream::connect(&target.authority).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buf: BytesMut::new() })
    }

    /// Sends a request as it stands; its answer.
    pub async fn ask(&mut self, request: &[u8], method: Method) -> Result<(ResponseHead, Bytes), Broken> {
        self.stream.write_all(request).await?;
        let head = loop {
            match http1::take_response(&mut self.buf, &Limits::default())? {
                Some(head) if head.status.is_informational() => {}
                Some(head) => break head,
                None => self.read().await?,
            }
        };
        let framing = http1::response_framing(&method, head.status, &head.fields, head.minor)?;
        let mut reader = BodyReader::new(framing);
        let mut body = BytesMut::new();
        loop {
            match reader.step(&mut self.buf)? {
                Step::Data(piece) => body.extend_from_slice(&piece),
                Step::End { .. } => return Ok((head, body.freeze())),
                Step::NeedMore => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), Broken> {
        self.buf.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buf).await? {
            0 => Err(Broken::Closed),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use millpond_origin::api::ingest::auth::Secret;

    use super::*;

    fn job(batch: u32, secrets: Option<Secrets>) -> Job {
        let target = Target::of("--url", "http://h/events/x?ack=memory").unwrap();
        let events = Events::new(r#"{"id":"{id}"}"#, 0, 1, 0.0).unwrap();
        Job { target, secrets, events: Arc::new(events), batch }
    }

    fn request(job: &Job) -> (String, serde_json::Value) {
        let mut request = Request::default();
        job.put_request(&mut request, &mut SplitMix64::new(1));
        job.put_request(&mut request, &mut SplitMix64::new(2));
        let text = String::from_utf8(request.bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn requests_are_whole_signed_and_differ() {
        let (head, body) = request(&job(1, None));
        assert!(head.starts_with("POST /events/x?ack=memory HTTP/1.1\r\nhost: h:80\r\n") && body.is_object(), "{head}");
        assert!(!head.contains("webhook"));
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let job = job(3, Some(Secrets::new(vec![secret])));
        let (head, body) = request(&job);
        assert!(head.contains("webhook-id: msg_") && head.contains("webhook-signature: v1,"), "{head}");
        assert_eq!(body.as_array().map(Vec::len), Some(3));
        assert_ne!(request(&job).1, body);
    }

    #[test]
    fn only_what_can_be_reached_is_a_target() {
        for wrong in ["", "h:80/x", "https://h/x", "http:///x", "/x"] {
            assert!(Target::of("--url", wrong).is_err(), "{wrong}");
        }
    }
}
