//! The queues of another process: the same doors, over its wire.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, header};
use millpond_shared::clock;
use millpond_shared::event::Event;
use millpond_shared::shard_map::MapState;
use millpond_shared::version::{Position, QueueId, ShardId};
use millpond_shared::wire::EventFrame;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{
    Acquire, Append, Buried, CONTENT_TYPE, Committed, ErrorBody, Fates, HandedHead, Message, Newest, PulledHead, ROOT,
    Renew, RoundHead, TakenHead, WAIT_MAX_MS,
};
use super::{
    DeadLetter, DeadLetters, DispatchQueues, EventQueues, Fate, HandedOver, Lease, MapChange, Pulled, QueueError,
    Round, ShardMaps, ShardQueues, Taken,
};
use crate::http::Client;

/// Client of a queue role.
pub struct QueueClient {
    http: Client,
    /// Number of event queues, and when it was asked for.
    count: Mutex<Option<(u16, Instant)>>,
}

/// For an answer, beyond what the request itself asks to wait.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long the number of event queues is believed: it changes only while the role restarts.
const COUNT_TIME: Duration = Duration::from_secs(5);

impl QueueClient {
    /// `authority`: host and port of the queue role, as in `127.0.0.1:7000`.
    pub fn new(authority: impl Into<String>) -> QueueClient {
        QueueClient { http: Client::new(authority), count: Mutex::new(None) }
    }

    async fn event_queues(&self) -> Result<u16, QueueError> {
        let now = clock::monotonic();
        if let Some((count, asked)) = *self.count.lock()
            && now.duration_since(asked) < COUNT_TIME
        {
            return Ok(count);
        }
        #[derive(serde::Deserialize)]
        struct Status {
            event_queues: Vec<serde::de::IgnoredAny>,
        }
        let body = self.ask(Method::GET, ROOT, Bytes::new(), Duration::ZERO).await?;
        let status: Status = serde_json::from_slice(&body).map_err(|error| malformed(&error.to_string()))?;
        let count = u16::try_from(status.event_queues.len()).unwrap_or(u16::MAX);
        *self.count.lock() = Some((count, now));
        Ok(count)
    }

    /// Sends a message and reads the one that answers it.
    async fn exchange<H: Serialize + DeserializeOwned, A: Serialize + DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        message: Message<H>,
    ) -> Result<Message<A>, QueueError> {
        let body = self.ask(method, path, message.encode(), Duration::ZERO).await?;
        Message::decode(body).map_err(|problem| malformed(&problem))
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes, wait: Duration) -> Result<Bytes, QueueError> {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, CONTENT_TYPE);
        let request = request.body(body).map_err(|error| QueueError::Invalid { problem: error.to_string() })?;
        let answer = self.http.call(request, wait + ANSWER_TIME).await;
        let answer = answer.map_err(|error| QueueError::Unreachable { problem: error.to_string() })?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let error = match serde_json::from_slice::<ErrorBody>(answer.body()) {
            Ok(body) => body.queue_error,
            Err(_) => {
                let said = String::from_utf8_lossy(answer.body()).chars().take(200).collect::<String>();
                malformed(&format!("{} {said}", answer.status()))
            }
        };
        if matches!(error, QueueError::NoQueue { .. }) {
            *self.count.lock() = None;
        }
        Err(error)
    }
}

fn malformed(problem: &str) -> QueueError {
    QueueError::Unreachable { problem: format!("it answered what is no answer of a queue role: {problem}") }
}

