//! What the gateway counts beside requests: origins, refreshes, waiters.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

pub struct Counters {
    origin_requests: IntCounterVec,
    origin_duration: HistogramVec,
    origin_inflight: IntGaugeVec,
    refreshes: IntCounterVec,
    rejected: IntCounter,
    waiters: IntGauge,
}

/// A gauge that is one higher for as long as this lives.
pub struct Counted(IntGauge);

impl Counters {
    /// Registers them.
    pub fn new(registry: &Registry) -> Result<Counters, prometheus::Error> {
        let duration = HistogramOpts::new("millpond_origin_duration_seconds", "Time to the head of an origin's answer")
            .buckets(vec![0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0]);
        let counters = Counters {
            origin_requests: IntCounterVec::new(
                Opts::new("millpond_origin_requests_total", "Requests to origins, by class of status, or `failed`"),
                &["origin", "outcome"],
            )?,
            origin_duration: HistogramVec::new(duration, &["origin"])?,
            origin_inflight: IntGaugeVec::new(
                Opts::new("millpond_origin_inflight", "Requests whose head an origin has not answered yet"),
                &["origin"],
            )?,
            refreshes: IntCounterVec::new(
                Opts::new("millpond_refresh_total", "Refreshes behind a stale answer"),
                &["outcome"],
            )?,
            rejected: IntCounter::new("millpond_admission_rejected_total", "Responses too large to be stored")?,
            waiters: IntGauge::new("millpond_collapse_waiters", "Requests that wait for another's fetch")?,
        };
        registry.register(Box::new(counters.origin_requests.clone()))?;
        registry.register(Box::new(counters.origin_duration.clone()))?;
        registry.register(Box::new(counters.origin_inflight.clone()))?;
        registry.register(Box::new(counters.refreshes.clone()))?;
        registry.register(Box::new(counters.rejected.clone()))?;
        registry.register(Box::new(counters.waiters.clone()))?;
        Ok(counters)
    }

    /// An origin is asked.
    pub fn asking(&self, origin: &str) -> Counted {
        Counted::new(self.origin_inflight.with_label_values(&[origin]))
    }

    /// It answered with this status, or not at all.
    pub fn answered(&self, origin: &str, status: Option<u16>, took: Duration) {
        let outcome = match status.map(|status| status / 100) {
            None => "failed",
            Some(1 | 2) => "2xx",
            Some(3) => "3xx",
            Some(4) => "4xx",
            Some(_) => "5xx",
        };
        self.origin_requests.with_label_values(&[origin, outcome]).inc();
        self.origin_duration.with_label_values(&[origin]).observe(took.as_secs_f64());
    }

    pub fn refreshed(&self, succeeded: bool) {
        self.refreshes.with_label_values(&[if succeeded { "refreshed" } else { "failed" }]).inc();
    }

    pub fn rejected(&self) {
        self.rejected.inc();
    }

    pub fn waiting(&self) -> Counted {
        Counted::new(self.waiters.clone())
    }
}

impl Counted {
    fn new(gauge: IntGauge) -> Counted {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
