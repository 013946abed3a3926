//! The limit of one rule.

use std::sync::Arc;
use std::time::Duration;

use super::client::ClientId;
use super::rate::Rate;
use super::table::{CLIENTS_MAX, Table};
use crate::outcome::Reason;

/// What a rule lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rate: Option<Rate>,
    /// Requests that are answered at a time.
    pub concurrent: Option<u32>,
    pub per: Per,
    /// Whether what the cache answers counts as well.
    pub hits: bool,
}

/// Who shares a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Each client has its own.
    #[default]
    Client,
    /// All requests of the rule have one together.
    Rule,
}

/// A limit, and what was used of it.
#[derive(Debug)]
pub struct Limiter {
    limit: Limit,
    table: Table,
}

/// Which limit was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// There will be room for the next request after this time.
    Rate(Duration),
    Concurrent,
}

/// Seconds after which it may be worth to ask again, where that can't be told.
const RETRY_AFTER_SECS: u64 = 1;

impl Over {
    pub fn reason(self) -> Reason {
        match self {
            Over::Rate(_) => Reason::RateLimit,
            Over::Concurrent => Reason::ConcurrencyLimit,
        }
    }

    /// The value of `Retry-After`: whole seconds, rounded up (RFC 9110 §10.2.3).
    pub fn retry_after_secs(self) -> u64 {
        match self {
            Over::Rate(wait) => u64::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX),
            Over::Concurrent => RETRY_AFTER_SECS,
        }
    }
}

/// A request is being answered; counted until this is dropped.
#[derive(Debug)]
pub struct Permit {
    /// `None`: the limit counts nothing that runs.
    running: Option<(Arc<Limiter>, ClientId)>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((limiter, client)) = self.running.take() {
            limiter.table.ended(client);
        }
    }
}

impl Limiter {
    pub fn new(limit: Limit) -> Limiter {
        let clients = if limit.per == Per::Client { CLIENTS_MAX } else { 1 };
        Limiter { limit, table: Table::for_clients(clients) }
    }

    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Lets a request in at `now` (nanoseconds of a clock that does not go back), or says what it exceeds. What is
    /// refused is not counted.
    pub fn enter(self: &Arc<Self>, client: ClientId, now: u64) -> Result<Permit, Over> {
        let Limit { rate, concurrent, .. } = &self.limit;
        let client = self.whose(client);
        self.table.with(client, now, |used| {
            if concurrent.is_some_and(|most| used.running >= most) {
                return Err(Over::Concurrent);
            }
            if let Some(rate) = rate {
                used.bucket.take(rate, now).map_err(|wait| Over::Rate(Duration::from_nanos(wait)))?;
            }
            used.running += u32::from(concurrent.is_some());
            Ok(())
        })?;
        Ok(Permit { running: concurrent.map(|_| (Arc::clone(self), client)) })
    }

    /// Whether a hit is let through at `now`. It is sent at once, so it never counts as running.
    pub fn admits_hit(&self, client: ClientId, now: u64) -> bool {
        let Some(rate) = self.limit.rate.as_ref().filter(|_| self.limit.hits) else { return true };
        self.table.with(self.whose(client), now, |used| used.bucket.take(rate, now).is_ok())
    }

    fn whose(&self, client: ClientId) -> ClientId {
        if self.limit.per == Per::Rule { ClientId::EVERYBODY } else { client }
    }

    /// For the client: what it was held back by.
    pub fn words(&self, over: Over) -> String {
        let whose = match self.limit.per {
            Per::Client => "from one client",
            Per::Rule => "of all clients together",
        };
        match (over, &self.limit) {
            (Over::Rate(_), Limit { rate: Some(rate), .. }) => {
                format!("there are more requests {whose} than {rate} with a burst of {}", rate.burst())
            }
            (_, Limit { concurrent, .. }) => {
                format!("more than {} requests {whose} are being answered", concurrent.unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limiter(rate: Option<&str>, concurrent: Option<u32>, per: Per) -> Arc<Limiter> {
        let rate = rate.map(|text| text.parse().expect("a rate"));
        Arc::new(Limiter::new(Limit { rate, concurrent, per, hits: false }))
    }

    fn client(address: &str) -> ClientId {
        ClientId::of(address.parse().ok())
    }

    #[test]
    fn running_requests_are_counted_until_they_end() {
        let limiter = limiter(None, Some(2), Per::Client);
        let (one, other) = (client("10.0.0.1"), client("10.0.0.2"));
        let first = limiter.enter(one, 0).expect("room");
        let _second = limiter.enter(one, 0).expect("room");
        assert_eq!(limiter.enter(one, 0).expect_err("full"), Over::Concurrent);
        let _others = limiter.enter(other, 0).expect("it has its own");
        drop(first);
        limiter.enter(one, 0).expect("room again");
    }

    #[test]
    fn what_is_refused_for_one_limit_does_not_count_for_the_other() {
        let limiter = limiter(Some("1/s"), Some(1), Per::Rule);
        let running = limiter.enter(client("10.0.0.1"), SECOND).expect("the first");
        let over = limiter.enter(client("10.0.0.2"), 2 * SECOND).expect_err("one is running");
        assert_eq!((over, over.retry_after_secs()), (Over::Concurrent, 1));
        drop(running);
        drop(limiter.enter(client("10.0.0.2"), 2 * SECOND).expect("nothing was taken from the bucket"));
        let over = limiter.enter(client("10.0.0.2"), 2 * SECOND + 1).expect_err("the bucket is empty");
        assert_eq!((over, over.retry_after_secs()), (Over::Rate(Duration::from_nanos(SECOND - 1)), 1));
        let over = limiter.enter(client("10.0.0.2"), SECOND / 2).expect_err("the bucket is empty");
        assert_eq!(over.retry_after_secs(), 3, "rounded up");
        limiter.enter(client("10.0.0.2"), 3 * SECOND).expect("none was counted as running");
    }

    #[test]
    fn hits_count_where_the_limit_says_so() {
        for hits in [false, true] {
            let rate = "1/h".parse().ok();
            let limiter = Limiter::new(Limit { rate, concurrent: None, per: Per::Client, hits });
            let admitted = |_| limiter.admits_hit(client("10.0.0.1"), SECOND);
            assert_eq!((0..3).map(admitted).collect::<Vec<_>>(), [true, !hits, !hits]);
        }
    }

    #[test]
    fn a_client_is_told_which_limit_it_was() {
        let limiter = limiter(Some("5/m"), Some(3), Per::Rule);
        let rate = limiter.words(Over::Rate(Duration::ZERO));
        assert_eq!(rate, "there are more requests of all clients together than 5/m with a burst of 1");
        let limiter = self::limiter(None, Some(3), Per::Client);
        assert_eq!(limiter.words(Over::Concurrent), "more than 3 requests from one client are being answered");
    }
}
