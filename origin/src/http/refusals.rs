//! Counts what a server refused before any handler saw it.

use prometheus::{IntCounterVec, Opts, Registry};

/// `millpond_http_refused_total{role, reason}`.
#[derive(Clone, Debug)]
pub struct Refusals(IntCounterVec);

impl Refusals {
    /// `role`: whose socket it is, as in `ingest`.
    pub fn register(registry: &Registry, role: &str) -> Result<Refusals, prometheus::Error> {
        let options = Opts::new("millpond_http_refused_total", "Requests and connections refused by a role's server")
            .const_label("role", role);
        let counter = IntCounterVec::new(options, &["reason"])?;
        registry.register(Box::new(counter.clone()))?;
        Ok(Refusals(counter))
    }

    pub fn count(&self, reason: &'static str) {
        self.0.with_label_values(&[reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_roles_share_a_registry() {
        let registry = Registry::new();
        Refusals::register(&registry, "ingest").unwrap().count("malformed");
        Refusals::register(&registry, "queue").unwrap().count("malformed");
        assert!(Refusals::register(&registry, "queue").is_err());
        let families = registry.gather();
        assert_eq!((families.len(), families[0].get_metric().len()), (1, 2));
    }
}
