//! What became of all that was sent.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use http::StatusCode;

use crate::Failure;

/// Of one connection, one thread, or all.
pub struct Tally {
    /// Requests that were answered.
    pub requests: u64,
    /// Events by what the answers said of them.
    pub sent: u64,
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
    /// Requests that were refused as a whole, by status: 429, 503, other 4xx and 5xx.
    pub too_fast: u64,
    pub unavailable: u64,
    pub refused: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Requests that were due and never sent.
    pub unsent: u64,
    /// From when a request was due to its answer, in µs.
    latency: Histogram<u64>,
    /// What the first refusal said.
    words: Option<String>,
}

/// Longest latency that is told, in µs; longer ones count as that.
const LATENCY_MAX: u64 = 600_000_000;

/// Latencies in µs, to three digits.
pub fn latencies() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(Failure::from_display)
}

/// What ingest answers.
#[derive(Default, serde::Deserialize)]
pub struct Receipt {
    #[serde(default)]
    pub accepted: u64,
    #[serde(default)]
    pub duplicates: u64,
    #[serde(default)]
    pub rejected: Vec<serde::de::IgnoredAny>,
}

impl Tally {
    pub fn new() -> Result<Tally, Failure> {
        Ok(Tally {
            requests: 0,
            sent: 0,
            accepted: 0,
            duplicates: 0,
            rejected: 0,
            too_fast: 0,
            unavailable: 0,
            refused: 0,
            broken: 0,
            unsent: 0,
            latency: latencies()?,
            words: None,
        })
    }

    /// Counts a request of `events` events and its answer.
    pub fn answered(&mut self, events: u64, status: StatusCode, body: &[u8], took: Duration) {
        self.requests += 1;
        self.sent += events;
        record(&mut self.latency, took);
        let receipt: Receipt = serde_json::from_slice(body).unwrap_or_default();
        self.accepted += receipt.accepted;
        self.duplicates += receipt.duplicates;
        self.rejected += receipt.rejected.len() as u64;
        let count = match status {
            StatusCode::TOO_MANY_REQUESTS => &mut self.too_fast,
            StatusCode::SERVICE_UNAVAILABLE => &mut self.unavailable,
            status if status.is_success() => return,
            _ => &mut self.refused,
        };
        *count += 1;
        let words = || format!("{status} {}", String::from_utf8_lossy(body).chars().take(300).collect::<String>());
        self.words.get_or_insert_with(words);
    }

    /// Counts a connection that broke.
    pub fn broke(&mut self, error: &dyn std::fmt::Display) {
        self.broken += 1;
        self.words.get_or_insert_with(|| error.to_string());
    }

    pub fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.too_fast += other.too_fast;
        self.unavailable += other.unavailable;
        self.refused += other.refused;
        self.broken += other.broken;
        // Both have the same bounds, so that nothing of the other is outside of ours.
        self.latency += &other.latency;
        if self.words.is_none() {
            self.words.clone_from(&other.words);
        }
    }

    /// What the first refusal said, behind a colon.
    pub fn first_words(&self) -> String {
        self.words.as_ref().map(|words| format!(": {words}")).unwrap_or_default()
    }

    pub fn in_words(&self, took: Duration, cpu: Duration) -> String {
        let seconds = took.as_secs_f64().max(1e-9);
        let per_second = |count: u64| count as f64 / seconds;
        let mut words = String::new();
        let Tally { requests, sent, accepted, duplicates, rejected, .. } = self;
        let _ = writeln!(words, "requests   {requests} in {seconds:.1} s, {:.0}/s", per_second(*requests));
        let _ = writeln!(
            words,
            "events     sent {sent}, accepted {accepted}, duplicates {duplicates}, rejected {rejected}"
        );
        let _ = writeln!(words, "accepted   {:.0} events/s", per_second(*accepted));
        let Tally { too_fast, unavailable, refused, broken, unsent, .. } = self;
        let _ = writeln!(
            words,
            "refused    429: {too_fast}, 503: {unavailable}, others: {refused}, broken: {broken}, never sent: {unsent}"
        );
        if let Some(first) = &self.words {
            let _ = writeln!(words, "           the first: {}", first.trim_end());
        }
        let _ = writeln!(words, "latency    {}", percentiles(&self.latency));
        let per_request = cpu.as_secs_f64() * 1e6 / (*requests).max(1) as f64;
        let _ = writeln!(words, "own CPU    {:.2} cores, {per_request:.1} µs a request", cpu.as_secs_f64() / seconds);
        words
    }
}

pub fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

/// `p50 1.2 ms, …`, of µs.
pub fn percentiles(histogram: &Histogram<u64>) -> String {
    let mut words = String::new();
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        let _ = write!(words, "{name} {:.2} ms, ", histogram.value_at_quantile(quantile) as f64 / 1e3);
    }
    let _ = write!(words, "max {:.2} ms", histogram.max() as f64 / 1e3);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut one = Tally::new().unwrap();
        let body = br#"{"accepted":2,"duplicates":1,"rejected":[{"index":0,"reason":"x"}],"position":{"0":1}}"#;
        one.answered(4, StatusCode::ACCEPTED, body, Duration::from_millis(5));
        let mut other = Tally::new().unwrap();
        other.answered(4, StatusCode::TOO_MANY_REQUESTS, b"{\"error\":\"slower\"}", Duration::from_millis(1));
        other.answered(4, StatusCode::SERVICE_UNAVAILABLE, b"no JSON", Duration::from_secs(10_000));
        other.broke(&"reset");
        one.add(&other);
        assert_eq!((one.requests, one.sent, one.accepted, one.duplicates, one.rejected), (3, 12, 2, 1, 1));
        assert_eq!((one.too_fast, one.unavailable, one.refused, one.broken), (1, 1, 0, 1));
        let words = one.in_words(Duration::from_secs(2), Duration::from_secs(1));
        for line in [
            "requests   3 in 2.0 s, 2/s",
            "accepted   1 events/s",
            "           the first: 429 Too Many Requests {\"error\":\"slower\"}",
            "latency    p50 5.00 ms",
            "own CPU    0.50 cores, 333333.3 µs a request",
        ] {
            assert!(words.contains(line), "{line}: {words}");
        }
    }
}
