//! Counts of requests, kept per worker and summed when metrics are asked for.
//!
//! Every thread that answers requests has a [`Tally`] of its own for each rule, which it alone writes: plain loads and
//! stores, no shared cache line. A tally outlives its thread, so that nothing counted is lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};

use crate::outcome::{Outcome, Reason};
use crate::rules::Rule;

/// Upper bounds of the request durations, in seconds.
pub const DURATION_SECONDS: [f64; 15] =
    [0.000_01, 0.000_025, 0.000_05, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
/// Classes of status, `1xx` to `5xx`.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const OUTCOMES: usize = Outcome::ALL.len();
const REASONS: usize = Reason::ALL.len();
/// Tallies that a thread keeps at hand; after many reloads the old ones make room.
const AT_HAND_MAX: usize = 64;

/// Name of the rule of requests that no rule matched.
pub const NO_RULE: &str = "none";

/// What one thread has counted for one rule.
#[derive(Debug)]
#[repr(align(128))]
pub struct Tally {
    requests: [[Count; CLASSES.len()]; OUTCOMES],
    bytes: [Count; OUTCOMES],
    misses: [Count; REASONS],
    /// Per outcome: requests up to each bound, not added up.
    durations: [[Count; DURATION_SECONDS.len()]; OUTCOMES],
    /// Per outcome: nanoseconds.
    duration_sums: [Count; OUTCOMES],
}

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, more: u64) {
        // One writer: no read-modify-write needed.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One request, for the counts.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub outcome: Outcome,
    /// Counted as the reason of a miss.
    pub reason: Option<Reason>,
    /// Status that the client was sent.
    pub status: u16,
    /// Bytes sent, head included.
    pub bytes: u64,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            requests: Default::default(),
            bytes: Default::default(),
            misses: std::array::from_fn(|_| Count::default()),
            durations: Default::default(),
            duration_sums: Default::default(),
        }
    }

    pub fn count(&self, counted: Counted, took: Duration) {
        let outcome = counted.outcome as usize;
        let class = usize::from((counted.status / 100).clamp(1, 5) - 1);
        if let Some(count) = self.requests.get(outcome).and_then(|classes| classes.get(class)) {
            count.add(1);
        }
        if let Some(count) = self.bytes.get(outcome) {
            count.add(counted.bytes);
        }
        let bucket = DURATION_SECONDS.iter().position(|bound| took.as_secs_f64() <= *bound);
        if let Some(count) = self.durations.get(outcome).zip(bucket).and_then(|(buckets, bucket)| buckets.get(bucket)) {
            count.add(1);
        }
        if let Some(sum) = self.duration_sums.get(outcome) {
            sum.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        if let Some(count) = counted.reason.and_then(|reason| self.misses.get(reason as usize)) {
            count.add(1);
        }
    }
}

/// The tallies of all threads, by name of the rule.
#[derive(Debug)]
pub struct Tallies {
    all: Mutex<BTreeMap<String, Vec<Arc<Tally>>>>,
}

/// A thread's tally of a rule.
struct AtHand {
    owner: Arc<Tallies>,
    /// `None`: of requests that no rule matched. Held, so that no other rule comes to stand at its address.
    rule: Option<Arc<Rule>>,
    tally: Arc<Tally>,
}

thread_local! {
    static AT_HAND: RefCell<Vec<AtHand>> = const { RefCell::new(Vec::new()) };
}

impl Tallies {
    pub fn new() -> Arc<Tallies> {
        Arc::new(Tallies { all: Mutex::new(BTreeMap::new()) })
    }

