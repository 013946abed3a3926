//! Unused connections to servers, each kept by the thread whose runtime it belongs to.
//!
//! A worker puts a connection onto its own shelf and takes it from there: no lock is contended, nothing wakes another
//! thread, and no task watches a connection. Those that the server has closed are found when they are taken, or by the
//! shelf's one reaper. Why not pingora's pool: `docs/decisions/0005-own-pool.md`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millpond_shared::clock;
use parking_lot::Mutex;
use thread_local::ThreadLocal;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::connection::Connection;
use super::endpoint::{Endpoint, Place};

/// How often a shelf is looked through for connections that were closed or are too old.
const REAP_PAUSE: Duration = Duration::from_secs(5);

/// What unused connections may cost.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections to one server that a worker keeps; one more closes the least recently used of them.
    per_server: usize,
    /// Connections to all servers that all workers keep; one more closes the least recently used of its worker.
    total: usize,
    /// How long an unused connection is kept, give or take [`REAP_PAUSE`].
    idle: Duration,
}

const LIMITS: Limits = Limits { per_server: 512, total: 1024, idle: Duration::from_secs(60) };

/// Connections to servers.
pub struct Pool {
    shelves: ThreadLocal<Arc<Mutex<Shelf>>>,
    /// Connections on all shelves.
    kept: Arc<AtomicUsize>,
    limits: Limits,
}

impl Pool {
    pub fn new() -> Pool {
        Pool::within(LIMITS)
    }

    fn within(limits: Limits) -> Pool {
        Pool { shelves: ThreadLocal::new(), kept: Arc::default(), limits }
    }

    /// A connection to `server`, and whether it was used before; `anew`: one that was not. The error is in words.
    pub(super) async fn connection(&self, server: &Endpoint, anew: bool) -> Result<(Connection, bool), String> {
        let kept = if anew { None } else { self.shelf().lock().take(server.place()) };
        match kept {
            Some(kept) => Ok((kept, true)),
            // Boxed, as other rare ways are: a future is as large as the largest of its ways, and each request has one.
            None => Ok((Box::pin(server.connect()).await?, false)),
        }
    }

    /// Keeps a connection whose last exchange is complete.
    pub(super) fn keep(&self, server: Place, connection: Connection) {
        let shelf = self.shelf();
        let mut open = shelf.lock();
        if open.reaper.as_ref().is_none_or(AbortHandle::is_finished) {
            open.now = clock::monotonic();
            open.reaper = Some(tokio::spawn(reap(Arc::downgrade(shelf))).abort_handle());
        }
        open.put(server, connection);
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

/// What one worker keeps.
struct Shelf {
    limits: Limits,
    kept: Arc<AtomicUsize>,
    /// The most recently used last.
    by_server: HashMap<Place, VecDeque<Unused>>,
    /// When the reaper was here last: exact enough to tell an age by, and costs an exchange no look at a clock.
    now: Instant,
    reaper: Option<AbortHandle>,
}

struct Unused {
    connection: Connection,
    since: Instant,
}

impl Shelf {
    fn new(limits: Limits, kept: Arc<AtomicUsize>) -> Shelf {
        Shelf { limits, kept, by_server: HashMap::new(), now: clock::monotonic(), reaper: None }
    }

    /// The connection that was used last, so that those a lull leaves over grow old.
    fn take(&mut self, server: Place) -> Option<Connection> {
        let kept = self.by_server.get_mut(&server)?;
        while let Some(mut unused) = kept.pop_back() {
            self.kept.fetch_sub(1, Ordering::Relaxed);
            if unused.connection.is_quiet() {
                return Some(unused.connection);
            }
        }
        None
    }

    fn put(&mut self, server: Place, connection: Connection) {
        let unused = Unused { connection, since: self.now };
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
        self.now = now;
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
mod tests;
