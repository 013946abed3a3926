//! Reads a stream from any place on, in its order.
//!
//! Reading goes through a consumer of the server's that lives in its memory and knows no acknowledgements: the place is
//! ours. Where the server has forgotten the consumer, or the reader asks for another place, a new one is made.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use futures_util::StreamExt;
use millpond_shared::clock;

use super::connection::{CALL_TIME, unreachable};
use super::heads::HEADER;
use crate::queue::QueueError;

/// A message as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub sequence: u64,
    pub subject: String,
    /// Its header `Millpond`.
    pub head: Option<String>,
    pub payload: Bytes,
    /// Messages that were behind it when it was read.
    pub pending: u64,
}

/// Reads one stream.
pub struct Reader {
    stream: Stream,
    /// Bytes that a message may have at most.
    message_max: usize,
    /// The consumer, and the sequence of what it gives next.
    open: Option<(PullConsumer, u64)>,
}

/// The server forgets a consumer that nobody asks for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Messages of one request.
const MESSAGES_MAX: usize = 256;
/// Longest wait of one request: after that it is looked whether the server still knows the consumer.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Of subject, headers and framing of a message, beside the payload.
const OVERHEAD_BYTES: usize = 4 << 10;

impl Reader {
    pub fn new(stream: Stream, message_max: usize) -> Reader {
        Reader { stream, message_max, open: None }
    }

    /// Messages behind `after`, oldest first: at least one if there is any, then no more than about `max_bytes`; none if
    /// none comes within `wait`. What is behind a gap (it was purged) follows without one.
    ///
    /// A call that is given up loses the place; the next one finds it again.
    pub async fn read(&mut self, after: u64, max_bytes: usize, wait: Duration) -> Result<Vec<Stored>, QueueError> {
        let began = clock::monotonic();
        let mut fresh = false;
        loop {
            let consumer = match self.open.take() {
                Some((consumer, next)) if next == after + 1 => consumer,
                _ => {
                    fresh = true;
                    self.consumer(after + 1).await?
                }
            };
            let left = wait.saturating_sub(began.elapsed());
            let read = match self.fetch(&consumer, max_bytes).await {
                Ok(read) if read.is_empty() && !left.is_zero() => wait_for_one(&consumer, left.min(WAIT_MAX)).await,
                read => read,
            };
            // Answers can be lost with a connection: what is missing then is asked for again.
            let complete = |read: &Vec<Stored>| fresh || read.first().is_none_or(|first| first.sequence == after + 1);
            match read {
                Ok(read) if complete(&read) => {
                    let next = read.last().map_or(after, |last| last.sequence) + 1;
                    let over = !read.is_empty() || began.elapsed() >= wait;
                    self.open = Some((consumer, next));
                    if over {
                        return Ok(read);
                    }
                }
                Err(error) if fresh => return Err(error),
                // It may only be that the server was started again and has forgotten the consumer.
                Ok(_) | Err(_) => {}
            }
        }
    }

    async fn consumer(&self, from: u64) -> Result<PullConsumer, QueueError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN_AFTER,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        self.stream.create_consumer(config).await.map_err(unreachable)
    }

    /// What is there now.
    async fn fetch(&self, consumer: &PullConsumer, max_bytes: usize) -> Result<Vec<Stored>, QueueError> {
        // A request whose limit does not hold the first message gets nothing but an error.
        let max_bytes = max_bytes.max(self.message_max) + OVERHEAD_BYTES;
        let fetching = async {
            let batch = consumer.fetch().max_messages(MESSAGES_MAX).max_bytes(max_bytes).messages().await;
            collect(batch.map_err(unreachable)?).await
        };
        tokio::time::timeout(CALL_TIME, fetching).await.map_err(unreachable)?
    }
}

async fn wait_for_one(consumer: &PullConsumer, wait: Duration) -> Result<Vec<Stored>, QueueError> {
    let waiting = async {
        let batch = consumer.batch().max_messages(1).expires(wait).messages().await;
        collect(batch.map_err(unreachable)?).await
    };
    tokio::time::timeout(wait + CALL_TIME, waiting).await.map_err(unreachable)?
}

async fn collect(mut batch: pull::Batch) -> Result<Vec<Stored>, QueueError> {
    let mut read = Vec::new();
    while let Some(message) = batch.next().await {
        let message = match message {
            Ok(message) => message,
            // What came before the end of the request is as good as ever.
            Err(_) if !read.is_empty() => break,
            Err(error) => return Err(unreachable(error)),
        };
        let info = message.info().map_err(unreachable)?;
        read.push(Stored {
            sequence: info.stream_sequence,
            pending: info.pending,
            subject: message.subject.to_string(),
            head: message.headers.as_ref().and_then(|all| all.get(HEADER)).map(|value| value.as_str().to_owned()),
            payload: message.payload.clone(),
        });
    }
    Ok(read)
}