    /// This thread's tally of the rule; to be written by this thread only.
    pub fn of(self: &Arc<Tallies>, rule: Option<&Arc<Rule>>) -> Arc<Tally> {
        let same = |at_hand: &AtHand| {
            let same_rule = match (&at_hand.rule, rule) {
                (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
                (None, None) => true,
                _ => false,
            };
            same_rule && Arc::ptr_eq(&at_hand.owner, self)
        };
        AT_HAND.with_borrow_mut(|at_hand| {
            if let Some(found) = at_hand.iter().find(|at_hand| same(at_hand)) {
                return Arc::clone(&found.tally);
            }
            let tally = Arc::new(Tally::new());
            let name = rule.map_or(NO_RULE, |rule| rule.name.as_str());
            self.all.lock().entry(name.to_owned()).or_default().push(Arc::clone(&tally));
            if at_hand.len() >= AT_HAND_MAX {
                at_hand.remove(0);
            }
            at_hand.push(AtHand { owner: Arc::clone(self), rule: rule.cloned(), tally: Arc::clone(&tally) });
            tally
        })
    }

    /// Calls `each` with every rule and what all threads together have counted under `pick`.
    fn sums<const N: usize>(&self, pick: impl Fn(&Tally) -> [u64; N], mut each: impl FnMut(&str, [u64; N])) {
        for (rule, tallies) in self.all.lock().iter() {
            let mut sum = [0; N];
            for part in tallies.iter().map(|tally| pick(tally)) {
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            each(rule, sum);
        }
    }
}

/// Gives the sums to prometheus.
pub struct TallyCollector {
    tallies: Arc<Tallies>,
    requests: Desc,
    bytes: Desc,
    misses: Desc,
    durations: Desc,
}

impl TallyCollector {
    pub fn new(tallies: Arc<Tallies>) -> Result<TallyCollector, prometheus::Error> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
        };
        Ok(TallyCollector {
            tallies,
            requests: desc(
                "millpond_requests_total",
                "Requests, by rule, outcome and class of status; the outcomes sum to all requests",
                &["rule", "outcome", "code_class"],
            )?,
            bytes: desc(
                "millpond_response_bytes_total",
                "Bytes sent to clients, heads included",
                &["rule", "outcome"],
            )?,
            misses: desc("millpond_miss_total", "Requests that were no hit, by reason", &["rule", "reason"])?,
            durations: desc(
                "millpond_request_duration_seconds",
                "Time from head to last byte, by rule and outcome",
                &["rule", "outcome"],
            )?,
        })
    }

    fn collect_requests(&self, found: &mut Vec<proto::Metric>) {
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            let pick = |tally: &Tally| match tally.requests.get(at) {
                Some(classes) => classes.each_ref().map(Count::get),
                None => [0; CLASSES.len()],
            };
            self.tallies.sums(pick, |rule, sums| {
                for (class, sum) in CLASSES.iter().zip(sums).filter(|(_, sum)| *sum > 0) {
                    let labels = [("rule", rule), ("outcome", outcome.as_str()), ("code_class", class)];
                    found.push(counter(&labels, sum));
                }
            });
        }
    }

    fn collect_bytes(&self, found: &mut Vec<proto::Metric>) {
        let pick = |tally: &Tally| tally.bytes.each_ref().map(Count::get);
        self.tallies.sums(pick, |rule, sums| {
            for (outcome, sum) in Outcome::ALL.iter().zip(sums).filter(|(_, sum)| *sum > 0) {
                found.push(counter(&[("rule", rule), ("outcome", outcome.as_str())], sum));
            }
        });
    }

    fn collect_misses(&self, found: &mut Vec<proto::Metric>) {
        let pick = |tally: &Tally| tally.misses.each_ref().map(Count::get);
        self.tallies.sums(pick, |rule, sums| {
            for (reason, sum) in Reason::ALL.iter().zip(sums).filter(|(_, sum)| *sum > 0) {
                found.push(counter(&[("rule", rule), ("reason", reason.as_str())], sum));
            }
        });
    }

    fn collect_durations(&self, found: &mut Vec<proto::Metric>) {
        for (at, outcome) in Outcome::ALL.iter().enumerate() {
            let pick = |tally: &Tally| {
                // The buckets, then all requests of the outcome, then the nanoseconds.
                let mut parts = [0; DURATION_SECONDS.len() + 2];
                let buckets = tally.durations.get(at).into_iter().flatten().map(Count::get);
                parts.iter_mut().zip(buckets).for_each(|(part, bucket)| *part = bucket);
                let [.., requests, nanoseconds] = &mut parts;
                *requests = tally.requests.get(at).into_iter().flatten().map(Count::get).sum();
                *nanoseconds = tally.duration_sums.get(at).map_or(0, Count::get);
                parts
            };
            self.tallies.sums(pick, |rule, parts| {
                let [buckets @ .., requests, nanoseconds] = parts;
                if requests > 0 {
                    let labels = [("rule", rule), ("outcome", outcome.as_str())];
                    found.push(histogram(&labels, &buckets, requests, nanoseconds));
                }
            });
        }
    }
}

