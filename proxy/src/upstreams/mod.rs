//! Origins: who is asked for what the cache does not have.
//!
//! [`Upstreams::ask`] sends a request to the origin of a rule, over a socket or by a call, and gives back the head of
//! the answer with its body still to be read. `servers` chooses among the servers of an existing API, `shards` finds
//! the shard that owns a document and `replicas` chooses who of those that hold it is asked, `endpoint` connects, with
//! TLS where that is asked for, `exchange` is one HTTP/1.1 request and response on a connection that `pool` keeps.
//! `outgoing` writes the head of the request, and `forwarded` the part of it that tells of the client.

mod answer;
mod buffers;
mod connection;
mod endpoint;
mod exchange;
mod forwarded;
mod outgoing;
mod pool;
mod replicas;
mod role;
mod servers;
mod shards;
mod timer;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use millpond_shared::clock;
use millpond_shared::wire;

pub use answer::{Answer, Body, Payload, Ready};
pub use endpoint::{Endpoint, Location, NoLocation, ServerName, server_name};
pub use exchange::{Inbound, InboundError};
pub use outgoing::{Conditions, Outgoing};
pub use pool::Pool;
pub use replicas::Replicas;
pub use servers::ServerList;
pub use shards::Shards;

use crate::counters::{Counters, OriginCounters};
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
    /// `retry_after`: for how many seconds it does not want to be asked.
    #[error("the origin answered {status}")]
    Failed { status: http::StatusCode, retry_after: Option<u64> },
    #[error("the origin's answer ended before its body did")]
    Truncated,
    #[error("the request body ended early, or is malformed")]
    RequestBody,
    #[error("the request body is larger than the limit")]
    RequestTooLarge,
    #[error("the request body stopped coming")]
    RequestTooSlow,
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
            OriginError::Closed | OriginError::Malformed(_) | OriginError::Failed { .. } => Reason::OriginError,
            OriginError::RequestBody
            | OriginError::RequestTooLarge
            | OriginError::RequestTooSlow
            | OriginError::RequestTarget => Reason::BadRequest,
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

/// One origin, and what is counted of it.
pub struct Origin {
    upstream: Upstream,
    counters: OnceLock<OriginCounters>,
}

/// All origins, by the names that rules use.
pub struct Upstreams {
    pool: Arc<Pool>,
    by_name: BTreeMap<String, Origin>,
}

impl Upstreams {
    pub fn new(by_name: BTreeMap<String, Upstream>) -> Upstreams {
        Upstreams::with_pool(by_name, Arc::new(Pool::new()))
    }

    /// Keeps the connections of an earlier set of origins.
    pub fn with_pool_of(by_name: BTreeMap<String, Upstream>, earlier: &Upstreams) -> Upstreams {
        Upstreams::with_pool(by_name, Arc::clone(&earlier.pool))
    }

    fn with_pool(by_name: BTreeMap<String, Upstream>, pool: Arc<Pool>) -> Upstreams {
        let origin = |upstream| Origin { upstream, counters: OnceLock::new() };
        let by_name = by_name.into_iter().map(|(name, upstream)| (name, origin(upstream))).collect();
        Upstreams { pool, by_name }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The shards behind `origin`, if that is what it is.
    pub fn shards(&self, origin: &str) -> Option<&Shards> {
        match self.by_name.get(origin).map(|origin| &origin.upstream) {
            Some(Upstream::Shards(shards)) => Some(shards),
            _ => None,
        }
    }

    /// Whether somebody may ask the origin though there is something stale to send: not while no server of it could be
    /// reached, but for one request at a time that looks whether one can be again.
    pub fn may_probe(&self, name: &str, now_ms: u64) -> bool {
        match self.by_name.get(name).map(|origin| &origin.upstream) {
            Some(Upstream::Servers(servers)) => servers.may_probe(now_ms),
            _ => true,
        }
    }

    /// Sends the request, and counts it; `retry`: a safe request may be sent again when a reused connection turns out
    /// to be closed.
    pub async fn ask(
        &self,
        name: &str,
        outgoing: &Outgoing<'_>,
        payload: Payload<'_>,
        retry: bool,
        counters: &Counters,
    ) -> Result<Answer, OriginError> {
        let Some(origin) = self.by_name.get(name) else {
            return Err(OriginError::Unreachable(format!("origin `{name}` is not there")));
        };
        let counters = origin.counters.get_or_init(|| counters.of_origin(name));
        let (_asking, began) = (counters.asking(), clock::monotonic());
        let answer = match &origin.upstream {
            Upstream::Servers(servers) => servers.ask(&self.pool, outgoing, payload, retry).await,
            Upstream::Shards(shards) => shards.ask(&self.pool, outgoing, payload, retry).await,
            Upstream::Role(role) => role::ask(role.as_ref(), outgoing, payload).await,
        };
        counters.answered(answer.as_ref().map(|answer| answer.head.status.as_u16()), began.elapsed());
        answer
    }
}
