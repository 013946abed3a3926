//! Counts requests and writes the access log: the same words as in `Cache-Status`.

mod access_log;
mod counts;

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

pub use access_log::{ACCESS_TARGET, Access};
pub use counts::{Counted, NO_RULE, Tally};

use crate::cache::{Cause, Store};
use crate::outcome::Reason;
use crate::rules::Rule;
use access_log::AccessLog;
use counts::{Tallies, TallyCollector};

pub struct Observer {
    tallies: Arc<Tallies>,
    purges: IntCounterVec,
    connections_refused: IntCounterVec,
    last_reload: IntGauge,
    access_log: Option<AccessLog>,
}

/// Why a connection was closed before a request was read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionRefused {
    /// Its client has as many as it may.
    TooMany,
    /// A balancer's, without a good PROXY head.
    ProxyProtocol,
}

/// What is read off the store whenever metrics are asked for.
struct Gauges {
    bytes: IntGaugeVec,
    budget: IntGauge,
    objects: IntGauge,
    evictions: IntCounterVec,
}

impl Observer {
    /// Registers all metrics of the proxy's front and store; `access_log`: whether every request gets a line.
    pub fn new(registry: &Registry, store: Arc<Store>, access_log: bool) -> Result<Observer, ObserverError> {
        let last_reload = IntGauge::new(
            "millpond_config_last_reload_success",
            "1 if the last reload was taken, 0 if it was refused",
        )?;
        last_reload.set(1);
        let purges = IntCounterVec::new(
            Opts::new("millpond_purge_total", "Purges, by what they named and how"),
            &["kind", "mode"],
        )?;
        let connections_refused = IntCounterVec::new(
            Opts::new("millpond_connections_refused_total", "Connections that were closed before a request, by reason"),
            &["reason"],
        )?;
        let dropped = IntCounter::new(
            "millpond_access_log_dropped_total",
            "Access lines left out because the log is read too slowly",
        )?;
        let tallies = Tallies::new();
        registry.register(Box::new(last_reload.clone()))?;
        registry.register(Box::new(purges.clone()))?;
        registry.register(Box::new(connections_refused.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        registry.register(Box::new(StoreCollector::new(store)?))?;
        registry.register(Box::new(TallyCollector::new(Arc::clone(&tallies))?))?;
        let access_log = access_log.then(|| AccessLog::start(dropped)).transpose()?;
        Ok(Observer { tallies, purges, connections_refused, last_reload, access_log })
    }

    /// Counts and logs one request.
    pub fn observe(&self, access: &Access<'_>) {
        self.tally(access.record.rule.as_ref()).count(access.record.counted(), access.took);
        self.log(access);
    }

    /// Logs one request that is counted elsewhere.
    pub fn log(&self, access: &Access<'_>) {
        if let Some(log) = &self.access_log {
            log.add(access);
        }
    }

    /// This thread's tally of a rule, to be written by this thread only.
    pub fn tally(&self, rule: Option<&Arc<Rule>>) -> Arc<Tally> {
        self.tallies.of(rule)
    }

    /// Whether every request gets a line in the access log.
    pub fn logs(&self) -> bool {
        self.access_log.is_some()
    }

    /// To be called when the front has stopped: returns once every access line is written.
    pub fn close(&self) {
        if let Some(log) = &self.access_log {
            log.close();
        }
    }

    /// Counts a connection that was closed before a request was read from it.
    pub fn connection_refused(&self, why: ConnectionRefused) {
        let reason = match why {
            ConnectionRefused::TooMany => Reason::ConnectionLimit.as_str(),
            ConnectionRefused::ProxyProtocol => "proxy-protocol",
        };
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    /// Notes whether a reload was taken.
    pub fn reloaded(&self, taken: bool) {
        self.last_reload.set(i64::from(taken));
    }

    /// Counts a purge.
    pub fn purged(&self, kind: &str, mode: &str) {
        self.purges.with_label_values(&[kind, mode]).inc();
    }
}

/// Why observing can't begin.
#[derive(Debug, thiserror::Error)]
pub enum ObserverError {
    #[error("a metric can't be registered: {0}")]
    Metric(#[from] prometheus::Error),
    #[error("the thread of the access log can't be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Reads the store's counts when metrics are scraped.
struct StoreCollector {
    store: Arc<Store>,
    gauges: Gauges,
}

impl StoreCollector {
    fn new(store: Arc<Store>) -> Result<StoreCollector, prometheus::Error> {
        let gauges = Gauges {
            bytes: IntGaugeVec::new(
                Opts::new("millpond_cache_bytes", "Bytes the cache takes, by what for; they sum to what is budgeted"),
                &["kind"],
            )?,
            budget: IntGauge::new("millpond_cache_budget_bytes", "Bytes the cache may take")?,
            objects: IntGauge::new("millpond_cache_objects", "Responses stored")?,
            evictions: IntCounterVec::new(
                Opts::new("millpond_evictions_total", "Responses that had to go"),
                &["cause"],
            )?,
        };
        Ok(StoreCollector { store, gauges })
    }
}

impl prometheus::core::Collector for StoreCollector {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        let Gauges { bytes, budget, objects, evictions } = &self.gauges;
        [bytes.desc(), budget.desc(), objects.desc(), evictions.desc(), self.store.evicted_ages().desc()].concat()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        let Gauges { bytes, budget, objects, evictions } = &self.gauges;
        let charged = self.store.charged();
        for (kind, count) in [
            ("body", charged.body),
            ("meta", charged.meta),
            ("index", charged.index),
            ("tags", charged.tags),
            ("fill", self.store.reserved_bytes()),
        ] {
            bytes.with_label_values(&[kind]).set(count as i64);
        }
        budget.set(self.store.limits().budget_bytes as i64);
        objects.set(self.store.objects() as i64);
        for cause in Cause::ALL {
            let evicted = evictions.with_label_values(&[cause.as_str()]);
            evicted.inc_by(self.store.evicted(cause).saturating_sub(evicted.get()));
        }
        let ages = self.store.evicted_ages().collect();
        [bytes.collect(), budget.collect(), objects.collect(), evictions.collect(), ages].concat()
    }
}
