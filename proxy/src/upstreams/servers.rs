//! The servers of an existing API: round robin, a dead one skipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use millpond_shared::clock;

use super::OriginError;
use super::answer::{Answer, Payload};
use super::endpoint::Endpoint;
use super::exchange::{Failure, is_idempotent};
use super::outgoing::Outgoing;
use super::pool::Pool;

/// How long a server is skipped after its first failed connection, in milliseconds; doubled with each further one.
const SKIP_MS: u64 = 1_000;
/// Longest that a server is skipped, in milliseconds.
const SKIP_MAX_MS: u64 = 30_000;
/// How long the one who looks whether a dead server has come back keeps others from doing so, in milliseconds. Longer
/// than connecting may take.
const PROBE_MS: u64 = 4_000;

/// Servers that answer the same.
#[derive(Debug)]
pub struct ServerList {
    servers: Vec<Server>,
    next: AtomicUsize,
}

/// One server, and whether it is skipped at the moment.
#[derive(Debug)]
pub(super) struct Server {
    endpoint: Endpoint,
    failures: AtomicU32,
    /// Milliseconds since the epoch before which it is skipped.
    skipped_until: AtomicU64,
    /// The same, before which nobody else looks whether it has come back.
    probed_until: AtomicU64,
}

impl ServerList {
    pub fn new(servers: impl IntoIterator<Item = impl Into<Endpoint>>) -> ServerList {
        let servers = servers.into_iter().map(|endpoint| Server::new(endpoint.into())).collect();
        ServerList { servers, next: AtomicUsize::new(0) }
    }

    /// Servers in the order they should be tried: live ones in turn, then the dead, which may have come back.
    fn order(&self, now: impl Fn() -> u64) -> Vec<&Server> {
        let start = self.next.fetch_add(1, Ordering::Relaxed) % self.servers.len().max(1);
        let (before, from) = self.servers.split_at(start.min(self.servers.len()));
        let turn = || from.iter().chain(before);
        let dead = |server: &&Server| server.is_skipped(&now);
        turn().filter(|server| !dead(server)).chain(turn().filter(dead)).collect()
    }

    /// Whether somebody with something else to send may ask: if any server is alive, or it is this one's turn to look
    /// whether a dead one has come back.
    pub fn may_probe(&self, now: u64) -> bool {
        self.servers.iter().any(Server::is_alive) || self.servers.iter().any(|server| server.claim_probe(now))
    }

    pub(super) async fn ask(
        &self,
        pool: &Arc<Pool>,
        outgoing: &Outgoing<'_>,
        mut payload: Payload<'_>,
        retry: bool,
    ) -> Result<Answer, OriginError> {
        let mut unreachable = String::from("it has no servers");
        for server in self.order(clock::wall_ms) {
            match server.exchange(pool, outgoing, &mut payload, retry).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::NotConnected(words)) => unreachable = words,
                Err(Failure::ReusedWasClosed) => return Err(OriginError::Closed),
                Err(Failure::Other(error)) => return Err(error),
            }
        }
        Err(OriginError::Unreachable(unreachable))
    }
}

impl Server {
    pub(super) fn new(endpoint: Endpoint) -> Server {
        let (skipped_until, probed_until) = (AtomicU64::new(0), AtomicU64::new(0));
        Server { endpoint, failures: AtomicU32::new(0), skipped_until, probed_until }
    }

    /// Sends the request, on a kept connection or a new one; one that can't be reached is skipped for a while.
    pub(super) async fn exchange(
        &self,
        pool: &Arc<Pool>,
        outgoing: &Outgoing<'_>,
        payload: &mut Payload<'_>,
        retry: bool,
    ) -> Result<Answer, Failure> {
        let mut anew = false;
        let answer = loop {
            match pool.exchange(&self.endpoint, outgoing, payload, anew).await {
                // Another kept connection may be closed as well.
                Err(Failure::ReusedWasClosed) if !anew && retry && is_idempotent(outgoing.method()) => anew = true,
                answer => break answer,
            }
        };
        match &answer {
            Ok(_) => self.lived(),
            Err(Failure::NotConnected(_)) => self.died(clock::wall_ms()),
            Err(_) => {}
        }
        answer
    }

    /// `now`: asked for only if it ever failed.
    pub(super) fn is_skipped(&self, now: impl Fn() -> u64) -> bool {
        match self.skipped_until.load(Ordering::Relaxed) {
            0 => false,
            until => until > now(),
        }
    }

    fn is_alive(&self) -> bool {
        self.failures.load(Ordering::Relaxed) == 0
    }

    /// `true` for one caller, once the time is over for which it is skipped.
    fn claim_probe(&self, now: u64) -> bool {
        let probed = self.probed_until.load(Ordering::Relaxed);
        let is_due = self.skipped_until.load(Ordering::Relaxed).max(probed) <= now;
        let (mine, relaxed) = (now + PROBE_MS, Ordering::Relaxed);
        is_due && self.probed_until.compare_exchange(probed, mine, relaxed, relaxed).is_ok()
    }

    fn lived(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.skipped_until.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn died(&self, now: u64) {
        // Of requests that fail together only the first counts.
        if self.skipped_until.load(Ordering::Relaxed) > now {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(8);
        self.skipped_until.store(now + (SKIP_MS << failures).min(SKIP_MAX_MS), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn in_turn_and_the_dead_last() {
        let addresses: Vec<SocketAddr> = (1..4).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let list = ServerList::new(addresses);
        let first = |now| list.order(|| now).iter().map(|server| server.endpoint.address().port()).collect::<Vec<_>>();
        assert_eq!([first(0), first(0), first(0)], [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]]);
        list.servers[0].died(100);
        assert_eq!(first(100), [2, 3, 1], "its turn, but it is dead");
        assert_eq!(first(100), [2, 3, 1]);
        assert_eq!(first(100), [3, 2, 1]);
        assert_eq!(first(100 + SKIP_MS), [1, 2, 3], "tried again after a while");
    }

    #[test]
    fn one_at_a_time_looks_whether_dead_servers_have_come_back() {
        let list = ServerList::new((1..3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
        assert!(list.may_probe(0) && list.may_probe(0));
        list.servers[0].died(100);
        assert!(list.may_probe(100), "the other one is alive");
        list.servers[1].died(100);
        let claimed = |now| (0..3).filter(|_| list.may_probe(now)).count();
        assert_eq!([claimed(100), claimed(100 + SKIP_MS - 1), claimed(100 + SKIP_MS)], [0, 0, 2]);
        assert_eq!([claimed(99 + SKIP_MS + PROBE_MS), claimed(100 + SKIP_MS + PROBE_MS)], [0, 2]);
        list.servers[1].lived();
        assert_eq!(claimed(0), 3);
    }

    #[test]
    fn a_server_that_stays_dead_is_tried_ever_more_rarely() {
        let server = Server::new(SocketAddr::from(([127, 0, 0, 1], 1)).into());
        let skips: Vec<u64> = (0..8)
            .map(|_| {
                let now = server.skipped_until.load(Ordering::Relaxed);
                server.died(now);
                server.died(now);
                server.skipped_until.load(Ordering::Relaxed) - now
            })
            .collect();
        assert_eq!(skips, [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        server.lived();
        assert_eq!(server.skipped_until.load(Ordering::Relaxed), 0);
    }
}
