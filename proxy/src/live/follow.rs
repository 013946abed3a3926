//! Follows one shard's change stream for ever: over HTTP, or by a call in the same process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use http::{Method, StatusCode};
use millpond_shared::http1::{BodyReader, Limits, Step, put_field, put_request_line, response_framing, take_response};
use millpond_shared::version::ShardId;
use millpond_shared::wire::{ChangeMessage, Changes, Follow, headers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Live, Reach};

/// Silence after which copies are no longer trusted.
const SILENCE_MAX: Duration = Duration::from_millis(ChangeMessage::SILENCE_MAX_MS);
/// Pause before a lost stream is taken up again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Room made for each read, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Longest line of the stream, in bytes; a longer one ends it.
const LINE_MAX: usize = 16 << 20;

/// Where a shard's change stream comes from.
pub enum Stream {
    Here(Arc<dyn Changes>),
    There(SocketAddr, Arc<Reach>),
}

/// Runs until it is dropped.
pub async fn follow(live: Arc<Live>, shard: ShardId, stream: Stream) {
    loop {
        let ended = match &stream {
            Stream::Here(changes) => follow_here(&live, shard, changes.as_ref()).await,
            Stream::There(address, reach) => {
                let ended = follow_there(&live, shard, *address, reach).await;
                reach.lose();
                ended
            }
        };
        if let Err(error) = ended {
            tracing::debug!(shard, %error, "change stream lost");
        }
        // When the stream breaks there is still some time to take it up again before copies lose their trust.
        if live.patience(shard).is_zero() {
            live.lost(shard);
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

/// How long to wait for the next message: until the silence is too long, or, where it is already, as long again.
fn patience(live: &Live, shard: ShardId) -> Duration {
    Some(live.patience(shard)).filter(|left| !left.is_zero()).unwrap_or(SILENCE_MAX)
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("it could not be reached: {0}")]
    Unreachable(#[from] std::io::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it said something that is no change stream: {0}")]
    NoStream(String),
    #[error("it was silent")]
    Silent,
}

async fn follow_here(live: &Live, shard: ShardId, changes: &dyn Changes) -> Result<(), Lost> {
    let follow = Follow { after: live.resume_after(shard) };
    let mut stream = changes.follow(shard, follow).ok_or_else(|| Lost::NoStream("the shard is not here".to_owned()))?;
    loop {
        match timeout(patience(live, shard), stream.next()).await {
            Ok(Some(message)) => live.heard(shard, &message),
            Ok(None) => return Ok(()),
            Err(_) => return Err(Lost::Silent),
        }
    }
}

async fn follow_there(live: &Live, shard: ShardId, address: SocketAddr, reach: &Reach) -> Result<(), Lost> {
    let opened = timeout(patience(live, shard), Remote::open(live, shard, address));
    let mut remote = opened.await.map_err(|_| Lost::Silent)??;
    loop {
        match timeout(patience(live, shard), remote.message()).await {
            Ok(Ok(Some(ChangeMessage::Hello { shard: other, .. }))) if other != shard => {
                return Err(Lost::NoStream(format!("it is shard {other}")));
            }
            Ok(Ok(Some(message))) => {
                live.heard(shard, &message);
                reach.tell(message.at());
            }
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(lost)) => return Err(lost),
            Err(_) => return Err(Lost::Silent),
        }
    }
}

struct Remote {
    stream: TcpStream,
    reader: BodyReader,
    buf: BytesMut,
    lines: BytesMut,
    /// Bytes of `lines` that are known to hold no line end.
    looked_at: usize,
}

impl Remote {
    async fn open(live: &Live, shard: ShardId, address: SocketAddr) -> Result<Remote, Lost> {
        let mut stream = TcpStream::connect(address).await?;
        let mut out = BytesMut::new();
        put_request_line(&mut out, "GET", &headers::changes_path(shard, live.resume_after(shard)));
        put_field(&mut out, "Host", address.to_string());
        out.extend_from_slice(b"\r\n");
        stream.write_all(&out).await?;
        let mut buf = BytesMut::new();
        let head = loop {
            let taken = take_response(&mut buf, &Limits::default());
            match taken.map_err(|refusal| Lost::NoStream(refusal.why.to_owned()))? {
                Some(head) => break head,
                None if stream.read_buf(&mut buf).await? == 0 => return Err(Lost::NoStream("it ended".to_owned())),
                None => {}
            }
        };
        if head.status != StatusCode::OK {
            return Err(Lost::Status(head.status));
        }
        let framing = response_framing(&Method::GET, head.status, &head.fields, head.minor)
            .map_err(|refusal| Lost::NoStream(refusal.why.to_owned()))?;
        Ok(Remote { stream, reader: BodyReader::new(framing), buf, lines: BytesMut::new(), looked_at: 0 })
    }

    async fn message(&mut self) -> Result<Option<ChangeMessage>, Lost> {
        loop {
            let unseen = self.lines.get(self.looked_at..).unwrap_or(&[]);
            if let Some(end) = memchr::memchr(b'\n', unseen) {
                let line = self.lines.split_to(self.looked_at + end + 1);
                self.looked_at = 0;
                let message = ChangeMessage::from_line(&line).map_err(|error| Lost::NoStream(error.to_string()))?;
                return Ok(Some(message));
            }
            self.looked_at = self.lines.len();
            if self.lines.len() > LINE_MAX {
                return Err(Lost::NoStream("a line is longer than 16 MiB".to_owned()));
            }
            match self.reader.step(&mut self.buf).map_err(|refusal| Lost::NoStream(refusal.why.to_owned()))? {
                Step::Data(data) => self.lines.extend_from_slice(&data),
                Step::End { .. } => return Ok(None),
                Step::NeedMore => {
                    self.buf.reserve(READ_BYTES);
                    if self.stream.read_buf(&mut self.buf).await? == 0 {
                        return Ok(None);
                    }
                }
            }
        }
    }
}
