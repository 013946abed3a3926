//! How long a rule's responses are fresh, may be served stale, and are waited for.

use std::time::Duration;

use millpond_shared::config::{At, Seconds};

use super::TIMEOUT;
use super::judge::{Judge, ROLE_ORIGINS, Span};
use super::written::WrittenTtl;
use crate::semantics::failure::Failures;
use crate::semantics::policy::{StaleWindows, Ttl};

/// Longest `timeout`.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

impl Judge<'_> {
    pub(super) fn ttl(&mut self) -> Ttl {
        let Some(ttl) = &self.at.value.ttl else { return Ttl::Origin };
        match &ttl.value {
            WrittenTtl::Fixed(seconds) => Ttl::Fixed(self.whole_seconds("ttl", ttl.span.clone(), *seconds)),
            WrittenTtl::Table(table) => {
                let mut part = |name: &str, at: &Option<At<Seconds>>| {
                    at.as_ref().map(|at| self.whole_seconds(&format!("ttl.{name}"), at.span.clone(), at.value))
                };
                let (default, min, max) =
                    (part("default", &table.default), part("min", &table.min), part("max", &table.max));
                let contradiction =
                    |low: Option<u64>, high: Option<u64>| matches!((low, high), (Some(l), Some(h)) if l > h);
                if default.is_none() && min.is_none() && max.is_none() {
                    self.wrong("ttl", ttl.span.clone(), "is empty", "give default, min or max, or remove it");
                }
                for (low, value, high, bound) in
                    [("min", min, "max", max), ("default", default, "max", max), ("min", min, "default", default)]
                {
                    if contradiction(value, bound) {
                        let problem = format!("{low} is greater than {high}");
                        self.wrong("ttl", ttl.span.clone(), problem, format!("make {low} at most {high}"));
                    }
                }
                Ttl::Bounded { default, min, max }
            }
        }
    }

    pub(super) fn stale(&mut self) -> StaleWindows {
        let Some(stale) = &self.at.value.stale else { return StaleWindows::default() };
        let mut part = |name: &str, at: &Option<At<Seconds>>| {
            at.as_ref().map(|at| self.whole_seconds(&format!("stale.{name}"), at.span.clone(), at.value))
        };
        let windows = StaleWindows {
            disconnected: false,
            revalidate: part("revalidate", &stale.value.revalidate),
            error: part("error", &stale.value.error),
        };
        if windows == StaleWindows::default() {
            // The origin may name windows of its own.
            if stale.value.statuses.is_none() {
                self.wrong("stale", stale.span.clone(), "is empty", "give revalidate or error, or remove it");
            }
        }
        windows
    }

    pub(super) fn timeout(&mut self) -> Duration {
        let Some(written) = &self.at.value.timeout else { return TIMEOUT };
        let is_role = |origin: &At<String>| ROLE_ORIGINS.contains(&origin.value.as_str());
        let timeout = written.value.0;
        let wrong = if self.at.value.origin.as_ref().is_some_and(is_role) {
            Some(("has no effect: roles answer in a time of their own", "remove it"))
        } else if timeout.is_zero() || timeout > TIMEOUT_MAX {
            Some(("is out of range", "give it something between 1ms and 1h"))
        } else {
            None
        };
        if let Some((problem, fix)) = wrong {
            self.wrong("timeout", written.span.clone(), problem, fix);
        }
        timeout
    }

    pub(super) fn failures(&mut self) -> Failures {
        let written = self.at.value.stale.as_ref().and_then(|stale| stale.value.statuses.as_ref());
        let Some(list) = written else { return Failures::USUAL };
        if list.value.is_empty() {
            let fix = "name statuses, as in [500, 502, 503, 504], or remove it";
            self.wrong("stale.statuses", list.span.clone(), "is empty", fix);
        }
        let mut failures = Failures::NONE;
        for written in &list.value {
            let with = failures.and(written.value);
            if with == failures {
                let (problem, fix) = match Failures::may_hold(written.value) {
                    true => ("is named twice", "name it once"),
                    false => ("is no status of a failure", "name statuses from 400 to 599"),
                };
                self.wrong("stale.statuses", written.span.clone(), format!("{} {problem}", written.value), fix);
            }
            failures = with;
        }
        failures
    }

    /// Ages and lifetimes are whole seconds in HTTP.
    fn whole_seconds(&mut self, field: &str, span: Span, written: Seconds) -> u64 {
        if written.0.subsec_millis() != 0 || written.0.is_zero() {
            let fix = if written.0.is_zero() { "leave it out, or give it a second" } else { "write whole seconds" };
            self.wrong(field, span, "is not a number of whole seconds above 0", fix);
        }
        written.0.as_secs()
    }
}
