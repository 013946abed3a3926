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

use super::Live;

/// Silence after which copies are no longer trusted.
const SILENCE_MAX: Duration = Duration::from_millis(ChangeMessage::SILENCE_MAX_MS);
/// Pause before a lost stream is taken up again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Longest line of the stream, in bytes; a longer one ends it.
const LINE_MAX: usize = 16 << 20;

/// Where a shard's change stream comes from.
pub enum Stream {
    Here(Arc<dyn Changes>),
    There(SocketAddr),
}

/// Runs until it is dropped.
pub async fn follow(live: Arc<Live>, shard: ShardId, stream: Stream) {
    // When the stream breaks there is still some silence left to take it up again in before copies lose their trust.
    let mut silence_left = SILENCE_MAX;
    loop {
        let began = millpond_shared::clock::monotonic();
        let heard = match &stream {
            Stream::Here(changes) => follow_here(&live, shard, changes.as_ref()).await,
            Stream::There(address) => timeout_unless_heard(&live, shard, *address, silence_left).await,
        };
        match heard {
            Ok(()) => silence_left = SILENCE_MAX,
            Err(error) => {
                tracing::debug!(shard, %error, "change stream lost");
                silence_left = silence_left.saturating_sub(began.elapsed() + RECONNECT_PAUSE);
            }
        }
        if silence_left.is_zero() {
            live.lost(shard);
            silence_left = SILENCE_MAX;
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

/// Why a stream ended before anything was heard on it.
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
        match timeout(SILENCE_MAX, stream.next()).await {
            Ok(Some(message)) => live.heard(shard, &message),
            Ok(None) => return Ok(()),
            Err(_) => return Err(Lost::Silent),
        }
    }
}

/// Follows over HTTP; `Ok` once something was heard, however it ended.
async fn timeout_unless_heard(
    live: &Live,
    shard: ShardId,
    address: SocketAddr,
    patience: Duration,
) -> Result<(), Lost> {
    let mut remote = timeout(patience, Remote::open(live, shard, address)).await.map_err(|_| Lost::Silent)??;
    let mut heard = false;
    loop {
        match timeout(if heard { SILENCE_MAX } else { patience }, remote.message()).await {
            Ok(Ok(Some(message))) => {
                if let ChangeMessage::Hello { shard: other, .. } = &message
                    && *other != shard
                {
                    return Err(Lost::NoStream(format!("it is shard {other}")));
                }
                live.heard(shard, &message);
                heard = true;
            }
            Ok(Err(_) | Ok(None)) if heard => return Ok(()),
            Ok(Ok(None)) => return Err(Lost::NoStream("it ended".to_owned())),
            Ok(Err(lost)) => return Err(lost),
            Err(_) => {
                live.lost(shard);
                return Ok(());
            }
        }
    }
}

struct Remote {
    stream: TcpStream,
    reader: BodyReader,
    buf: BytesMut,
    lines: BytesMut,
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
        Ok(Remote { stream, reader: BodyReader::new(framing), buf, lines: BytesMut::new() })
    }

    async fn message(&mut self) -> Result<Option<ChangeMessage>, Lost> {
        loop {
            if let Some(end) = self.lines.iter().position(|&b| b == b'\n') {
                let line = self.lines.split_to(end + 1);
                let message = ChangeMessage::from_line(&line).map_err(|error| Lost::NoStream(error.to_string()))?;
                return Ok(Some(message));
            }
            if self.lines.len() > LINE_MAX {
                return Err(Lost::NoStream("a line is longer than 16 MiB".to_owned()));
            }
            match self.reader.step(&mut self.buf).map_err(|refusal| Lost::NoStream(refusal.why.to_owned()))? {
                Step::Data(data) => self.lines.extend_from_slice(&data),
                Step::End { .. } => return Ok(None),
                Step::NeedMore if self.stream.read_buf(&mut self.buf).await? == 0 => return Ok(None),
                Step::NeedMore => {}
            }
        }
    }
}