fn nothing() -> Message<()> {
    Message { head: (), parts: Vec::new() }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the server will wait at most.
fn cut(wait: Duration) -> Duration {
    wait.min(Duration::from_millis(WAIT_MAX_MS))
}

#[async_trait]
impl EventQueues for QueueClient {
    async fn count(&self) -> Result<u16, QueueError> {
        self.event_queues().await
    }

    async fn append(
        &self,
        queue: QueueId,
        window: Option<Duration>,
        events: Vec<Event<'static>>,
    ) -> Result<Vec<Fate>, QueueError> {
        let count = events.len();
        let frame = EventFrame { queue, first: 0, events }.encode();
        let message = Message { head: Append { window_ms: window.map(milliseconds) }, parts: vec![frame.into()] };
        let answer = self.exchange(Method::POST, &format!("{ROOT}/events/{queue}/append"), message).await?;
        let Fates { fates } = answer.head;
        if fates.len() != count {
            return Err(malformed(&format!("{} fates for {count} events", fates.len())));
        }
        Ok(fates)
    }
}

#[async_trait]
impl DispatchQueues for QueueClient {
    async fn count(&self) -> Result<u16, QueueError> {
        self.event_queues().await
    }

    async fn acquire(&self, queue: QueueId, holder: &str, ttl: Duration) -> Result<Lease, QueueError> {
        let head = Acquire { holder: holder.to_owned(), ttl_ms: milliseconds(ttl) };
        let message = Message { head, parts: Vec::new() };
        let answer = self.exchange(Method::POST, &format!("{ROOT}/events/{queue}/lease"), message).await?;
        Ok(answer.head)
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<(), QueueError> {
        let path = format!("{ROOT}/events/{}/lease/{}", lease.queue, lease.token);
        let message = Message { head: Renew { ttl_ms: milliseconds(ttl) }, parts: Vec::new() };
        self.exchange::<_, ()>(Method::PUT, &path, message).await.map(drop)
    }

    async fn release(&self, lease: Lease) -> Result<(), QueueError> {
        let path = format!("{ROOT}/events/{}/lease/{}", lease.queue, lease.token);
        self.exchange::<_, ()>(Method::DELETE, &path, nothing()).await.map(drop)
    }

    async fn take(&self, lease: Lease, max_events: usize, wait: Duration) -> Result<Option<Taken>, QueueError> {
        let (wait, Lease { queue, token }) = (cut(wait), lease);
        let wait_ms = milliseconds(wait);
        let path = format!("{ROOT}/events/{queue}?token={token}&max_events={max_events}&wait_ms={wait_ms}");
        let body = self.ask(Method::GET, &path, Bytes::new(), wait).await?;
        let message: Message<TakenHead> = Message::decode(body).map_err(|problem| malformed(&problem))?;
        Ok(message.head.run.map(|(first, last)| Taken { first, last, frames: message.parts }))
    }

    async fn push(&self, lease: Lease, round: Round) -> Result<(), QueueError> {
        let Round { first, last, map_version, frames } = round;
        let (frames, parts) = frames.into_iter().map(|frame| ((frame.shard, frame.events), frame.bytes)).unzip();
        let message = Message { head: RoundHead { first, last, map_version, frames }, parts };
        let path = format!("{ROOT}/events/{}/push/{}", lease.queue, lease.token);
        self.exchange::<_, ()>(Method::POST, &path, message).await.map(drop)
    }
}

#[async_trait]
impl DeadLetters for QueueClient {
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<usize, QueueError> {
        let parts = letters.iter().map(|letter| letter.encode().into()).collect();
        let answer = self.exchange(Method::POST, &format!("{ROOT}/dead"), Message { head: (), parts }).await?;
        let Buried { refused } = answer.head;
        Ok(refused)
    }
}

#[async_trait]
impl ShardQueues for QueueClient {
    async fn pull(
        &self,
        shard: ShardId,
        after: Position,
        max_bytes: usize,
        wait: Duration,
    ) -> Result<Pulled, QueueError> {
        let wait = cut(wait);
        let wait_ms = milliseconds(wait);
        let path = format!("{ROOT}/shards/{shard}?after={after}&max_bytes={max_bytes}&wait_ms={wait_ms}");
        let body = self.ask(Method::GET, &path, Bytes::new(), wait).await?;
        let message: Message<PulledHead> = Message::decode(body).map_err(|problem| malformed(&problem))?;
        let PulledHead { positions, last, events_after } = message.head;
        if positions.len() != message.parts.len() {
            return Err(malformed("as many frames as positions were expected"));
        }
        Ok(Pulled { frames: positions.into_iter().zip(message.parts).collect(), last, events_after })
    }

    async fn newest(&self, shard: ShardId) -> Result<Position, QueueError> {
        let body =
            self.ask(Method::GET, &format!("{ROOT}/shards/{shard}/newest"), Bytes::new(), Duration::ZERO).await?;
        let message: Message<Newest> = Message::decode(body).map_err(|problem| malformed(&problem))?;
        Ok(message.head.position)
    }

    async fn committed(&self, shard: ShardId, consumer: &str, position: Position) -> Result<(), QueueError> {
        let consumer = utf8_percent_encode(consumer, NON_ALPHANUMERIC);
        let path = format!("{ROOT}/shards/{shard}/consumers/{consumer}");
        let message = Message { head: Committed { position }, parts: Vec::new() };
        self.exchange::<_, ()>(Method::PUT, &path, message).await.map(drop)
    }
}

#[async_trait]
impl ShardMaps for QueueClient {
    async fn map(&self, after: u32, wait: Duration) -> Result<Option<MapState>, QueueError> {
        let wait = cut(wait);
        let path = format!("{ROOT}/map/changes?after={after}&wait_ms={}", milliseconds(wait));
        let body = self.ask(Method::GET, &path, Bytes::new(), wait).await?;
        Ok(Message::decode(body).map_err(|problem| malformed(&problem))?.head)
    }

    async fn change_map(&self, change: MapChange) -> Result<MapState, QueueError> {
        let message = Message { head: change, parts: Vec::new() };
        Ok(self.exchange(Method::POST, &format!("{ROOT}/map"), message).await?.head)
    }

    async fn hand_over(&self, handed: HandedOver) -> Result<Position, QueueError> {
        let HandedOver { epoch, after, bytes } = handed;
        let message = Message { head: HandedHead { epoch, after }, parts: vec![bytes] };
        Ok(self.exchange(Method::POST, &format!("{ROOT}/map/handed"), message).await?.head)
    }
}
