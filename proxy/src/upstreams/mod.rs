//! Origins: who is asked for what the cache does not have.
//!
//! [`Upstreams::ask`] sends a request to the origin of a rule, over a socket or by a call, and gives back the head of
//! the answer with its body still to be read. `servers` chooses among the servers of an existing API, `shards` finds
//! the shard that owns a document, `exchange` is one HTTP/1.1 request and response on a pooled connection.

mod answer;
mod exchange;
mod servers;
mod shards;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millpond_shared::http1::Fields;
use millpond_shared::version::Position;
use millpond_shared::wire;

pub use answer::{Answer, Body, Outgoing, Payload, Ready};
pub use exchange::{Inbound, InboundError, Pool};
pub use servers::ServerList;
pub use shards::Shards;

use crate::outcome::Reason;

/// Why an origin gave no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OriginError {
    #[error("no server of the origin can be reached: {0}")]
    Unreachable(String),
    #[error("the origin did not answer in time")]
    Timeout,
    #[error("the origin closed the connection without an answer")]
    Closed,
    #[error("the origin's answer is malformed: {0}")]
    Malformed(&'static str),
    #[error("the origin answered {0}")]
    Failed(http::StatusCode),
    #[error("the origin's answer ended before its body did")]
    Truncated,
    #[error("the request body ended early, or is malformed")]
    RequestBody,
    #[error("the request body is larger than 64 MiB, the most that goes to a role of this process")]
    RequestTooLarge,
    #[error("the request target holds a byte that must be percent-encoded")]
    RequestTarget,
    #[error("no address is known for shard {0}: add it to [shard_map]")]
    NoShard(u16),
}

impl OriginError {
    pub fn reason(&self) -> Reason {
        match self {
            OriginError::Unreachable(_) | OriginError::NoShard(_) => Reason::NoOrigin,
            OriginError::Timeout => Reason::OriginTimeout,
            OriginError::Truncated => Reason::OriginTruncated,
            OriginError::Closed | OriginError::Malformed(_) | OriginError::Failed(_) => Reason::OriginError,
            OriginError::RequestBody | OriginError::RequestTooLarge | OriginError::RequestTarget => Reason::BadRequest,
        }
    }

    /// Whether there was no contact with the origin as far as can be told: the cache is disconnected (RFC 9111 §2).
    pub fn is_disconnected(&self) -> bool {
        matches!(
            self,
            OriginError::Unreachable(_) | OriginError::NoShard(_) | OriginError::Closed | OriginError::Timeout
        )
    }
}

/// Where the requests of a rule go.
pub enum Upstream {
    /// Servers of an existing API.
    Servers(ServerList),
    /// The shard servers, in this process or elsewhere.
    Shards(Shards),
    /// Another role of this process.
    Role(Arc<dyn wire::Origin>),
}

/// All origins, by the names that rules use.
pub struct Upstreams {
    pool: Arc<Pool>,
    by_name: BTreeMap<String, Upstream>,
}

impl Upstreams {
    pub fn new(by_name: BTreeMap<String, Upstream>) -> Upstreams {
        Upstreams { pool: Arc::new(Pool::new()), by_name }
    }

    /// Keeps the connections of an earlier set of origins.
    pub fn with_pool_of(by_name: BTreeMap<String, Upstream>, earlier: &Upstreams) -> Upstreams {
        Upstreams { pool: Arc::clone(&earlier.pool), by_name }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The shards behind `origin`, if that is what it is.
    pub fn shards(&self, origin: &str) -> Option<&Shards> {
        match self.by_name.get(origin) {
            Some(Upstream::Shards(shards)) => Some(shards),
            _ => None,
        }
    }

    /// Sends the request; `retry`: a safe request may be sent again when a reused connection turns out to be closed.
    pub async fn ask(
        &self,
        origin: &str,
        outgoing: &Outgoing,
        payload: Payload<'_>,
        least: Option<Position>,
        retry: bool,
    ) -> Result<Answer, OriginError> {
        match self.by_name.get(origin) {
            Some(Upstream::Servers(servers)) => servers.ask(&self.pool, outgoing, payload, retry).await,
            Some(Upstream::Shards(shards)) => shards.ask(&self.pool, outgoing, payload, least, retry).await,
            Some(Upstream::Role(role)) => ask_role(role.as_ref(), outgoing, payload).await,
            None => Err(OriginError::Unreachable(format!("origin `{origin}` is not there"))),
        }
    }
}

/// Asks a role of this process: the whole body in, the whole body out.
async fn ask_role(role: &dyn wire::Origin, outgoing: &Outgoing, payload: Payload<'_>) -> Result<Answer, OriginError> {
    let body = match payload {
        Payload::None => Bytes::new(),
        Payload::Stream { inbound, .. } => inbound.read_all(ROLE_BODY_MAX).await?,
    };
    let mut request = http::Request::new(body);
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = outgoing.target.parse().map_err(|_| OriginError::RequestTarget)?;
    for (name, value) in outgoing.fields.iter() {
        let name = http::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) {
            request.headers_mut().append(name, value);
        }
    }
    let response = role.answer(request).await;
    let (head, body) = response.into_parts();
    let pairs = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let fields: Fields = pairs.collect();
    Ok(Answer::whole(&outgoing.method, head.status, fields, body))
}

/// Largest request body that is handed to a role of this process, in bytes; the role's own limit may be lower. Beyond
/// it the connection is closed.
const ROLE_BODY_MAX: usize = 64 << 20;
