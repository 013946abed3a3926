//! Counts requests and writes the access log: the same words as in `Cache-Status`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millpond_shared::http1::RequestHead;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::cache::{Cause, Store};
use crate::outcome::Outcome;
use crate::record::Record;

/// Name of the log target of access lines.
pub const ACCESS_TARGET: &str = "millpond::access";

/// One request, for the log.
pub struct Access<'a> {
    /// `None`: the head could not be read.
    pub head: Option<&'a RequestHead>,
    pub peer: Option<SocketAddr>,
    pub record: &'a Record,
    pub took: Duration,
}

pub struct Observer {
    requests: IntCounterVec,
    bytes: IntCounterVec,
    duration: HistogramVec,
    misses: IntCounterVec,
    purges: IntCounterVec,
    last_reload: IntGauge,
    access_log: bool,
}

/// What is read off the store whenever metrics are asked for.
struct Gauges {
    bytes: IntGaugeVec,
    budget: IntGauge,
    objects: IntGauge,
    evictions: IntCounterVec,
}

impl Observer {
    /// Registers all metrics of the proxy.
    pub fn new(registry: &Registry, store: Arc<Store>, access_log: bool) -> Result<Observer, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let duration = HistogramVec::new(
            HistogramOpts::new("millpond_request_duration_seconds", "Time from head to last byte, by rule and outcome")
                .buckets(vec![0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0]),
            &["rule", "outcome"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        let last_reload = IntGauge::new(
            "millpond_config_last_reload_success",
            "1 if the last reload was taken, 0 if it was refused",
        )?;
        last_reload.set(1);
        registry.register(Box::new(last_reload.clone()))?;
        registry.register(Box::new(StoreCollector::new(store)?))?;
        Ok(Observer {
            requests: counter(
                "millpond_requests_total",
                "Requests, by rule, outcome and class of status; the outcomes sum to all requests",
                &["rule", "outcome", "code_class"],
            )?,
            bytes: counter(
                "millpond_response_bytes_total",
                "Bytes sent to clients, heads included",
                &["rule", "outcome"],
            )?,
            duration,
            misses: counter("millpond_miss_total", "Requests that were no hit, by reason", &["rule", "reason"])?,
            purges: counter("millpond_purge_total", "Purges, by what they named and how", &["kind", "mode"])?,
            last_reload,
            access_log,
        })
    }

    pub fn observe(&self, access: &Access<'_>) {
        let record = access.record;
        let (rule, outcome) = (record.rule_name(), record.outcome.as_str());
        self.requests.with_label_values(&[rule, outcome, code_class(record.status.as_u16())]).inc();
        self.bytes.with_label_values(&[rule, outcome]).inc_by(record.bytes);
        self.duration.with_label_values(&[rule, outcome]).observe(access.took.as_secs_f64());
        if let Some(reason) = record.reason.filter(|_| record.outcome != Outcome::Hit) {
            self.misses.with_label_values(&[rule, reason.as_str()]).inc();
        }
        if self.access_log {
            log(access);
        }
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

fn log(access: &Access<'_>) {
    let record = access.record;
    let head = access.head;
    tracing::info!(
        target: ACCESS_TARGET,
        client = access.peer.map(|peer| peer.to_string()),
        method = head.map(|head| head.method.as_str()),
        host = head.map(|head| head.authority.as_str()),
        // Not `target`, which is what the log calls the module a line comes from.
        path = head.map(|head| head.target.path_and_query()),
        status = record.status.as_u16(),
        rule = record.rule_name(),
        outcome = record.outcome.as_str(),
        reason = record.reason.map(|reason| reason.as_str()),
        bytes = record.bytes,
        microseconds = u64::try_from(access.took.as_micros()).unwrap_or(u64::MAX),
        broken_off = record.broken_off.then_some(true),
    );
}

fn code_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
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
