//! The connection to the NATS servers: made, and judged before anything is trusted to it.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use bytes::Bytes;
use millpond_shared::clock;
use serde::Deserialize;

use super::NatsError;
use super::heads::HEADER;
use crate::queue::QueueError;

/// Where the servers are, and how they know us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// `nats://HOST:PORT`, or `tls://HOST:PORT`.
    pub urls: Vec<String>,
    /// A file as `nsc` makes them: a JWT and the seed of its key.
    pub credentials: Option<PathBuf>,
    /// PEM file with the certificates that a server's must be signed by; the system's unless given.
    pub ca: Option<PathBuf>,
}

/// An open connection.
#[derive(Clone)]
pub struct Connection {
    pub client: Client,
    pub jetstream: Context,
    /// Bytes that a message may have at most, its headers included.
    pub message_max: usize,
}

/// Oldest version that does all that is relied upon. 2.9 knows neither `sync_interval` (without which an acknowledged
/// event is not on disk) nor tells its time with what it answers, and drops settings it does not know without a word.
pub const VERSION_MIN: (u64, u64) = (2, 10);
/// For an answer of a server, and for the acknowledgement of a message.
pub const CALL_TIME: Duration = Duration::from_secs(5);
/// How long a start waits for a server.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Longest pause between two attempts to connect again; there is no end to them.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// A server must take messages of so many bytes.
const MESSAGE_MIN: usize = 64 << 10;
/// Bytes that the largest frame lacks to the largest message: its head, the subject, and what the server adds.
const FRAME_HEADROOM: usize = 4 << 10;

impl Connection {
    pub async fn open(servers: &Servers) -> Result<Connection, NatsError> {
        let connecting = tokio::time::timeout(CONNECT_TIME, options(servers).await?.connect(servers.urls.clone()));
        let client = match connecting.await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(NatsError::Connect { problem: error.to_string() }),
            Err(_) => return Err(NatsError::Connect { problem: format!("no answer within {CONNECT_TIME:?}") }),
        };
        let info = client.server_info();
        judge_version(&info.version)?;
        if !info.jetstream {
            return Err(NatsError::NoJetStream);
        }
        if info.max_payload < MESSAGE_MIN {
            return Err(NatsError::SmallMessages { found: info.max_payload, least: MESSAGE_MIN });
        }
        let jetstream = jetstream::ContextBuilder::new().timeout(CALL_TIME).build(client.clone());
        Ok(Connection { client, jetstream, message_max: info.max_payload })
    }

    /// Bytes of the largest frame that fits into a message.
    pub fn frame_max(&self) -> usize {
        self.message_max - FRAME_HEADROOM
    }

    /// Milliseconds by which a server's clock is ahead of ours: leases are measured by the servers' clock, so that those
    /// of the machines that want them need not agree.
    pub async fn clock_ahead_ms(&self, stream: &str) -> Result<i64, QueueError> {
        #[derive(Deserialize)]
        struct Answer {
            ts: Option<String>,
        }
        let asked = clock::wall_ms();
        let answer: Answer = self.jetstream.request(format!("STREAM.INFO.{stream}"), &()).await.map_err(unreachable)?;
        let here = i64::try_from(asked.midpoint(clock::wall_ms())).unwrap_or(i64::MAX);
        let there = answer.ts.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let there = there.ok_or_else(|| unreachable("the server does not tell its time"))?;
        Ok(there.as_millisecond() - here)
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is stored at this sequence.
    At(u64),
    /// The last message of its subject is another one than was thought.
    Overtaken,
    /// Its stream is full.
    NoRoom,
}

/// Publishes a message if the last one of its subject has the sequence `fence` (0: there is none), and waits until it is
/// stored. After an error nothing is known of it.
pub async fn publish(
    connection: &Connection,
    subject: String,
    fence: u64,
    head: String,
    payload: Bytes,
) -> Result<Published, QueueError> {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, head.as_str());
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, fence.to_string().as_str());
    let sent = connection.jetstream.publish_with_headers(subject, headers, payload).await.map_err(unreachable)?;
    match sent.await {
        Ok(stored) => Ok(Published::At(stored.sequence)),
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Published::Overtaken),
        Err(error) if is_full(&error) => Ok(Published::NoRoom),
        Err(error) => Err(unreachable(error)),
    }
}

/// A server says of many things that a message could not be stored.
fn is_full(error: &PublishError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
    source.is_some_and(|source| {
        source.error_code() == ErrorCode::STREAM_STORE_FAILED
            && ["maximum bytes exceeded", "maximum messages exceeded"]
                .iter()
                .any(|words| source.to_string().contains(words))
    })
}

async fn options(servers: &Servers) -> Result<ConnectOptions, NatsError> {
    let mut options = ConnectOptions::new()
        .name("millpond")
        .request_timeout(Some(CALL_TIME))
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let pause = Duration::from_millis(10) * u32::try_from(attempts.min(50)).unwrap_or(50);
            pause.min(RECONNECT_PAUSE_MAX)
        })
        .event_callback(|event| async move {
            match event {
                Event::Connected => tracing::info!("connected to NATS"),
                Event::Disconnected => tracing::warn!("the connection to NATS is lost; connecting again"),
                Event::ClientError(error) => tracing::warn!(%error, "the connection to NATS has failed"),
                other => tracing::debug!(%other, "NATS"),
            }
        });
    if let Some(file) = &servers.credentials {
        let told = |problem: std::io::Error| NatsError::File { file: file.clone(), problem: problem.to_string() };
        let text = tokio::fs::read_to_string(file).await.map_err(told)?;
        options = options.credentials(&text).map_err(told)?;
    }
    if let Some(file) = &servers.ca {
        // It would only be missed when a server is met that speaks TLS.
        std::fs::File::open(file)
            .map_err(|error| NatsError::File { file: file.clone(), problem: error.to_string() })?;
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    Ok(options)
}

fn judge_version(found: &str) -> Result<(), NatsError> {
    let mut numbers = found.split(['.', '-']).map(|part| part.parse::<u64>());
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if version < VERSION_MIN {
        return Err(NatsError::Version { found: found.to_owned() });
    }
    Ok(())
}

/// What did not come to an end, or came to a bad one.
pub fn unreachable(error: impl std::fmt::Display) -> QueueError {
    QueueError::Unreachable { problem: format!("NATS: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        for good in ["2.10.0", "2.10.25", "2.15.1", "3.0.0", "2.12.0-RC.1"] {
            assert!(judge_version(good).is_ok(), "{good}");
        }
        for bad in ["2.9.10", "1.4.1", "", "x.y"] {
            let words = judge_version(bad).expect_err("refused").to_string();
            assert!(words.contains(bad) && words.contains("2.10"), "{words}");
        }
    }
}