impl Collector for TallyCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.requests, &self.bytes, &self.misses, &self.durations]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let family = |desc: &Desc, kind: MetricType, collect: &dyn Fn(&mut Vec<proto::Metric>)| {
            let mut metrics = Vec::new();
            collect(&mut metrics);
            let mut family = MetricFamily::default();
            family.set_name(desc.fq_name.clone());
            family.set_help(desc.help.clone());
            family.set_field_type(kind);
            family.set_metric(metrics);
            family
        };
        [
            family(&self.requests, MetricType::COUNTER, &|found| self.collect_requests(found)),
            family(&self.bytes, MetricType::COUNTER, &|found| self.collect_bytes(found)),
            family(&self.misses, MetricType::COUNTER, &|found| self.collect_misses(found)),
            family(&self.durations, MetricType::HISTOGRAM, &|found| self.collect_durations(found)),
        ]
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
        .collect()
    }
}

fn labelled(labels: &[(&str, &str)]) -> proto::Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut metric = proto::Metric::default();
    metric.set_label(labels.iter().map(pair).collect());
    metric
}

fn counter(labels: &[(&str, &str)], value: u64) -> proto::Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value as f64);
    let mut metric = labelled(labels);
    metric.set_counter(counter);
    metric
}

fn histogram(labels: &[(&str, &str)], buckets: &[u64], count: u64, nanoseconds: u64) -> proto::Metric {
    let mut below = 0;
    let bucket = |(bound, requests): (&f64, &u64)| {
        below += requests;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(DURATION_SECONDS.iter().zip(buckets).map(bucket).collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(nanoseconds as f64 / 1e9);
    let mut metric = labelled(labels);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    fn text(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn the_counts_of_all_threads_are_summed_and_outlive_them() {
        let (registry, tallies) = (Registry::new(), Tallies::new());
        registry.register(Box::new(TallyCollector::new(Arc::clone(&tallies)).unwrap())).unwrap();
        let hit = Counted { outcome: Outcome::Hit, reason: None, status: 200, bytes: 10 };
        let miss = Counted { outcome: Outcome::Miss, reason: Some(Reason::NotCached), status: 404, bytes: 1 };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    tallies.of(None).count(hit, Duration::from_micros(20));
                    tallies.of(None).count(miss, Duration::from_secs(60));
                });
            }
        });
        let text = text(&registry);
        for line in [
            r#"millpond_requests_total{rule="none",outcome="hit",code_class="2xx"} 3"#,
            r#"millpond_requests_total{rule="none",outcome="miss",code_class="4xx"} 3"#,
            r#"millpond_response_bytes_total{rule="none",outcome="hit"} 30"#,
            r#"millpond_miss_total{rule="none",reason="not-cached"} 3"#,
            r#"millpond_request_duration_seconds_bucket{rule="none",outcome="hit",le="0.00001"} 0"#,
            r#"millpond_request_duration_seconds_bucket{rule="none",outcome="hit",le="0.000025"} 3"#,
            r#"millpond_request_duration_seconds_bucket{rule="none",outcome="miss",le="10"} 0"#,
            r#"millpond_request_duration_seconds_bucket{rule="none",outcome="miss",le="+Inf"} 3"#,
            r#"millpond_request_duration_seconds_count{rule="none",outcome="miss"} 3"#,
            r#"millpond_request_duration_seconds_sum{rule="none",outcome="miss"} 180"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_numbers_of_outcomes_and_reasons_are_their_places() {
        assert!(Outcome::ALL.iter().enumerate().all(|(at, outcome)| *outcome as usize == at));
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }
}
