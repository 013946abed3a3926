//! What a dispatcher tells of its work.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

#[derive(Clone)]
pub struct Metrics {
    pub dispatched: IntCounterVec,
    pub unrouted: IntCounterVec,
    pub held: IntGauge,
    pub stalls: IntCounterVec,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["queue"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let held = IntGauge::new("millpond_leases_held", "Event queues that this dispatcher works on")?;
        registry.register(Box::new(held.clone()))?;
        let stalls = Opts::new(
            "millpond_dispatch_stalls_total",
            "Rounds that could not be filed: a shard queue was full, or it failed",
        );
        let stalls = IntCounterVec::new(stalls, &["queue", "reason"])?;
        registry.register(Box::new(stalls.clone()))?;
        Ok(Metrics {
            dispatched: counter("millpond_dispatched_events_total", "Events of an event queue that were filed")?,
            unrouted: counter("millpond_unrouted_events_total", "Events filed that concern no projection")?,
            held,
            stalls,
        })
    }
}
