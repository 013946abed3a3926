//! Unused connections to servers, each kept by the thread whose runtime it belongs to.
//!
//! A worker puts a connection onto its own shelf and takes it from there: no lock is contended, nothing wakes another
//! thread, and no task watches a connection. Those that the server has closed are found when they are taken, or by the
//! shelf's one reaper. Why not pingora's pool: `docs/decisions/0004-own-pool.md`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millpond_shared::clock;
use parking_lot::Mutex;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use thread_local::ThreadLocal;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::connection::Connection;

/// Longest that connecting may take; then the server counts as dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a shelf is looked through for connections that were closed or are too old.
const REAP_PAUSE: Duration = Duration::from_secs(5);

/// What unused connections may cost.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections to one server that a worker keeps; one more closes the least recently used of them.
    per_server: usize,
    /// Connections to all servers that all workers keep; one more closes the least recently used of its worker.
    total: usize,
    /// How long an unused connection is kept.
    idle: Duration,
}

const LIMITS: Limits = Limits { per_server: 512, total: 1024, idle: Duration::from_secs(60) };

/// Connections to servers.
pub struct Pool {
    connector: TransportConnector,
    shelves: ThreadLocal<Arc<Mutex<Shelf>>>,
    /// Connections on all shelves.
    kept: Arc<AtomicUsize>,
    limits: Limits,
}

/// A server as pingora wants it, prepared once.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub address: SocketAddr,
    peer: HttpPeer,
    /// What its connections are found by.
    pub id: ServerId,
}

/// Equal for what may share connections: the same address, asked in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ServerId(u64);

impl Address {
    pub fn new(address: SocketAddr) -> Address {
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        Address { address, id: ServerId(peer.reuse_hash()), peer }
    }
}

impl Pool {
    pub fn new() -> Pool {
        Pool::within(LIMITS)
    }

    fn within(limits: Limits) -> Pool {
        // Of pingora's connector, only connecting is used.
        let connector = TransportConnector::new(Some(ConnectorOptions::new(1)));
        Pool { connector, shelves: ThreadLocal::new(), kept: Arc::default(), limits }
    }

    /// A connection to `server`, and whether it was used before; `anew`: one that was not. The error is in words.
    pub(super) async fn connection(&self, server: &Address, anew: bool) -> Result<(Connection, bool), String> {
        let kept = if anew { None } else { self.shelf().lock().take(server.id, clock::monotonic()) };
        if let Some(kept) = kept {
            return Ok((kept, true));
        }
        // Boxed, as other rare ways are: a future is as large as the largest of its ways, and each request has one.
        let connected = Box::pin(self.connector.new_stream(&server.peer)).await;
        Ok((Connection::new(connected.map_err(|error| in_words(server.address, &error))?), false))
    }

    /// Keeps a connection whose last exchange is complete.
    pub(super) fn keep(&self, server: ServerId, connection: Connection) {
        let shelf = self.shelf();
        let mut open = shelf.lock();
        open.put(server, connection, clock::monotonic());
        if open.reaper.as_ref().is_none_or(AbortHandle::is_finished) {
            open.reaper = Some(tokio::spawn(reap(Arc::downgrade(shelf))).abort_handle());
        }
    }

    fn shelf(&self) -> &Arc<Mutex<Shelf>> {
        self.shelves.get_or(|| Arc::new(Mutex::new(Shelf::new(self.limits, Arc::clone(&self.kept)))))
    }
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::new()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

fn in_words(address: SocketAddr, error: &pingora_core::Error) -> String {
    let cause = error.root_cause().to_string();
    format!("{address}: {}", if cause.is_empty() { error.to_string() } else { cause })
}

/// What one worker keeps.
struct Shelf {
    limits: Limits,
    kept: Arc<AtomicUsize>,
    /// The most recently used last.
    by_server: HashMap<ServerId, VecDeque<Unused>>,
    reaper: Option<AbortHandle>,
}

struct Unused {
    connection: Connection,
    since: Instant,
}

impl Shelf {
    fn new(limits: Limits, kept: Arc<AtomicUsize>) -> Shelf {
        Shelf { limits, kept, by_server: HashMap::new(), reaper: None }
    }

    /// The connection that was used last, so that those a lull leaves over grow old.
    fn take(&mut self, server: ServerId, now: Instant) -> Option<Connection> {
        let kept = self.by_server.get_mut(&server)?;
        while let Some(mut unused) = kept.pop_back() {
            self.kept.fetch_sub(1, Ordering::Relaxed);
            if now.saturating_duration_since(unused.since) < self.limits.idle && unused.connection.is_quiet() {
                return Some(unused.connection);
            }
        }
        None
    }

    fn put(&mut self, server: ServerId, connection: Connection, now: Instant) {
        let unused = Unused { connection, since: now };
        let full = self.kept.fetch_add(1, Ordering::Relaxed) >= self.limits.total;
        if full && !self.close_oldest() {
            self.kept.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let kept = self.by_server.entry(server).or_default();
        kept.push_back(unused);
        if kept.len() > self.limits.per_server {
            kept.pop_front();
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Closes the least recently used connection; `false`: there is none.
    fn close_oldest(&mut self) -> bool {
        let oldest = self.by_server.values_mut().min_by_key(|kept| {
            let since = kept.front().map(|unused| unused.since);
            (since.is_none(), since)
        });
        let closed = oldest.and_then(VecDeque::pop_front).is_some();
        if closed {
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
        closed
    }

    /// Closes what is too old, and what the server has closed.
    fn sweep(&mut self, now: Instant) {
        let (idle, mut closed) = (self.limits.idle, 0);
        self.by_server.retain(|_, kept| {
            let before = kept.len();
            kept.retain_mut(|unused| {
                now.saturating_duration_since(unused.since) < idle && unused.connection.is_quiet()
            });
            closed += before - kept.len();
            !kept.is_empty()
        });
        self.kept.fetch_sub(closed, Ordering::Relaxed);
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let left = self.by_server.values().map(VecDeque::len).sum();
        self.kept.fetch_sub(left, Ordering::Relaxed);
    }
}

/// Looks a shelf through from time to time, until there is nothing on it.
async fn reap(shelf: Weak<Mutex<Shelf>>) {
    loop {
        sleep(REAP_PAUSE).await;
        let Some(shelf) = shelf.upgrade() else { return };
        let mut shelf = shelf.lock();
        shelf.sweep(clock::monotonic());
        if shelf.by_server.is_empty() {
            // The next connection that is put here starts another.
            shelf.reaper = None;
            return;
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
