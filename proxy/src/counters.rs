//! What the gateway counts beside requests: origins, refreshes, compressions, waiters.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::semantics::coding::Coding;
use crate::upstreams::OriginError;

pub struct Counters {
    origin_requests: IntCounterVec,
    origin_duration: HistogramVec,
    origin_inflight: IntGaugeVec,
    origin_up: IntGaugeVec,
    refreshes: IntCounterVec,
    rejected: IntCounter,
    compressions: IntCounterVec,
    waiters: IntGauge,
}

/// What is counted of one origin, found by its labels once: finding costs more than counting.
#[derive(Debug)]
pub struct OriginCounters {
    failed: IntCounter,
    success: IntCounter,
    redirection: IntCounter,
    client_error: IntCounter,
    server_error: IntCounter,
    duration: Histogram,
    inflight: IntGauge,
    up: IntGauge,
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
            origin_up: IntGaugeVec::new(
                Opts::new("millpond_origin_up", "0 if the last request found no server of the origin, else 1"),
                &["origin"],
            )?,
            refreshes: IntCounterVec::new(
                Opts::new("millpond_refresh_total", "Refreshes behind a stale answer"),
                &["outcome"],
            )?,
            rejected: IntCounter::new("millpond_admission_rejected_total", "Responses too large to be stored")?,
            compressions: IntCounterVec::new(
                Opts::new("millpond_compressions_total", "Stored responses put into a coding, by whether that is kept"),
                &["coding", "outcome"],
            )?,
            waiters: IntGauge::new("millpond_collapse_waiters", "Requests that wait for another's fetch")?,
        };
        registry.register(Box::new(counters.origin_requests.clone()))?;
        registry.register(Box::new(counters.origin_duration.clone()))?;
        registry.register(Box::new(counters.origin_inflight.clone()))?;
        registry.register(Box::new(counters.origin_up.clone()))?;
        registry.register(Box::new(counters.refreshes.clone()))?;
        registry.register(Box::new(counters.rejected.clone()))?;
        registry.register(Box::new(counters.compressions.clone()))?;
        registry.register(Box::new(counters.waiters.clone()))?;
        Ok(counters)
    }

    /// Those of one origin.
    pub fn of_origin(&self, origin: &str) -> OriginCounters {
        let requests = |outcome| self.origin_requests.with_label_values(&[origin, outcome]);
        let up = self.origin_up.with_label_values(&[origin]);
        up.set(1);
        OriginCounters {
            failed: requests("failed"),
            success: requests("2xx"),
            redirection: requests("3xx"),
            client_error: requests("4xx"),
            server_error: requests("5xx"),
            duration: self.origin_duration.with_label_values(&[origin]),
            inflight: self.origin_inflight.with_label_values(&[origin]),
            up,
        }
    }

    pub fn refreshed(&self, succeeded: bool) {
        self.refreshes.with_label_values(&[if succeeded { "refreshed" } else { "failed" }]).inc();
    }

    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// A form of a stored response was made.
    pub fn compressed(&self, coding: Coding, is_kept: bool) {
        let outcome = if is_kept { "kept" } else { "useless" };
        self.compressions.with_label_values(&[coding.token(), outcome]).inc();
    }

    pub fn waiting(&self) -> Counted {
        Counted::new(self.waiters.clone())
    }
}

impl OriginCounters {
    /// It is asked.
    pub fn asking(&self) -> Counted {
        Counted::new(self.inflight.clone())
    }

    /// It answered with this status, or not at all.
    pub fn answered(&self, answered: Result<u16, &OriginError>, took: Duration) {
        let up = i64::from(!matches!(answered, Err(OriginError::Unreachable(_) | OriginError::NoShard(_))));
        // Seldom changes: all workers only read it.
        if self.up.get() != up {
            self.up.set(up);
        }
        let outcome = match answered.ok().map(|status| status / 100) {
            None => &self.failed,
            Some(1 | 2) => &self.success,
            Some(3) => &self.redirection,
            Some(4) => &self.client_error,
            Some(_) => &self.server_error,
        };
        outcome.inc();
        self.duration.observe(took.as_secs_f64());
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
